"""Coordinators."""
from .redis_coordinator import RedisMessageCoordinator

__all__ = ["RedisMessageCoordinator"]
