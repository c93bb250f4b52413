"""Calling again what failed, each time after a longer pause: as a function and as a decorator.

    answer = await retry_call(fetch, url, config=RetryConfig(max_retries=5))

    @retry_with_backoff(RetryConfig(max_retries=5), retry_on=(OSError,))
    async def fetch(url): ...

The pauses are those of a queue's retries: `min(base_delay * exponential_base ** (n - 1), max_delay)` seconds before the n-th.
"""
from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, cast, overload

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class RetryConfig:
    """How often and how long apart. `jitter`: each pause times a random factor in 1 - jitter .. 1 + jitter."""

    max_retries: int = 3
    base_delay: float = 1.0
    exponential_base: float = 2.0
    max_delay: float = 30.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        for name in ("max_retries", "base_delay", "max_delay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is less than 0")
        if self.exponential_base < 1:
            raise ValueError("exponential_base is less than 1")
        if not 0 <= self.jitter <= 1:
            raise ValueError("jitter is not between 0 and 1")

    def delay(self, retry: int) -> float:
        """Seconds before the `retry`-th retry, the first being 1."""
        try:
            delay = min(self.base_delay * self.exponential_base ** (retry - 1), self.max_delay)
        except OverflowError:
            delay = self.max_delay
        return delay * random.uniform(1 - self.jitter, 1 + self.jitter)


def _next_delay(error: BaseException, retry: int, config: RetryConfig, what: str) -> float | None:
    """The pause before this retry; None when there is none."""
    if retry > config.max_retries or getattr(error, "retryable", True) is False:
        return None
    delay = config.delay(retry)
    logger.warning("%s failed (%s), retry %d in %.2f s", what, error, retry, delay)
    return delay


async def retry_call(
    fn: Callable[..., Awaitable[T]],
    *args: Any,
    config: RetryConfig | None = None,
    retry_on: tuple[type[Exception], ...] = (Exception,),
    **kwargs: Any,
) -> T:
    """Await `fn(*args, **kwargs)`, again after each of the exceptions `retry_on`, at most `config.max_retries` times; then
    raise the last one. An error that says of itself that it is not `retryable`, as a CoorddError does, is raised at once."""
    config = config or RetryConfig()
    retry = 0
    while True:
        try:
            return await fn(*args, **kwargs)
        except retry_on as error:
            retry += 1
            delay = _next_delay(error, retry, config, _name(fn))
            if delay is None:
                raise
        await asyncio.sleep(delay)


@overload
def retry_with_backoff(config: Callable[P, T], /) -> Callable[P, T]:
    ...


@overload
def retry_with_backoff(
    config: RetryConfig | None = None, *, retry_on: tuple[type[Exception], ...] = (Exception,)
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    ...


def retry_with_backoff(config: Any = None, *, retry_on: tuple[type[Exception], ...] = (Exception,)) -> Any:
    """Decorate a function so that it is retried as with retry_call(). One that is no coroutine function sleeps between: use it in a thread
    that may. Without parentheses it is the decorator with all defaults."""
    if callable(config):
        return retry_with_backoff()(config)

    def decorate(fn: Callable[P, T]) -> Callable[P, T]:
        settings = config or RetryConfig()

        @functools.wraps(fn)
        async def wait(*args: P.args, **kwargs: P.kwargs) -> Any:
            again = functools.partial(cast(Callable[..., Awaitable[Any]], fn), *args, **kwargs)
            functools.update_wrapper(again, fn)
            return await retry_call(again, config=settings, retry_on=retry_on)

        @functools.wraps(fn)
        def block(*args: P.args, **kwargs: P.kwargs) -> T:
            retry = 0
            while True:
                try:
                    return fn(*args, **kwargs)
                except retry_on as error:
                    retry += 1
                    delay = _next_delay(error, retry, settings, _name(fn))
                    if delay is None:
                        raise
                time.sleep(delay)

        return cast(Callable[P, T], wait) if inspect.iscoroutinefunction(fn) else block

    return decorate


def _name(fn: Callable[..., object]) -> str:
    return str(getattr(fn, "__qualname__", fn))
