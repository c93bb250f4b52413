"""CircuitBreaker: one state for all who use it, against real brokers."""

import asyncio
import time

import pytest

from conftest import url_of
from harness import fresh, within
from tta_agent_coordination import (
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitBreakerOpenError,
    CircuitBreakerState,
    Connection,
    CoorddError,
)
from tta_agent_coordination.resilience import circuit_breaker as module

PAUSE = within(0.5)
QUICK = CircuitBreakerConfig(failure_threshold=2, timeout_seconds=PAUSE, half_open_max_calls=2, success_threshold=2)
CLOSED, OPEN, HALF_OPEN = CircuitBreakerState.CLOSED, CircuitBreakerState.OPEN, CircuitBreakerState.HALF_OPEN


async def ok(value=1):
    return value


async def bad():
    raise OSError("down")


async def fail(breaker, times):
    for _ in range(times):
        with pytest.raises(OSError, match="down"):
            await breaker.call(bad)


async def until_permitted(breaker):
    async with asyncio.timeout(within(10)):
        while not await breaker.is_call_permitted():
            await asyncio.sleep(0.01)


@pytest.fixture
def using(run, url):
    """Run `body(breaker)`."""

    def using(body, config=QUICK):
        async def main():
            breaker = CircuitBreaker(url, fresh("breaker"), config)
            try:
                await body(breaker)
            finally:
                await breaker.close()

        run(main())

    return using


def test_defaults():
    assert vars(CircuitBreakerConfig()) == {
        "failure_threshold": 5,
        "timeout_seconds": 60,
        "recovery_timeout_seconds": 300,
        "half_open_max_calls": 3,
        "success_threshold": 2,
    }
    assert [each.value for each in CircuitBreakerState] == ["closed", "open", "half_open"]


def test_what_is_called_gets_its_arguments_and_its_result_comes_back(using):
    async def body(breaker):
        async def both(*args, **kwargs):
            return args, kwargs

        assert await breaker.call(both, 1, 2, a=3) == ((1, 2), {"a": 3})
        assert await breaker.execute(both, 1) == ((1,), {})
        assert await breaker.call(lambda text: text.upper(), "plain") == "PLAIN"
        assert await breaker.call(lambda: ok(7)) == 7

    using(body)


def test_a_new_breaker_is_closed(using):
    async def body(breaker):
        await breaker.initialize()
        assert await breaker.get_state() is CLOSED
        assert await breaker.is_call_permitted() is True
        await breaker.reset()
        metrics = await breaker.get_metrics()
        assert metrics["name"] == breaker.name and metrics["state"] == "closed"
        assert metrics["total_calls"] == metrics["failure_count"] == metrics["state_changes"] == 0
        assert metrics["last_failure_time"] is metrics["state_changed_at"] is None
        assert metrics["config"] == vars(QUICK) == vars(breaker.config)

    using(body)


def test_it_opens_probes_and_closes(using):
    async def body(breaker):
        await fail(breaker, 1)
        await breaker.call(ok)  # in a row is what counts
        await fail(breaker, 2)
        assert await breaker.get_state() is OPEN
        assert await breaker.is_call_permitted() is False
        with pytest.raises(CircuitBreakerOpenError, match=f"{breaker.name} is open, again in ") as refused:
            await breaker.call(ok)
        assert (refused.value.name, refused.value.state) == (breaker.name, OPEN)
        assert 0 < refused.value.retry_after <= PAUSE
        await until_permitted(breaker)
        assert await breaker.get_state() is OPEN  # until somebody calls
        assert await breaker.call(ok, 2) == 2
        assert await breaker.get_state() is HALF_OPEN
        assert await breaker.call(ok, 3) == 3
        assert await breaker.get_state() is CLOSED
        metrics = await breaker.get_metrics()
        assert (metrics["total_calls"], metrics["rejected_calls"]) == (7, 1)
        assert (metrics["successful_calls"], metrics["failed_calls"], metrics["state_changes"]) == (3, 3, 3)
        assert abs(metrics["last_failure_time"] - time.time()) < within(60)
        assert metrics["last_success_time"] >= metrics["last_failure_time"]
        assert metrics["config"]["timeout_seconds"] == PAUSE

    using(body)


def test_so_many_probes_at_once(using):
    async def body(breaker):
        await fail(breaker, 2)
        await until_permitted(breaker)
        go = asyncio.Event()
        probes = [asyncio.ensure_future(breaker.call(go.wait)) for _ in range(2)]
        async with asyncio.timeout(within(10)):
            while (await breaker.get_metrics())["half_open_calls"] < 2:
                await asyncio.sleep(0.01)
        assert await breaker.is_call_permitted() is False
        with pytest.raises(CircuitBreakerOpenError, match="all probes are out") as refused:
            await breaker.call(ok)
        assert refused.value.state is HALF_OPEN and refused.value.retry_after is None
        go.set()
        assert await asyncio.gather(*probes) == [True, True]
        assert await breaker.get_state() is CLOSED

    using(body)


def test_a_failed_probe_opens_it_again_and_reset_closes_it(using):
    async def body(breaker):
        await fail(breaker, 2)
        await until_permitted(breaker)
        await fail(breaker, 1)
        assert await breaker.get_state() is OPEN
        await breaker.reset()
        assert await breaker.get_state() is CLOSED
        assert await breaker.call(ok) == 1

    using(body)


async def start_and_cancel(breaker):
    began = asyncio.Event()

    async def forever():
        began.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(breaker.call(forever))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_cancelled_call_counts_only_as_a_probe(using):
    async def body(breaker):
        await breaker.call(ok)
        await start_and_cancel(breaker)
        metrics = await breaker.get_metrics()
        assert (metrics["state"], metrics["failed_calls"], metrics["successful_calls"]) == ("closed", 0, 1)
        await fail(breaker, 2)
        await until_permitted(breaker)
        await start_and_cancel(breaker)
        assert await breaker.get_state() is OPEN

    using(body)


def test_it_is_shared_over_brokers_and_survives_them(run, redis, make_broker):
    config = {"redis": {"key_prefix": fresh("two")}}
    brokers = [make_broker(redis, config=config).start() for _ in range(2)]
    settings = CircuitBreakerConfig(failure_threshold=2, timeout_seconds=600)

    async def main():
        one, other = (CircuitBreaker(f"unix://{broker.unix_path}", "shared", settings) for broker in brokers)
        elsewhere = CircuitBreaker(f"unix://{brokers[0].unix_path}", "shared", key_prefix="elsewhere")
        await fail(one, 1)
        await fail(other, 1)
        for each in (one, other):
            assert await each.get_state() is OPEN
            with pytest.raises(CircuitBreakerOpenError):
                await each.call(ok)
        assert await elsewhere.call(ok) == 1
        for broker in brokers:
            await asyncio.to_thread(broker.stop)
            await asyncio.to_thread(broker.start)
        for each in (one, other):
            assert await each.get_state() is OPEN
        for each in (one, other, elsewhere):
            await each.close()

    run(main())


def test_a_broker_that_is_away_stops_nobody(run, make_broker, caplog, monkeypatch):
    monkeypatch.setattr(module, "ASK_TIMEOUT", within(20))
    broker = make_broker()
    broker.start()

    async def main():
        async with Connection(url_of(broker), request_timeout=0.3) as connection:
            breaker = CircuitBreaker(connection, "b", QUICK)

            async def until_it_dies():
                broker.kill()
                monkeypatch.setattr(module, "ASK_TIMEOUT", 0.2)
                return "done"

            assert await breaker.call(until_it_dies) == "done"
            assert "was not told of a success" in caplog.text
            assert await breaker.call(ok) == 1
            assert "cannot be asked, calls are made" in caplog.text
            monkeypatch.setattr(module, "ASK_TIMEOUT", 600)  # it was asked in vain: for a while it is not asked again
            await fail(breaker, 9)
            with pytest.raises(CoorddError):
                await breaker.get_state()
            with pytest.raises(CoorddError):
                await breaker.reset()
            await breaker.close()

    run(main())


def test_what_is_refused_is_raised(using, url, run):
    async def body(breaker):
        with pytest.raises(CoorddError, match="failure_threshold"):
            await breaker.call(ok)

    using(body, CircuitBreakerConfig(failure_threshold=0))
