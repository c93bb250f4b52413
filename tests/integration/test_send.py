"""Section 4 of the protocol: send, send_batch, broadcast; capacity, repetition, delay, expiry."""

import time

import pytest

from harness import (
    MESSAGE_RESULT,
    Queue,
    check_shape,
    fresh,
    ids_of,
    seconds_of,
    wait_for_time,
    wait_until,
    within,
)


def test_a_message_arrives_as_it_was_sent(queue):
    payload = {"text": "grüße", "list": [1, -2, 3.5, None, True], "bytes": b"\0\xff", "deep": {"a": {}}}
    queue.send(
        "m1",
        payload=payload,
        priority=9,
        message_type="event",
        timestamp="2026-01-05T12:00:00Z",
        correlation_id="c-1",
        traceparent={"any": ["thing"]},
    )
    received = queue.take_one()
    assert received.message == {
        "message_id": "m1",
        "message_type": "event",
        "payload": payload,
        "priority": 9,
        "timestamp": "2026-01-05T12:00:00Z",
        "sender": queue.sender,
        "recipient": queue.agent,
        "correlation_id": "c-1",
        "traceparent": {"any": ["thing"]},
    }
    assert received.attempts == 0 and received.last_error is None


def test_what_a_message_leaves_out_has_a_default(queue, redis):
    before = redis.time()
    queue.send("m1")
    received = queue.take_one()
    after = redis.time()
    assert received.message["payload"] == {}
    assert received.message["priority"] == 5
    stamp = received.message["timestamp"]
    assert len(stamp.partition(".")[2].rstrip("Z").partition("+")[0]) == 6
    assert before - 0.1 <= seconds_of(stamp) <= after + 0.1
    assert before - 0.1 <= received.enqueued_at <= after + 0.1


def test_a_nil_timestamp_is_set_by_the_broker(queue, redis):
    queue.send("m1", timestamp=None)
    assert abs(seconds_of(queue.take_one().message["timestamp"]) - redis.time()) < within(2)


def test_sender_and_recipient_inside_the_message_are_ignored(queue):
    queue.send("m1", sender={"type": "real"}, payload={})
    params = queue.sending("m2")
    params["message"]["sender"] = {"type": "forged", "instance": "f"}
    params["message"]["recipient"] = {"type": "nobody", "instance": "n"}
    queue.client.call("send", **params)
    first, second = queue.take()
    assert first.message["sender"] == {"type": "real", "instance": "default"}
    assert second.message["sender"] == queue.sender
    assert second.message["recipient"] == queue.agent


@pytest.mark.parametrize("more", [{}, {"instance": None}, {"instance": ""}, {"instance": "default"}])
def test_no_instance_means_the_queue_that_all_of_a_type_share(client, more):
    kind = fresh("type")
    Queue(client, {"type": kind, **more}).send("m1")
    received = Queue(client, {"type": kind}).take_one()
    assert received.message["recipient"] == {"type": kind, "instance": "default"}


@pytest.mark.parametrize("message_id", ["x", "x" * 128, "ü" * 64, "a b:c{d}%", "\u200b"])
def test_a_message_id_is_1_to_128_bytes(queue, message_id):
    queue.send(message_id)
    assert queue.take_one().id == message_id


# -- order


def test_higher_priorities_come_first_and_each_is_fifo(queue):
    sent = [(f"m{i}", (5, 9, 1, 1, 9, 5, 9)[i % 7]) for i in range(70)]
    for message_id, priority in sent:
        queue.send(message_id, priority=priority)
    expected = [m for p in (9, 5, 1) for m, priority in sent if priority == p]
    assert queue.peek(limit=100) == expected
    assert ids_of(queue.take(10)) == expected[:10]
    assert [queue.take_one().id for _ in range(10)] == expected[10:20]
    assert ids_of(queue.take()) == expected[20:]


def test_pipelined_sends_are_accepted_in_order(queue):
    ids = [f"m{i}" for i in range(2000)]
    queue.send_all(ids)
    received = queue.take(1000) + queue.take(1000)
    assert ids_of(received) == ids


def test_sends_and_batches_of_one_connection_keep_their_order(queue):
    calls, expected = [], []
    for i in range(60):
        if i % 3:
            expected.append(f"m{i}")
            calls.append(("send", queue.sending(f"m{i}")))
        else:
            ids = [f"m{i}.{n}" for n in range(5)]
            expected += ids
            items = [queue.sending(each) for each in ids]
            sender = items[0]["sender"]
            for item in items:
                del item["sender"]
            calls.append(("send_batch", {"sender": sender, "messages": items}))
    queue.client.results(queue.client.submit_all(calls))
    assert ids_of(queue.take()) == expected


def test_a_request_sees_what_its_connection_asked_before(queue):
    client, agent = queue.client, queue.agent
    ids = client.submit_all(
        [
            ("send", queue.sending("m1")),
            ("send", queue.sending("m2")),
            ("send", queue.sending("m3", delay=60)),
            ("queue_stats", {"agent": agent}),
            ("peek", {"agent": agent}),
            ("receive", {"agent": agent}),
            ("queue_stats", {"agent": agent}),
            ("receive_batch", {"agent": agent, "max": 5}),
            ("receive", {"agent": agent}),
            ("purge", {"agent": agent}),
            ("queue_stats", {"agent": agent}),
        ]
    )
    answers = client.results(ids)
    stats = answers[3]
    assert (stats["ready"]["5"], stats["delayed"], stats["reserved"]) == (2, 1, 0)
    assert [each["message"]["message_id"] for each in answers[4]] == ["m1", "m2"]
    assert answers[5]["queue_message"]["message"]["message_id"] == "m1"
    assert (answers[6]["ready"]["5"], answers[6]["reserved"]) == (1, 1)
    assert [each["queue_message"]["message"]["message_id"] for each in answers[7]] == ["m2"]
    assert answers[8] is None
    assert answers[9] == 1  # m3, that waits
    assert (answers[10]["size"], answers[10]["reserved"]) == (2, 2)


def test_a_receive_sees_the_ack_and_the_nack_before_it(queue):
    queue.send_all(["m1", "m2"])
    first, second = queue.take(2)
    client, agent = queue.client, queue.agent
    answers = client.results(
        client.submit_all(
            [
                ("ack", {"agent": agent, "token": first.token}),
                ("ack", {"agent": agent, "token": first.token}),
                ("queue_stats", {"agent": agent}),
                ("nack", {"agent": agent, "token": second.token, "delay": 0}),
                ("receive", {"agent": agent}),
            ]
        )
    )
    assert answers[:2] == [True, False]
    assert answers[2]["size"] == 1
    assert answers[3] is True
    assert answers[4]["queue_message"]["delivery_attempts"] == 1


# -- capacity


def test_a_full_queue_refuses_and_stores_nothing(queue):
    queue.configure(queue_size=3)
    queue.send_all(["m1", "m2", "m3"])
    result = queue.try_send("m4")
    assert result["delivered"] is False and result["error"] == "queue full"
    assert queue.stats()["size"] == 3
    assert ids_of(queue.drain()) == ["m1", "m2", "m3"]
    queue.send("m5")


def test_reserved_and_delayed_messages_take_room(queue):
    queue.configure(queue_size=3)
    queue.send("m1")
    received = queue.take_one(visibility_timeout=60)
    queue.send("m2", delay=60)
    queue.send("m3", priority=9)
    assert queue.try_send("m4", priority=9)["error"] == "queue full"
    assert queue.try_send("m5", delay=1)["error"] == "queue full"
    assert queue.counts() == (1, 1, 1, 0)
    assert queue.ack(received)
    queue.send("m6")


def test_dead_letters_take_no_room(queue):
    queue.configure(queue_size=1)
    queue.kill()
    queue.send()


def test_pipelined_sends_fill_the_queue_in_order(queue):
    queue.configure(queue_size=50)
    calls = [("send", queue.sending(f"m{i}")) for i in range(120)]
    results = queue.client.results(queue.client.submit_all(calls))
    assert [each["delivered"] for each in results] == [True] * 50 + [False] * 70
    assert {each["error"] for each in results[50:]} == {"queue full"}
    assert ids_of(queue.take()) == [f"m{i}" for i in range(50)]


def test_a_queue_made_smaller_refuses_until_it_has_drained(queue):
    queue.send_all(["m1", "m2", "m3"])
    assert queue.configure(queue_size=2)["queue_size"] == 2
    assert queue.try_send("m4")["error"] == "queue full"
    assert queue.ack(queue.take_one())
    assert queue.try_send("m5")["error"] == "queue full"
    assert queue.ack(queue.take_one())
    queue.send("m6")


def test_what_comes_back_to_a_full_queue_always_finds_its_place(queue):
    queue.configure(queue_size=3, backoff_base=0)
    queue.send_all(["m1", "m2", "m3"])
    first, second, third = queue.take(3, visibility_timeout=0.3)
    queue.configure(queue_size=1)
    assert queue.nack(first)
    assert queue.release(second)
    wait_until(lambda: queue.counts() == (3, 0, 0, 0), 3, "all are back")
    assert queue.try_send("m4")["error"] == "queue full"


# -- repetition


def test_the_same_message_again_is_stored_once(queue, other):
    queue.send("m1", payload={"n": 1})
    for again in (queue, other, queue):
        result = again.try_send("m1", payload={"n": 1})
        assert result["delivered"] is True and result["duplicate"] is True
    assert queue.stats()["size"] == 1
    received = queue.take_one()
    assert queue.try_send("m1", payload={"n": 1})["duplicate"] is True
    assert queue.ack(received)
    assert queue.try_send("m1", payload={"n": 1})["duplicate"] is True
    assert queue.stats()["size"] == 0


def test_repetitions_in_one_write_and_in_one_batch_are_seen(queue):
    calls = [("send", queue.sending("m1"))] * 3
    results = queue.client.results(queue.client.submit_all(calls))
    assert [each.get("duplicate") for each in results] == [None, True, True]
    item = queue.sending("m2")
    del item["sender"]
    results = queue.client.call("send_batch", sender=queue.sender, messages=[item, item])
    assert [each.get("duplicate") for each in results] == [None, True]
    assert queue.stats()["size"] == 2


def test_only_what_makes_a_message_is_compared(queue):
    queue.send("m1", payload={"n": 1}, priority=5)
    assert queue.try_send("m1", payload={"n": 1}, priority=9, note="x", delay=5)["duplicate"] is True


@pytest.mark.parametrize(
    "change",
    [
        {"payload": {"n": 2}},
        {"payload": {"n": 1.0}},
        {"payload": {}},
        {"message_type": "event"},
        {"sender": {"type": "tester", "instance": "two"}},
    ],
)
def test_a_reused_id_with_other_content_is_another_message(queue, change):
    base = {"payload": {"n": 1}, "message_type": "request", "sender": queue.sender}
    queue.send("m1", **base)
    queue.send("m1", **{**base, **change})
    assert queue.stats()["size"] == 2


def test_fields_do_not_run_together_in_the_comparison(client, queue):
    queue.send("m1", sender={"type": "a", "instance": "b:c"})
    queue.send("m1", sender={"type": "a:b", "instance": "c"})
    queue.send("m1a", sender={"type": "b", "instance": "c"})
    queue.send("m1", sender={"type": "ab", "instance": "c"})
    assert queue.stats()["size"] == 4


def test_the_same_message_for_another_recipient_is_another_message(client, queue):
    queue.send("m1")
    Queue(client, {"type": "worker", "instance": fresh("q")}).send("m1")


def test_a_repetition_is_known_although_the_queue_is_full_by_now(queue):
    queue.configure(queue_size=1)
    queue.send("m1")
    result = queue.try_send("m1")
    assert result["delivered"] is True and result["duplicate"] is True


def test_a_refused_send_is_not_remembered(queue):
    queue.configure(queue_size=1)
    queue.send("m1")
    assert queue.try_send("m2")["delivered"] is False
    assert queue.ack(queue.take_one())
    queue.send("m2")
    assert queue.take_one().id == "m2"


def test_a_purged_message_is_remembered_all_the_same(queue):
    queue.send("m1")
    assert queue.client.call("purge", agent=queue.agent) == 1
    assert queue.try_send("m1")["duplicate"] is True


def test_repetition_is_forgotten_between_one_and_two_windows(own):
    queue = Queue(own(queues={"defaults": {"dedup_window": "1s"}}).connect(), {"type": "w"})
    # The first may meet the edge of a window, so look at several starting points.
    for i in range(4):
        begun = time.monotonic()
        queue.send(f"m{i}")
        sent = time.monotonic()
        wait_for_time(begun + 0.85)
        result = queue.try_send(f"m{i}")
        if time.monotonic() < begun + 0.99:
            assert result.get("duplicate") is True
        wait_for_time(sent + 2.05)
        assert "duplicate" not in queue.try_send(f"m{i}")
        wait_for_time(sent + 2.05 + 0.27 * i)


def test_a_window_of_zero_turns_it_off(own):
    queue = Queue(own(queues={"defaults": {"dedup_window": "0s"}}).connect(), {"type": "w"})
    queue.send("m1")
    queue.send("m1")
    assert queue.stats()["size"] == 2


# -- delay


def test_a_delayed_message_is_not_handed_out_early(queue):
    begun = time.monotonic()
    queue.send("m1", delay=0.4)
    assert queue.counts() == (0, 1, 0, 0)
    assert queue.peek() == []
    assert queue.receive() is None
    received = queue.take_one(wait=5)
    took = time.monotonic() - begun
    assert 0.395 <= took < within(0.8)
    assert received.id == "m1" and received.attempts == 0
    assert queue.counts() == (0, 0, 1, 0)


def test_a_message_that_becomes_due_wakes_a_parked_receiver(queue, other):
    parked = other.park()
    begun = time.monotonic()
    queue.send("m1", delay=0.3)
    assert parked.result().id == "m1"
    assert 0.295 <= time.monotonic() - begun < within(0.7)


def test_a_message_that_becomes_due_joins_the_tail(queue):
    queue.send("late", delay=0.2)
    queue.send("high", delay=0.2, priority=9)
    queue.send("first")
    wait_until(lambda: queue.counts()[1] == 0, 3, "the delayed ones are due")
    queue.send("last")
    assert ids_of(queue.take()) == ["high", "first", "late", "last"]


def test_delayed_messages_hold_nobody_up(queue):
    queue.send("late", delay=60)
    queue.send("now")
    assert queue.take_one().id == "now"


def test_delays_come_due_in_their_own_order(queue):
    for name, delay in (("c", 0.6), ("a", 0.2), ("b", 0.4)):
        queue.send(name, delay=delay)
    assert [queue.take_one(wait=5).id for _ in range(3)] == ["a", "b", "c"]


def test_a_delay_of_zero_is_none(queue):
    queue.send("m1", delay=0)
    assert queue.receive().id == "m1"


# -- expiry


def test_a_message_not_handed_out_in_time_is_never_delivered(queue):
    begun = time.monotonic()
    queue.send("m1", ttl=0.2)
    queue.send("m2")
    wait_for_time(begun + 0.3)
    assert ids_of(queue.take()) == ["m2"]
    [letter] = wait_until(queue.dead, 3, "the expired one is a dead letter")
    assert letter["reason"] == "expired"
    assert letter["queue_message"]["message"]["message_id"] == "m1"
    assert letter["queue_message"]["delivery_attempts"] == 0
    assert queue.counts() == (0, 0, 1, 1)


def test_a_message_handed_out_in_time_does_not_expire(queue):
    queue.send("m1", ttl=30)
    assert queue.ack(queue.take_one())
    assert queue.dead() == []


def test_ttl_counts_from_when_a_message_is_first_due(queue):
    begun = time.monotonic()
    queue.send("m1", delay=0.5, ttl=0.4)
    received = queue.receive(wait=5)
    took = time.monotonic() - begun
    assert received is not None and received.id == "m1" and took >= 0.495
    queue.send("m2", delay=0.2, ttl=0.2)
    wait_for_time(time.monotonic() + 0.5)
    assert queue.receive() is None
    assert [each["reason"] for each in queue.dead()] == ["expired"]


def test_a_nil_ttl_is_none(queue):
    params = queue.sending("m1")
    assert queue.client.call("send", **params, ttl=None)["delivered"] is True
    assert queue.take_one().id == "m1"


def test_expired_messages_do_not_keep_a_queue_full(queue):
    queue.configure(queue_size=2)
    queue.send_all(["m1", "m2"], ttl=0.1)
    wait_for_time(time.monotonic() + 0.2)
    queue.send("m3")
    assert ids_of(queue.take()) == ["m3"]


# -- batches


def items(queues, **more):
    out = []
    for queue in queues:
        item = queue.sending(**more)
        del item["sender"]
        out.append(item)
    return out


@pytest.fixture
def queues(client):
    return [Queue(client, {"type": "many", "instance": fresh("q")}) for _ in range(5)]


def test_a_batch_answers_in_its_order(client, queues):
    batch = items([queues[i] for i in (3, 0, 3, 4, 1)])
    batch[1]["delay"] = 60
    batch[3]["ttl"] = 0.1
    sent = time.monotonic()
    results = client.call("send_batch", sender=queues[0].sender, messages=batch)
    check_shape(results, [MESSAGE_RESULT])
    assert [each["message_id"] for each in results] == [each["message"]["message_id"] for each in batch]
    assert [each["recipient"] for each in results] == [each["recipient"] for each in batch]
    assert all(each["delivered"] for each in results)
    assert ids_of(queues[3].take()) == [batch[0]["message"]["message_id"], batch[2]["message"]["message_id"]]
    assert queues[0].counts() == (0, 1, 0, 0)
    wait_for_time(sent + 0.5)
    assert queues[4].receive() is None and len(queues[4].dead()) == 1


def test_a_batch_that_does_not_fit_stores_its_beginning(queue):
    queue.configure(queue_size=3)
    batch = items([queue] * 5)
    results = queue.client.call("send_batch", sender=queue.sender, messages=batch)
    assert [each["delivered"] for each in results] == [True] * 3 + [False] * 2
    assert [each["error"] for each in results[3:]] == ["queue full"] * 2


def test_a_batch_has_at_most_1000_elements(queue):
    batch = items([queue] * 1001)
    refusal = queue.client.refused("send_batch", {"sender": queue.sender, "messages": batch})
    assert refusal.code == "too_large" and "1000" in refusal.message
    assert queue.stats()["size"] == 0
    results = queue.client.call("send_batch", sender=queue.sender, messages=batch[:1000])
    assert sum(each["delivered"] for each in results) == 1000


def test_a_batch_is_not_empty(queue):
    refusal = queue.client.refused("send_batch", {"sender": queue.sender, "messages": []})
    assert refusal.code == "bad_request" and "messages" in refusal.message


def test_a_batch_with_a_bad_element_is_refused_whole(client, queues):
    batch = items(queues)
    batch[3]["message"]["priority"] = 7
    refusal = client.refused("send_batch", {"sender": queues[0].sender, "messages": batch})
    assert refusal.code == "bad_request"
    assert "messages[3]" in refusal.message and "priority" in refusal.message
    assert all(queue.counts() == (0, 0, 0, 0) for queue in queues)


# -- broadcast


def test_a_broadcast_reaches_each_recipient(client, queues):
    recipients = [queue.agent for queue in queues] + [{"type": fresh("shared")}]
    message = {"message_id": fresh("m"), "message_type": "event", "payload": {"n": 1}, "priority": 9}
    results = client.call(
        "broadcast", sender=queues[0].sender, message=message, recipients=recipients
    )
    check_shape(results, [MESSAGE_RESULT])
    assert [each["recipient"]["type"] for each in results] == [each["type"] for each in recipients]
    assert results[-1]["recipient"]["instance"] == "default"
    assert all(each["delivered"] for each in results)
    for queue in queues:
        received = queue.take_one()
        assert received.message["recipient"] == queue.agent
        assert received.message["payload"] == {"n": 1} and received.message["priority"] == 9


def test_a_broadcast_tells_apart_who_got_it(client, queues):
    queues[1].configure(queue_size=1)
    queues[1].send()
    message = {"message_id": fresh("m"), "message_type": "event"}
    params = {"sender": queues[0].sender, "message": message, "recipients": [q.agent for q in queues]}
    results = client.call("broadcast", **params)
    assert [each["error"] for each in results] == [None, "queue full", None, None, None]
    results = client.call("broadcast", **params)
    assert [each.get("duplicate") for each in results] == [True, None, True, True, True]


def test_a_broadcast_has_1_to_1000_recipients(client, queue):
    message = {"message_id": fresh("m"), "message_type": "event"}
    params = {"sender": queue.sender, "message": message}
    assert client.refused("broadcast", params).code == "bad_request"
    refusal = client.refused("broadcast", {**params, "recipients": []})
    assert refusal.code == "bad_request" and "recipients" in refusal.message
    refusal = client.refused("broadcast", {**params, "recipients": [queue.agent] * 1001})
    assert refusal.code == "too_large" and "1000" in refusal.message
    bad = [queue.agent, {"type": ""}]
    refusal = client.refused("broadcast", {**params, "recipients": bad})
    assert refusal.code == "bad_request" and "recipients[1]" in refusal.message
    assert queue.stats()["size"] == 0


def test_a_ttl_of_zero_is_dead_at_once(queue, other):
    parked = other.park(wait=20)
    results = queue.client.call(
        "send_batch",
        sender=queue.sender,
        messages=[
            {k: v for k, v in queue.sending(f"m{i}", ttl=0 if i % 2 else 60, priority=(9, 5, 1)[i % 3]).items() if k != "sender"}
            for i in range(6)
        ],
    )
    assert all(each["delivered"] for each in results)
    assert parked.result().id == "m0"
    assert [each["queue_message"]["message"]["message_id"] for each in queue.dead()] == ["m1", "m3", "m5"]
    assert queue.counts() == (2, 0, 1, 3)
    assert queue.try_send("m1", ttl=0, priority=5)["duplicate"]
    assert [each.id for each in queue.take()] == ["m4", "m2"]
