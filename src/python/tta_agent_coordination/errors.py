"""What goes wrong, as exceptions.

Everything that the broker or the way to it refuses is a CoorddError. Its `code` is one of the broker's (docs/PROTOCOL.md,
section 7), or one of these that are made here:

    unavailable     the connection was lost, or none could be made; `applied` tells whether the request may have been done
    timeout         the request's time was over (RequestTimeout)
    closed          the Connection was closed
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class CoorddError(Exception):
    """A request that was not done, or whose outcome is not known."""

    #: What kind of refusal it is: for programs.
    code: str
    #: One sentence, for people.
    message: str
    #: Whether the same request may succeed later.
    retryable: bool
    #: "no": nothing was changed. "unknown": it may have been. None: the code says it (all but `unavailable` and
    #: `timeout` have changed nothing).
    applied: str | None

    def __init__(
        self, message: str = "", *, code: str = "internal", retryable: bool = False, applied: str | None = None
    ) -> None:
        super().__init__(message)
        self.message, self.code, self.retryable, self.applied = message, code, retryable, applied

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class RequestTimeout(CoorddError, TimeoutError):
    """No answer in the request's time."""


class StaleAgent(CoorddError):
    """Another process has registered under this agent's name."""


class MessageCoordinatorError(CoorddError):
    """What a RedisMessageCoordinator raises."""


class AgentRegistryError(CoorddError):
    """What a RedisAgentRegistry raises."""


class Settle(Exception):
    """What a handler raises to say what becomes of its message."""


class Retry(Settle):
    """It failed for now: deliver it again, after `delay` seconds or else the queue's backoff."""

    def __init__(self, error: str = "", *, delay: float | None = None) -> None:
        super().__init__(error)
        self.delay = delay


class Permanent(Settle):
    """It will never succeed: to the dead letters."""


class Release(Settle):
    """Not now and not counted as a failure: hand it back, due after `delay` seconds or else at once."""

    def __init__(self, delay: float | None = None) -> None:
        super().__init__()
        self.delay = delay


def refusal(error: Any) -> CoorddError:
    """The exception for the `error` of a response."""
    if not isinstance(error, Mapping):
        return CoorddError(f"an error of no known shape: {error!r}"[:200])
    applied = error.get("applied")
    return CoorddError(
        str(error.get("message", "")),
        code=str(error.get("code", "internal")),
        retryable=bool(error.get("retryable", False)),
        applied=applied if applied in ("no", "unknown") else None,
    )
