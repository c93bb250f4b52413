"""What a review of the hot path and of consumers found: each of these was once wrong."""

import signal
import time

import pytest

from harness import Queue, Refused, fresh, ids_of, pack, request, wait_for_time, wait_until

AGENT = {"type": "w", "instance": "q"}


def key(queue, suffix, prefix="coordd"):
    return f"{prefix}:q:default:{queue.agent['type']}:{queue.agent['instance']}:{suffix}"


def test_a_consume_answered_at_the_high_water_is_no_end_of_the_broker(own):
    """Its answer may be what makes the output leave, and then all consumers are looked at."""
    high_water = 4096
    broker = own(limits={"output_high_water": "4KiB"})
    answer = len(pack([1, 1, None, {"consumer_id": "x" * 12}]))
    consume = {"agent": AGENT, "prefetch": 5}
    note = pack([2, "nothing", [{"x": b"y" * 1000}]])
    for filler in range(20000, 400000, 20000):
        client, other = broker.connect(), broker.connect()
        assert client.call("ping") == other.call("ping") == "pong"
        left = high_water - 2 - answer
        long = next(n for n in range(9) if (left - 10 * n) % 9 == 0)
        pings = [pack([0, i, "ping", []]) for i in [2] * ((left - 10 * long) // 9) + [200] * long]
        data = request(1, "consume", consume) + b"".join(pings[:100]) + note * (filler // len(note))
        data += b"".join(pings[100:]) + request(3, "consume", consume)
        broker.signal(signal.SIGSTOP)
        client.sock.setblocking(False)
        sent = client.sock.send(data)
        other.sock.send(pack([0, 5, "ping", []]) * 300)
        broker.signal(signal.SIGCONT)
        client.sock.setblocking(True)
        client.sock.sendall(data[sent:])
        client.close()
        other.close()
        assert broker.connect().call("ping") == "pong", f"filler {filler}"


@pytest.mark.parametrize(
    "sender, name, payload", [("a", "1", {}), ("a", "12", {}), ("ab", "1", {}), ("a", "1", {"k": 1})]
)
def test_the_shortest_messages_are_delivered(queue, sender, name, payload):
    queue.send(name, sender={"type": sender}, payload=payload)
    received = queue.receive()
    assert received is not None and received.id == name and queue.ack(received)
    assert queue.counts() == (0, 0, 0, 0)


# -- first come, first served


def test_a_parked_batch_of_a_thousand_is_not_passed_over(queue, broker):
    first = queue.park("receive_batch", max=1000)
    late = queue.at(broker.connect())
    calls = [("send", late.sending("m1")), ("receive", {"agent": late.agent})]
    assert late.client.results(late.client.submit_all(calls))[1] is None, "a newcomer went first"
    assert ids_of(first.result(5)) == ["m1"]


def test_a_consumer_of_a_thousand_gets_its_share(queue, broker):
    broker.connect().call("consume", agent=queue.agent, prefetch=1000)
    late = queue.at(broker.connect())
    got = 0
    for i in range(200):
        calls = [("send", late.sending(f"m{i}")), ("receive", {"agent": late.agent})]
        received = late.client.results(late.client.submit_all(calls))[1]
        if received:
            got += 1
            late.client.call("ack", agent=late.agent, token=received["token"])
    assert got < 150, f"the newcomer got {got} of 200, though a consumer waited first"


def test_who_polls_for_a_thousand_does_not_pass_over_who_waits(queue, broker):
    late = queue.at(broker.connect())
    for i in range(20):
        first = queue.park("receive", wait=20)
        calls = [("send", late.sending(f"m{i}")), ("receive_batch", {"agent": late.agent, "max": 1000})]
        went_past = late.client.results(late.client.submit_all(calls))[1]
        assert not went_past, f"{len(went_past)} messages went past"
        assert ids_of([first.result(5)]) == [f"m{i}"]


def test_many_newcomers_beside_a_large_consumer_are_all_answered(queue, broker):
    """More than one call can carry: the rest asks in the next one, and none for ever."""
    broker.connect().call("consume", agent=queue.agent, prefetch=1000)
    late = queue.at(broker.connect())
    calls = [("receive", {"agent": late.agent})] * 200 + [("receive_batch", {"agent": late.agent, "max": 1000})] * 5
    assert not any(late.client.results(late.client.submit_all(calls)))


# -- de-duplication


def forget(queue, redis, prefix):
    assert queue.ack(queue.receive())
    wait_until(lambda: redis.command("EXISTS", key(queue, "s", prefix)) == 0, 5, "it is forgotten")


def await_phase(redis, window, phase):
    """Until Redis's clock is at `phase` seconds into a window."""
    wait_for_time(time.monotonic() + (phase - redis.time()) % window)


def is_repeat(result):
    return result.get("duplicate") is True


@pytest.mark.parametrize("between", [["Y"], []])
def test_a_forgotten_queue_still_knows_the_window_before(redis, own, between):
    window = 6
    broker = own(queues={"forget_after": "1s", "defaults": {"dedup_window": f"{window}s"}})
    queue = Queue(broker.connect(), {"type": "w", "instance": fresh("q")})
    await_phase(redis, window, window - 2.5)
    queue.send("X", payload={"n": 1})
    begun = time.monotonic()
    forget(queue, redis, broker.config["redis"]["key_prefix"])
    await_phase(redis, window, 0.2)
    for each in between:
        queue.send(each)
    assert time.monotonic() - begun < window
    assert is_repeat(queue.try_send("X", payload={"n": 1}))


def send_two(queue):
    asked = [queue.sending(name, payload={"n": n}) for name, n in (("X", 1), ("Y", 2))]
    messages = [{"recipient": each["recipient"], "message": each["message"]} for each in asked]
    return queue.client.call("send_batch", sender=queue.sender, messages=messages)


def test_a_forgotten_queue_that_pause_made_again_knows_its_window(redis, own):
    broker = own(queues={"forget_after": "1s", "defaults": {"dedup_window": "60s"}})
    queue = Queue(broker.connect(), {"type": "w", "instance": fresh("q")})
    if redis.time() % 60 > 50:
        await_phase(redis, 60, 1)
    queue.send("X", payload={"n": 1})
    forget(queue, redis, broker.config["redis"]["key_prefix"])
    assert queue.client.call("pause_queue", agent=queue.agent)
    assert queue.client.call("resume_queue", agent=queue.agent)
    first, second = send_two(queue)
    assert is_repeat(first) and not is_repeat(second)


def test_two_brokers_that_differ_in_the_window_both_know(redis, make_broker):
    prefix = fresh("two")
    views = []
    if redis.time() % 60 > 45:
        await_phase(redis, 60, 1)
    for window in ("600s", "60s"):
        config = {"redis": {"key_prefix": prefix}, "queues": {"defaults": {"dedup_window": window}}}
        views.append(Queue(make_broker(redis, config=config).start().connect(), AGENT))
    views[1].send("X", payload={"n": 1})
    views[0].send("other")
    first, second = send_two(views[1])
    assert is_repeat(first) and not is_repeat(second)


# -- what a closed connection held


def test_an_extended_connection_lease_ends_though_redis_was_away(start_redis, make_broker):
    redis = start_redis()
    broker = make_broker(redis, expected_errors=["redis."], config={"sweep": {"grace": "100ms"}}).start()
    client = broker.connect()
    queue = Queue(client, AGENT)
    queue.send("m1")
    received = queue.receive(visibility_timeout=1, lease="connection")
    assert queue.extend(received, 600)
    redis.kill()
    wait_until(lambda: broker.logged("redis.down"), 5, "Redis is missed")
    wait_for_time(time.monotonic() + 1.2)  # the first deadline has passed, the one in force has not
    client.close()
    broker.clients.remove(client)
    wait_for_time(time.monotonic() + 1.5)  # it was handed back, and Redis was not there
    redis.start()
    other = Queue(broker.connect(), AGENT)

    def back():
        try:
            return other.receive(wait=1)
        except Refused:
            return None

    assert wait_until(back, 10, "it comes back").id == "m1"


def test_what_a_lost_receive_of_a_thousand_had_comes_back_in_order(start_redis, make_broker):
    redis = start_redis()
    broker = make_broker(redis, expected_errors=["redis."]).start()
    queue = Queue(broker.connect(), AGENT)
    names = [f"m{i:04}" for i in range(1000)]
    for at in range(0, 1000, 500):
        queue.send_all(names[at : at + 500])
    client = broker.connect()
    assert client.call("ping") == "pong"
    closed = len(broker.logged("conn.closed"))
    redis.pause()
    client.submit("receive_batch", {"agent": AGENT, "max": 1000, "visibility_timeout": 600})
    assert client.call("ping") == "pong"
    client.close()
    broker.clients.remove(client)
    wait_until(lambda: len(broker.logged("conn.closed")) > closed, 5, "it is closed")
    redis.resume()
    wait_until(lambda: queue.counts() == (1000, 0, 0, 0), 5, "all are released")
    got = []
    while len(got) < 1000:
        got += ids_of(queue.take(1000, visibility_timeout=600))
    assert got == names


# -- strangers under our keys


@pytest.mark.parametrize("how", ["nack", "nack without delay", "release"])
def test_what_goes_back_to_a_list_that_is_none_waits_with_the_dead_letters(queue, redis, how):
    queue.send("m1")
    received = queue.receive(visibility_timeout=60)
    redis.command("SET", key(queue, "5"), "a stranger")
    if how == "release":
        assert queue.release(received)
    else:
        assert queue.nack(received, delay=0.05 if how == "nack" else 0)
    wait_until(lambda: len(queue.dead()) == 1, 5, "it is kept")
    redis.command("DEL", key(queue, "5"))
    assert queue.client.call("dlq_redrive", agent=queue.agent) == 1
    assert queue.receive().id == "m1"


def test_an_expired_head_is_kept_beside_a_list_that_is_none(queue, redis, broker):
    queue.configure(queue_size=1)
    queue.send("m1", ttl=0.05)
    redis.command("SET", key(queue, "9"), "a stranger")
    wait_for_time(time.monotonic() + 0.2)
    queue.send("m2")
    redis.command("DEL", key(queue, "9"))
    assert [each["queue_message"]["message"]["message_id"] for each in queue.dead()] == ["m1"]
    assert queue.receive().id == "m2"


def test_a_strange_note_of_a_broker_loses_no_send(queue, redis):
    wait_for_time(time.monotonic() + 0.3)  # by then others are looked for again
    redis.command("HSET", key(queue, "w"), "a stranger", "x")
    calls = [("send", queue.sending("m1")), ("receive", {"agent": queue.agent})]
    sent, received = queue.client.results(queue.client.submit_all(calls))
    redis.command("DEL", key(queue, "w"))
    assert sent["delivered"]
    assert received["queue_message"]["message"]["message_id"] == "m1"
