"""Living with what fails: circuit breakers and retries."""
from .circuit_breaker import CircuitBreaker, CircuitBreakerConfig, CircuitBreakerOpenError, CircuitBreakerState
from .retry import RetryConfig, retry_call, retry_with_backoff

__all__ = [
    "CircuitBreaker",
    "CircuitBreakerConfig",
    "CircuitBreakerOpenError",
    "CircuitBreakerState",
    "RetryConfig",
    "retry_call",
    "retry_with_backoff",
]
