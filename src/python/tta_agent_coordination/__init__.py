"""tta_agent_coordination: messages, agents and circuit breakers over coordd."""
from .connection import Connection
from .consumer import Consumer, Delivery
from .errors import CoorddError, Permanent, Release, RequestTimeout, Retry, StaleAgent
from .events import Watch

__all__ = [
    "Connection",
    "Consumer",
    "CoorddError",
    "Delivery",
    "Permanent",
    "Release",
    "RequestTimeout",
    "Retry",
    "StaleAgent",
    "Watch",
]
