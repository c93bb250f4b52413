"""Retries: how often, how long apart, and of what."""

import asyncio

import pytest

from tta_agent_coordination import CoorddError, RetryConfig, retry_call, retry_with_backoff
from tta_agent_coordination.resilience import retry

QUICK = RetryConfig(max_retries=3, base_delay=0)


class Flaky:
    """Fails so many times, with errors of this kind."""

    def __init__(self, failures, error=OSError):
        self.left, self.error, self.calls = failures, error, 0

    def now(self, *args, **kwargs):
        self.calls += 1
        if self.left:
            self.left -= 1
            raise self.error("not yet")
        return args, kwargs

    async def later(self, *args, **kwargs):
        return self.now(*args, **kwargs)


def test_delays_are_those_of_a_queue():
    config = RetryConfig()
    assert [config.delay(n) for n in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]
    assert config.delay(100_000) == 30
    some = {RetryConfig(jitter=0.5).delay(1) for _ in range(100)}
    assert len(some) > 50 and all(0.5 <= each <= 1.5 for each in some)


@pytest.mark.parametrize(
    "wrong", [{"max_retries": -1}, {"base_delay": -1}, {"max_delay": -1}, {"exponential_base": 0.5}, {"jitter": 2}]
)
def test_a_config_is_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RetryConfig(**wrong)


def test_a_function_is_called_until_it_succeeds():
    flaky = Flaky(3)
    assert asyncio.run(retry_call(flaky.later, 1, config=QUICK, a=2)) == ((1,), {"a": 2})
    assert flaky.calls == 4


def test_the_last_error_is_raised():
    flaky = Flaky(9)
    with pytest.raises(OSError, match="not yet"):
        asyncio.run(retry_call(flaky.later, config=QUICK))
    assert flaky.calls == 4


def test_only_what_was_asked_for_is_retried():
    flaky = Flaky(1, KeyError)
    with pytest.raises(KeyError):
        asyncio.run(retry_call(flaky.later, config=QUICK, retry_on=(OSError,)))
    assert flaky.calls == 1


def test_an_error_that_says_so_is_final():
    for retryable, calls in ((False, 1), (True, 2)):
        flaky = Flaky(1, lambda text: CoorddError(text, code="x", retryable=retryable))
        try:
            asyncio.run(retry_call(flaky.later, config=QUICK))
        except CoorddError:
            assert not retryable
        assert flaky.calls == calls


def test_a_cancelled_call_is_not_retried():
    async def run():
        flaky = Flaky(9)
        task = asyncio.ensure_future(retry_call(flaky.later, config=RetryConfig(base_delay=60)))
        while not flaky.calls:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert flaky.calls == 1

    asyncio.run(run())


def test_pauses_grow(monkeypatch):
    pauses = []

    async def sleep(seconds):
        pauses.append(seconds)

    monkeypatch.setattr(retry.asyncio, "sleep", sleep)
    monkeypatch.setattr(retry.time, "sleep", pauses.append)
    asyncio.run(retry_call(Flaky(3).later))
    retry_with_backoff()(Flaky(3).now)()
    assert pauses == [1, 2, 4] * 2


def test_a_decorated_coroutine_function():
    calls = []

    @retry_with_backoff(QUICK, retry_on=(OSError,))
    async def fetch(url: str, *, times: int = 1) -> str:
        """Its documentation."""
        calls.append((url, times))
        if len(calls) < 3:
            raise OSError("not yet")
        return url

    assert asyncio.run(fetch("u", times=2)) == "u"
    assert calls == [("u", 2)] * 3
    assert fetch.__name__ == "fetch" and fetch.__doc__ == "Its documentation."
    assert asyncio.iscoroutinefunction(fetch)


def test_a_decorated_function():
    flaky = Flaky(2)
    assert retry_with_backoff(QUICK)(flaky.now)(1) == ((1,), {})
    assert flaky.calls == 3
    with pytest.raises(OSError):
        retry_with_backoff(RetryConfig(max_retries=0))(Flaky(1).now)()


def test_retries_are_logged(caplog):
    asyncio.run(retry_call(Flaky(1).later, config=QUICK))
    assert "Flaky.later failed (not yet), retry 1" in caplog.text


def test_the_decorator_needs_no_parentheses(monkeypatch):
    monkeypatch.setattr(retry.time, "sleep", lambda seconds: None)
    calls = []

    @retry_with_backoff
    def work(answer):
        """Fails once."""
        calls.append(answer)
        if len(calls) == 1:
            raise OSError("not yet")
        return answer

    assert work(42) == 42
    assert calls == [42, 42]
    assert work.__name__ == "work" and work.__doc__ == "Fails once."
