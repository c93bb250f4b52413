"""The MessageCoordinator that coordd serves, under the name that its users know.

send_message() tells what went wrong in its result and never raises; the others raise MessageCoordinatorError when the broker
refuses them or cannot be reached in time.
"""
from __future__ import annotations

import contextlib
import logging
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from .._attach import Attached
from .._background import Background
from .._model import to_wire
from ..connection import Connection
from ..errors import CoorddError, MessageCoordinatorError
from ..interfaces import MessageCoordinator
from ..messaging import FailureType, MessageResult, MessageSubscription, ReceivedMessage, received_from
from ..metrics import MetricsProtocol, NullMetrics
from ..models import AgentId, AgentMessage, MessageType, agent_key, agent_text, agent_wire, message_wire
from ..resilience.retry import RetryConfig, retry_call

logger = logging.getLogger(__name__)

MAX_BATCH = 1000  # recipients of one broadcast
MAX_ERROR = 1024  # bytes
MAX_TOKENS = 10_000  # whose attempts are remembered, for the metrics of nack()


class RedisMessageCoordinator(Attached, MessageCoordinator):
    """Messages between agents, through coordd.

    `connection` is a coordd URL ("tcp://127.0.0.1:7420", several separated by commas, or "unix:///run/coordd/coordd.sock") or a
    Connection. `key_prefix` is the namespace. `metrics` is told what happens here, see MetricsProtocol.
    """

    def __init__(
        self,
        connection: Connection | str | Sequence[str],
        key_prefix: str = "ao",
        metrics: MetricsProtocol | None = None,
    ) -> None:
        super().__init__(connection, key_prefix)
        self.metrics: MetricsProtocol = NullMetrics() if metrics is None else metrics
        self._background = Background()
        self._attempts: OrderedDict[str, int] = OrderedDict()  # by token

    async def _call(self, method: str, **params: Any) -> Any:
        self._background.wake()
        return await self._ask(MessageCoordinatorError, method, params)

    # --- sending

    async def send_message(self, sender: AgentId, recipient: AgentId, message: AgentMessage) -> MessageResult:
        """Put a message into the recipient's queue. When it was not `delivered`, `error` says why: "queue full", or what went wrong.
        Sending the same message again is safe: within a minute it is put there once, whatever became of the first attempt."""
        try:
            answer = await self._call(
                "send", sender=agent_wire(sender), recipient=agent_wire(recipient), message=message_wire(message)
            )
        except (MessageCoordinatorError, TypeError, RecursionError) as error:
            return self._failed(message, recipient, error)
        return self._sent(answer)

    async def broadcast_message(
        self, sender: AgentId, message: AgentMessage, recipients: list[AgentId]
    ) -> list[MessageResult]:
        """Send it to each of them; the results are in their order. One recipient whose name is not valid refuses it for all of the
        thousand that it is among."""
        results: list[MessageResult] = []
        for start in range(0, len(recipients), MAX_BATCH):
            some = recipients[start : start + MAX_BATCH]
            try:
                answers = await self._call(
                    "broadcast",
                    sender=agent_wire(sender),
                    message=message_wire(message),
                    recipients=[agent_wire(each) for each in some],
                )
            except (MessageCoordinatorError, TypeError, RecursionError) as error:
                results += [self._failed(message, each, error) for each in some]
            else:
                results += [self._sent(answer) for answer in answers]
        return results

    def _sent(self, answer: dict[str, Any]) -> MessageResult:
        result = MessageResult.model_validate(answer)
        if result.delivered:
            self._count(lambda: self.metrics.inc_delivered_ok(1))
        return result

    def _failed(self, message: AgentMessage, recipient: AgentId, error: Exception) -> MessageResult:
        self._count(lambda: self.metrics.inc_delivered_error(1))
        return MessageResult(message_id=message.message_id, recipient=recipient, delivered=False, error=str(error))

    def subscribe_to_messages(self, agent_id: AgentId, message_types: list[MessageType]) -> MessageSubscription:
        """Have an agent get what is published of these types. Returns at once; the broker is told in the background, and again
        until it has heard it (flush() waits for that). Then `subscription_id` is the broker's."""
        subscription = MessageSubscription(
            subscription_id=f"sub_{uuid.uuid4().hex[:12]}", agent_id=agent_id, message_types=message_types
        )
        if message_types:
            self._background.start(
                agent_key(agent_id), lambda: self._subscribe(subscription), f"subscribe {agent_text(agent_id)}"
            )
        return subscription

    async def _subscribe(self, subscription: MessageSubscription) -> None:
        answer = await retry_call(
            self._call,
            "subscribe",
            agent=agent_wire(subscription.agent_id),
            message_types=to_wire(subscription.message_types),
            config=FOREVER,
            retry_on=(MessageCoordinatorError,),
        )
        subscription.subscription_id = answer["subscription_id"]

    # --- receiving

    async def receive(self, agent_id: AgentId, visibility_timeout: float = 5) -> ReceivedMessage | None:
        """Reserve the next message that is due: of the highest priority, and of these the one that was sent first. It is hidden from
        everyone else for so many seconds. None, at once, when there is none."""
        answer = await self._call("receive", agent=agent_wire(agent_id), visibility_timeout=visibility_timeout)
        if answer is None:
            return None
        received = received_from(answer)
        self._attempts[received.token] = received.queue_message.delivery_attempts
        if len(self._attempts) > MAX_TOKENS:
            self._attempts.popitem(last=False)
        return received

    async def ack(self, agent_id: AgentId, token: str) -> bool:
        """It is done and gone. False: the token was settled before, or its time was over."""
        self._attempts.pop(token, None)
        return bool(await self._call("ack", agent=agent_wire(agent_id), token=token))

    async def nack(
        self, agent_id: AgentId, token: str, failure: FailureType = FailureType.TRANSIENT, error: str | None = None
    ) -> bool:
        """It failed. A permanent failure, or one too many, makes it a dead letter; else it is due again after the backoff. False:
        the token was settled before, or its time was over."""
        failure = FailureType(failure)
        failed_before = self._attempts.pop(token, None)
        params = {"error": _cut(error)} if error is not None else {}
        settled = bool(
            await self._call("nack", agent=agent_wire(agent_id), token=token, failure=failure.value, **params)
        )
        if settled:
            await self._count_nack(agent_id, failure, error, failed_before)
        return settled

    async def recover_pending(self, agent_id: AgentId | None = None) -> int:
        """Take back now what was reserved and is past its deadline, of one agent or all; how many that were. The broker does it
        by itself a moment later; nobody has to call this."""
        params = {"agent": agent_wire(agent_id)} if agent_id is not None else {}
        return int(await self._call("recover_pending", **params))

    # --- settings

    def configure(
        self,
        *,
        queue_size: int | None = None,
        retry_attempts: int | None = None,
        backoff_base: float | None = None,
        backoff_factor: float | None = None,
        backoff_max: float | None = None,
    ) -> Awaitable[None]:
        """Change the settings of all queues of the namespace, for everyone who uses it; they are kept. What is None stays as it is.
        Started at once; await it to know that it is done, and what went wrong."""
        settings = {
            "queue_size": queue_size,
            "retry_attempts": retry_attempts,
            "backoff_base": backoff_base,
            "backoff_factor": backoff_factor,
            "backoff_max": backoff_max,
        }
        given = {name: value for name, value in settings.items() if value is not None}

        async def work() -> None:
            await self._call("configure", **given)

        return self._background.start(CONFIGURE, work, "configure")

    async def flush(self) -> None:
        """Wait for what subscribe_to_messages() and configure() started."""
        await self._background.flush()

    async def close(self) -> None:
        """Give up what was started and is not done, and close the connection if it was made here."""
        await self._background.cancel()
        await self._detach()

    # --- metrics

    def _count(self, count: Callable[[], None]) -> None:
        """Metrics are no reason to fail."""
        with contextlib.suppress(Exception):
            count()

    async def _count_nack(
        self, agent_id: AgentId, failure: FailureType, error: str | None, failed_before: int | None
    ) -> None:
        """The broker does not say what became of the message. It follows from how often it failed and the settings in force,
        which are asked for only when somebody counts."""
        if isinstance(self.metrics, NullMetrics):
            return
        attempts = (failed_before or 0) + 1
        settings = {"retry_attempts": 3, "backoff_base": 1.0, "backoff_factor": 2.0, "backoff_max": 30.0}
        if failure is not FailureType.PERMANENT:
            with contextlib.suppress(CoorddError):
                settings = await self._connection.call("configure", agent=agent_wire(agent_id))
        if failure is FailureType.PERMANENT or attempts > settings["retry_attempts"]:
            self._count(lambda: self.metrics.inc_permanent(1))
            logger.error("%s: a dead letter after %d failures: %s", agent_text(agent_id), attempts, error)
            return
        backoff = RetryConfig(
            base_delay=settings["backoff_base"],
            exponential_base=settings["backoff_factor"],
            max_delay=settings["backoff_max"],
        ).delay(attempts)
        self._count(lambda: self.metrics.inc_retries_scheduled(1, last_backoff_seconds=backoff))
        self._count(lambda: self.metrics.inc_nacks(1))


def _cut(error: str) -> str:
    """As much of it as the broker takes."""
    return error.encode("utf-8", "replace")[:MAX_ERROR].decode("utf-8", "ignore")


CONFIGURE = object()  # a key for the background that no agent has
# As long as asking again can help.
FOREVER = RetryConfig(max_retries=2**62, base_delay=0.1, max_delay=5.0, jitter=0.5)
