"""What coordinators, registries and agents are to each other.

Abstract is what every one of them has to have. The rest has a default, so that a small implementation, for a test for
instance, stays small.
"""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import Any, Protocol

from .messaging import FailureType, MessageResult, MessageSubscription, ReceivedMessage
from .models import AgentId, AgentMessage, MessageType


class MessageCoordinator(ABC):
    """Messages between agents."""

    @abstractmethod
    async def send_message(self, sender: AgentId, recipient: AgentId, message: AgentMessage) -> MessageResult:
        """Put a message into the recipient's queue."""

    @abstractmethod
    async def receive(self, agent_id: AgentId, visibility_timeout: float = 5) -> ReceivedMessage | None:
        """Reserve the next message that is due, for so many seconds; None when there is none."""

    @abstractmethod
    async def ack(self, agent_id: AgentId, token: str) -> bool:
        """It is done. False: the token was not valid any more."""

    @abstractmethod
    async def nack(
        self, agent_id: AgentId, token: str, failure: FailureType = FailureType.TRANSIENT, error: str | None = None
    ) -> bool:
        """It failed: deliver it again later, or never. False: the token was not valid any more."""

    async def broadcast_message(
        self, sender: AgentId, message: AgentMessage, recipients: list[AgentId]
    ) -> list[MessageResult]:
        """Send it to each of them; the results are in their order."""
        return [await self.send_message(sender, recipient, message) for recipient in recipients]

    def subscribe_to_messages(self, agent_id: AgentId, message_types: list[MessageType]) -> MessageSubscription:
        """Have an agent get what is published of these types."""
        raise NotImplementedError

    async def recover_pending(self, agent_id: AgentId | None = None) -> int:
        """Take back now what was reserved and is past its deadline, of one agent or all; how many that were."""
        raise NotImplementedError

    def configure(
        self,
        *,
        queue_size: int | None = None,
        retry_attempts: int | None = None,
        backoff_base: float | None = None,
        backoff_factor: float | None = None,
        backoff_max: float | None = None,
    ) -> Awaitable[None]:
        """Change limits and backoff; what is None stays as it is."""
        raise NotImplementedError


class RegisteredAgent(Protocol):
    """What a registry asks of an agent. Where it has them, these are used as well, as attributes, methods or coroutine
    functions: `name`, `status_snapshot` or `status`, `get_capabilities` or `capabilities`, `metadata`, and for its
    state `export_state` or `state`, and `import_state` or `restore_state`."""

    # Under which it is registered.
    @property
    def agent_id(self) -> AgentId: ...


class AgentRegistry(ABC):
    """Which agents there are, and which of them are alive."""

    @abstractmethod
    def register(self, agent: RegisteredAgent) -> None:
        """From now on it is there."""

    @abstractmethod
    def deregister(self, agent_id: AgentId) -> None:
        """It leaves."""

    @abstractmethod
    async def list_registered(self) -> list[dict[str, Any]]:
        """All of them, with `name`, `agent_id`, `status`, `alive`, `last_heartbeat` and more."""


class AgentProxy(ABC):
    """An agent as a program sees it, wherever it runs. A subclass sets `agent_id`, says what process() does, and overrides
    the others as far as it has something to tell."""

    agent_id: AgentId
    name: str | None = None
    #: Anything that can be sent; others read it in a registry's list.
    status: object = "idle"
    #: A list of names, or a map of them to whatever there is to say.
    capabilities: object = ()

    @abstractmethod
    async def process(self, input_payload: dict[str, Any]) -> dict[str, Any]:
        """Do what the agent is for."""

    async def export_state(self) -> dict[str, Any]:
        """What a successor has to know, kept by the registry with every heartbeat. Nothing is stored when it is empty."""
        return {}

    async def import_state(self, state: dict[str, Any]) -> None:
        """Go on from what a predecessor exported."""

    def register(self, registry: AgentRegistry) -> None:
        """Tell a registry of this agent."""
        registry.register(self)

    def deregister(self, registry: AgentRegistry) -> None:
        """Take it out of a registry."""
        registry.deregister(self.agent_id)
