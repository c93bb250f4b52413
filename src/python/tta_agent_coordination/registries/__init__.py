"""Registries."""
from .redis_registry import RedisAgentRegistry

__all__ = ["RedisAgentRegistry"]
