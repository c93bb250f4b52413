"""A circuit breaker that all processes share: coordd keeps it, so it survives restarts and limits probes over all of them.

Each call asks for a permit, runs, and reports its outcome. When coordd cannot be reached in time the call is made without a permit: a
breaker that cannot be asked is no reason to stop.
"""
from __future__ import annotations

import asyncio
import datetime
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, ParamSpec, TypeVar, cast, overload

from .._attach import Attached
from ..connection import Connection
from ..errors import CoorddError

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

# Seconds that a call is held up at most when coordd does not answer; for as long the next ones do not ask.
ASK_TIMEOUT = 5.0


class CircuitBreakerState(str, Enum):
    CLOSED = "closed"  # calls are made
    OPEN = "open"  # calls are refused
    HALF_OPEN = "half_open"  # a few calls are made, to see whether it works again


@dataclass
class CircuitBreakerConfig:
    """So many failures in a row open it; so long it stays open; within this time a probe must have ended; so many probes at once; so
    many successful ones close it."""

    failure_threshold: int = 5
    timeout_seconds: float = 60
    recovery_timeout_seconds: float = 300
    half_open_max_calls: int = 3
    success_threshold: int = 2


class CircuitBreakerOpenError(Exception):
    """The call was not made. `retry_after`: seconds until it may be, None when nobody knows."""

    def __init__(
        self,
        message: str = "",
        *,
        name: str = "",
        state: CircuitBreakerState = CircuitBreakerState.OPEN,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.name, self.state, self.retry_after = name, state, retry_after


class CircuitBreaker(Attached):
    """The breaker of this name in the namespace `key_prefix`.

    `connection` is a coordd URL or a Connection. `config` is used by the first call that anybody makes through a breaker of this name.
    """

    def __init__(
        self,
        connection: Connection | str | Sequence[str],
        name: str,
        config: CircuitBreakerConfig | None = None,
        key_prefix: str = "ao",
    ) -> None:
        super().__init__(connection, key_prefix)
        self.name = name
        self.config = config or CircuitBreakerConfig()
        self._ask_after = 0.0  # by the loop's clock

    async def initialize(self) -> None:
        """See whether coordd can be reached. Nothing has to be loaded: it knows the state."""
        await self._info()

    # --- calls

    @overload
    async def call(self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        ...

    @overload
    async def call(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        ...

    async def call(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """`await fn(*args, **kwargs)`, or the plain call. An exception of it is a failure, and raised; what was refused raises
        CircuitBreakerOpenError. A call that is cancelled counts as a failure only where the breaker waits for it, while half-open."""
        asked = await self._acquire()
        permit, state = asked["permit"], asked["state"]
        try:
            result = fn(*args, **kwargs)
            if inspect.isawaitable(result):
                result = await result
        except asyncio.CancelledError:
            if permit and state == CircuitBreakerState.HALF_OPEN.value:
                self._connection.notify("breaker_report", name=self.name, permit=permit, outcome="failure", error="cancelled")
            raise
        except Exception as error:
            await self._report(permit, "failure", f"{type(error).__name__}: {error}")
            raise
        await self._report(permit, "success")
        return result

    execute = call

    async def _acquire(self) -> dict[str, Any]:
        now = asyncio.get_running_loop().time
        if now() < self._ask_after:
            return UNASKED
        try:
            asked = await self._connection.call(
                "breaker_acquire", name=self.name, config=asdict(self.config), timeout=ASK_TIMEOUT
            )
        except CoorddError as error:
            if not error.retryable:
                raise
            logger.warning("circuit breaker %s cannot be asked, calls are made: %s", self.name, error)
            self._ask_after = now() + ASK_TIMEOUT
            return UNASKED
        if not asked["permitted"]:
            state, retry_after = CircuitBreakerState(asked["state"]), asked["retry_after"]
            until = f", again in {retry_after:.1f} s" if retry_after is not None else ": all probes are out"
            raise CircuitBreakerOpenError(
                f"circuit breaker {self.name} is {state.value}{until}", name=self.name, state=state, retry_after=retry_after
            )
        return cast("dict[str, Any]", asked)

    async def _report(self, permit: str | None, outcome: str, error: str | None = None) -> None:
        """What the call returned is not lost because this fails."""
        if permit is None:
            return
        params = {"error": error[:200]} if error else {}
        try:
            await self._connection.call(
                "breaker_report", name=self.name, permit=permit, outcome=outcome, timeout=ASK_TIMEOUT, **params
            )
        except CoorddError as problem:
            logger.warning("circuit breaker %s was not told of a %s: %s", self.name, outcome, problem)

    # --- looking

    async def _info(self) -> dict[str, Any]:
        """BreakerInfo; that of a new one when nobody has called yet."""
        info = await self._connection.call("breaker_get", name=self.name)
        if info is not None:
            return cast("dict[str, Any]", info)
        return {
            **dict.fromkeys(COUNTS, 0),
            **dict.fromkeys(TIMES),
            "name": self.name,
            "state": CircuitBreakerState.CLOSED.value,
            "config": asdict(self.config),
        }

    async def get_state(self) -> CircuitBreakerState:
        """An open one stays OPEN until the next call after its time."""
        return CircuitBreakerState((await self._info())["state"])

    async def get_metrics(self) -> dict[str, Any]:
        """Its counts, times (seconds since 1970, or None), state and config. They are those of all who use it."""
        info = await self._info()
        return {**info, **{name: _seconds(info[name]) for name in TIMES}}

    async def is_call_permitted(self) -> bool:
        """Whether a call would be made now. Only the call itself knows for sure: others call, too."""
        info = await self._info()
        state = CircuitBreakerState(info["state"])
        if state is CircuitBreakerState.OPEN:
            return bool(time.time() - (_seconds(info["state_changed_at"]) or 0) >= info["config"]["timeout_seconds"])
        return state is CircuitBreakerState.CLOSED or bool(
            info["half_open_calls"] < info["config"]["half_open_max_calls"]
        )

    async def reset(self) -> None:
        """Close it, for everyone."""
        try:
            await self._connection.call("breaker_reset", name=self.name)
        except CoorddError as error:
            if error.code != "not_found":  # nobody has used it: it is closed
                raise

    async def close(self) -> None:
        """Close the connection if it was made here."""
        await self._detach()


UNASKED: dict[str, Any] = {"permit": None, "state": CircuitBreakerState.CLOSED.value}
COUNTS = (
    "failure_count",
    "half_open_calls",
    "half_open_successes",
    "total_calls",
    "successful_calls",
    "failed_calls",
    "rejected_calls",
    "state_changes",
)
TIMES = ("last_failure_time", "last_success_time", "state_changed_at")


def _seconds(iso: str | None) -> float | None:
    return None if iso is None else datetime.datetime.fromisoformat(iso).timestamp()
