"""Section 4 of the protocol: ack, nack, release, extend, recover_pending."""

import time

import pytest

from harness import fresh, ids_of, wait_for_time, wait_until, within


@pytest.fixture
def held(queue):
    """A message and its reservation."""
    queue.send("m1")
    return queue.take_one(visibility_timeout=60)


def test_an_acked_message_is_gone(queue, held):
    assert queue.ack(held) is True
    assert queue.counts() == (0, 0, 0, 0)
    assert queue.receive() is None


SETTLE = {
    "ack": lambda queue, received: queue.ack(received),
    "nack": lambda queue, received: queue.nack(received, delay=60),
    "permanent nack": lambda queue, received: queue.nack(received, failure="permanent"),
    "release": lambda queue, received: queue.release(received, delay=60),
}


@pytest.mark.parametrize("first", SETTLE)
def test_a_token_settles_once_from_any_connection(queue, other, held, first):
    assert SETTLE[first](other, held) is True
    before = queue.stats()
    for again in SETTLE.values():
        assert again(queue, held) is False
        assert again(other, held) is False
    assert queue.extend(held, 600) is None
    after = queue.stats()
    before["oldest_age"] = after["oldest_age"] = None
    assert after == before


def test_settles_in_one_write_let_the_first_win(queue, held):
    params = {"agent": queue.agent, "token": held.token}
    ids = queue.client.submit_all([(each, params) for each in ("ack", "nack", "release", "ack")])
    assert queue.client.results(ids) == [True, False, False, False]
    assert queue.counts() == (0, 0, 0, 0)


def test_settles_of_many_connections_let_one_win(queue, broker):
    for _ in range(20):
        queue.send(fresh("m"))
        received = queue.take_one(visibility_timeout=60)
        params = {"agent": queue.agent, "token": received.token}
        racers = broker.connect(), broker.connect()
        racing = [(each, each.submit("ack", params)) for each in racers]
        assert sorted(each.result(msgid) for each, msgid in racing) == [False, True]
        for each in racers:
            each.close()


def garbled(token):
    half = len(token) // 2
    swapped = "A" if token[half] != "A" else "B"
    return [
        "",
        "x",
        token[:-1],
        token[1:],
        token + "0",
        token + "\0",
        " " + token,
        token[:half] + swapped + token[half + 1 :],
        token.swapcase(),
        token[::-1],
        token * 2,
        "0" * len(token),
        "\r\n$3\r\nfoo\r\n",
        "') redis.call('FLUSHALL') --",
        "'; DROP TABLE x; --",
        "ü" * len(token),
        "{}:*?",
        "y" * 100_000,
    ]


def test_a_token_that_never_was_settles_nothing(queue, held):
    tokens = [each for each in garbled(held.token) if each != held.token]
    for token in tokens:
        assert queue.ack(token) is False, token
        assert queue.nack(token) is False, token
        assert queue.release(token) is False, token
        assert queue.extend(token, 60) is None, token
    assert queue.ack_all(tokens) == [False] * len(tokens)
    assert queue.counts() == (0, 0, 1, 0)
    assert queue.ack(held) is True


def test_a_token_of_another_queue_settles_nothing(queue, held, client):
    elsewhere = type(queue)(client, {"type": "worker", "instance": fresh("q")})
    elsewhere.send("m2")
    theirs = elsewhere.take_one(visibility_timeout=60)
    assert queue.ack(theirs) is False
    assert elsewhere.ack(held) is False
    assert elsewhere.extend(held, 60) is None
    assert queue.ack(held) is True
    assert elsewhere.ack(theirs) is True


def test_ack_batch_answers_each_token_in_order(queue):
    queue.send_all([f"m{i}" for i in range(5)])
    received = queue.take(5, visibility_timeout=60)
    assert queue.ack(received[1])
    tokens = [received[0], received[1], "never", received[2], received[2], received[4]]
    assert queue.ack_all(tokens) == [True, False, False, True, False, True]
    assert queue.counts() == (0, 0, 1, 0)


def test_ack_batch_takes_1_to_1000_tokens(queue):
    refusal = queue.client.refused("ack_batch", {"agent": queue.agent, "tokens": []})
    assert refusal.code == "bad_request" and "tokens" in refusal.message
    refusal = queue.client.refused("ack_batch", {"agent": queue.agent, "tokens": ["x"] * 1001})
    assert refusal.code == "too_large" and "1000" in refusal.message
    queue.send_all([f"m{i}" for i in range(1000)])
    assert queue.ack_all(queue.take()) == [True] * 1000


# -- nack


def test_a_nacked_message_comes_back_after_growing_pauses(queue):
    queue.configure(backoff_base=0.2, backoff_factor=2, backoff_max=0.5, retry_attempts=10)
    queue.send("m1")
    received = queue.take_one(visibility_timeout=60)
    for attempt, pause in enumerate((0.2, 0.4, 0.5, 0.5), 1):
        begun = time.monotonic()
        assert queue.nack(received, error=f"failed {attempt}")
        assert queue.counts() == (0, 1, 0, 0)
        assert queue.receive() is None
        received = queue.take_one(wait=5, visibility_timeout=60)
        took = time.monotonic() - begun
        assert pause - 0.005 <= took < within(pause + 0.25)
        assert (received.attempts, received.last_error) == (attempt, f"failed {attempt}")


def test_a_first_retry_waits_a_second_by_default(queue, held):
    begun = time.monotonic()
    assert queue.nack(held)
    assert queue.take_one(wait=5).attempts == 1
    assert 0.995 <= time.monotonic() - begun < within(1.5)


def test_jitter_spreads_the_pauses_within_its_bounds(queue, redis):
    queue.configure(backoff_base=0.4, backoff_factor=1, backoff_jitter=0.5)
    queue.send_all([f"m{i}" for i in range(20)])
    nacked = {}
    for received in queue.take(20, visibility_timeout=60):
        nacked[received.id] = time.monotonic()
        assert queue.nack(received)
    pauses = []
    while len(pauses) < 20:
        received = queue.take_one(wait=5, visibility_timeout=60)
        pauses.append(time.monotonic() - nacked[received.id])
    assert min(pauses) >= 0.195 and max(pauses) < within(0.9)
    assert max(pauses) - min(pauses) > 0.1


def test_a_delay_replaces_the_pause(queue, held):
    begun = time.monotonic()
    assert queue.nack(held, delay=0)
    received = queue.take_one(visibility_timeout=60)
    assert received.attempts == 1
    assert time.monotonic() - begun < within(0.5)
    begun = time.monotonic()
    assert queue.nack(received, delay=0.3)
    assert queue.take_one(wait=5).attempts == 2
    assert 0.295 <= time.monotonic() - begun < within(0.7)


def test_nil_options_are_as_if_absent(queue, held):
    assert queue.nack(held, error=None, delay=None) is True
    assert queue.counts() == (0, 1, 0, 0)


def test_a_message_due_again_joins_the_tail(queue):
    queue.send("m1")
    received = queue.take_one(visibility_timeout=60)
    assert queue.nack(received, delay=0.2)
    queue.send("m2")
    wait_until(lambda: queue.counts() == (2, 0, 0, 0), 3, "m1 is due")
    assert ids_of(queue.take()) == ["m2", "m1"]


@pytest.mark.parametrize("failure", ["transient", "timeout"])
def test_a_failure_that_may_pass_is_retried(queue, held, failure):
    assert queue.nack(held, failure=failure, delay=0)
    assert queue.take_one().attempts == 1


def test_a_permanent_failure_is_a_dead_letter_at_once(queue, held):
    assert queue.nack(held, failure="permanent", error="no such book", delay=5)
    [letter] = queue.dead()
    assert letter["reason"] == "permanent"
    assert letter["queue_message"]["message"]["message_id"] == "m1"
    assert letter["queue_message"]["last_error"] == "no such book"
    assert letter["queue_message"]["delivery_attempts"] == 1
    assert queue.counts() == (0, 0, 0, 1)


@pytest.mark.parametrize("attempts", [0, 1, None])
def test_a_message_is_delivered_once_more_than_its_retries(queue, attempts):
    if attempts is not None:
        assert queue.configure(retry_attempts=attempts)["retry_attempts"] == attempts
    deliveries = (3 if attempts is None else attempts) + 1
    queue.send("m1")
    for i in range(deliveries):
        received = queue.take_one()
        assert received.attempts == i
        assert queue.nack(received, error=f"failed {i}", delay=0)
    assert queue.receive() is None
    [letter] = queue.dead()
    assert letter["reason"] == "attempts"
    assert letter["queue_message"]["delivery_attempts"] == deliveries
    assert letter["queue_message"]["last_error"] == f"failed {deliveries - 1}"


def test_expiries_count_as_failures(queue):
    queue.configure(retry_attempts=1)
    queue.send("m1")
    for i in range(2):
        assert queue.take_one(wait=3, visibility_timeout=0.1).attempts == i
    [letter] = wait_until(queue.dead, 3, "it is a dead letter")
    assert letter["reason"] == "attempts"
    assert letter["queue_message"]["last_error"] == "visibility timeout expired"


@pytest.mark.parametrize("error", ["", "x" * 1024, "ü" * 512, 'quote " \\ \n \x00 tab\t'], ids=range(4))
def test_an_error_text_comes_back_as_given(queue, held, error):
    assert queue.nack(held, error=error, delay=0)
    assert queue.take_one().last_error == error


# -- release


def test_a_released_message_is_as_if_never_received(queue):
    queue.send_all(["m1", "m2"])
    received = queue.take_one(visibility_timeout=60)
    assert queue.release(received)
    back = queue.take_one()
    assert (back.id, back.attempts, back.last_error) == ("m1", 0, None)
    assert back.fence > received.fence and back.token != received.token


def test_a_release_keeps_what_earlier_deliveries_left(queue, held):
    assert queue.nack(held, error="first", delay=0)
    assert queue.release(queue.take_one())
    back = queue.take_one()
    assert (back.attempts, back.last_error) == (1, "first")


def test_a_release_with_a_delay_is_due_only_then(queue, held):
    begun = time.monotonic()
    assert queue.release(held, delay=0.3)
    assert queue.counts() == (0, 1, 0, 0)
    back = queue.take_one(wait=5)
    assert 0.295 <= time.monotonic() - begun < within(0.7)
    assert back.attempts == 0


def test_releases_never_use_up_the_retries(queue):
    queue.configure(retry_attempts=0)
    queue.send("m1")
    for _ in range(5):
        assert queue.release(queue.take_one())
    assert queue.take_one().attempts == 0


def test_messages_released_together_keep_their_old_order(queue):
    queue.send_all([f"m{i}" for i in range(6)] + ["rest"])
    received = queue.take(6, visibility_timeout=60)
    calls = [
        ("release", {"agent": queue.agent, "token": received[i].token}) for i in (2, 0, 5, 1, 3, 4)
    ]
    assert queue.client.results(queue.client.submit_all(calls)) == [True] * 6
    assert ids_of(queue.take()) == [f"m{i}" for i in range(6)] + ["rest"]


def test_a_message_released_alone_goes_to_the_head_of_its_priority(queue):
    queue.send("m1")
    queue.send("m2")
    queue.send("high", priority=9)
    high, first = queue.take_one(), queue.take_one()
    assert (high.id, first.id) == ("high", "m1")
    assert queue.release(first)
    assert queue.release(high)
    assert queue.peek() == ["high", "m1", "m2"]


# -- extend


def test_an_extended_reservation_lives_until_its_new_deadline(queue, other, redis):
    queue.send("m1")
    begun = time.monotonic()
    received = queue.take_one(visibility_timeout=0.4)
    before = redis.time()
    deadline = other.extend(received, 1)
    assert before + 0.99 <= deadline <= redis.time() + 1.01
    assert queue.receive(wait=0.5) is None
    assert time.monotonic() - begun > 0.45
    again = queue.take_one(wait=5)
    late = redis.time() - deadline
    assert again.attempts == 1 and -0.005 <= late < within(0.5)
    assert queue.ack(received) is False


def test_an_extended_reservation_can_be_extended_again_and_settled(queue):
    queue.send("m1")
    received = queue.take_one(visibility_timeout=0.2)
    begun = time.monotonic()
    while time.monotonic() - begun < 1:
        assert queue.extend(received, 0.4) is not None
        assert queue.receive(wait=0.05) is None
    assert queue.ack(received) is True
    assert queue.receive(wait=0.5) is None


def test_extend_never_makes_a_deadline_earlier(queue):
    queue.send("m1")
    received = queue.take_one(visibility_timeout=60)
    assert queue.extend(received, 0.05) == pytest.approx(received.deadline, abs=0.002)
    later = queue.extend(received, 600)
    assert later > received.deadline + 500
    assert queue.extend(received, 60) == pytest.approx(later, abs=0.002)
    assert queue.receive(wait=0.3) is None
    assert queue.ack(received)


def test_extending_one_keeps_its_neighbours_deadlines(queue):
    queue.send_all([f"m{i}" for i in range(4)])
    received = queue.take(4, visibility_timeout=0.4)
    assert queue.extend(received[1], 60)
    assert queue.extend(received[2], 1)
    assert queue.take_one(wait=3, visibility_timeout=60).id == "m0"
    assert queue.take_one(wait=3, visibility_timeout=60).id == "m3"
    assert queue.take_one(wait=3, visibility_timeout=60).id == "m2"
    assert queue.receive() is None
    assert queue.ack(received[1])


# -- recover_pending


def test_recover_pending_leaves_what_lives(queue, held):
    assert queue.client.call("recover_pending", agent=queue.agent) == 0
    assert type(queue.client.call("recover_pending")) is int
    assert type(queue.client.call("recover_pending", agent=None)) is int
    assert queue.counts() == (0, 0, 1, 0)
    assert queue.ack(held)


def test_recover_pending_and_the_sweep_take_each_reservation_back_once(queue):
    queue.send_all([f"m{i}" for i in range(50)])
    deadline = time.monotonic() + 0.2
    assert len(queue.take(50, visibility_timeout=0.2)) == 50
    wait_for_time(deadline)
    counted = 0
    for _ in range(20):
        counted += queue.client.call("recover_pending", agent=queue.agent)
    assert counted <= 50
    wait_until(lambda: queue.counts() == (50, 0, 0, 0), 3, "all came back")
    assert [each.attempts for each in queue.take()] == [1] * 50
