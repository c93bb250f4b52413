"""What operators are told of a broker, and what is kept of what they did."""

import json
import os
import re
import time

import pytest

from harness import (
    AGENT_ID,
    Closed,
    Queue,
    check_shape,
    fresh,
    is_count,
    is_number,
    is_text,
    is_time,
    wait_until,
)
from test_coordctl import Ctl

CONNECTION = {
    "id": is_count,
    "peer": is_text,
    "listener": lambda value: value in ("tcp", "unix"),
    "uid": (None, is_count),
    "client": (None, is_text),
    "namespace": is_text,
    "role": is_text,
    "since": is_time,
    "idle": is_number,
    "requests": is_count,
    "in_flight": is_count,
    "parked": is_count,
    "consumers": is_count,
    "watches": is_count,
    "bytes_in": is_count,
    "bytes_out": is_count,
    "buffered": is_count,
}
AUDIT_ENTRY = {
    "id": is_text,
    "at": is_time,
    "method": is_text,
    "target": (None, is_text),
    "result": is_text,
    "namespace": is_text,
    "peer": is_text,
    "client": (None, is_text),
    "uid": (None, is_count),
    "broker": is_text,
}


def connections(client, **params):
    return check_shape(client.call("list_connections", **params), [CONNECTION])


def connection_of(client, who):
    return next(each for each in connections(client) if each["client"] == who)


def audit(client, **params):
    return check_shape(client.call("audit", **params), [AUDIT_ENTRY])


def kept(client, n):
    """The last n entries, once there are so many: they are written behind the answer."""
    wait_until(lambda: len(audit(client, limit=n)) == n)
    return audit(client, limit=n)


@pytest.fixture
def alone(own):
    """A broker with a prefix of its own."""
    return own()


# -- connections


def test_a_connection_is_listed_with_what_it_does(alone):
    client, other = alone.connect(), alone.connect("unix")
    other.call("hello", client="worker 1", namespace="other")
    queue = Queue(other, {"type": "worker", "instance": "w"})
    waiting = other.submit("receive", {"agent": queue.agent, "wait": 30})
    other.call("consume", agent={"type": "worker", "instance": "v"}, prefetch=1)
    other.call("watch", events=["queue"])
    row = connection_of(client, "worker 1")
    assert (row["listener"], row["namespace"], row["role"]) == ("unix", "other", "operator")
    assert row["uid"] == os.getuid() and row["peer"].startswith(f"unix:pid={os.getpid()},")
    assert (row["parked"], row["consumers"], row["watches"], row["in_flight"]) == (1, 1, 1, 0)
    assert row["requests"] == 4 and row["buffered"] == 0
    assert row["bytes_in"] > 100 and row["bytes_out"] > 100
    mine = connections(client)[0]
    assert mine["listener"] == "tcp" and mine["uid"] is None and mine["client"] is None
    assert mine["peer"] == "%s:%d" % client.sock.getsockname()
    queue.at(client)
    client2 = alone.in_namespace("other")
    Queue(client2, queue.agent).send("m1")
    assert other.result(waiting)["queue_message"]["message"]["message_id"] == "m1"
    assert connection_of(client, "worker 1")["parked"] == 0


def test_connections_are_told_page_by_page(alone):
    clients = [alone.connect() for _ in range(7)]
    everyone = [each["id"] for each in connections(clients[0])]
    assert len(everyone) == 7 and everyone == sorted(everyone)
    seen, after = [], 0
    while page := connections(clients[0], limit=3, after=after):
        seen += [each["id"] for each in page]
        after = seen[-1]
    assert seen == everyone


def test_a_list_of_connections_ends_at_max_frame(own):
    broker = own(limits={"max_frame": "4KiB"})
    clients = [broker.connect() for _ in range(30)]
    for each in clients:
        each.call("hello", client="x" * 200)
    seen, after, pages = [], 0, 0
    while page := connections(clients[0], after=after):
        assert len(clients[0].raw) <= 4096
        seen += [each["id"] for each in page]
        after, pages = seen[-1], pages + 1
    assert len(set(seen)) == len(seen) == 30 and pages > 1


def test_a_connection_is_closed(alone):
    client, other = alone.connect(), alone.connect()
    other.call("hello", client="to be closed")
    queue = Queue(other, {"type": "worker", "instance": "w"})
    queue.send("m1")
    assert queue.receive(lease="connection", visibility_timeout=60).id == "m1"
    row = connection_of(client, "to be closed")
    assert client.call("close_connection", id=row["id"]) is True
    assert other.expect_closed() == []
    assert client.call("close_connection", id=row["id"]) is False
    assert not any(each["id"] == row["id"] for each in connections(client))
    # What it held ends with it, as when it had gone by itself.
    got = queue.at(client).receive(wait=10)
    assert (got.id, got.attempts, got.last_error) == ("m1", 1, "connection closed")
    assert wait_until(lambda: [e for e in alone.logged("conn.closed") if e["reason"] == "operator"])


def test_who_closes_its_own_connection_reads_the_answer(alone):
    client = alone.connect()
    me = connections(client)[0]["id"]
    assert client.call("close_connection", id=me) is True
    with pytest.raises(Closed):
        client.call("ping")


def test_closing_many_pairs_of_connections_leaves_nothing(alone):
    client = alone.connect()
    for _ in range(50):
        other = alone.connect()
        other.call("hello", client="gone soon")
        other.submit("receive", {"agent": {"type": "w"}, "wait": 30})
        wait_until(lambda: connection_of(client, "gone soon")["parked"] == 1)
        assert client.call("close_connection", id=connection_of(client, "gone soon")["id"])
        other.expect_closed()
    assert len(connections(client)) == 1
    assert client.call("status")["parked"] == 0


@pytest.mark.parametrize("params", [{}, {"id": "1"}, {"id": -1}, {"id": 1.5}, {"id": None}, {"id": 1, "x": 1}])
def test_a_bad_id_is_refused(client, params):
    assert client.refused("close_connection", params).code == "bad_request"


# -- namespaces


def test_namespaces_are_listed_with_what_they_hold(alone):
    client = alone.connect()
    assert client.call("list_namespaces") == []
    for name in ("b:1%", "a", "a b", "ab", "\u6f22"):
        one = alone.in_namespace(name)
        Queue(one, {"type": "t", "instance": "1"}).send("m1")
        Queue(one, {"type": "t", "instance": "2"}).send("m1")
    alone.in_namespace("a").call("register", agent={"type": "t"})
    alone.in_namespace("agents only").call("register", agent={"type": "t"})
    alone.in_namespace("breakers only").call("breaker_acquire", name="b")
    rows = client.call("list_namespaces")
    assert {each["namespace"]: (each["queues"], each["agents"], each["breakers"]) for each in rows} == {
        "a": (2, 1, 0),
        "a b": (2, 0, 0),
        "ab": (2, 0, 0),
        "agents only": (0, 1, 0),
        "b:1%": (2, 0, 0),
        "breakers only": (0, 0, 1),
        "\u6f22": (2, 0, 0),
    }
    assert len(rows) == 7


def test_namespaces_are_told_page_by_page(alone):
    client = alone.connect()
    names = {f"n{i}:{'%' * (i % 3)}" for i in range(250)}
    for name in names:
        one = alone.connect()
        one.call("hello", namespace=name)
        Queue(one, {"type": "t", "instance": "1"}).send("m1")
        one.close()
    assert {each["namespace"] for each in client.call("list_namespaces")} == names
    seen, after = [], None
    while page := client.call("list_namespaces", limit=40, after=after):
        seen += [each["namespace"] for each in page]
        after = seen[-1]
    assert len(seen) == 250 and set(seen) == names


def test_a_namespace_is_gone_with_what_it_held(own):
    broker = own(queues={"forget_after": "1s"})
    queue = Queue(broker.in_namespace("short"), {"type": "t", "instance": "1"})
    queue.send("m1")
    client = broker.connect()
    assert [each["namespace"] for each in client.call("list_namespaces")] == ["short"]
    assert queue.client.call("purge", agent=queue.agent) == 1
    wait_until(lambda: client.call("list_namespaces") == [], 10)


# -- audit


def test_what_operators_do_is_kept_with_who_did_it(alone):
    client = alone.connect("unix")
    client.call("hello", client="the tester", namespace="n")
    queue = Queue(client, {"type": "plan:ner", "instance": "w1"})
    queue.send("m1", payload={"secret": "do not tell"})
    client.call("pause_queue", agent=queue.agent)
    client.call("resume_queue", agent=queue.agent)
    client.call("purge", agent=queue.agent)
    client.call("configure", agent=queue.agent, queue_size=5)
    client.call("configure", queue_size=None)
    client.call("breaker_configure", name="llm", config={})
    client.call("breaker_trip", name="llm")
    client.call("breaker_reset", name="llm")
    client.call("breaker_remove", name="llm")
    rows = kept(client, 9)
    assert [(each["method"], each["target"], each["result"]) for each in reversed(rows)] == [
        ("pause_queue", "plan%3Aner:w1", "true"),
        ("resume_queue", "plan%3Aner:w1", "true"),
        ("purge", "plan%3Aner:w1", "1"),
        ("configure", "plan%3Aner:w1", "ok"),
        ("configure", None, "ok"),
        ("breaker_configure", "llm", "ok"),
        ("breaker_trip", "llm", "ok"),
        ("breaker_reset", "llm", "ok"),
        ("breaker_remove", "llm", "true"),
    ]
    for each in rows:
        assert (each["namespace"], each["client"], each["uid"]) == ("n", "the tester", os.getuid())
        assert each["peer"].startswith("unix:pid=")
        assert each["broker"] == client.call("status")["instance_id"]
    assert "do not tell" not in json.dumps(rows)
    actions = alone.logged("operator.action")
    assert [each["method"] for each in actions] == [each["method"] for each in reversed(rows)]


def test_the_audit_of_somebody(alone):
    for who in ("ann", "bob"):
        client = alone.connect("unix")
        client.call("hello", client=who)
        for i in range(1, 4):
            client.call("breaker_configure", name=f"{who}{i}", config={})
            client.call("breaker_trip", name=f"{who}{i}")
    kept(client, 12)
    ctl = Ctl(f"unix://{alone.unix_path}")
    rows = ctl.json("audit", "--who", "ann")
    assert [each["target"] for each in rows] == ["ann3", "ann3", "ann2", "ann2", "ann1", "ann1"]
    assert [each["target"] for each in ctl.json("audit", "--who", "ann", "-n", "3")] == ["ann3", "ann3", "ann2"]
    assert len(ctl.json("audit", "--who", f"uid={os.getuid()} (", "--since", "1h")) == 12
    assert ctl.json("audit", "--who", "nobody") == []


def test_dead_letters_and_connections_too(alone):
    client, other = alone.connect(), alone.connect()
    queue = Queue(client, {"type": "t", "instance": "1"})
    for name in ("m1", "m2", "m3"):
        queue.send(name)
        client.call("nack", agent=queue.agent, token=queue.receive().token, failure="permanent")
    dead = client.call("dlq_list", agent=queue.agent)["dead"]
    assert client.call("dlq_redrive", agent=queue.agent, ids=[dead[0]["id"]]) == 1
    assert client.call("dlq_purge", agent=queue.agent) == 2
    other.call("hello", client="x")
    number = connection_of(client, "x")["id"]
    client.call("close_connection", id=number)
    rows = kept(client, 3)
    assert [(each["method"], each["target"], each["result"]) for each in rows] == [
        ("close_connection", str(number), "true"),
        ("dlq_purge", "t:1", "2"),
        ("dlq_redrive", "t:1", "1"),
    ]
    assert rows[0]["uid"] is None and rows[0]["client"] is None


def test_what_changed_nothing_is_not_kept(alone):
    client = alone.connect()
    agent = {"type": "t"}
    assert client.call("resume_queue", agent=agent) is False
    assert client.call("purge", agent=agent) == 0
    assert client.call("breaker_remove", name="none") is False
    assert client.call("close_connection", id=1 << 40) is False
    client.refused("breaker_trip", {"name": "none"})
    client.refused("purge", {"agent": {"type": ""}})
    client.call("list_connections")
    client.call("pause_queue", agent=agent)  # this one is
    assert [each["method"] for each in kept(client, 1)] == ["pause_queue"]
    assert len(audit(client)) == 1


def test_only_the_last_entries_are_kept(own):
    broker = own(audit={"keep": 5})
    client = broker.connect()
    for i in range(12):
        client.call("pause_queue", agent={"type": "t", "instance": str(i)})
    wait_until(lambda: audit(client)[0]["target"] == "t:11")
    assert [each["target"] for each in audit(client)] == [f"t:{i}" for i in (11, 10, 9, 8, 7)]


def test_the_audit_is_told_page_by_page_and_by_all_brokers(own, make_broker, redis):
    prefix = fresh("audit")
    one, two = (own(redis={"key_prefix": prefix}) for _ in range(2))
    client, other = one.connect(), two.connect()
    for i in range(60):
        (client, other)[i % 2].call("pause_queue", agent={"type": "t", "instance": str(i)})
    wait_until(lambda: len(audit(client, limit=60)) == 60)
    assert len(audit(client)) == 50
    seen, after = [], None
    while page := audit(other, limit=7, after=after):
        seen += page
        after = page[-1]["id"]
    assert {each["target"] for each in seen} == {f"t:{i}" for i in range(60)} and len(seen) == 60
    assert len({each["broker"] for each in seen}) == 2
    assert [each["id"] for each in seen] == sorted((each["id"] for each in seen), reverse=True, key=order)


def order(entry_id):
    return tuple(int(part) for part in entry_id.split("-"))


@pytest.mark.parametrize("after", ["", "1", "x-1", "1-", "-1", "1-1-1", "+", "1" * 16 + "-1"])
def test_an_id_that_is_none_is_refused(client, after):
    assert client.refused("audit", {"after": after}).code == "bad_request"


def test_the_audit_can_be_switched_off(own):
    broker = own(audit={"enabled": False})
    client = broker.connect()
    client.call("pause_queue", agent={"type": "t"})
    client.call("ping")
    assert audit(client) == []
    assert broker.logged("operator.action")


def test_an_action_is_kept_though_its_client_does_not_wait(alone):
    client, other = alone.connect(), alone.connect()
    for i in range(20):
        one = alone.connect()
        one.submit("pause_queue", {"agent": {"type": "t", "instance": str(i)}})
        one.close()
    wait_until(lambda: len(audit(other)) == 20)
    assert {each["result"] for each in audit(other)} == {"true"}


def test_an_action_does_not_fail_with_its_audit(own, redis):
    prefix = fresh("audit")
    broker = own(redis={"key_prefix": prefix})
    redis.command("SET", f"{prefix}:audit", "in the way")
    broker.expected_errors += ["script"]
    client = broker.connect()
    assert client.call("pause_queue", agent={"type": "t"}) is True
    wait_until(lambda: broker.logged("audit.lost"))
    redis.command("DEL", f"{prefix}:audit")


# -- coordctl


@pytest.fixture
def ctl(alone):
    return Ctl(f"unix://{alone.unix_path}")


def test_coordctl_shows_and_closes_connections(alone, ctl):
    other = alone.connect()
    other.call("hello", client="worker \x1b[31m\u6f22")
    table = ctl.out("conn", "ls").splitlines()
    assert table[0].split()[:4] == ["CONN", "PEER", "CLIENT", "NAMESPACE"]
    assert any(r"worker \x1b[31m" in line for line in table) and any("coordctl/" in line for line in table)
    number = str(next(e["id"] for e in ctl.json("conn", "ls") if e["client"].startswith("worker")))
    shown = ctl.out("conn", "show", number)
    assert re.search(r"^listener +tcp$", shown, re.M) and re.search(r"^namespace +default$", shown, re.M)
    assert ctl.json("conn", "show", number)["requests"] == 1
    assert "would close" in ctl.out("conn", "kill", number, "--dry-run")
    ctl.fails(2, "conn", "kill", number)
    assert other.call("ping") == "pong"
    assert f"closed connection {number}" in ctl.out("conn", "kill", number, "--yes")
    other.expect_closed()
    ctl.fails(3, "conn", "kill", number, "--yes")
    ctl.fails(3, "conn", "show", "999999")
    for bad in ("x", "-1", "1x", ""):
        ctl.fails(64, "conn", "show", "--", bad)


def test_coordctl_lists_namespaces(alone, ctl):
    Queue(alone.in_namespace("n1"), {"type": "t", "instance": "1"}).send("m")
    assert ctl.out("namespaces").splitlines()[1].split() == ["n1", "1", "0", "0"]
    assert ctl.out("namespaces", "-o", "names") == "n1\n"


def test_coordctl_shows_who_did_what(alone, ctl, redis):
    ctl.out("queue", "pause", "planner:w1")
    ctl.out("breaker", "ls")
    rows = wait_until(lambda: ctl.json("audit"))
    assert [each["method"] for each in rows] == ["pause_queue"]
    line = ctl.out("audit").splitlines()[1]
    assert "pause_queue  planner:w1" in line and f"uid={os.getuid()} (coordctl/" in line
    for i in range(3):
        ctl.out("queue", "pause", f"planner:v{i}")
    wait_until(lambda: len(ctl.json("audit")) == 4)
    assert [each["target"] for each in ctl.json("audit", "-n", "2")] == ["planner:v2", "planner:v1"]
    assert len(ctl.json("audit", "--since", "1h")) == 4
    for row in ctl.json("audit"):  # as if all had been done an hour ago
        redis.command("XDEL", f"{alone.config['redis']['key_prefix']}:audit", row["id"])
    hour_ago = int((time.time() - 3600) * 1000)
    for at in (hour_ago - 1000, hour_ago + 600_000):
        redis.command("XADD", f"{alone.config['redis']['key_prefix']}:past", f"{at}-0", "method", "purge", "target", str(at))
    redis.command("RENAME", f"{alone.config['redis']['key_prefix']}:past", f"{alone.config['redis']['key_prefix']}:audit")
    assert [each["target"] for each in ctl.json("audit", "--since", "1h")] == [str(hour_ago + 600_000)]
    assert len(ctl.json("audit", "--since", "2h")) == 2
