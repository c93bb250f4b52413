"""What a coordinator counts, for whoever wants to know."""
from __future__ import annotations

from typing import Protocol


class MetricsProtocol(Protocol):
    """Where RedisMessageCoordinator counts. Give it an object with these methods; one that is missing or fails is passed over."""

    def inc_delivered_ok(self, count: int, /) -> None:
        """Messages that were put into their queue."""

    def inc_delivered_error(self, count: int, /) -> None:
        """Messages that could not be sent. A full queue is counted nowhere."""

    def inc_retries_scheduled(self, count: int, /, last_backoff_seconds: float) -> None:
        """Messages that a nack() put back, and after how many seconds the last one is due."""

    def inc_nacks(self, count: int, /) -> None:
        """The same messages."""

    def inc_permanent(self, count: int, /) -> None:
        """Messages that a nack() made dead letters."""


class NullMetrics:
    """Counts nothing."""

    def inc_delivered_ok(self, count: int, /) -> None:
        pass

    def inc_delivered_error(self, count: int, /) -> None:
        pass

    def inc_retries_scheduled(self, count: int, /, last_backoff_seconds: float) -> None:
        pass

    def inc_nacks(self, count: int, /) -> None:
        pass

    def inc_permanent(self, count: int, /) -> None:
        pass
