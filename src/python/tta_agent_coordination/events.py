"""What comes unasked: streams that are asked for anew on each connection, and the events of `watch`."""
from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .errors import CoorddError

if TYPE_CHECKING:
    from .connection import Connection

T = TypeVar("T")
S = TypeVar("S", bound="Stream[Any]")

MAX_EVENTS = 10_000


def ignore(error: CoorddError | None, result: Any) -> None:
    """For an answer that changes nothing."""


class Stream(Generic[T], AsyncIterator[T]):
    """Items that come over a connection, and over the next one when it breaks. For one reader."""

    _method: str
    _key: str  # what names the stream in the answer, and in what comes
    _undo: str  # the method that ends it

    def __init__(self, connection: Connection, params: dict[str, Any], is_renewed: bool = True) -> None:
        self._connection = connection
        self._params = params
        self._is_renewed = is_renewed  # by the connection; else by whoever calls _ask()
        self._loop = connection._enter()
        self._items: deque[T] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._started: asyncio.Future[None] = self._loop.create_future()
        self._id: str | None = None
        self._is_asked = False
        self._asked = 0  # how often; the answer that counts is to the last
        self._is_over = False
        self._error: CoorddError | None = None
        connection._streams[self] = None
        if is_renewed and connection._is_open:
            self._ask()
        else:
            connection._want()

    async def started(self) -> None:
        """Wait until the broker has answered; raises what it refused."""
        await asyncio.shield(self._started)

    def __aiter__(self: S) -> S:
        return self

    async def __anext__(self) -> T:
        while not self._items:
            if self._is_over:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            if self._waiter is not None:
                raise RuntimeError("another task is reading this already")
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._items.popleft()

    # --- what the connection calls

    def _connected(self) -> None:
        if self._is_renewed:
            self._ask()

    def _ask(self) -> None:
        """Ask for it on the connection that is there."""
        if self._is_over or self._is_asked or not self._connection._is_open:
            return
        self._is_asked = True
        self._asked += 1
        count = self._asked
        self._connection._submit(self._method, self._params, then=lambda *answer: self._answered(count, *answer))

    def _answered(self, count: int, error: CoorddError | None, result: Any) -> None:
        if error is not None:
            if count != self._asked or self._is_over:
                return
            if error.code == "not_found" and not self._is_renewed:
                self._is_asked = False  # who asks knows what is missing, and asks again when it is there
                return
            self._finish(error)
            return
        name: str = result[self._key]
        if count != self._asked or self._is_over:  # nobody wants it any more
            self._connection._submit(self._undo, {self._key: name}, then=ignore)
            return
        self._id = name
        self._connection._receivers[name] = self
        if not self._started.done():
            self._started.set_result(None)

    def _disconnected(self) -> None:
        self._id = None
        self._is_asked = False

    def _leave(self) -> None:
        """End it at the broker, so that it can be asked for anew."""
        self._is_asked = False
        self._asked += 1
        if self._id is not None:
            self._connection._receivers.pop(self._id, None)
            if self._connection._is_open:
                self._connection._submit(self._undo, {self._key: self._id}, then=ignore)
            self._id = None

    def _came(self, item: dict[str, Any]) -> None:
        raise NotImplementedError

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _finish(self, error: CoorddError | None) -> None:
        """No more will come."""
        if self._is_over:
            return
        self._is_over, self._error = True, error
        self._connection._streams.pop(self, None)
        if self._id is not None:
            self._connection._receivers.pop(self._id, None)
        if not self._started.done():
            self._started.set_exception(error or CoorddError("the connection was closed", code="closed"))
            self._started.exception()  # whoever does not wait for it is no problem
        self._wake()


class Watch(Stream["dict[str, Any]"]):
    """Events, as dicts with `event`, `at` and what docs/PROTOCOL.md (section 5) says."""

    _method = "watch"
    _key = "watch_id"
    _undo = "unwatch"

    def __init__(self, connection: Connection, classes: tuple[str, ...]) -> None:
        self._lost: dict[str, Any] | None = None
        self._has_gap = False  # since a connection ended
        super().__init__(connection, {"events": list(classes or ("agent", "breaker", "queue"))})

    def _came(self, item: dict[str, Any]) -> None:
        item.pop("watch_id", None)
        if item.get("event") == "lost":
            self._lose(item.get("count"))
        elif len(self._items) >= MAX_EVENTS:
            self._lose(1)
        else:
            self._lost = None
            self._items.append(item)
        self._wake()

    def _lose(self, count: int | None) -> None:
        """Something is missing here; a run of that is one item."""
        if self._lost is not None and self._items and self._items[-1] is self._lost:
            before = self._lost["count"]
            self._lost["count"] = None if before is None or count is None else before + count
        else:
            self._lost = {"event": "lost", "count": count}
            self._items.append(self._lost)

    def _answered(self, count: int, error: CoorddError | None, result: Any) -> None:
        """The gap is told when it is over: who then looks at the state misses nothing from there on."""
        super()._answered(count, error, result)
        if self._has_gap and self._id is not None:
            self._has_gap = False
            self._lose(None)
            self._wake()

    def _disconnected(self) -> None:
        self._has_gap = self._has_gap or self._id is not None
        super()._disconnected()

    async def close(self) -> None:
        """No more events. Closing it twice is harmless."""
        watch_id = self._id
        self._finish(None)
        if watch_id is not None:
            await self._connection.call("unwatch", watch_id=watch_id)

    async def __aenter__(self) -> Watch:
        await self.started()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
