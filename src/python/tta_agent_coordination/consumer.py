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

    __slots__ = (
        "_connection",
        "agent",
        "token",
        "queue_message",
        "visibility_deadline",
        "fence",
        "came_at",
        "is_settled",
        "is_lost",
        "on_lost",
    )

    def __init__(self, connection: Connection, agent: Any, received: dict[str, Any]) -> None:
        self._connection = connection
        self.agent = agent
        self.token: str = received["token"]
        self.queue_message: dict[str, Any] = received["queue_message"]
        self.visibility_deadline: str | None = received["visibility_deadline"]
        self.fence: int = received["fence"]
        self.came_at = connection._enter().time()  # by the loop's clock
        self.is_settled = False  # or being settled
        self.is_lost = False  # somebody else may have it by now
        self.on_lost: Callable[[], object] | None = None

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

    def __str__(self) -> str:
        return f"message {self.message['message_id']}"

    def _lose(self) -> None:
        if not self.is_lost:
            self.is_lost = True
            if self.on_lost is not None:
                self.on_lost()

    async def _settle(self, method: str, timeout: float | None = None, **params: Any) -> bool:
        self.is_settled = True
        if isinstance(params.get("error"), str):
            params["error"] = cut(params["error"])
        done: bool = await self._connection.call(method, timeout=timeout, agent=self.agent, token=self.token, **params)
        return done

    async def ack(self) -> bool:
        """It is done. False: it was not ours any more."""
        return await self._settle("ack")

    async def nack(self, failure: str = "transient", error: str | None = None, delay: float | None = None) -> bool:
        """It failed: deliver it again after `delay` or the queue's backoff; "permanent": to the dead letters."""
        return await self._settle("nack", failure=failure, error=error, delay=delay)

    async def release(self, delay: float | None = None) -> bool:
        """Hand it back without counting a failure."""
        return await self._settle("release", delay=delay)

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
    _undo = "cancel"

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
        super()._disconnected()
        lost, self._out = list(self._out.values()), {}
        self._drop(self.lease != "connection")
        for delivery in lost:
            delivery._lose()

    def _drop(self, is_ours: bool) -> None:
        """Forget what nobody has looked at yet, and hand it back while it is ours."""
        while self._items:
            delivery = self._items.popleft()
            if is_ours:
                self._connection._give_back(delivery.agent, delivery.token)

    def _begin_anew(self) -> None:
        """Its holder has a new incarnation: what it was given is lost, and it has to be asked for again."""
        self._drop(False)
        self._leave()

    async def cancel(self) -> None:
        """Take no more. What is not settled was handed back when this returns; cancelling twice is harmless."""
        consumer_id = self._id
        self._finish(None)
        self._drop(consumer_id is None and self.lease != "connection")
        if consumer_id is not None:
            await self._connection.call("cancel", consumer_id=consumer_id)

    async def __aenter__(self) -> Consumer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cancel()
