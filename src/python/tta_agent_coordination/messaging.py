"""What becomes of messages."""
from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from pydantic import Field

from ._model import Model
from .models import AgentId, AgentMessage, MessagePriority, MessageType


class FailureType(str, Enum):
    """Why a message is handed back with nack()."""

    TRANSIENT = "transient"  # deliver it again after the backoff
    PERMANENT = "permanent"  # to the dead letters
    TIMEOUT = "timeout"  # as TRANSIENT


class MessageResult(Model):
    """What became of a send. `delivered`: it is in the recipient's queue, and Redis has it."""

    message_id: str
    delivered: bool
    error: str | None = None
    recipient: AgentId | None = None
    duplicate: bool = False  # it had been sent before and is there once


class MessageSubscription(Model):
    """That an agent gets what is published of some message types."""

    subscription_id: str
    agent_id: AgentId
    message_types: list[MessageType] = Field(default_factory=list)


class QueueMessage(Model):
    """A message in a queue. `delivery_attempts`: how many deliveries of it failed so far, 0 the first time."""

    message: AgentMessage
    priority: MessagePriority = MessagePriority.NORMAL
    enqueued_at: str | None = None
    delivery_attempts: int = 0
    last_error: str | None = None


class ReceivedMessage(Model):
    """A message that is reserved for who holds the token, until `visibility_deadline` (ISO 8601). `fence` rises with every
    reservation of a queue: pass it on to whatever must refuse a late writer."""

    token: str
    queue_message: QueueMessage
    visibility_deadline: str | None = None
    fence: int = 0


def received_from(answer: Mapping[str, Any]) -> ReceivedMessage:
    """The ReceivedMessage that a broker sent."""
    message = answer["queue_message"]["message"]
    if not message.get("payload"):
        # Clients in Lua send an empty array where they mean an empty map.
        message["payload"] = {}
    return ReceivedMessage.model_validate(answer)
