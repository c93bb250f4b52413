"""Who sends to whom what."""
from __future__ import annotations

from enum import Enum
from typing import Any

from pydantic import Field

from ._model import Model, to_wire


class MessagePriority(int, Enum):
    """9 is handed out before 5, 5 before 1."""

    LOW = 1
    NORMAL = 5
    HIGH = 9


class MessageType(str, Enum):
    """What a message is; agents subscribe to these."""

    REQUEST = "request"
    RESPONSE = "response"
    EVENT = "event"


class AgentId(Model):
    """An agent, and the queue of its name. Without an instance it is the instance "default": the queue that all workers of that
    type share. Equal when they name the same queue."""

    type: str = Field(..., description="what kind of agent, for instance \"input_processor\"; an Enum of str is taken")
    instance: str | None = Field(default=None, description="which one of them")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AgentId):
            return NotImplemented
        return agent_key(self) == agent_key(other)

    def __hash__(self) -> int:
        return hash(agent_key(self))


class AgentMessage(Model, extra="allow"):
    """A message. Other keys (`correlation_id`, `reply_to`, ...) are carried untouched. What is delivered names the sender and
    the recipient that it was sent with, whatever stands here."""

    message_id: str
    sender: AgentId
    recipient: AgentId
    message_type: MessageType
    payload: dict[str, Any] = Field(default_factory=dict)
    priority: MessagePriority = MessagePriority.NORMAL
    timestamp: str | None = None  # ISO 8601; the broker sets it when it is None


def agent_key(agent_id: AgentId) -> tuple[str, str]:
    """Type and instance as the broker knows them."""
    return str(to_wire(agent_id.type)), str(to_wire(agent_id.instance) or "default")


def agent_wire(agent_id: AgentId) -> dict[str, str]:
    """An AgentId as a parameter."""
    kind, instance = agent_key(agent_id)
    return {"type": kind, "instance": instance}


def agent_text(agent_id: AgentId) -> str:
    """`type:instance`, for people."""
    return ":".join(agent_key(agent_id))


def message_wire(message: AgentMessage) -> dict[str, Any]:
    """A message as a parameter; TypeError names what cannot be sent. Sender and recipient are parameters of their own."""
    left_out = {"sender", "recipient"} if message.timestamp else {"sender", "recipient", "timestamp"}
    return {key: to_wire(value, key) for key, value in message if key not in left_out}
