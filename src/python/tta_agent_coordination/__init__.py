"""tta_agent_coordination: messages, agents and circuit breakers over coordd."""
from .agent import Agent
from .connection import Connection
from .consumer import Consumer, Delivery
from .coordinators import RedisMessageCoordinator
from .errors import (
    AgentRegistryError,
    CoorddError,
    MessageCoordinatorError,
    Permanent,
    Release,
    RequestTimeout,
    Retry,
    StaleAgent,
)
from .events import Watch
from .interfaces import AgentProxy, AgentRegistry, MessageCoordinator, RegisteredAgent
from .messaging import FailureType, MessageResult, MessageSubscription, QueueMessage, ReceivedMessage
from .metrics import MetricsProtocol, NullMetrics
from .models import AgentId, AgentMessage, MessagePriority, MessageType
from .registries import RedisAgentRegistry
from .resilience import (
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitBreakerOpenError,
    CircuitBreakerState,
    RetryConfig,
    retry_call,
    retry_with_backoff,
)

__all__ = [
    "Agent",
    "AgentId",
    "AgentMessage",
    "AgentProxy",
    "AgentRegistry",
    "AgentRegistryError",
    "CircuitBreaker",
    "CircuitBreakerConfig",
    "CircuitBreakerOpenError",
    "CircuitBreakerState",
    "Connection",
    "Consumer",
    "CoorddError",
    "Delivery",
    "FailureType",
    "MessageCoordinator",
    "MessageCoordinatorError",
    "MessagePriority",
    "MessageResult",
    "MessageSubscription",
    "MessageType",
    "MetricsProtocol",
    "NullMetrics",
    "Permanent",
    "QueueMessage",
    "ReceivedMessage",
    "RedisAgentRegistry",
    "RedisMessageCoordinator",
    "RegisteredAgent",
    "Release",
    "RequestTimeout",
    "Retry",
    "RetryConfig",
    "StaleAgent",
    "Watch",
    "retry_call",
    "retry_with_backoff",
]
