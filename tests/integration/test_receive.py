"""Section 4 of the protocol: receive, receive_batch; waiting, leases, visibility."""

import statistics
import time

import pytest

from harness import Queue, check_shape, fresh, ids_of, wait_for_time, wait_until, within


def test_an_empty_queue_answers_nil_at_once(queue):
    begun = time.monotonic()
    assert queue.receive() is None
    assert queue.receive(wait=0) is None
    assert queue.take(10) == []
    assert time.monotonic() - begun < within(0.5)


def test_a_reserved_message_is_hidden_from_everyone_else(queue, other):
    queue.send("m1")
    assert queue.take_one(visibility_timeout=60).id == "m1"
    assert queue.receive() is None
    assert other.receive() is None
    assert other.peek() == []
    assert other.counts() == (0, 0, 1, 0)


def test_a_batch_takes_at_most_max(queue):
    queue.send_all([f"m{i}" for i in range(10)])
    assert ids_of(queue.take(4)) == ["m0", "m1", "m2", "m3"]
    assert ids_of(queue.take(1000)) == ["m4", "m5", "m6", "m7", "m8", "m9"]


def test_the_deadline_is_when_the_reservation_ends_on_the_clock_of_redis(queue, redis):
    queue.send_all(["m1", "m2", "m3"])
    for visibility in (5, 100, 1.5):
        before = redis.time()
        received = queue.receive(**{} if visibility == 5 else {"visibility_timeout": visibility})
        assert before + visibility - 0.01 <= received.deadline <= redis.time() + visibility + 0.01


def test_the_fence_rises_with_every_reservation(queue):
    queue.send_all([f"m{i}" for i in range(20)])
    fences = [each.fence for each in queue.take(10)]
    for _ in range(10):
        received = queue.take_one()
        fences.append(received.fence)
        assert queue.release(received)
    assert fences == sorted(set(fences))


def test_tokens_are_unique_and_appear_nowhere_else(queue, broker):
    queue.send_all([f"m{i}" for i in range(50)])
    tokens = {each.token for each in queue.take(50)}
    assert len(tokens) == 50 and all(len(token) >= 22 for token in tokens)
    seen = broker.log_path.read_text()
    for method, params in [
        ("queue_stats", {"agent": queue.agent}),
        ("list_queues", {}),
        ("peek", {"agent": queue.agent}),
        ("dlq_list", {"agent": queue.agent}),
        ("status", {}),
    ]:
        seen += repr(queue.client.call(method, **params))
    assert not any(token in seen for token in tokens)


# -- waiting


def test_a_parked_receive_wakes_at_once_on_a_send(queue, other):
    lags = []
    for i in range(10):
        parked = other.park()
        assert not parked.is_answered()
        begun = time.monotonic()
        queue.send(f"m{i}")
        assert parked.result().id == f"m{i}"
        lags.append(time.monotonic() - begun)
    assert statistics.median(lags) < within(0.05), lags


def test_a_parked_receive_answers_nil_when_its_time_is_over(queue):
    for wait in (0.3, 0.05):
        begun = time.monotonic()
        assert queue.receive(wait=wait) is None
        assert wait - 0.005 <= time.monotonic() - begun < within(wait + 0.3)
    begun = time.monotonic()
    assert queue.take(10, wait=0.2) == []
    assert time.monotonic() - begun >= 0.195


def test_a_parked_batch_ends_with_the_first_message(queue, other):
    parked = other.park("receive_batch", max=10)
    queue.send("m1")
    assert ids_of(parked.result(within(2))) == ["m1"]


def test_a_receive_that_waits_takes_what_is_there(queue):
    queue.send("m1")
    begun = time.monotonic()
    assert queue.receive(wait=60).id == "m1"
    assert time.monotonic() - begun < within(1)


def test_a_parked_receive_holds_up_nothing_behind_it(queue):
    parked = queue.park()
    queue.send("m1", priority=9)  # on the same connection, and wakes it
    assert parked.result().id == "m1"
    parked = queue.park()
    elsewhere = Queue(queue.client, {"type": "worker", "instance": fresh("q")})
    elsewhere.send("m2")
    assert elsewhere.take_one().id == "m2"
    assert not parked.is_answered()


def test_parked_receivers_are_served_first_come_first_served(queue, broker):
    parked = [queue.at(broker.connect()).park() for _ in range(6)]
    parked += [queue.park() for _ in range(3)]
    for i, each in enumerate(parked):
        queue.send(f"m{i}")
        assert each.result(within(2)).id == f"m{i}"


def test_a_burst_serves_parked_receivers_in_their_order(queue, broker):
    parked = [queue.at(broker.connect()).park() for _ in range(8)]
    queue.send_all([f"m{i}" for i in range(8)])
    assert [each.result(within(2)).id for each in parked] == [f"m{i}" for i in range(8)]


def test_one_message_wakes_one_of_many(queue, broker):
    parked = [queue.at(broker.connect()).park() for _ in range(20)]
    queue.send("m1")
    assert parked[0].result(within(2)).id == "m1"
    assert [each.is_answered() for each in parked[1:]] == [False] * 19
    assert queue.counts() == (0, 0, 1, 0)


def test_a_parked_batch_and_a_parked_receive_share_fairly(queue, broker):
    first = queue.at(broker.connect()).park("receive_batch", max=2)
    second = queue.at(broker.connect()).park()
    queue.send_all(["m1", "m2", "m3"])
    taken = ids_of(first.result(within(2)))
    rest = second.result(within(2)).id
    assert taken in (["m1"], ["m1", "m2"]) and rest == f"m{len(taken) + 1}"


def test_what_is_released_or_nacked_wakes_a_parked_receiver(queue, other):
    queue.send("m1")
    received = queue.take_one(visibility_timeout=60)
    parked = other.park()
    assert queue.release(received)
    received = parked.result(within(2))
    assert (received.id, received.attempts) == ("m1", 0)
    parked = queue.park()
    begun = time.monotonic()
    assert other.nack(received, delay=0.3)
    received = parked.result(within(2))
    assert time.monotonic() - begun >= 0.295
    assert (received.id, received.attempts) == ("m1", 1)


def test_what_expires_wakes_a_parked_receiver(queue, other):
    queue.send("m1")
    queue.take_one(visibility_timeout=0.3)
    received = other.park().result(within(2))
    assert (received.id, received.attempts) == ("m1", 1)


# -- visibility


def test_a_reservation_ends_never_early_and_hardly_late(queue, other, redis):
    """At most max(50 ms, a tenth) late. Single figures suffer from a busy machine, the median not."""
    for visibility in (0.2, 1):
        late = []
        for i in range(5):
            queue.send(fresh("m"))
            begun = time.monotonic()
            first = queue.take_one(visibility_timeout=visibility)
            again = other.take_one(wait=5)
            late.append(redis.time() - first.deadline)
            assert time.monotonic() - begun >= visibility - 0.005
            assert (again.id, again.attempts) == (first.id, 1)
            assert again.last_error == "visibility timeout expired"
            assert again.token != first.token and again.fence > first.fence
            assert other.ack(again)
        assert min(late) >= -0.001
        assert statistics.median(late) <= within(max(0.05, visibility / 10)), late
        assert max(late) <= within(max(0.05, visibility / 10) + 0.5), late


def test_a_very_short_reservation_ends_too(queue):
    queue.send("m1")
    assert queue.receive(visibility_timeout=0.001).id == "m1"
    assert queue.take_one(wait=2).attempts == 1


def test_what_expired_comes_back_to_the_head_in_its_old_order(queue):
    queue.send_all([f"m{i}" for i in range(300)])
    queue.send("high", priority=9)
    assert len(queue.take(251, visibility_timeout=0.3)) == 251
    queue.send("last")
    wait_until(lambda: queue.counts() == (302, 0, 0, 0), 3, "all came back")
    back = queue.take()
    assert ids_of(back) == ["high"] + [f"m{i}" for i in range(300)] + ["last"]
    assert [each.attempts for each in back] == [1] * 251 + [0] * 51


def test_only_what_is_not_settled_expires(queue):
    queue.send_all(["m1", "m2", "m3"])
    first, _, third = queue.take(3, visibility_timeout=0.3)
    assert queue.ack(first)
    assert queue.extend(third, 60)
    assert queue.take_one(wait=3).id == "m2"
    assert queue.receive() is None
    assert queue.counts() == (0, 0, 2, 0)


def test_a_token_settles_until_its_deadline_and_never_after_it_was_taken_back(queue):
    queue.send("m1")
    received = queue.take_one(visibility_timeout=0.2)
    again = queue.take_one(wait=3, visibility_timeout=60)
    assert queue.ack(received) is False
    assert queue.nack(received) is False
    assert queue.release(received) is False
    assert queue.extend(received, 60) is None
    assert queue.counts() == (0, 0, 1, 0)
    assert queue.ack(again) is True


# -- connection leases


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_connection_lease_ends_with_its_connection(queue, other, how):
    queue.send_all(["m1", "m2", "m3"])
    first, *_ = other.take(3, visibility_timeout=600, lease="connection")
    assert other.ack(first)
    parked = queue.park()
    getattr(other.client, how)()
    back = [parked.result(within(1)), queue.take_one(wait=1)]
    assert [(each.id, each.attempts, each.last_error) for each in back] == [
        ("m2", 1, "connection closed"),
        ("m3", 1, "connection closed"),
    ]
    assert queue.receive() is None


def test_a_connection_lease_has_a_deadline_as_well(queue, other):
    queue.send("m1")
    received = other.take_one(visibility_timeout=0.3, lease="connection")
    again = queue.take_one(wait=3)
    assert again.last_error == "visibility timeout expired"
    assert other.ack(received) is False


def test_a_connection_lease_may_be_settled_from_any_connection(queue, other):
    queue.send("m1")
    received = other.take_one(visibility_timeout=60, lease="connection")
    assert queue.ack(received) is True
    other.client.close()
    assert queue.counts() == (0, 0, 0, 0)


def test_an_ordinary_lease_outlives_its_connection(queue, other):
    queue.send("m1")
    received = other.take_one(visibility_timeout=60)
    other.client.close()
    assert queue.receive(wait=0.3) is None
    assert queue.ack(received) is True


def test_lost_connections_count_as_failures(queue, broker):
    queue.configure(retry_attempts=1)
    queue.send("m1")
    for _ in range(2):
        holder = queue.at(broker.connect())
        holder.take_one(wait=5, visibility_timeout=600, lease="connection")
        holder.client.close()
    [letter] = wait_until(queue.dead, 3, "it is a dead letter")
    assert letter["reason"] == "attempts"
    assert letter["queue_message"]["last_error"] == "connection closed"
    assert letter["queue_message"]["delivery_attempts"] == 2


# -- a client that is gone


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_gone_while_parked_takes_nothing_with_it(queue, broker, how):
    for i in range(10):
        gone = queue.at(broker.connect())
        gone.park(lease="connection" if i % 2 else "timeout", visibility_timeout=600)
        getattr(gone.client, how)()
        queue.send(f"m{i}")
        received = queue.take_one(wait=5)
        assert (received.id, received.attempts) == (f"m{i}", 0)
        assert queue.ack(received)


def test_the_next_in_line_is_served_when_the_first_has_left(queue, broker):
    gone = queue.at(broker.connect())
    gone.park(visibility_timeout=600)
    behind = queue.at(broker.connect()).park()
    gone.client.reset()
    queue.send("m1")
    received = behind.result(within(2))
    assert (received.id, received.attempts) == ("m1", 0)


def test_a_client_that_leaves_in_the_middle_of_receiving_loses_nothing(queue, broker):
    ids = [f"m{i}" for i in range(40)]
    queue.send_all(ids)
    for _ in range(10):
        gone = queue.at(broker.connect())
        params = {"agent": queue.agent, "visibility_timeout": 0.5}
        gone.client.submit_all([("receive", params)] * 4)
        gone.client.reset()
    seen = {}

    def collect():
        for received in queue.take():
            assert received.id not in seen
            seen[received.id] = received.attempts
        return len(seen) == 40

    wait_until(collect, 5, "all came back")
    assert set(seen.values()) <= {0, 1}


def test_answers_that_were_never_written_are_released(queue, broker):
    """A client that does not read gets only what its socket takes."""
    ids = [f"m{i}" for i in range(100)]
    for each in ids:
        queue.send(each, payload={"body": b"x" * 200_000})
    deaf = queue.at(broker.connect())
    params = {"agent": queue.agent, "visibility_timeout": 600}
    deaf.client.submit_all([("receive", params)] * 100)
    wait_until(lambda: queue.counts()[2] > 10, 5, "some are reserved for it")
    deaf.client.reset()
    # 100 answers are 20 MB, more than the sockets hold: what is left over comes back at once.
    wait_until(lambda: queue.counts()[0] > 20, 3, "some are released")
    back = []
    while batch := queue.take(visibility_timeout=60):
        back += batch
    assert {each.attempts for each in back} == {0}
    assert ids_of(back) == sorted(ids_of(back), key=ids.index)
    ready, delayed, reserved, dead = queue.counts()
    assert (ready, delayed, reserved, dead) == (0, 0, 100, 0)


# -- limits


def test_a_connection_may_park_only_so_many(own):
    broker = own(limits={"max_parked_per_connection": 3})
    queue = Queue(broker.connect(), {"type": "w"})
    parked = [queue.park() for _ in range(3)]
    assert queue.client.refused("receive", {"agent": queue.agent, "wait": 5}).code == "overloaded"
    assert queue.receive() is None  # what does not wait is still served
    other = queue.at(broker.connect())
    parked.append(other.park())
    other.send_all([f"m{i}" for i in range(4)])
    assert [each.result().id for each in parked] == ["m0", "m1", "m2", "m3"]
    parked = [queue.park() for _ in range(3)]


def test_too_much_in_flight_is_paused_and_not_lost(own):
    broker = own(limits={"max_inflight_per_connection": 4})
    queue = Queue(broker.connect(), {"type": "w"})
    queue.send_all([f"m{i}" for i in range(500)])
    assert len(queue.take()) == 500


# -- answers end at max_frame


def test_a_batch_answer_ends_at_max_frame_and_keeps_the_rest_ready(queue):
    ids = [f"m{i}" for i in range(8)]
    for each in ids:
        queue.send(each, payload={"body": b"x" * 300_000})
    seen = []
    while batch := queue.take(8, visibility_timeout=60):
        assert len(queue.client.raw) <= 1 << 20
        assert len(batch) <= 3 and all(each.attempts == 0 for each in batch)
        assert queue.counts() == (8 - len(seen) - len(batch), 0, len(batch), 0)
        seen += ids_of(batch)
        assert all(queue.ack_all(batch))
    assert seen == ids


def test_a_message_as_large_as_a_frame_is_received(queue):
    queue.send("m1", payload={"body": b"x" * ((1 << 20) - 400)})
    queue.send("m2")
    batch = queue.take(2)
    assert ids_of(batch) == ["m1"]
    assert ids_of(queue.take(2)) == ["m2"]


def test_receive_shapes_are_exact(queue):
    queue.send("m1")
    value = queue.client.call("receive", agent=queue.agent)
    assert set(value) == {"token", "queue_message", "visibility_deadline", "fence"}
    check_shape(value["queue_message"]["message"]["sender"], {"type": str, "instance": str})


def test_waiting_does_not_keep_the_expired_alive(queue, other):
    """A ttl that ends while receivers wait elsewhere is still a ttl."""
    queue.send("m1", delay=0.1, ttl=0.1)
    received = other.receive(wait=2)
    assert received is not None and received.id == "m1"
    queue.send("m2", ttl=0.1)
    wait_for_time(time.monotonic() + 0.2)
    assert other.receive(wait=0.2) is None
