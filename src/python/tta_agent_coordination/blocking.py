"""For programs without asyncio: the same things, and each call waits.

    with Client("tcp://127.0.0.1:7420") as coordd:
        print(coordd.call("queue_stats", agent={"type": "worker"}))
        with coordd.agent("asker") as me:
            print(me.request("worker", {"text": "hello"}, timeout=10))

A Client has an event loop in a thread of its own, in which everything happens. It may be used from several threads.
"""
from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Generic, TypeVar

from .agent import Agent
from .connection import Connection
from .consumer import Delivery
from .coordinators import RedisMessageCoordinator

T = TypeVar("T")
U = TypeVar("U")


class _Facade:
    """What it stands for, with calls that wait. Those that are not spelled out here are passed on."""

    def __init__(self, client: Client, target: Any) -> None:
        self._client, self._target = client, target

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if not callable(value):
            return value
        return lambda *args, **keys: self._client.do(lambda: value(*args, **keys))


class BlockingDelivery(_Facade):
    """A Delivery, whose ack(), nack(), release() and extend() wait."""

    message: dict[str, Any]
    payload: Any
    token: str
    fence: int
    attempts: int
    is_lost: bool
    ack: Callable[..., bool]
    nack: Callable[..., bool]
    release: Callable[..., bool]
    extend: Callable[..., str | None]


class BlockingStream(Generic[T], Iterator[T]):
    """What comes, one after the other."""

    def __init__(self, client: Client, stream: AsyncIterator[Any], wrap: Callable[[Any], T], end: Callable[[], Any]) -> None:
        self._client, self._stream, self._wrap, self._end = client, stream, wrap, end

    def __next__(self) -> T:
        try:
            return self.next()
        except StopAsyncIteration:
            raise StopIteration from None

    def next(self, timeout: float | None = None) -> T:
        """The next one; raises TimeoutError when none comes, and StopAsyncIteration when none will."""

        async def take() -> Any:
            async with asyncio.timeout(timeout):
                return await self._stream.__anext__()

        return self._wrap(self._client.do(take))

    def close(self) -> None:
        """No more. What is not settled is handed back; closing twice is harmless."""
        self._client.do(self._end)

    def __enter__(self) -> BlockingStream[T]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class BlockingAgent(_Facade):
    """An Agent that sends and asks; it is registered and beats until it is stopped."""

    def send(self, to: Any, payload: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        result: dict[str, Any] = self._client.do(lambda: self._target.send(to, payload, **more))
        return result

    def request(self, to: Any, payload: Mapping[str, Any], timeout: float = 30.0, **more: Any) -> Any:
        """The payload of the answer."""
        return self._client.do(lambda: self._target.request(to, payload, timeout, **more))

    def stop(self, timeout: float | None = None) -> None:
        self._client.do(lambda: self._target.stop(timeout))

    def __enter__(self) -> BlockingAgent:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


class Client:
    """A Connection for programs without asyncio; it takes the same arguments."""

    def __init__(self, servers: str | Sequence[str] | None = None, **options: Any) -> None:
        self.connection = Connection(servers, **options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="coordd", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    def do(self, function: Callable[[], Any]) -> Any:
        """Call something in the loop, and wait for its result when it is a coroutine. An interrupt cancels that."""

        async def call() -> Any:
            result = function()
            return await result if inspect.isawaitable(result) else result

        if threading.current_thread() is self._thread:
            raise RuntimeError("what waits cannot be called from the client's own thread")
        if self._loop.is_closed():
            raise RuntimeError("the client was closed")
        future: concurrent.futures.Future[Any] = asyncio.run_coroutine_threadsafe(call(), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def call(self, method: str, /, *, timeout: float | None = None, **params: Any) -> Any:
        """As Connection.call()."""
        return self.do(lambda: self.connection.call(method, timeout=timeout, **params))

    def notify(self, method: str, /, **params: Any) -> None:
        """As Connection.notify()."""
        self.do(lambda: self.connection.notify(method, **params))

    def consume(
        self,
        agent: Any,
        prefetch: int,
        *,
        lease: str = "connection",
        visibility_timeout: float = 60.0,
        holder: Any = None,
    ) -> BlockingStream[BlockingDelivery]:
        """As Connection.consume(): an iterator of deliveries."""
        consumer = self.do(
            lambda: self.connection.consume(
                agent, prefetch, lease=lease, visibility_timeout=visibility_timeout, holder=holder
            )
        )

        def wrap(delivery: Delivery) -> BlockingDelivery:
            return BlockingDelivery(self, delivery)

        return BlockingStream(self, consumer, wrap, consumer.cancel)

    def watch(self, *classes: str) -> BlockingStream[dict[str, Any]]:
        """As Connection.watch(): an iterator of events, from now on."""
        watch = self.do(lambda: self.connection.watch(*classes))
        self.do(watch.started)

        def same(event: dict[str, Any]) -> dict[str, Any]:
            return event

        return BlockingStream(self, watch, same, watch.close)

    def agent(self, type: str, instance: str | None = None, **options: Any) -> BlockingAgent:
        """An Agent on this connection, registered."""
        agent = Agent(self.connection, type, instance, **options)
        self.do(agent.ready)
        return BlockingAgent(self, agent)

    def coordinator(self, key_prefix: str = "ao", **options: Any) -> Any:
        """A RedisMessageCoordinator on this connection; its coroutines are functions that wait."""
        return _Facade(self, RedisMessageCoordinator(self.connection, key_prefix=key_prefix, **options))

    def close(self) -> None:
        """End it. Closing twice is harmless."""
        atexit.unregister(self.close)
        if not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):
                self.do(self.connection.close)
            self.do(self._cancel_all)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
