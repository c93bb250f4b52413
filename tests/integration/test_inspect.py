"""What operators see and set: queue_stats, list_queues, peek, purge, configure, status."""

import time

import pytest

from harness import (
    QUEUE_STATS,
    SETTINGS,
    Queue,
    check_shape,
    fresh,
    ids_of,
    is_text,
    wait_for_time,
    wait_until,
    within,
)

DEFAULTS = {
    "queue_size": 10000,
    "retry_attempts": 3,
    "backoff_base": 1,
    "backoff_factor": 2,
    "backoff_max": 30,
    "backoff_jitter": 0,
}


# -- queue_stats


def test_a_queue_never_used_is_all_zeros(queue):
    assert queue.stats() == {
        "agent_id": queue.agent,
        "ready": {"9": 0, "5": 0, "1": 0},
        "delayed": 0,
        "reserved": 0,
        "dead": 0,
        "size": 0,
        "capacity": 10000,
        "bytes": 0,
        "oldest_age": None,
        "consumers": 0,
        "paused": False,
    }


def test_stats_count_every_message_where_it_is(queue):
    for i, priority in enumerate((9, 9, 9, 5, 5, 1)):
        queue.send(f"m{i}", priority=priority)
    queue.send("late", delay=60)
    queue.send("later", delay=90)
    queue.take(2, visibility_timeout=60)
    stats = queue.stats()
    assert stats["ready"] == {"9": 1, "5": 2, "1": 1}
    assert (stats["delayed"], stats["reserved"], stats["dead"], stats["size"]) == (2, 2, 0, 8)
    assert queue.nack(queue.take_one(), failure="permanent")
    assert queue.counts() == (3, 2, 2, 1)


def test_bytes_follow_what_is_stored(queue):
    queue.send("m1", payload={"body": b"x" * 10_000})
    one = queue.stats()["bytes"]
    assert 10_000 <= one < 12_000
    queue.send("m2", payload={"body": b"x" * 10_000}, delay=60)
    assert queue.stats()["bytes"] == pytest.approx(2 * one, rel=0.1)
    received = queue.take_one(visibility_timeout=60)
    assert queue.stats()["bytes"] == pytest.approx(2 * one, rel=0.1)
    assert queue.ack(received)
    assert queue.stats()["bytes"] == pytest.approx(one, rel=0.1)
    assert queue.client.call("purge", agent=queue.agent) == 1
    assert queue.stats()["bytes"] == 0


def test_the_oldest_age_is_that_of_the_first_waiting(queue):
    begun = time.monotonic()
    queue.send("m1")
    wait_for_time(begun + 0.5)
    queue.send("m2")
    age = queue.stats()["oldest_age"]
    assert 0.45 <= age <= time.monotonic() - begun + 0.1
    queue.drain()
    assert queue.stats()["oldest_age"] is None


def test_a_parked_receiver_is_seen_as_a_consumer(queue, other):
    other.park()
    wait_until(lambda: queue.stats()["consumers"] == 1, 3, "the receiver is counted")
    other.client.close()
    wait_until(lambda: queue.stats()["consumers"] == 0, 5, "the receiver is gone")


# -- list_queues


def test_queues_are_listed_page_by_page(broker):
    client = broker.in_namespace(fresh("ns"))
    agents = [{"type": f"t{i % 3}", "instance": f"i{i}"} for i in range(30)]
    for i, agent in enumerate(agents):
        queue = Queue(client, agent)
        queue.kill() if i == 7 else queue.send(delay=60 if i == 8 else None)
    Queue(client, agents[9]).take_one(visibility_timeout=60)

    def listed(**params):
        rows, after = [], None
        while True:
            page = client.call("list_queues", after=after, **params)
            check_shape(page, {"queues": [QUEUE_STATS], "after": (None, is_text)})
            assert len(page["queues"]) <= params.get("limit", 1000)
            rows += [{**each, "oldest_age": None} for each in page["queues"]]
            after = page["after"]
            if after is None or not page["queues"]:
                return rows

    def names(rows):
        return sorted(each["agent_id"]["instance"] for each in rows)

    everything = listed()
    assert names(everything) == sorted(each["instance"] for each in agents)
    for limit in (1, 7, 29, 30, 31):
        assert names(listed(limit=limit)) == names(everything)
    assert names(listed(type="t1", limit=3)) == sorted(f"i{i}" for i in range(30) if i % 3 == 1)
    assert listed(type="t") == []
    assert listed(type=None) == everything
    for row in everything:
        assert row == {**Queue(client, row["agent_id"]).stats(), "oldest_age": None}


def test_looking_at_a_queue_does_not_create_it(broker, redis):
    client = broker.in_namespace(fresh("ns"))
    agent = {"type": fresh("seen")}
    for method, params in [
        ("queue_stats", {}),
        ("peek", {}),
        ("dlq_list", {}),
        ("dlq_redrive", {}),
        ("dlq_purge", {}),
        ("purge", {}),
        ("receive", {}),
        ("receive_batch", {"max": 5}),
        ("ack", {"token": "x"}),
        ("recover_pending", {}),
    ]:
        client.call(method, agent=agent, **params)
    assert client.call("list_queues") == {"queues": [], "after": None}
    assert redis.command("KEYS", f"*{agent['type']}*") == []


def test_an_empty_idle_queue_is_forgotten_whole(start_redis, make_broker):
    redis = start_redis()
    defaults = {"dedup_window": "1s"}
    broker = make_broker(
        redis, config={"queues": {"forget_after": "1s", "defaults": defaults}}
    ).start()
    client = broker.connect()
    used, kept = Queue(client, {"type": "used"}), Queue(client, {"type": "kept"})
    kept.kill()
    used.kill()
    assert client.call("dlq_purge", agent=used.agent) == 1
    used.send("m1")
    received = used.take_one()
    assert used.nack(received, delay=0.1)
    received = used.take_one()
    assert used.ack(received)
    wait_until(lambda: redis.command("KEYS", "*used*") == [], 20, "the queue left no key")
    rows = client.call("list_queues")["queues"]
    assert [each["agent_id"]["type"] for each in rows] == ["kept"]
    used.send("m2")
    assert used.take_one().fence > received.fence


# -- peek


def test_peek_shows_what_is_due_in_order_and_changes_nothing(queue):
    queue.send("low", priority=1)
    queue.send_all([f"m{i}" for i in range(12)])
    queue.send("high", priority=9)
    queue.send("late", delay=60)
    expected = ["high"] + [f"m{i}" for i in range(12)] + ["low"]
    assert queue.peek() == expected[:10]
    assert queue.peek(limit=3) == expected[:3]
    assert queue.peek(limit=1000) == expected
    assert queue.counts() == (14, 1, 0, 0)
    received = queue.take(visibility_timeout=60)
    assert ids_of(received) == expected and {each.attempts for each in received} == {0}
    assert queue.peek() == []


def test_peek_ends_at_max_frame(queue):
    for i in range(5):
        queue.send(f"m{i}", payload={"body": b"x" * 300_000})
    assert queue.peek() == ["m0", "m1", "m2"]
    assert len(queue.client.raw) <= 1 << 20


# -- purge


def test_a_purge_removes_ready_and_delayed_messages_only(queue):
    queue.kill("dead")
    for i, priority in enumerate((9, 5, 5, 1)):
        queue.send(f"m{i}", priority=priority)
    queue.send("late", delay=60)
    held = queue.take_one(visibility_timeout=60)
    assert queue.client.call("purge", agent=queue.agent) == 4
    assert queue.counts() == (0, 0, 1, 1)
    assert queue.release(held)
    assert queue.take_one().id == held.id
    assert queue.client.call("purge", agent=queue.agent) == 0


def test_a_large_queue_is_purged_at_once(queue):
    for i in range(5):
        queue.send_all([f"m{i}.{n}" for n in range(1000)])
    queue.send_all([f"d{n}" for n in range(1000)], delay=60)
    assert queue.client.call("purge", agent=queue.agent) == 6000
    assert queue.counts() == (0, 0, 0, 0)
    queue.send("after")
    assert queue.take_one().id == "after"


# -- configure


def test_settings_of_a_queue_win_over_those_of_its_namespace(broker):
    client = broker.in_namespace(fresh("ns"))
    one, two = Queue(client, {"type": "one"}), Queue(client, {"type": "two"})
    assert check_shape(client.call("configure"), SETTINGS) == DEFAULTS
    assert client.call("configure", queue_size=5, backoff_base=0.5) == {
        **DEFAULTS,
        "queue_size": 5,
        "backoff_base": 0.5,
    }
    assert one.configure(queue_size=7) == {**DEFAULTS, "queue_size": 7, "backoff_base": 0.5}
    assert two.configure() == {**DEFAULTS, "queue_size": 5, "backoff_base": 0.5}
    assert (one.stats()["capacity"], two.stats()["capacity"]) == (7, 5)
    assert one.configure(queue_size=None) == two.configure()
    assert client.call("configure", agent=None, queue_size=None, backoff_base=None) == DEFAULTS
    assert (one.stats()["capacity"], two.stats()["capacity"]) == (10000, 10000)


def test_every_setting_can_be_set_and_taken_back(queue):
    values = {
        "queue_size": 123,
        "retry_attempts": 0,
        "backoff_base": 0.25,
        "backoff_factor": 1.5,
        "backoff_max": 7,
        "backoff_jitter": 0.5,
    }
    assert queue.configure(**values) == values
    assert queue.configure() == values
    for key in values:
        values[key] = DEFAULTS[key]
        assert queue.configure(**{key: None}) == values


@pytest.mark.parametrize(
    "field, value",
    [
        ("queue_size", -1),
        ("queue_size", 1.5),
        ("queue_size", "10"),
        ("retry_attempts", -1),
        ("retry_attempts", True),
        ("backoff_base", -0.1),
        ("backoff_base", "1s"),
        ("backoff_factor", -1),
        ("backoff_max", float("nan")),
        ("backoff_jitter", 1.1),
        ("backoff_jitter", -0.1),
        ("surprise", 1),
    ],
)
def test_a_setting_out_of_range_changes_nothing(queue, field, value):
    params = {"agent": queue.agent, "queue_size": 77, field: value}
    refusal = queue.client.refused("configure", params)
    assert refusal.code == "bad_request" and field in refusal.message
    assert queue.configure() == DEFAULTS


def test_settings_win_over_the_file_and_survive_a_restart(redis, make_broker):
    config = {
        "redis": {"key_prefix": fresh("own")},
        "queues": {"defaults": {"queue_size": 3, "retry_attempts": 1}},
    }
    broker = make_broker(redis, config=config).start()
    queue = Queue(broker.connect(), {"type": "w"})
    assert queue.configure() == {**DEFAULTS, "queue_size": 3, "retry_attempts": 1}
    queue.client.call("configure", queue_size=4)
    queue.configure(retry_attempts=2)
    broker.stop()
    broker.start()
    queue = queue.at(broker.connect())
    expected = {**DEFAULTS, "queue_size": 4, "retry_attempts": 2}
    assert queue.configure() == expected
    queue.send_all(["m1", "m2", "m3", "m4"])
    assert queue.try_send("m5")["error"] == "queue full"
    assert queue.client.call("configure", queue_size=None)["queue_size"] == 3


# -- status


def test_status_tells_the_state_of_the_broker(client):
    status = client.call("status")
    check_shape(
        status,
        {
            "version": is_text,
            "ready": lambda value: value is True,
            "redis": {"up": lambda value: value is True, "...": None},
            "checks": [{"name": is_text, "status": is_text, "...": None}],
            "...": None,
        },
        "status",
    )
    assert status["version"] == client.call("hello")["version"]
    checks = {each["name"]: each["status"] for each in status["checks"]}
    assert checks["ready"] == checks["redis"] == checks["persistence"] == "ok"


def test_answers_to_operators_are_quick_beside_a_long_queue(queue):
    """Reading never walks a queue."""
    queue.send_all([f"m{i}" for i in range(9000)])
    begun = time.monotonic()
    for _ in range(20):
        queue.stats()
        queue.peek(limit=5)
    assert time.monotonic() - begun < within(1)
