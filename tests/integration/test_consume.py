"""consume, cancel, pause_queue, resume_queue."""

import collections
import itertools
import time

import pytest

from harness import (
    SLOW,
    RECEIVED_MESSAGE,
    Closed,
    Queue,
    Received,
    Worker,
    check_shape,
    fresh,
    ids_of,
    is_text,
    wait_until,
    within,
)


class Consumer:
    """A consumer of one queue on a connection that may have several."""

    def __init__(self, queue, prefetch, **params):
        self.queue, self.client, self.prefetch = queue, queue.client, prefetch
        self.settled = set()  # tokens
        result = self.client.call("consume", agent=queue.agent, prefetch=prefetch, **params)
        self.id = check_shape(result, {"consumer_id": is_text})["consumer_id"]
        # The answer came first: until then there was nobody to notify.
        assert not any(each["consumer_id"] == self.id for _, each in self.client.notifications)

    def seen(self):
        """All it was ever sent."""
        out = []
        for method, value in self.client.notifications:
            assert method in ("message", "shutting_down")
            if method == "message" and value["consumer_id"] == self.id:
                out.append(Received({k: v for k, v in value.items() if k != "consumer_id"}))
        return out

    def held(self):
        """What it was sent and this test has not settled."""
        held = [each for each in self.seen() if each.token not in self.settled]
        assert len(held) <= self.prefetch, "more than the prefetch is unsettled"
        return held

    def poll(self):
        """Read what is there by now."""
        try:
            while True:
                self.client._take(self.client.read_frame(0))
        except TimeoutError:
            return self

    def wait_for(self, n, limit=5.0):
        """Until it was sent `n` messages in all; those."""
        wait_until(lambda: len(self.poll().seen()) >= n, limit, f"{n} messages are there")
        seen = self.seen()
        assert len(seen) == n, ids_of(seen)
        return seen

    def settle(self, method, received, through=None, **params):
        # Before: its place is free as soon as the broker knows.
        self.settled.add(received.token)
        assert (through or self.queue).settle(method, received, **params)

    def quiet(self):
        """It is sent nothing now; what it holds."""
        before = len(self.poll().seen())
        assert self.client.call("ping") == "pong"
        assert len(self.poll().seen()) == before
        return self.held()

    def cancel(self):
        return check_shape(self.client.call("cancel", consumer_id=self.id), bool)


@pytest.fixture
def second(redis, make_broker, broker):
    """Another coordd on the shared Redis, under the same prefix."""
    return make_broker(redis).start()


def numbered(n, first=0):
    return [f"m{i:05}" for i in range(first, first + n)]


# -- what a consumer is sent ------------------------------------------------------------------


def test_messages_come_as_notifications_in_the_order_of_the_queue(queue, other):
    consumer = Consumer(queue, 100)
    other.send("low", priority=1)
    consumer.wait_for(1)
    ids = other.send_all(numbered(20))
    seen = consumer.wait_for(21)
    assert ids_of(seen) == ["low", *ids]
    fences = [each.fence for each in seen]
    assert fences == sorted(set(fences))
    method, value = queue.client.notifications[-1]
    check_shape(value, {**RECEIVED_MESSAGE, "consumer_id": is_text})


def test_priorities_go_first(queue, other):
    for priority in (1, 5, 9):
        other.send(f"p{priority}", priority=priority)
    assert ids_of(Consumer(queue, 10).wait_for(3)) == ["p9", "p5", "p1"]


def test_the_default_visibility_timeout_is_a_minute(queue, other, redis):
    other.send("m1")
    (received,) = Consumer(queue, 1).wait_for(1)
    assert 59 < received.deadline - redis.time() < 60.5


def test_never_more_than_the_prefetch_is_unsettled(queue, other):
    ids = other.send_all(numbered(200))
    consumer = Consumer(queue, 7)
    consumer.wait_for(7)
    assert len(consumer.quiet()) == 7
    assert other.counts() == (193, 0, 7, 0)
    while held := consumer.held():
        for each in held[::2]:
            consumer.settle("ack", each)
        left = len(held) - len(held[::2])
        done = len(consumer.settled)
        consumer.wait_for(min(200, done + 7) if done < 200 else 200)
        assert len(consumer.held()) >= left
    assert ids_of(consumer.seen()) == ids
    assert other.counts() == (0, 0, 0, 0)


@pytest.mark.parametrize("method", ["ack", "nack", "release"])
@pytest.mark.parametrize("where", ["here", "there"])
def test_settling_frees_the_place_at_once(queue, other, method, where):
    other.send_all(numbered(30))
    consumer = Consumer(queue, 2)
    consumer.wait_for(2)
    through = other if where == "there" else queue
    more = {} if method == "ack" else {"delay": 60}
    for n in range(3, 20):
        begun = time.monotonic()
        consumer.settle(method, consumer.held()[0], through, **more)
        consumer.wait_for(n)
        # Well before anything is looked for.
        assert time.monotonic() - begun < within(0.3)
        consumer.held()


def test_ack_batch_frees_all_its_places(queue, other):
    other.send_all(numbered(60))
    consumer = Consumer(queue, 20)
    for n in (20, 40, 60):
        held = consumer.wait_for(n)[-20:]
        consumer.settled.update(each.token for each in held)
        assert all(other.ack_all(held))
    assert other.counts() == (0, 0, 0, 0)


def test_what_was_settled_through_another_broker_frees_its_place_within_a_second(
    queue, other, second
):
    there = queue.at(second.connect())
    other.send_all(numbered(6))
    consumer = Consumer(queue, 3)
    consumer.wait_for(3)
    for n in (4, 5, 6):
        begun = time.monotonic()
        consumer.settle("ack", consumer.held()[0], there)
        consumer.wait_for(n)
        assert time.monotonic() - begun < within(1)


def test_what_has_expired_frees_its_place_within_a_second(queue, other):
    queue.configure(retry_attempts=0)
    other.send_all(numbered(4))
    consumer = Consumer(queue, 2, visibility_timeout=0.3)
    begun = time.monotonic()
    consumer.wait_for(4, 3)
    # 0.3 s until the deadline, 0.05 s until the sweep.
    assert time.monotonic() - begun < within(1.35)
    wait_until(lambda: other.counts() == (0, 0, 0, 4), 3, "all have expired")


def test_a_stale_place_is_found_when_it_is_needed(queue, other, second):
    """Settled elsewhere while other places were free: that is found out as soon as none is."""
    there = queue.at(second.connect())
    other.send("m1")
    consumer = Consumer(queue, 2)
    (received,) = consumer.wait_for(1)
    consumer.settle("ack", received, there)
    other.send("m2")
    consumer.wait_for(2)
    begun = time.monotonic()
    other.send("m3")
    consumer.wait_for(3)
    assert time.monotonic() - begun < within(1)


def test_what_was_extended_keeps_its_place(queue, other):
    other.send_all(["m1", "m2"])
    consumer = Consumer(queue, 1, visibility_timeout=0.4)
    (received,) = consumer.wait_for(1)
    assert other.extend(received, 3)
    begun = time.monotonic()
    wait_until(lambda: time.monotonic() - begun > 1.5, 5, "the time is over")
    assert ids_of(consumer.quiet()) == ["m1"]
    consumer.settle("ack", received)
    consumer.wait_for(2)


def test_a_redelivery_counts_the_failed_ones(queue, other):
    other.send("m1")
    consumer = Consumer(queue, 5)
    (received,) = consumer.wait_for(1)
    consumer.settle("nack", received, error="no", delay=0)
    again = consumer.wait_for(2)[-1]
    assert (again.id, again.attempts, again.last_error) == ("m1", 1, "no")
    consumer.settle("release", again)
    assert consumer.wait_for(3)[-1].attempts == 1


# -- the end ----------------------------------------------------------------------------------


def test_cancel_releases_in_the_old_order_without_counting(queue, other):
    ids = other.send_all(numbered(1500))
    consumer = Consumer(queue, 1000)
    for each in consumer.wait_for(1000)[:3]:
        consumer.settle("ack", each)
    consumer.wait_for(1003)
    assert consumer.cancel() is True
    # It is done when it is answered, and nothing comes any more.
    assert other.counts() == (1497, 0, 0, 0)
    assert consumer.cancel() is False
    assert len(consumer.quiet()) == 1000
    taken = other.take(1000) + other.take(1000)
    assert ids_of(taken) == ids[3:]
    assert all(each.attempts == 0 and each.last_error is None for each in taken)


def test_cancel_while_messages_stream_in_loses_and_counts_nothing(queue, other):
    ids = other.send_all(numbered(300))
    for _ in range(30):
        consumer = Consumer(queue, 17)
        other.client.submit("peek", {"agent": queue.agent})
        assert consumer.cancel() is True
        assert other.counts() == (300, 0, 0, 0)
    taken = other.drain()
    assert ids_of(taken) == ids and {each.attempts for each in taken} == {0}


def test_a_cancelled_one_leaves_others_alone(queue, other):
    one, two = Consumer(queue, 2), Consumer(queue, 2)
    other.send_all(numbered(4))
    wait_until(lambda: len(one.poll().held()) + len(two.poll().held()) == 4, 5, "all are out")
    assert one.cancel()
    assert other.counts() == (2, 0, 2, 0)
    for each in two.held():
        two.settle("ack", each)
    two.wait_for(4)


def test_another_connections_consumer_cannot_be_cancelled(queue, other):
    consumer = Consumer(queue, 1)
    for name in (consumer.id, "", "nothing", "x" * 256):
        assert other.client.call("cancel", consumer_id=name) is False
    other.send("m1")
    consumer.wait_for(1)
    assert other.client.refused("cancel", {}).code == "bad_request"
    assert other.client.refused("cancel", {"consumer_id": "x" * 257}).code == "bad_request"


def test_close_ends_consumers_and_counts_what_was_written(queue, other):
    ids = other.send_all(numbered(40))
    consumer = Consumer(queue, 10)
    consumer.wait_for(10)
    queue.client.close()
    wait_until(lambda: other.counts() == (40, 0, 0, 0), 5, "all are back")
    taken = other.take()
    assert ids_of(taken) == ids
    failed = [each for each in taken if each.attempts]
    assert ids_of(failed) == ids[:10]
    assert {each.last_error for each in failed} == {"connection closed"}
    assert other.stats()["consumers"] == 0


def test_a_timeout_lease_outlives_the_connection(queue, other):
    other.send_all(numbered(3))
    consumer = Consumer(queue, 2, lease="timeout")
    held = consumer.wait_for(2)
    queue.client.close()
    wait_until(lambda: other.stats()["consumers"] == 0, 5, "the consumer is gone")
    assert other.counts() == (1, 0, 2, 0)
    assert all(other.ack_all(held))


def test_consumers_that_vanish_at_any_moment_lose_nothing(queue, broker, other):
    ids = other.send_all(numbered(400))
    for _ in range(25):
        there = queue.at(broker.connect())
        there.client.submit("consume", {"agent": queue.agent, "prefetch": 100})
        there.client.reset()
    wait_until(lambda: other.counts() == (400, 0, 0, 0), 10, "all are back")
    assert sorted(ids_of(other.drain())) == ids


# -- slow readers -----------------------------------------------------------------------------


# Over Unix sockets, because there the kernel itself keeps little.


def send_large(queue, n, size):
    """`n` messages of `size` bytes, few at a time: a Redis that is given them all at once is slow to answer."""
    for _ in range(n // 5):
        queue.send_all([fresh("m") for _ in range(5)], payload={"body": "x" * size})


def read_messages(client, n):
    """The next `n` notifications' ids, answers to requests aside."""
    ids = []
    while len(ids) < n:
        frame = client.read_frame()
        if frame[0] == 2:
            ids.append(frame[2][0]["queue_message"]["message"]["message_id"])
    return ids


def test_a_consumer_that_stops_reading_is_bounded(queue, other, broker):
    """200 messages of 100 KB are there; what is not read is not reserved either."""
    send_large(other, 200, 100_000)
    before = broker.resident()
    slow = broker.connect("unix")
    slow.submit("consume", {"agent": queue.agent, "prefetch": 1000})
    reserved = []

    def is_still():
        reserved.append(other.counts()[2])
        return len(reserved) > 50 and len(set(reserved[-50:])) == 1

    wait_until(is_still, 20, "it reserves no more")
    assert 0 < reserved[-1] < 30  # half a megabyte, one call's messages, and what the kernel took
    assert broker.resident() - before < (8 << 20) + (SLOW > 1) * (300 << 20)
    # It goes on when it is read again.
    assert len(set(read_messages(slow, 200))) == 200
    assert other.counts() == (0, 0, 200, 0)
    slow.pending.clear()


def test_a_slow_reader_is_closed_and_what_it_did_not_get_is_released(own):
    broker = own(limits={"output_stall_timeout": "1s"})
    agent = {"type": "worker"}
    other = Queue(broker.connect(), agent)
    send_large(other, 100, 50_000)
    slow = broker.connect("unix")
    slow.submit("consume", {"agent": agent, "prefetch": 1000, "lease": "timeout"})
    wait_until(lambda: other.counts()[2] > 0, 5, "it reserves")
    closed = wait_until(lambda: broker.logged("conn.closed"), 20, "it is closed")
    assert closed[0]["reason"] == "slow_reader"
    # What the kernel took was written; the rest is back, uncounted.
    delivered = [each for each in slow.expect_closed() if each[0] == 2]
    wait_until(lambda: 0 <= other.counts()[2] - len(delivered) <= 1, 5, "the rest is back")
    assert len(delivered) < 50
    assert {each.attempts for each in other.take(100, visibility_timeout=60)} == {0}


def test_huge_messages_and_many_consumers_fill_no_memory(queue, other, broker):
    queues = [Queue(other.client, {"type": "big", "instance": fresh("q")}) for _ in range(12)]
    slow = broker.connect("unix")
    slow.submit_all([("consume", {"agent": q.agent, "prefetch": 1000}) for q in queues])
    wait_until(lambda: all(q.stats()["consumers"] == 1 for q in queues), 5, "all wait")
    before = broker.resident()
    ids = [q.send(payload={"body": "x" * 900_000}) for q in queues for _ in range(2)]
    # Each of them had a place for it; the connection had not.
    reserved = sum(q.counts()[2] for q in queues)
    assert 0 < reserved < 10
    # A sanitizer keeps what was freed, up to 256 MB.
    assert broker.resident() - before < (24 << 20) + (SLOW > 1) * (300 << 20)
    assert sorted(read_messages(slow, len(ids))) == sorted(ids)
    slow.pending.clear()


def test_too_many_consumers_are_refused(own):
    broker = own(limits={"max_parked_per_connection": 3})
    queue = Queue(broker.connect(), {"type": "w"})
    consumers = [Consumer(queue, 1) for _ in range(2)]
    parked = queue.park()
    refusal = queue.client.refused("consume", {"agent": queue.agent, "prefetch": 1})
    assert refusal.code == "overloaded" and "max_parked_per_connection" in refusal.message
    assert consumers[0].cancel()
    Consumer(queue, 1)
    assert queue.client.refused("receive", {"agent": queue.agent, "wait": 1}).code == "overloaded"
    assert not parked.is_answered()


# -- sharing ----------------------------------------------------------------------------------


def test_single_messages_go_round(queue, other, broker):
    consumers = [Consumer(queue.at(broker.connect()), 100) for _ in range(4)]
    wait_until(lambda: other.stats()["consumers"] == 4, 5, "all wait")
    for _ in range(40):
        other.send()
    wait_until(lambda: sum(len(c.poll().seen()) for c in consumers) == 40, 5, "all are out")
    assert [len(each.seen()) for each in consumers] == [10] * 4


def test_a_burst_is_shared(queue, other, broker):
    consumers = [Consumer(queue.at(broker.connect()), 1000) for _ in range(4)]
    wait_until(lambda: other.stats()["consumers"] == 4, 5, "all wait")
    other.send_all(numbered(400))
    wait_until(lambda: sum(len(c.poll().seen()) for c in consumers) == 400, 5, "all are out")
    shares = [len(each.seen()) for each in consumers]
    assert min(shares) >= 40, shares


def test_a_receive_has_its_turn_beside_a_consumer(queue, other, broker):
    consumer = Consumer(queue, 1000)
    waiting = queue.at(broker.connect())
    for n in range(9):
        parked = waiting.park()
        other.send_all([fresh("m") for _ in range(100)])
        assert waiting.ack(parked.result(within(2)))
        consumer.wait_for(99 * (n + 1))


def test_a_full_consumer_is_counted_here(queue, other):
    Consumer(queue, 1)
    other.send_all(["m1", "m2"])
    wait_until(lambda: other.counts() == (1, 0, 1, 0), 5, "it is full")
    assert other.stats()["consumers"] == 1


def test_parameters_are_checked(queue):
    for params in (
        {},
        {"prefetch": 0},
        {"prefetch": 1001},
        {"prefetch": 1, "visibility_timeout": 0},
        {"prefetch": 1, "wait": 1},
        {"prefetch": 1, "lease": "none"},
    ):
        assert queue.client.refused("consume", {"agent": queue.agent, **params}).code == (
            "bad_request"
        )
    refusal = queue.client.refused(
        "consume", {"agent": queue.agent, "prefetch": 1, "lease": "heartbeat"}
    )
    assert refusal.code == "not_found" and queue.agent["instance"] in refusal.message
    queue.client.notify("consume", {"agent": queue.agent, "prefetch": 1})
    queue.client.expect_silence()
    assert queue.stats()["consumers"] == 0


# -- pause and resume -------------------------------------------------------------------------


def pause(queue):
    return check_shape(queue.client.call("pause_queue", agent=queue.agent), bool)


def resume(queue):
    return check_shape(queue.client.call("resume_queue", agent=queue.agent), bool)


def test_a_paused_queue_takes_in_and_settles_and_hands_out_nothing(queue, other):
    other.send_all(["m1", "m2"])
    received = other.take_one(visibility_timeout=60)
    assert pause(queue) is True and pause(queue) is False
    assert queue.stats()["paused"] is True
    assert queue.receive() is None and queue.take() == []
    other.send("m3")
    assert other.release(received)
    assert other.peek() == ["m1", "m2", "m3"]
    assert other.receive(wait=0.2) is None
    assert resume(queue) is True and resume(queue) is False
    assert queue.stats()["paused"] is False
    assert ids_of(other.drain()) == ["m1", "m2", "m3"]


def test_resume_wakes_all_who_wait_at_once(queue, other, broker, second):
    here, there = queue.at(broker.connect()), queue.at(second.connect())
    pause(queue)
    consumer = Consumer(queue.at(second.connect()), 1)
    parked = [here.park(), there.park()]
    other.send_all(numbered(3))
    assert not any(each.is_answered() for each in parked)
    assert consumer.quiet() == []
    # Longer than what is known of those who wait would last.
    begun = time.monotonic()
    wait_until(lambda: time.monotonic() - begun > 3.5, 6, "the time is over")
    begun = time.monotonic()
    assert resume(queue) is True
    got = [each.result(within(2)).id for each in parked]
    got += ids_of(consumer.wait_for(1))
    assert time.monotonic() - begun < within(0.5)
    assert sorted(got) == numbered(3)


def test_who_waits_at_a_paused_queue_costs_nothing(queue, other, redis):
    pause(queue)
    other.send("m1")
    parked = queue.park()

    def calls():
        info = redis.command("INFO", "commandstats")
        line = next(each for each in info.splitlines() if each.startswith("cmdstat_evalsha:"))
        return int(line.split("calls=")[1].split(",")[0])

    before, begun = calls(), time.monotonic()
    wait_until(lambda: time.monotonic() - begun > 1.0, 3, "a second is over")
    # The sweep, a look a second, whoever else shares this Redis: not thousands.
    assert calls() - before < 200
    resume(queue)
    assert parked.result(within(2)).id == "m1"


def test_a_queue_never_used_can_be_paused_and_stays_so(own):
    broker = own(queues={"forget_after": "1s"})
    queue = Queue(broker.connect(), {"type": "w"})
    assert resume(queue) is False
    assert queue.client.call("list_queues")["queues"] == []
    assert pause(queue) is True
    begun = time.monotonic()
    wait_until(lambda: time.monotonic() - begun > 2.5, 5, "it is idle long enough")
    assert queue.stats()["paused"] is True
    queue.send("m1")
    assert queue.receive() is None
    assert resume(queue) is True
    assert ids_of(queue.drain()) == ["m1"]
    # Then it is forgotten as any other.
    wait_until(
        lambda: queue.client.call("list_queues")["queues"] == [], 10, "nothing is left of it"
    )


def test_a_pause_survives_a_restart_and_delays_and_deadlines_go_on(own):
    broker = own()
    queue = Queue(broker.connect(), {"type": "w"})
    queue.send("m1")
    queue.take_one(visibility_timeout=0.2)
    queue.send("m2", delay=0.2)
    assert pause(queue)
    wait_until(lambda: queue.counts() == (2, 0, 0, 0), 3, "both are ready")
    broker.kill()
    broker.start()
    queue = Queue(broker.connect(), queue.agent)
    assert queue.stats()["paused"] is True and queue.receive() is None
    assert resume(queue)
    assert ids_of(queue.drain()) == ["m1", "m2"]


def test_a_consumer_of_a_paused_queue_goes_on_when_it_is_resumed(queue, other):
    consumer = Consumer(queue, 2)
    other.send_all(numbered(4))
    held = consumer.wait_for(2)
    pause(other)
    consumer.settle("ack", held[0])
    assert len(consumer.quiet()) == 1
    resume(other)
    consumer.wait_for(3)


# -- faults -----------------------------------------------------------------------------------


def test_a_consumer_outlives_a_restart_of_redis(start_redis, make_broker):
    redis = start_redis(fsync="always")
    broker = make_broker(redis, expected_errors=["redis."]).start()
    queue, other = (Queue(broker.connect(), {"type": "w"}) for _ in range(2))
    consumer, idle = Consumer(queue, 2), Consumer(queue.at(broker.connect()), 1)
    other.send_all(numbered(4))
    consumer.wait_for(2)
    idle.wait_for(1)
    redis.kill()
    redis.start()
    held = consumer.held()
    wait_until(lambda: other.client.call("status")["redis"]["up"], 10, "Redis is back")
    consumer.settle("ack", held[0])
    consumer.wait_for(3)
    # One that waited goes on as well.
    for each in consumer.held():
        consumer.settle("ack", each)
    idle.settle("ack", idle.held()[0])
    for n in range(3):
        other.send(f"late{n}")
    wait_until(
        lambda: len(consumer.poll().held()) + len(idle.poll().held()) == 3, 5, "all are out"
    )


def test_a_consumer_begun_while_redis_is_away_begins_when_it_is_back(start_redis, make_broker):
    redis = start_redis(fsync="always")
    broker = make_broker(redis, expected_errors=["redis."]).start()
    queue = Queue(broker.connect(), {"type": "w"})
    queue.send("m1")
    redis.kill()
    wait_until(lambda: not queue.client.call("status")["redis"]["up"], 10, "it is noticed")
    consumer = Consumer(queue, 1)
    assert consumer.quiet() == []
    redis.start()
    consumer.wait_for(1, 10)


def test_cancel_while_redis_is_away_ends_it_all_the_same(start_redis, make_broker):
    redis = start_redis(fsync="always")
    broker = make_broker(redis, expected_errors=["redis."]).start()
    queue = Queue(broker.connect(), {"type": "w"})
    queue.send_all(numbered(2))
    consumer = Consumer(queue, 1)
    consumer.wait_for(1)
    redis.kill()
    wait_until(lambda: not queue.client.call("status")["redis"]["up"], 10, "it is noticed")
    refusal = queue.client.refused("cancel", {"consumer_id": consumer.id})
    assert (refusal.code, refusal.applied) == ("unavailable", "unknown")
    assert consumer.cancel() is False
    redis.start()
    wait_until(lambda: queue.client.call("status")["redis"]["up"], 10, "Redis is back")
    wait_until(lambda: queue.counts() == (2, 0, 0, 0), 10, "it is handed back")
    assert [each.attempts for each in queue.take()] == [0, 0]


def test_killed_while_consuming_nothing_is_lost(redis, make_broker):
    prefix = fresh("kill")
    config = {"redis": {"key_prefix": prefix}}
    one, two = (make_broker(redis, config=config).start() for _ in range(2))
    agent = {"type": "w"}
    sender = Queue(two.connect(), agent)
    ids = sender.send_all(numbered(300))
    consumer = Consumer(Queue(one.connect(), agent), 50, visibility_timeout=0.5)
    done = set()
    for each in consumer.wait_for(50)[:10]:
        consumer.settle("ack", each)
        done.add(each.id)
    one.kill()
    rest = Consumer(Queue(two.connect(), agent), 1000)
    wait_until(lambda: len(rest.poll().seen()) >= 290, 10, "the rest comes through the other")
    assert {each.id for each in rest.seen()} == set(ids) - done


def test_stopping_ends_consumers_and_keeps_the_messages(redis, make_broker):
    config = {"redis": {"key_prefix": fresh("stop")}, "server": {"drain_timeout": "2s"}}
    one, two = (make_broker(redis, config=config).start() for _ in range(2))
    agent = {"type": "w"}
    other = Queue(two.connect(), agent)
    other.send_all(numbered(20))
    consumer = Consumer(Queue(one.connect(), agent), 5)
    waiting = Consumer(Queue(one.connect(), {"type": "idle"}), 5)
    consumer.wait_for(5)
    one.signal(15)
    for each in (consumer, waiting):
        with pytest.raises(Closed):
            while True:
                each.client._take(each.client.read_frame())
        assert ("shutting_down", {"consumer_id": each.id}) in each.client.notifications
    assert len(consumer.seen()) == 5
    wait_until(lambda: other.counts() == (20, 0, 0, 0), 5, "all are back")
    assert one.wait(10) == 0


def test_contending_consumers_over_two_brokers_lose_and_double_nothing(
    queue, broker, second, other
):
    """20,000 messages, four consumers, acks as they come, some through the wrong broker."""
    total, batch = 20_000, 250
    other.configure(queue_size=total)
    brokers = [broker, second, broker, second]
    seen = collections.Counter()
    stop = []

    def consume(number):
        mine = queue.at(brokers[number].connect())
        across = queue.at(brokers[number + 1 & 1].connect())
        ids = itertools.count(1_000_000)
        client = mine.client
        client.call("consume", agent=queue.agent, prefetch=100)
        held, oldest_first = 0, []
        while not stop:
            try:
                client._take(client.read_frame(0.05))
            except TimeoutError:
                pass
            news, client.notifications = client.notifications, []
            for _, value in news:
                seen[value["queue_message"]["message"]["message_id"]] += 1
                assert value["queue_message"]["delivery_attempts"] == 0
                oldest_first.append(value["token"])
            held = len(oldest_first)
            assert held <= 100
            if held >= 40 or (oldest_first and not news):
                through = across if next(ids) % 10 == 0 else mine
                assert all(through.ack_all(oldest_first))
                oldest_first.clear()

    workers = [Worker(lambda number=number: consume(number)) for number in range(4)]
    try:
        for first in range(0, total, batch):
            other.send_all(numbered(batch, first))
        wait_until(
            lambda: len(seen) == total and other.counts() == (0, 0, 0, 0)
            or any(each.error for each in workers),
            120,
            "all are done",
        )
    finally:
        stop.append(True)
        for each in workers:
            each.finish()
    assert sorted(seen) == numbered(total)
    assert set(seen.values()) == {1}
