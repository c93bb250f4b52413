"""Taking messages as they come: a Consumer, and each Delivery of it."""
from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .events import Stream

if TYPE_CHECKING:
    from .connection import Connection

MAX_ERROR = 1024  # bytes of the text that a nack carries


def cut(text: str) -> str:
    """As much of a text as a nack may carry."""
    return text.encode(errors="replace")[:MAX_ERROR].decode(errors="ignore")


class Delivery:
    """A message that is ours until it is settled, or its lease ends."""

    __slots__ = ("_connection", "agent", "token", "queue_message", "visibility_deadline", "fence", "is_lost", "on_lost")

    def __init__(self, connection: Connection, agent: Any, received: dict[str, Any]) -> None:
        self._connection = connection
        self.agent = agent
        self.token: str = received["token"]
        self.queue_message: dict[str, Any] = received["queue_message"]
        self.visibility_deadline: str | None = received["visibility_deadline"]
        self.fence: int = received["fence"]
        self.is_lost = False  # somebody else may have it by now
        self.on_lost: Callable[[], None] | None = None

    @property
    def message(self) -> dict[str, Any]:
        message: dict[str, Any] = self.queue_message["message"]
        return message

    @property
    def payload(self) -> Any:
        return self.message["payload"]

    @property
    def attempts(self) -> int:
        """How many deliveries failed before this one."""
        attempts: int = self.queue_message["delivery_attempts"]
        return attempts

    def _lose(self) -> None:
        self.is_lost = True
        if self.on_lost is not None:
            self.on_lost()

    async def ack(self) -> bool:
        """It is done. False: it was not ours any more."""
        done: bool = await self._connection.call("ack", agent=self.agent, token=self.token)
        return done

    async def nack(self, failure: str = "transient", error: str | None = None, delay: float | None = None) -> bool:
        """It failed: deliver it again after `delay` or the queue's backoff; "permanent": to the dead letters."""
        text = None if error is None else cut(error)
        done: bool = await self._connection.call(
            "nack", agent=self.agent, token=self.token, failure=failure, error=text, delay=delay
        )
        return done

    async def release(self, delay: float | None = None) -> bool:
        """Hand it back without counting a failure."""
        done: bool = await self._connection.call("release", agent=self.agent, token=self.token, delay=delay)
        return done

    async def extend(self, visibility_timeout: float) -> str | None:
        """Keep it for so long from now; None when it is not ours any more."""
        deadline: str | None = await self._connection.call(
            "extend", agent=self.agent, token=self.token, visibility_timeout=visibility_timeout
        )
        return deadline


class Consumer(Stream[Delivery]):
    """Deliveries, as they come; consumed anew on each connection."""

    _method = "consume"
    _key = "consumer_id"

    def __init__(
        self,
        connection: Connection,
        agent: Any,
        prefetch: int,
        lease: str = "connection",
        visibility_timeout: float = 60.0,
        holder: Any = None,
        is_renewed: bool = True,
    ) -> None:
        self.agent = agent
        self.prefetch = prefetch
        self.lease = lease
        params = {"agent": agent, "prefetch": prefetch, "lease": lease, "visibility_timeout": visibility_timeout}
        if holder is not None:
            params["holder"] = holder
        self._out: dict[str, Delivery] = {}  # taken with this connection and not settled, as far as we know
        super().__init__(connection, params, is_renewed)

    def _came(self, item: dict[str, Any]) -> None:
        if len(self._items) >= self.prefetch:
            raise ValueError(f"more than {self.prefetch} deliveries")
        if self.lease == "connection":
            self._connection._hold((item["token"],))
        self._items.append(Delivery(self._connection, self.agent, item))
        self._wake()

    async def __anext__(self) -> Delivery:
        delivery = await super().__anext__()
        if self.lease == "connection":
            self._out[delivery.token] = delivery
            if len(self._out) > 2 * self.prefetch:  # those that were settled
                held = self._connection._held
                self._out = {token: each for token, each in self._out.items() if token in held}
        return delivery

    def _disconnected(self) -> None:
        """What nobody has looked at yet is handed back; what ends with the connection is lost."""
        waiting, self._items = list(self._items), type(self._items)()
        lost, self._out = list(self._out.values()), {}
        for delivery in waiting:
            if self.lease != "connection":
                self._connection._give_back(delivery.agent, delivery.token)
        for delivery in lost:
            delivery._lose()
        super()._disconnected()

    async def cancel(self) -> None:
        """Take no more. What is not settled was handed back when this returns; cancelling twice is harmless."""
        consumer_id = self._id
        self._finish(None)
        self._items.clear()
        if consumer_id is not None:
            await self._connection.call("cancel", consumer_id=consumer_id)

    async def __aenter__(self) -> Consumer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cancel()
