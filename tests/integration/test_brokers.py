"""Two brokers on one Redis are one service."""

import collections
import glob
import statistics
import time

import pytest

from harness import Queue, Worker, fresh, ids_of, seconds_of, wait_for_time, wait_until, within


@pytest.fixture
def second(redis, make_broker, broker):
    """Another coordd on the shared Redis, under the same prefix."""
    return make_broker(redis).start()


@pytest.fixture
def there(queue, second):
    """The same queue through the other broker."""
    return queue.at(second.connect())


def test_each_broker_has_an_instance_id_of_its_own(queue, there):
    assert queue.client.call("hello")["instance_id"] != there.client.call("hello")["instance_id"]


def test_what_one_takes_in_the_other_hands_out_and_settles(queue, there):
    queue.send("m1")
    assert there.counts() == (1, 0, 0, 0)
    received = there.take_one(visibility_timeout=60)
    assert queue.receive() is None
    assert queue.extend(received, 100) is not None
    assert queue.ack(received) is True
    assert there.ack(received) is False
    assert there.counts() == (0, 0, 0, 0)


def test_a_send_wakes_a_receiver_parked_at_another_broker(queue, there):
    lags = []
    for i in range(10):
        parked = there.park()
        begun = time.monotonic()
        queue.send(f"m{i}")
        received = parked.result(within(2))
        lags.append(time.monotonic() - begun)
        assert there.ack(received)
    assert statistics.median(lags) < within(0.1), lags


def test_consumers_are_counted_over_all_brokers(queue, there):
    parked = there.park()
    wait_until(lambda: queue.stats()["consumers"] == 1, 3, "the receiver is counted here")
    queue.send("m1")
    assert parked.result(within(2)).id == "m1"
    wait_until(lambda: queue.stats()["consumers"] == 0, 5, "the receiver is gone")


def test_a_delayed_message_wakes_a_receiver_parked_at_another_broker(queue, there):
    parked = there.park()
    begun = time.monotonic()
    queue.send("m1", delay=0.4)
    assert parked.result(within(3)).id == "m1"
    assert 0.395 <= time.monotonic() - begun < within(0.8)
    parked = queue.park()
    received = Queue(there.client, queue.agent)
    received.send("m2", delay=0.3)
    assert parked.result(within(3)).id == "m2"


def test_releases_and_redrives_wake_receivers_of_the_other_broker(queue, there):
    queue.send("m1")
    received = queue.take_one(visibility_timeout=60)
    parked = there.park()
    assert queue.release(received)
    received = parked.result(within(2))
    assert queue.nack(received, failure="permanent")
    parked = there.park()
    assert queue.client.call("dlq_redrive", agent=queue.agent) == 1
    assert parked.result(within(2)).id == "m1"


def test_a_repetition_is_known_to_every_broker(queue, there):
    queue.send("m1")
    assert there.try_send("m1")["duplicate"] is True
    assert there.counts() == (1, 0, 0, 0)


def test_capacity_holds_over_all_brokers(queue, there):
    queue.configure(queue_size=50)
    assert wait_until(lambda: there.stats()["capacity"] == 50, 1.5, "the setting is in force")
    sent = []
    for each in (queue, there):
        calls = [("send", each.sending()) for _ in range(100)]
        sent.append((each, each.client.submit_all(calls)))
    results = [result for each, ids in sent for result in each.client.results(ids)]
    assert sum(each["delivered"] for each in results) == 50
    assert queue.stats()["size"] == 50


def test_settings_are_in_force_in_every_broker_within_a_second(queue, there):
    there.send("warm")  # what a broker knows of a queue may be old
    there.drain()
    queue.configure(queue_size=1, retry_attempts=0)
    set_at = time.monotonic()
    wait_until(lambda: there.stats()["capacity"] == 1, 1.1, "the setting is in force")
    assert time.monotonic() - set_at < within(1.1)
    there.send("m1")
    assert there.try_send("m2")["error"] == "queue full"
    received = there.take_one()
    assert there.nack(received)
    assert there.counts() == (0, 0, 0, 1)


def test_defaults_of_a_namespace_reach_the_other_broker(broker, second):
    space = fresh("ns")
    here = Queue(broker.in_namespace(space), {"type": "w"})
    there = here.at(second.in_namespace(space))
    there.send("warm")
    here.client.call("configure", queue_size=2)
    wait_until(lambda: there.stats()["capacity"] == 2, 1.5, "the setting is in force")
    there.send("m1")
    assert there.try_send("m2")["error"] == "queue full"


def test_no_brokers_receivers_are_passed_over_for_long(queue, there, broker):
    """Receivers of one broker that always come back do not starve those of the other."""
    stop = []
    busy = queue.at(broker.connect())

    def take_and_come_back():
        while not stop:
            received = busy.receive(wait=1)
            if received:
                busy.ack(received)

    def keep_sending():
        feeder = queue.at(broker.connect())
        while not stop:
            feeder.send()
            time.sleep(0.01)

    workers = [Worker(take_and_come_back), Worker(keep_sending)]
    try:
        for _ in range(3):
            begun = time.monotonic()
            received = there.receive(wait=10)
            took = time.monotonic() - begun
            assert received is not None and took < within(1.3), took
            assert there.ack(received)
    finally:
        stop.append(True)
        for each in workers:
            each.finish()


def test_many_receivers_of_both_brokers_never_share_a_message(queue, there, broker, second):
    ids = [f"m{i}" for i in range(2000)]
    queue.send_all(ids)
    taken = collections.Counter()

    def work(client):
        mine = queue.at(client)
        while batch := mine.take(7, visibility_timeout=60):
            taken.update(ids_of(batch))
            assert all(mine.ack_all(batch))

    clients = [each.connect() for each in (broker, second) for _ in range(3)]
    workers = [Worker(lambda client=client: work(client)) for client in clients]
    for each in workers:
        each.finish()
    assert set(taken) == set(ids) and set(taken.values()) == {1}
    assert there.counts() == (0, 0, 0, 0)


def test_what_a_killed_broker_held_comes_back_in_time(queue, redis, make_broker):
    dying = make_broker(redis).start()
    there = queue.at(dying.connect())
    queue.send_all(["m1", "m2"])
    first = there.take_one(visibility_timeout=1)
    second = there.take_one(visibility_timeout=1, lease="connection")
    dying.kill()
    back = [queue.take_one(wait=5, visibility_timeout=60) for _ in range(2)]
    assert redis.time() >= first.deadline
    assert redis.time() - second.deadline < within(0.7)
    assert sorted(ids_of(back)) == ["m1", "m2"]
    assert [each.attempts for each in back] == [1, 1]
    assert not queue.ack(first) and not queue.ack(second)


def test_a_connection_lease_extended_through_another_broker_ends_with_its_connection(queue, there):
    queue.send("m1")
    held = there.take_one(visibility_timeout=0.5, lease="connection")
    begun = time.monotonic()
    assert queue.extend(held, 600) is not None
    wait_for_time(begun + 3.2)
    assert queue.counts() == (0, 0, 1, 0)
    there.client.close()
    received = queue.take_one(wait=2)
    assert (received.id, received.attempts, received.last_error) == ("m1", 1, "connection closed")


def test_a_killed_broker_that_swept_is_replaced_within_moments(redis, make_broker):
    """Only one broker sweeps at a time, whichever it is, another takes over."""
    config = {"redis": {"key_prefix": fresh("own")}}
    first, second = (make_broker(redis, config=config).start() for _ in range(2))
    for dying, living in ((first, second), (second, first)):
        queue = Queue(living.connect(), {"type": fresh("w")})
        queue.send("m1", delay=1)
        queue.send("m2")
        held = queue.take_one(visibility_timeout=1)
        dying.kill()
        seen = {queue.take_one(wait=5).id for _ in range(2)}
        assert seen == {"m1", "m2"}
        assert redis.time() - held.deadline < within(0.8)
        dying.start()


def test_receivers_parked_at_a_killed_broker_take_nothing_with_them(queue, redis, make_broker):
    dying = make_broker(redis).start()
    for _ in range(5):
        queue.at(dying.connect()).park(visibility_timeout=1)
    dying.kill()
    ids = [queue.send(f"m{i}") for i in range(5)]
    seen = []
    while len(seen) < 5:
        received = queue.take_one(wait=5)
        assert queue.ack(received)
        seen.append(received.id)
    assert sorted(seen) == ids


CLOCKS = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")


@pytest.mark.skipif(not CLOCKS, reason="needs libfaketime")
@pytest.mark.parametrize("offset", ["+3600", "-3600"])
def test_a_broker_with_a_wrong_clock_changes_nothing(queue, redis, make_broker, offset):
    environment = {"LD_PRELOAD": CLOCKS[0], "FAKETIME": offset, "DONT_FAKE_MONOTONIC": "1"}
    environment["ASAN_OPTIONS"] = "verify_asan_link_order=0"
    there = queue.at(make_broker(redis, environment=environment).start().connect())
    begun = time.monotonic()
    there.send("m1", delay=0.3)
    received = queue.take_one(wait=5, visibility_timeout=60)
    assert 0.295 <= time.monotonic() - begun < within(0.8)
    assert abs(received.enqueued_at - redis.time()) < within(2)
    assert abs(seconds_of(received.message["timestamp"]) - redis.time()) < within(2)
    there.send("m2")
    held = there.take_one(visibility_timeout=0.5)
    assert abs(held.deadline - redis.time() - 0.5) < within(0.3)
    assert queue.take_one(wait=5).attempts == 1
    assert redis.time() - held.deadline < within(0.5)
