"""Dead letters: dlq_list, dlq_redrive, dlq_purge."""

import time

import pytest

from harness import ids_of, seconds_of, wait_for_time, wait_until


def dead_ids(queue, **params):
    return [each["queue_message"]["message"]["message_id"] for each in queue.dead(**params)]


@pytest.fixture
def dead(queue):
    """Six dead letters, m0 the oldest."""
    queue.send_all([f"m{i}" for i in range(6)], payload={"kept": True})
    for received in queue.take(6, visibility_timeout=60):
        assert queue.nack(received, failure="permanent", error=f"broken {received.id}")
    return queue.dead()


def redrive(queue, **params):
    return queue.client.call("dlq_redrive", agent=queue.agent, **params)


def purge(queue, **params):
    return queue.client.call("dlq_purge", agent=queue.agent, **params)


def test_dead_letters_are_listed_oldest_first_with_all_they_are(queue, dead, redis):
    assert dead_ids(queue) == [f"m{i}" for i in range(6)]
    assert len({each["id"] for each in dead}) == 6
    for i, each in enumerate(dead):
        assert each["reason"] == "permanent"
        assert each["queue_message"]["last_error"] == f"broken m{i}"
        assert each["queue_message"]["message"]["payload"] == {"kept": True}
        assert abs(redis.time() - seconds_of(each["dead_at"])) < 60
    assert queue.counts() == (0, 0, 0, 6)
    assert queue.receive() is None
    assert queue.peek() == []


def test_an_unused_queue_has_no_dead_letters(queue):
    assert queue.dead_page() == {"dead": [], "after": None}
    assert redrive(queue) == 0
    assert purge(queue) == 0


@pytest.mark.parametrize("limit", [1, 2, 4, 6, 7])
def test_dead_letters_come_in_pages(queue, dead, limit):
    page = queue.dead_page(limit=limit)
    assert [each["id"] for each in page["dead"]] == [each["id"] for each in dead[:limit]]
    assert queue.dead(limit=limit) == dead


def test_a_page_holds_100_unless_asked_otherwise(queue):
    queue.send_all([f"m{i:03}" for i in range(250)])
    calls = [
        ("nack", {"agent": queue.agent, "token": each.token, "failure": "permanent"})
        for each in queue.take()
    ]
    assert all(queue.client.results(queue.client.submit_all(calls)))
    assert len(queue.dead_page()["dead"]) == 100
    assert len(queue.dead_page(limit=1000)["dead"]) == 250
    assert dead_ids(queue) == [f"m{i:03}" for i in range(250)]


def test_paging_goes_on_when_the_last_row_seen_is_gone(queue, dead):
    page = queue.dead_page(limit=2)
    assert purge(queue, ids=[each["id"] for each in page["dead"]]) == 2
    rest = queue.dead_page(after=page["after"])
    assert [each["id"] for each in rest["dead"]] == [each["id"] for each in dead[2:]]


def test_a_list_of_dead_letters_ends_at_max_frame(queue):
    for i in range(6):
        queue.kill(f"m{i}", payload={"body": b"x" * 300_000})
    page = queue.dead_page(limit=100)
    assert 1 <= len(page["dead"]) <= 3 and page["after"] is not None
    assert len(queue.client.raw) <= 1 << 20
    assert dead_ids(queue) == [f"m{i}" for i in range(6)]


# -- redrive


def test_a_redrive_brings_all_back_as_new(queue, dead):
    queue.send("before")
    assert redrive(queue) == 6
    assert queue.counts() == (7, 0, 0, 0)
    back = queue.take(visibility_timeout=60)
    assert ids_of(back) == ["before"] + [f"m{i}" for i in range(6)]
    assert [each.attempts for each in back] == [0] * 7
    assert all(each.message["payload"] == {"kept": True} for each in back[1:])
    assert queue.ack_all(back) == [True] * 7
    assert queue.dead() == []


def test_a_redriven_message_has_all_its_retries_again(queue):
    queue.configure(retry_attempts=1)
    queue.send("m1")
    for _ in range(2):
        for attempt in range(2):
            received = queue.take_one()
            assert received.attempts == attempt
            assert queue.nack(received, delay=0)
        assert redrive(queue) == 1
    assert queue.take_one().attempts == 0


@pytest.mark.parametrize("by", ["ids", "message_ids"])
def test_a_redrive_takes_the_ones_named(queue, dead, by):
    chosen = (4, 1)
    names = [dead[i]["id"] if by == "ids" else f"m{i}" for i in chosen]
    assert redrive(queue, **{by: names + ["never"]}) == 2
    assert dead_ids(queue) == ["m0", "m2", "m3", "m5"]
    assert sorted(ids_of(queue.take())) == ["m1", "m4"]
    assert redrive(queue, **{by: names}) == 0


@pytest.mark.parametrize("by", ["ids", "message_ids"])
@pytest.mark.parametrize("move", [redrive, purge])
def test_a_dead_letter_named_twice_is_moved_once(queue, dead, move, by):
    name = dead[2]["id"] if by == "ids" else "m2"
    assert move(queue, **{by: [name, name, name]}) == 1
    assert dead_ids(queue) == ["m0", "m1", "m3", "m4", "m5"]
    assert queue.peek() == (["m2"] if move is redrive else [])


@pytest.mark.parametrize("by", ["ids", "message_ids"])
@pytest.mark.parametrize("method", ["dlq_redrive", "dlq_purge"])
def test_an_empty_list_of_names_never_means_all(queue, dead, method, by):
    ids = queue.client.submit_all([(method, {"agent": queue.agent, by: []}), ("ping", {})])
    queue.client.result(ids[1])
    error, value = queue.client.answers[ids[0]]
    assert value == 0 or error["code"] == "bad_request"
    assert queue.counts() == (0, 0, 0, 6)


def test_a_redrive_takes_the_oldest_up_to_its_limit(queue, dead):
    assert redrive(queue, limit=2) == 2
    assert ids_of(queue.take()) == ["m0", "m1"]
    assert redrive(queue, limit=1000) == 4


def test_nil_options_of_a_redrive_mean_all(queue, dead):
    assert redrive(queue, ids=None, message_ids=None, limit=None) == 6


def test_a_redrive_stops_at_the_capacity(queue, dead):
    queue.configure(queue_size=4)
    queue.send("there")
    assert redrive(queue) == 3
    assert queue.counts() == (4, 0, 0, 3)
    assert redrive(queue) == 0
    assert dead_ids(queue) == ["m3", "m4", "m5"]
    assert ids_of(queue.drain()) == ["there", "m0", "m1", "m2"]
    assert redrive(queue) == 3


def test_a_redrive_is_no_send(queue):
    queue.kill("m1")
    assert redrive(queue) == 1
    assert queue.take_one().id == "m1"
    assert queue.try_send("m1")["duplicate"] is True


def test_a_redriven_message_has_lost_its_ttl(queue):
    queue.send("m1", ttl=0.1)
    wait_for_time(time.monotonic() + 0.2)
    assert queue.receive() is None
    [letter] = wait_until(queue.dead, 3, "it is a dead letter")
    assert letter["reason"] == "expired"
    assert redrive(queue) == 1
    wait_for_time(time.monotonic() + 0.3)
    assert queue.take_one().id == "m1"


def test_a_redrive_wakes_a_parked_receiver(queue, other, dead):
    parked = other.park()
    assert redrive(queue, limit=1) == 1
    assert parked.result().id == "m0"


def test_redriven_messages_keep_their_priority(queue):
    for message_id, priority in (("low", 1), ("high", 9)):
        queue.kill(message_id, priority=priority)
    queue.send("normal")
    assert redrive(queue) == 2
    assert ids_of(queue.take()) == ["high", "normal", "low"]


def test_many_dead_letters_are_redriven_and_purged_at_once(queue):
    for round_of in ("a", "b"):
        queue.send_all([f"{round_of}{i}" for i in range(1000)])
    while batch := queue.take(visibility_timeout=60):
        calls = [
            ("nack", {"agent": queue.agent, "token": each.token, "failure": "permanent"})
            for each in batch
        ]
        assert all(queue.client.results(queue.client.submit_all(calls)))
    assert redrive(queue) == 2000
    assert len(queue.drain()) == 2000
    for round_of in ("c", "d"):
        queue.send_all([f"{round_of}{i}" for i in range(500)])
    for received in queue.take(visibility_timeout=60):
        queue.nack(received, failure="permanent")
    assert purge(queue) == 1000
    assert queue.counts() == (0, 0, 0, 0)


# -- purge


def test_a_purge_removes_all_dead_letters_and_nothing_else(queue, dead):
    queue.send("there")
    assert purge(queue) == 6
    assert queue.dead() == []
    assert queue.counts() == (1, 0, 0, 0)


@pytest.mark.parametrize("by", ["ids", "message_ids"])
def test_a_purge_takes_the_ones_named(queue, dead, by):
    names = [dead[i]["id"] if by == "ids" else f"m{i}" for i in (0, 3)]
    assert purge(queue, **{by: names + ["never"]}) == 2
    assert dead_ids(queue) == ["m1", "m2", "m4", "m5"]


def test_a_purge_takes_the_oldest_up_to_its_limit(queue, dead):
    assert purge(queue, limit=4) == 4
    assert dead_ids(queue) == ["m4", "m5"]
