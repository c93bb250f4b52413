"""RedisMessageCoordinator: what users of the replaced package rely on, against real brokers."""

import asyncio
import logging

import pytest

from conftest import url_of
from harness import fresh, wait_until, within
from tta_agent_coordination import (
    Agent,
    AgentId,
    AgentMessage,
    Connection,
    FailureType,
    MessageCoordinator,
    MessageCoordinatorError,
    MessagePriority,
    MessageResult,
    MessageType,
    RedisMessageCoordinator,
)
from tta_agent_coordination._background import GivenUp
from tta_agent_coordination.coordinators import redis_coordinator as module

ME = AgentId(type="tester", instance="one")


def an_agent():
    return AgentId(type="worker", instance=fresh("w"))


def a_message(to, message_id=None, **more):
    return AgentMessage(
        **{
            "message_id": message_id or fresh("m"),
            "sender": ME,
            "recipient": to,
            "message_type": MessageType.REQUEST,
            **more,
        }
    )


class Metrics:
    """Keeps what it is told."""

    def __init__(self):
        self.told = []

    def inc_delivered_ok(self, count):
        self.told.append(("ok", count))

    def inc_delivered_error(self, count):
        self.told.append(("error", count))

    def inc_retries_scheduled(self, count, last_backoff_seconds):
        self.told.append(("retry", count, last_backoff_seconds))

    def inc_nacks(self, count):
        self.told.append(("nack", count))

    def inc_permanent(self, count):
        self.told.append(("permanent", count))


@pytest.fixture
def make(url):
    """A coordinator of the test's own namespace."""
    prefix = fresh("prefix")

    def make(where=url, **more):
        return RedisMessageCoordinator(where, key_prefix=prefix, **more)

    return make


@pytest.fixture
def using(run, make):
    """Run `body(coordinator)`."""

    def using(body, **more):
        async def main():
            coordinator = make(**more)
            try:
                await body(coordinator)
            finally:
                await coordinator.close()

        run(main())

    return using


async def eventually(what, limit=10):
    """The first value of `await what()` that is true."""
    async with asyncio.timeout(within(limit)):
        while not (value := await what()):
            await asyncio.sleep(0.01)
    return value


def test_a_message_is_sent_received_and_acked(using):
    async def body(coordinator):
        worker = an_agent()
        message = a_message(worker, payload={"n": [1, {"a": None}]}, correlation_id="c-1", reply_to={"type": "x"})
        result = await coordinator.send_message(ME, worker, message)
        assert result == MessageResult(message_id=message.message_id, delivered=True, recipient=worker)
        received = await coordinator.receive(worker)
        got = received.queue_message.message
        assert (got.message_id, got.payload, got.message_type) == (message.message_id, message.payload, MessageType.REQUEST)
        assert (got.sender, got.recipient) == (ME, worker)
        assert (got.correlation_id, got.reply_to) == ("c-1", {"type": "x"})
        assert got.timestamp and received.queue_message.enqueued_at and received.visibility_deadline
        assert received.queue_message.priority is got.priority is MessagePriority.NORMAL
        assert received.queue_message.delivery_attempts == 0 and received.queue_message.last_error is None
        assert await coordinator.receive(worker) is None
        assert await coordinator.ack(worker, received.token) is True
        assert await coordinator.ack(worker, received.token) is False
        assert await coordinator.nack(worker, received.token) is False

    using(body)


def test_the_outer_names_are_what_is_delivered(using):
    async def body(coordinator):
        worker = an_agent()
        await coordinator.send_message(AgentId(type="other"), worker, a_message(an_agent()))
        got = (await coordinator.receive(worker)).queue_message.message
        assert (got.sender, got.recipient) == (AgentId(type="other"), worker)

    using(body)


def test_first_in_first_out_within_a_priority(using):
    async def body(coordinator):
        worker = an_agent()
        for priority in (1, 5, 9, 5, 1, 9):
            await coordinator.send_message(ME, worker, a_message(worker, priority=priority))
        sent = []
        while received := await coordinator.receive(worker):
            sent.append((int(received.queue_message.priority), received.fence))
        assert [priority for priority, _ in sent] == [9, 9, 5, 5, 1, 1]
        assert [fence for _, fence in sent] == sorted(fence for _, fence in sent)

    using(body)


def test_what_is_not_settled_in_time_comes_back(using):
    async def body(coordinator):
        worker = an_agent()
        message = a_message(worker)
        await coordinator.send_message(ME, worker, message)
        first = await coordinator.receive(worker, visibility_timeout=0.2)
        again = await eventually(lambda: coordinator.receive(worker))
        assert again.queue_message.message.message_id == message.message_id
        assert again.queue_message.delivery_attempts == 1
        assert again.queue_message.last_error == "visibility timeout expired"
        assert again.fence > first.fence
        assert await coordinator.ack(worker, first.token) is False
        assert await coordinator.ack(worker, again.token) is True

    using(body)


def test_recover_pending_counts_what_it_takes_back(using):
    async def body(coordinator):
        assert await coordinator.recover_pending() == 0
        assert await coordinator.recover_pending(an_agent()) == 0

    using(body)


def test_a_nack_waits_for_the_backoff_and_dies_at_last(using, caplog):
    metrics = Metrics()

    async def body(coordinator):
        worker = an_agent()
        assert await coordinator.configure(retry_attempts=2, backoff_base=0.05, backoff_factor=3, backoff_max=0.1) is None
        message = a_message(worker)
        await coordinator.send_message(ME, worker, message)
        for attempt in range(3):
            received = await eventually(lambda: coordinator.receive(worker))
            assert received.queue_message.delivery_attempts == attempt
            assert received.queue_message.last_error == (f"no {attempt - 1}" if attempt else None)
            failure = FailureType.TIMEOUT if attempt == 1 else FailureType.TRANSIENT
            assert await coordinator.nack(worker, received.token, failure, f"no {attempt}") is True
            stats = await coordinator._connection.call("queue_stats", agent={"type": worker.type, "instance": worker.instance})
            assert stats["dead"] == (attempt == 2) and stats["size"] == (attempt < 2)
        assert "a dead letter after 3 failures: no 2" in caplog.text

    using(body, metrics=metrics)
    assert metrics.told == [
        ("ok", 1),
        ("retry", 1, 0.05),
        ("nack", 1),
        ("retry", 1, 0.1),
        ("nack", 1),
        ("permanent", 1),
    ]


def test_a_permanent_failure_is_a_dead_letter(using):
    metrics = Metrics()

    async def body(coordinator):
        worker = an_agent()
        for failure in (FailureType.PERMANENT, "permanent"):
            await coordinator.send_message(ME, worker, a_message(worker))
            received = await coordinator.receive(worker)
            assert await coordinator.nack(worker, received.token, failure=failure, error="ä" * 2000) is True
        dead = (await coordinator._connection.call("dlq_list", agent={"type": worker.type, "instance": worker.instance}))["dead"]
        assert [each["reason"] for each in dead] == ["permanent"] * 2
        assert dead[0]["queue_message"]["last_error"] == "ä" * 512

    using(body, metrics=metrics)
    assert metrics.told == [("ok", 1), ("permanent", 1)] * 2


def test_nobody_has_to_count(using):
    async def body(coordinator):
        worker = an_agent()
        await coordinator.send_message(ME, worker, a_message(worker))
        received = await coordinator.receive(worker)
        assert await coordinator.nack(worker, received.token) is True

    using(body)


def test_metrics_that_fail_or_lack_something_are_passed_over(using):
    class Poor:
        def inc_delivered_ok(self, count):
            raise RuntimeError("full")

    async def body(coordinator):
        worker = an_agent()
        assert (await coordinator.send_message(ME, worker, a_message(worker))).delivered
        received = await coordinator.receive(worker)
        assert await coordinator.nack(worker, received.token)

    using(body, metrics=Poor())


def test_attempts_are_remembered_for_so_many_tokens(using, monkeypatch):
    monkeypatch.setattr(module, "MAX_TOKENS", 2)

    async def body(coordinator):
        worker = an_agent()
        for _ in range(4):
            await coordinator.send_message(ME, worker, a_message(worker))
            await coordinator.receive(worker)
        assert len(coordinator._attempts) == 2

    using(body)


def test_a_full_queue_is_a_result(using):
    metrics = Metrics()

    async def body(coordinator):
        worker = an_agent()
        await coordinator.configure(queue_size=1)
        assert (await coordinator.send_message(ME, worker, a_message(worker))).delivered
        result = await coordinator.send_message(ME, worker, a_message(worker))
        assert (result.delivered, result.error) == (False, "queue full")

    using(body, metrics=metrics)
    assert metrics.told == [("ok", 1)]


def test_the_same_message_is_there_once(using):
    async def body(coordinator):
        worker = an_agent()
        message = a_message(worker)
        results = [await coordinator.send_message(ME, worker, message) for _ in range(2)]
        assert [(each.delivered, each.duplicate) for each in results] == [(True, False), (True, True)]
        assert await coordinator.receive(worker) and await coordinator.receive(worker) is None

    using(body)


def test_what_cannot_be_sent_is_a_result(using):
    metrics = Metrics()
    endless = {}
    endless["again"] = endless

    async def body(coordinator):
        worker = an_agent()
        for wrong, why in (
            ({"payload": {"a": [object()]}}, "payload.a[0] is of the type object, which cannot be sent"),
            ({"payload": endless}, "recursion"),
            ({"message_id": "x" * 200}, "message_id"),
            ({"payload": {"n": 1 << 70}}, "bad_request"),
        ):
            result = await coordinator.send_message(ME, worker, a_message(worker, **wrong))
            assert not result.delivered and why in result.error and result.recipient == worker
        result = await coordinator.send_message(ME, AgentId(type="a\nb"), a_message(worker))
        assert not result.delivered and "recipient" in result.error

    using(body, metrics=metrics)
    assert metrics.told == [("error", 1)] * 5


def test_a_broadcast_has_a_result_for_each(using, monkeypatch):
    monkeypatch.setattr(module, "MAX_BATCH", 3)
    metrics = Metrics()

    async def body(coordinator):
        workers = [an_agent() for _ in range(7)]
        results = await coordinator.broadcast_message(ME, a_message(workers[0], payload={"n": 1}), workers)
        assert [each.recipient for each in results] == workers
        assert all(each.delivered for each in results)
        for worker in workers:
            assert (await coordinator.receive(worker)).queue_message.message.recipient == worker
        assert await coordinator.broadcast_message(ME, a_message(workers[0]), []) == []
        wrong = [workers[0], AgentId(type=""), workers[1], workers[2]]
        results = await coordinator.broadcast_message(ME, a_message(workers[0]), wrong)
        assert [each.delivered for each in results] == [False, False, False, True]
        assert all("recipients[1]" in each.error for each in results[:3])

    using(body, metrics=metrics)
    assert metrics.told == [("ok", 1)] * 7 + [("error", 1)] * 3 + [("ok", 1)]


def test_a_coordinator_of_few_words_broadcasts_by_sending(run):
    class Small(MessageCoordinator):
        async def send_message(self, sender, recipient, message):
            return MessageResult(message_id=message.message_id, recipient=recipient, delivered=True)

        async def receive(self, agent_id, visibility_timeout=5):
            return None

        async def ack(self, agent_id, token):
            return False

        async def nack(self, agent_id, token, failure=FailureType.TRANSIENT, error=None):
            return False

    small, agents = Small(), [an_agent(), an_agent()]
    assert [each.recipient for each in run(small.broadcast_message(ME, a_message(ME), agents))] == agents
    with pytest.raises(NotImplementedError):
        small.subscribe_to_messages(ME, [])
    with pytest.raises(NotImplementedError):
        small.configure()
    with pytest.raises(NotImplementedError):
        run(small.recover_pending())
    with pytest.raises(TypeError):
        MessageCoordinator()


def test_subscribing_returns_at_once_and_is_told_in_the_background(using):
    async def body(coordinator):
        worker = an_agent()
        subscription = coordinator.subscribe_to_messages(worker, [MessageType.EVENT, MessageType.REQUEST])
        assert subscription.subscription_id.startswith("sub_")
        assert subscription.message_types == [MessageType.EVENT, MessageType.REQUEST]
        at_first = subscription.subscription_id
        nothing = coordinator.subscribe_to_messages(worker, [])
        await coordinator.flush()
        assert subscription.subscription_id != at_first and nothing.subscription_id
        event = {"message_id": fresh("m"), "message_type": "event", "payload": {}}
        results = await coordinator._connection.call("publish", sender={"type": "tester"}, message=event)
        assert [each["recipient"] for each in results] == [{"type": worker.type, "instance": worker.instance}]
        assert (await coordinator.receive(worker)).queue_message.message.message_type is MessageType.EVENT
        assert await coordinator._connection.call(
            "unsubscribe",
            agent={"type": worker.type, "instance": worker.instance},
            subscription_id=subscription.subscription_id,
        )

    using(body)


def test_what_is_started_before_the_loop_runs_begins_with_it(run, make):
    coordinator = make()
    worker = an_agent()
    subscription = coordinator.subscribe_to_messages(worker, [MessageType.EVENT])
    at_first = subscription.subscription_id
    started = coordinator.configure(queue_size=7)

    async def main():
        await started
        await coordinator.flush()
        assert subscription.subscription_id != at_first
        assert (await coordinator._connection.call("configure"))["queue_size"] == 7
        await coordinator.close()

    run(main())


def test_settings_need_not_be_awaited(using):
    async def body(coordinator):
        coordinator.configure(retry_attempts=9, backoff_base=0.5)
        coordinator.configure(retry_attempts=8)
        await coordinator.flush()
        settings = await coordinator._connection.call("configure")
        assert (settings["retry_attempts"], settings["backoff_base"], settings["backoff_factor"]) == (8, 0.5, 2)

    using(body)


def test_a_setting_that_is_refused_is_told(using, caplog):
    async def body(coordinator):
        with pytest.raises(MessageCoordinatorError, match="queue_size") as refused:
            await coordinator.configure(queue_size=-1)
        assert refused.value.code == "bad_request" and refused.value.retryable is False
        coordinator.configure(backoff_factor=0)
        await coordinator.flush()
        assert "configure: bad_request: " in caplog.text and "backoff_factor" in caplog.text

    using(body)


def test_the_others_raise(using):
    async def body(coordinator):
        nobody = AgentId(type="")
        for call in (
            coordinator.receive(an_agent(), visibility_timeout=0),
            coordinator.receive(nobody),
            coordinator.ack(nobody, "t"),
            coordinator.nack(nobody, "t"),
            coordinator.recover_pending(nobody),
        ):
            with pytest.raises(MessageCoordinatorError) as refused:
                await call
            assert refused.value.code == "bad_request"

    using(body)


def test_prefixes_are_worlds_of_their_own(run, url):
    async def main():
        first, other = fresh("p"), fresh("p")
        async with Connection(url) as connection:
            one = RedisMessageCoordinator(connection, key_prefix=first)
            same = RedisMessageCoordinator(url, first + ":")
            another = RedisMessageCoordinator(connection, key_prefix=other)
            worker = an_agent()
            await one.send_message(ME, worker, a_message(worker))
            assert await another.receive(worker) is None
            assert await same.receive(worker)
            await same.close()
            await one.close()
            assert await another.receive(worker) is None  # a connection that was given is not closed
            default = RedisMessageCoordinator(connection)
            await default.receive(worker)
            assert default._connection.namespace == "ao"

    run(main())


@pytest.mark.parametrize("wrong", [None, 7, object()])
def test_only_urls_and_connections_are_taken(wrong):
    with pytest.raises(TypeError, match="neither a coordd URL nor a Connection"):
        RedisMessageCoordinator(wrong)


def test_a_redis_url_is_none():
    with pytest.raises(ValueError, match="redis://"):
        RedisMessageCoordinator("redis://localhost:6379")


def test_a_worker_of_the_new_kind_serves_the_queue(run, url):
    prefix = fresh("both")

    async def main():
        coordinator = RedisMessageCoordinator(url, key_prefix=prefix)
        worker = an_agent()
        agent = Agent(url, worker.type, worker.instance, namespace=prefix)

        @agent.handler
        async def handle(delivery):
            return {"doubled": delivery.payload["n"] * 2}

        async with agent:
            await coordinator.send_message(ME, worker, a_message(worker, "m-1", payload={"n": 21}, reply_to=ME))
            answer = (await eventually(lambda: coordinator.receive(ME))).queue_message.message
        assert answer.payload == {"doubled": 42} and answer.message_type is MessageType.RESPONSE
        assert (answer.sender, answer.correlation_id) == (worker, "m-1")
        await coordinator.close()

    run(main())


def test_two_brokers_and_a_restart(run, redis, make_broker):
    """What was sent through one is received through the other; a broker that is killed costs nothing but time."""
    prefix = fresh("two")
    config = {"redis": {"key_prefix": prefix}}
    brokers = [make_broker(redis, config=config).start() for _ in range(2)]
    urls = [f"unix://{broker.unix_path}" for broker in brokers]

    async def main():
        one, other = RedisMessageCoordinator(urls[0]), RedisMessageCoordinator(urls[1])
        either = RedisMessageCoordinator(urls)
        worker = an_agent()
        ids = [fresh("m") for _ in range(20)]
        subscription = one.subscribe_to_messages(worker, [MessageType.EVENT])
        for i, message_id in enumerate(ids):
            if i == 10:
                brokers[0].kill()  # `either` goes on with the other, `one` waits for its return
                asyncio.get_running_loop().call_later(0.2, brokers[0].launch)
            sender = (either, one)[i % 2]
            result = await sender.send_message(ME, worker, a_message(worker, message_id))
            assert result.delivered, result
        await one.flush()
        assert not subscription.subscription_id.startswith("sub_")
        got = []
        while received := await other.receive(worker, visibility_timeout=60):
            got.append(received.queue_message.message.message_id)
            assert await one.ack(worker, received.token)
        assert got == ids
        for each in (one, other, either):
            await each.close()

    run(main())
    wait_until(lambda: any(line.get("event") == "server.ready" for line in brokers[0].log()[-50:]), 10)


def test_a_broker_that_is_away_is_told_in_time(run, make_broker, caplog):
    metrics = Metrics()
    broker = make_broker()
    broker.start()

    async def main():
        connection = Connection(url_of(broker), request_timeout=0.3)
        coordinator = RedisMessageCoordinator(connection, metrics=metrics)
        worker = an_agent()
        broker.kill()
        result = await coordinator.send_message(ME, worker, a_message(worker))
        assert not result.delivered and result.error
        with pytest.raises(MessageCoordinatorError) as away:
            await coordinator.receive(worker)
        assert away.value.retryable
        # A subscription goes on trying; closing gives it up, and who waits for it is told.
        coordinator.subscribe_to_messages(worker, [MessageType.EVENT])
        started = coordinator.configure(queue_size=1)
        later = coordinator.configure(queue_size=2)
        waiting = asyncio.ensure_future(coordinator.flush())
        await asyncio.sleep(0)
        await coordinator.close()
        await waiting
        for each in (started, later):
            with pytest.raises((GivenUp, MessageCoordinatorError)):
                await each
        await connection.close()

    with caplog.at_level(logging.ERROR):
        run(main())
    assert metrics.told == [("error", 1)]
