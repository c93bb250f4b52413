"""coordctl adopt: what the Python package left is copied once, whatever ends whom in the middle."""

import json
import os
import random
import select
import socket
import subprocess
import threading
import time

import pytest

from harness import Queue, fresh, wait_until, within
from old_package import OldPackage, agent, now_us
from test_coordctl import COORDCTL

SECOND = 1_000_000


class Adopt:
    """Runs coordctl adopt from one Redis to one broker."""

    def __init__(self, old, broker):
        self.old, self.broker = old, broker
        self.redis_url, self.server = old.redis.url, f"unix://{broker.unix_path}"

    def start(self, *arguments, **more):
        command = [COORDCTL, "adopt", "--redis", self.redis_url, "--prefix", self.old.prefix, *map(str, arguments)]
        environment = {**os.environ, "COORDCTL_SERVER": self.server}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)

    def finish(self, process):
        out, err = process.communicate(timeout=within(120))
        assert b"Sanitizer" not in err and b"runtime error" not in err, err.decode()
        return process.returncode, out.decode(), err.decode()

    def run(self, *arguments):
        return self.finish(self.start(*arguments, stdin=subprocess.DEVNULL))

    def report(self, *arguments, code=0):
        status, out, err = self.run("-o", "json", *arguments)
        assert status == code, (status, out, err)
        return json.loads(out)

    def totals(self, *arguments, code=0):
        return self.report(*arguments, code=code)["totals"]

    def unlock(self):
        """Whoever had it was killed."""
        self.old.redis.command("DEL", f"{self.old.prefix}:adopt:lock")

    def queue(self, to):
        """The new queue, under the namespace that is the prefix."""
        return Queue(self.broker.in_namespace(self.old.prefix), to)


@pytest.fixture
def old(redis):
    return OldPackage(redis)


@pytest.fixture
def adopt(old, broker):
    return Adopt(old, broker)


@pytest.fixture
def to():
    return agent("worker", fresh("w"))


@pytest.fixture
def tool(start_redis, make_broker):
    """Everything of the test's own, and a long memory for repeats."""

    def make(**config):
        config.setdefault("queues", {"defaults": {"dedup_window": "1d", "queue_size": 100000}})
        broker = make_broker(config=config).start()
        return Adopt(OldPackage(start_redis()), broker)

    return make


def problems(report, kind):
    return [each for each in report["problems"] if each["kind"] == kind]


class Proxy:
    """Carries bytes between coordctl and a Unix socket. `watch(data)` sees what coordctl writes; when it says so nothing goes on any
    more (`"drop"`), or nothing comes back (`"deaf"`)."""

    def __init__(self, directory, target, watch):
        self.path = str(directory / fresh("proxy"))
        self.target, self.watch, self.state = str(target), watch, "open"
        self.held = threading.Event()
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(self.path)
        self.server.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                here, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(here,), daemon=True).start()

    def _carry(self, here):
        there = socket.socket(socket.AF_UNIX)
        there.connect(self.target)
        while True:
            for side in select.select([here, there], [], [])[0]:
                data = side.recv(1 << 16)
                if not data:
                    here.close()
                    there.close()
                    return
                if side is there:
                    if self.state == "open":
                        here.sendall(data)
                    else:
                        self.held.set()
                    continue
                if self.state == "open":
                    self.state = self.watch(data) or "open"
                if self.state == "drop":
                    self.held.set()
                else:
                    there.sendall(data)

    def close(self):
        self.server.close()


# -- what is copied


def test_everything_live_is_copied_in_order(old, adopt, to):
    expected = {9: [], 5: [], 1: []}
    base = now_us() - 60 * SECOND
    for i in range(60):
        priority = (5, 9, 1)[i % 3]
        at = base + 1000 * (i // 6)  # several of one score: by their bytes
        old.send(to, at=at, message_id=f"m{i:03}", priority=priority)
        expected[priority].append((at, f"m{i:03}"))
    before = len(old.keys())
    totals = adopt.totals()
    assert (totals["ready"], totals["copied"], totals["left"]) == (60, 60, 0)
    assert len(old.keys()) == before + 1  # the journal; the lock is gone
    received = adopt.queue(to).drain()
    assert [each.id for each in received] == [m for p in (9, 5, 1) for _, m in sorted(expected[p])]


def test_a_message_keeps_all_that_it_says(old, adopt, to):
    payload = {
        "z": 1, "a": {"ü€😀": ["\x00", "\x7f", None, True, False, {}, []]}, "many": list(range(70)),
        "big": 2**64 - 1, "small": -(2**63), "float": 0.1, "whole": 1.0, "tiny": 5e-324, "large": 1e300, "": "",
        "long": "x" * 70000, "wide": {f"k{i}": i for i in range(300)},
    }  # fmt: skip
    message = old.message(to, sender=agent("prod", None), payload=payload, message_type="event", correlation_id="c", hops=[1, {"a": None}])
    old.put(to, old.queued(message, delivery_attempts=2, last_error="it broke"))
    assert adopt.totals()["copied"] == 1
    got = adopt.queue(to).take_one()
    assert got.message["payload"] == payload and list(got.message["payload"]) == list(payload)
    assert type(got.message["payload"]["whole"]) is float
    assert (got.message["correlation_id"], got.message["hops"]) == ("c", [1, {"a": None}])
    assert got.message["sender"] == {"type": "prod", "instance": "default"}
    assert (got.message["message_type"], got.message["timestamp"]) == ("event", message["timestamp"])
    adopted = got.message["adopted"]
    assert len(adopted.pop("mark")) == 32
    assert adopted == {"from": "sched", "enqueued_at": "2025-10-28T10:00:01.000001+00:00", "delivery_attempts": 2, "last_error": "it broke"}
    assert got.attempts == 0 and got.last_error is None


def test_what_is_due_later_is_due_then(old, adopt, to):
    old.send(to, at=now_us() + 3600 * SECOND, message_id="far")
    soon = now_us() + int(within(3)) * SECOND
    old.send(to, at=soon, message_id="soon")
    totals = adopt.totals()
    assert (totals["delayed"], totals["copied"]) == (2, 2)
    queue = adopt.queue(to)
    assert queue.counts() == (0, 2, 0, 0)
    got = queue.take_one(wait=20)
    assert got.id == "soon" and now_us() > soon - SECOND // 20


def test_reserved_messages_come_back_in_front(old, adopt, to):
    old.send(to, message_id="waits")
    for name, deadline in (("second", now_us() - SECOND), ("first", now_us() - 2 * SECOND), ("undated", 0)):
        old.reserve(to, old.send(to, message_id=name), deadline)
    old.reserve(to, old.send(to, message_id="held"), now_us() + 3600 * SECOND)
    old.redis.command("ZADD", old.key("reserved_deadlines", to), 5, "res_without")
    report = adopt.report()
    assert (report["totals"]["reserved"], report["totals"]["copied"]) == (4, 5)
    reasons = " ".join(each["reason"] for each in problems(report, "note"))
    assert "without a deadline" in reasons and "without a reserved message" in reasons and "old worker" in reasons
    queue = adopt.queue(to)
    assert queue.counts() == (4, 1, 0, 0)
    assert [each.id for each in queue.drain()] == ["first", "second", "undated", "waits"]


def test_dead_letters_are_dead_at_once_and_never_delivered(old, adopt, to):
    queue = adopt.queue(to)
    parked = queue.park(wait=20)
    ids = [json.loads(old.bury(to, message_id=f"d{i}", priority=(9, 5, 1)[i % 3]))["message"]["message_id"] for i in range(9)]
    totals = adopt.totals()
    assert (totals["dead"], totals["copied"]) == (9, 9)
    assert not parked.is_answered()
    dead = queue.dead()
    assert [each["queue_message"]["message"]["message_id"] for each in dead] == ids
    assert all(each["queue_message"]["message"]["adopted"]["delivery_attempts"] == 4 for each in dead)
    assert queue.counts() == (0, 0, 0, 9)
    adopt.broker.in_namespace(old.prefix).call("dlq_redrive", agent=to)
    assert parked.result().id in ids


def test_one_message_in_two_places_is_one(old, adopt, to):
    text = old.send(to, message_id="both")
    old.reserve(to, text)
    old.put(to, text)  # recover_pending() that died in the middle
    again = json.loads(text)
    old.put(to, json.dumps({**again, "delivery_attempts": 1}))
    old.redis.command("RPUSH", old.key("dlq", to), text)
    report = adopt.report()
    assert (report["totals"]["copied"], report["totals"]["twice"]) == (1, 3)
    assert len(problems(report, "note")) == 3
    assert adopt.queue(to).counts() == (1, 0, 0, 0)


def test_what_is_in_the_audit_list_alone_is_told(old, adopt, to):
    old.send(to, message_id="live")
    old.redis.command("RPUSH", old.key("queue", to), old.queued(old.message(to, message_id="orphan")))
    report = adopt.report()
    assert (report["totals"]["copied"], report["totals"]["orphans"]) == (1, 1)
    assert "orphan" in problems(report, "orphan")[0]["member"]
    assert adopt.totals()["orphans"] == 1
    adopt.queue(to).drain()
    assert adopt.totals()["orphans"] == 1


def damaged_members(old, to):
    """(a member, what the reason says)"""
    message = old.message(to)
    without = lambda key: {k: v for k, v in message.items() if k != key}  # noqa: E731
    deep = 1
    for _ in range(30):
        deep = [deep]
    yield "", "JSON"
    yield '{"message": ', "JSON"
    yield "nonsense \x1b[2J\n", "JSON"
    yield "[1]", "no JSON object"
    yield "{}", "message is missing"
    yield '{"message": "text", "priority": 5}', "message is no object"
    yield old.queued(message)[:-1] + "} x", "JSON"
    for key in ("message_id", "sender", "message_type"):
        yield old.queued(without(key)), key
    yield old.queued({**message, "sender": "me"}), "sender"
    yield old.queued({**message, "sender": {"type": "x" * 129, "instance": None}}), "sender"
    yield old.queued({**message, "message_id": 7}), "message_id"
    yield old.queued({**message, "message_id": "x" * 129}), "message_id"
    yield old.queued({**message, "message_type": "order"}), "message_type"
    yield old.queued({**message, "payload": [1]}), "payload"
    yield old.queued({**message, "payload": {"d": deep}}), "payload"
    yield old.queued({**message, "payload": {"n": float("nan")}}), "NaN"
    yield old.queued({**message, "payload": {"n": 2**64}}), "64 bits"
    yield old.queued({**message, "payload": {"n": -(2**63) - 1}}), "64 bits"
    yield old.queued(message).replace('"n": 1', '"n": 1e999'), "range"
    yield old.queued({**message, "payload": {"s": "\ud800"}}), "surrogate"
    yield old.queued({**message, "recipient": 5}), "recipient"
    for priority in (7, "high", 5.5, -1, True):
        yield old.queued(message, priority=priority), "priority"
    yield old.queued({**message, "payload": {"s": "x" * (1 << 20)}}), "max_frame"


def test_damage_is_told_and_stops_nothing(old, adopt, to):
    cases = list(damaged_members(old, to))
    for i, (member, _) in enumerate(cases):
        old.put(to, member, at=i + 1, priority=5)
    old.send(to, message_id="good")
    old.redis.command("RPUSH", old.key("dlq", to), "poison")
    old.redis.command("HSET", old.key("reserved", to), "res_x", "no json")
    old.redis.command("ZADD", old.key("reserved_deadlines", to), 1, "res_x")
    old.redis.command("RPUSH", old.key("queue", to), "no json")  # known from reserved
    report = adopt.report("--limit", 100)
    assert report["totals"]["damaged"] == len(cases) + 2 and report["totals"]["copied"] == 1
    assert report["totals"]["orphans"] == 0
    told = [each for each in problems(report, "damaged") if ":sched:" in each["key"]]
    assert len(told) == len(cases)
    for each, (member, reason) in zip(told, cases):
        assert reason in each["reason"], (member[:80], each)
        assert "\x1b" not in each["member"] and "\n" not in each["member"] and len(each["member"]) < 300
    assert len(adopt.report("--limit", 3)["problems"]) == 3
    status, out, _ = adopt.run("--limit", 3)
    assert status == 0 and out.count("damaged  ") <= 3 and "more of these are not shown" in out and "\x1b" not in out


def test_history_that_is_wrong_is_left_out(old, adopt, to):
    old.put(to, old.queued(old.message(to, message_id="h", timestamp="yesterday"), delivery_attempts="many", last_error=5, enqueued_at=1))
    report = adopt.report()
    assert report["totals"]["copied"] == 1 and len(problems(report, "note")) == 1
    got = adopt.queue(to).take_one()
    assert set(got.message["adopted"]) == {"from", "mark"} and got.message["timestamp"] != "yesterday"


def test_the_key_decides_the_priority_and_the_queue(old, adopt, to):
    other = agent("someone", "else")
    old.put(to, old.queued(old.message(other, message_id="broadcast")), priority=5)
    old.put(to, old.queued(old.message(to, message_id="moved", priority=1)), priority=9)
    report = adopt.report()
    assert report["totals"]["copied"] == 2 and len(problems(report, "note")) == 2
    received = adopt.queue(to).drain()
    assert [(each.id, each.message["priority"]) for each in received] == [("moved", 9), ("broadcast", 5)]
    assert all(each.message["recipient"] == to for each in received)


def test_names_with_colons_are_told_apart_by_the_recipient(old, adopt):
    first, second = agent("a:b", "c"), agent("a", "b:c")  # one key
    old.send(first, message_id="m1")
    old.send(second, message_id="m2")
    lost = old.message(agent("x", "y"), message_id="m3")
    old.put(first, old.queued(lost), priority=5)
    report = adopt.report()
    assert (report["totals"]["copied"], report["totals"]["damaged"]) == (2, 1)
    assert "cannot be told" in problems(report, "damaged")[0]["reason"]
    assert [each.id for each in adopt.queue(first).take()] == ["m1"]
    assert [each.id for each in adopt.queue(second).take()] == ["m2"]
    old.register(first)  # now there is only one who can be meant
    assert adopt.totals()["copied"] == 1
    assert [each.id for each in adopt.queue(first).take()] == ["m3"]


def test_keys_of_the_wrong_type_and_unknown_ones(old, adopt, to):
    old.send(to)
    bad = agent("bad", "b")
    for kind in ("queue", "reserved", "reserved_deadlines", "dlq", "subs"):
        old.redis.command("SET", old.key(kind, bad), "x")
    old.redis.command("SET", old.key("sched", bad, 5), "x")
    old.redis.command("ZADD", old.key("sched", bad, 7), 1, "x")
    old.redis.command("SADD", f"{old.prefix}:agents:a:b", "x")
    old.redis.command("SET", f"{old.prefix}:agents:a:c", "no json")
    old.redis.command("SET", f"{old.prefix}:cb:state:x", "{}")
    old.redis.command("RPUSH", f"{old.prefix}:queue:nocolon", "x")
    old.redis.command("SET", f"{old.prefix}:something", "x")
    report = adopt.report()
    assert report["totals"]["copied"] == 1 and report["other_keys"] == 1
    assert len(problems(report, "key")) == 9 and len(problems(report, "damaged")) == 2


def test_a_prefix_is_no_pattern(redis, broker):
    old, other = OldPackage(redis, fresh("a*[") + "?"), OldPackage(redis, fresh("a*["))
    to = agent("w", "1")
    old.send(to)
    other.send(to)
    run = Adopt(old, broker)
    assert run.totals()["copied"] == 1


def test_subscriptions_agents_and_breakers(old, adopt, to):
    old.subscribe(to, "event", "request", "gossip")
    old.register(to)
    old.redis.command("SET", f"{old.prefix}:capabilities:w:a", "[]")
    old.breaker("open", since=time.time() - 5)
    old.breaker("past", since=time.time() - 1000)
    old.breaker("closed", state="closed")
    report = adopt.report()
    assert (report["agents"], report["capabilities"]) == (1, 1)
    assert sorted(each["state"] for each in report["breakers"]) == ["closed", "open", "open"]
    client = adopt.broker.in_namespace(old.prefix)
    message = {"message_id": fresh("m"), "message_type": "event"}
    results = client.call("publish", sender=agent("p", "1"), message=message)
    assert [each["recipient"] for each in results] == [to]
    assert client.call("breaker_list") == [] and client.call("list_registered") == []
    adopt.run("--breakers")
    states = {each["name"]: each["state"] for each in client.call("breaker_list")}
    assert states == {"open": "open", "past": "closed"}
    retry_after = client.call("breaker_acquire", name="open")["retry_after"]
    assert 60 - 5 - within(20) < retry_after <= 56


def test_another_namespace(old, adopt, to):
    old.send(to, message_id="m")
    name = fresh("ns")
    assert adopt.totals("--namespace", name)["copied"] == 1
    assert [each.id for each in Queue(adopt.broker.in_namespace(name), to).take()] == ["m"]
    assert adopt.totals()["copied"] == 1  # and so into its own


# -- trial, deletion


def everything(old, to):
    old.send(to, message_id="m1")
    old.send(to, message_id="m2", at=now_us() + 3600 * SECOND)
    old.reserve(to, old.send(to, message_id="m3"))
    old.reserve(to, old.send(to, message_id="m4"), 0)
    old.bury(to, message_id="m5")
    old.subscribe(to, "event")


def test_a_trial_writes_nothing(tool, to):
    run = tool()
    old, redis = run.old, run.old.redis
    everything(old, to)
    old.breaker("b")
    redis.command("ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@read", "+@connection", "+time", "-keys")
    before = run.broker.in_namespace(old.prefix).call("list_queues")
    offset = redis.command("INFO", "stats")
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.connect(str(redis.socket))
        monitor.sendall(b"MONITOR\r\n")
        assert monitor.recv(5) == b"+OK\r\n"
        assert run.totals("--dry-run", "--breakers", "--delete")["left"] == 5
        redis.command("PING", "the end")
        seen = b""
        while b"the end" not in seen:
            seen += monitor.recv(1 << 16)
    words = {line.split(b'"')[1].upper() for line in seen.splitlines() if b'"' in line}
    assert words <= {b"SCAN", b"TYPE", b"GET", b"SSCAN", b"ZRANGE", b"LRANGE", b"HSCAN", b"HMGET", b"ZSCORE", b"TIME", b"PING"}
    assert offset and run.broker.in_namespace(old.prefix).call("list_queues") == before
    # An account that may not write does for a trial, and a broker is not needed.
    redis.command("ACL", "SETUSER", "default", "resetpass", ">secret")
    redis.password = "secret"
    run.server = "unix:///nowhere"
    os.environ["REDISCLI_AUTH"] = "secret"
    try:
        assert run.totals("--dry-run")["left"] == 5
    finally:
        del os.environ["REDISCLI_AUTH"]
    assert run.run("--dry-run")[0] == 69


def test_only_what_was_copied_is_removed(tool, to):
    run = tool()
    old, redis = run.old, run.old.redis
    everything(old, to)
    assert run.run("--delete")[0] == 2  # nobody to ask
    assert redis.command("EXISTS", old.key("sched", to, 5)) == 1
    for i in range(700):  # more than a page, and kept ones in between
        text = old.send(to, message_id=f"n{i}")
        if i % 50 == 0:
            old.redis.command("RPUSH", old.key("queue", to), f"damaged {i}")
        if i % 7 == 0:
            old.bury(to, message_id=f"dead{i}")
        if i % 11 == 0:
            old.reserve(to, text)
    old.put(to, "{damaged", priority=5)
    redis.command("RPUSH", old.key("dlq", to), "poison")
    redis.command("RPUSH", old.key("queue", to), old.queued(old.message(to, message_id="orphan")))
    totals = run.totals("--delete", "--yes")
    assert totals["removed"] == 5 + 700 + 100
    assert redis.command("ZRANGE", old.key("sched", to, 5), 0, -1) == ["{damaged"]
    assert redis.command("LRANGE", old.key("dlq", to), 0, -1) == ["poison"]
    left = redis.command("LRANGE", old.key("queue", to), 0, -1)
    assert left[:-1] == [f"damaged {i}" for i in range(0, 700, 50)] and "orphan" in left[-1]
    for kind in ("reserved", "reserved_deadlines", "subs"):
        assert redis.command("EXISTS", old.key(kind, to)) == 0
    journal = f"{old.prefix}:adopt:{old.prefix}:{to['type']}:{to['instance']}"
    assert redis.command("TTL", journal) == -1
    redis.command("DEL", old.key("sched", to, 5), old.key("dlq", to), old.key("queue", to))
    old.send(to, message_id="last")
    assert run.totals("--delete", "--yes")["removed"] == 1
    assert 0 < redis.command("TTL", journal) <= 7 * 86400


# -- once


def test_a_second_run_copies_nothing_also_after_consumption(old, adopt, to):
    everything(old, to)
    assert adopt.totals()["copied"] == 5
    queue = adopt.queue(to)
    assert len(queue.drain()) == 3
    totals = adopt.totals()
    assert (totals["copied"], totals["before"]) == (0, 5)
    assert queue.counts() == (0, 1, 0, 1)


def test_it_refuses_without_a_window(tool, to):
    run = tool(queues={"defaults": {"dedup_window": "0s"}})
    run.old.send(to)
    status, _, err = run.run()
    assert status == 78 and "queues.defaults.dedup_window is 0" in err
    assert all(":adopt:" not in key for key in run.old.keys())


def test_a_full_queue_is_told_and_continued(tool, to):
    run = tool()
    queue = run.queue(to)
    queue.configure(queue_size=30)
    ids = [f"m{i:03}" for i in range(100)]
    for each in ids:
        run.old.send(to, message_id=each)
    other = agent("other", "o")
    run.old.send(other)
    status, _, err = run.run()
    assert status == 1 and "is full: 70 messages are left" in err
    received = [each.id for each in queue.drain()]
    assert run.queue(other).counts()[0] == 1
    for _ in range(3):
        run.run()
        received += [each.id for each in queue.drain()]
    assert received == ids and run.totals()["left"] == 0


def test_two_at_once(tool, to):
    run = tool()
    fill(run.old, to, 3000)
    first, second = run.start("-o", "json"), run.start("-o", "json")
    results = [run.finish(each) for each in (first, second)]
    assert {code for code, _, _ in results} <= {0, 75}, results
    assert 0 in {code for code, _, _ in results}
    run.totals()
    check_once(run, to, 3000)


def fill(old, to, n, senders=2):
    """Many messages, in one write."""
    base = now_us() - n - SECOND
    data = bytearray()
    for i in range(n):
        priority = (9, 5, 1)[i % 3]
        message = old.message(to, message_id=f"m{i}", sender=agent("p", str(i % senders)), priority=priority, payload={"i": i, "ü": "€" * 5})
        for words in (
            ("ZADD", old.key("sched", to, priority), str(base + i), old.queued(message)),
        ):
            data += b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w.encode()), w.encode()) for w in words)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(old.redis.socket))
        sent = 0
        answers = 0
        while answers < n:
            readable, writable, _ = select.select([connection], [connection] if sent < len(data) else [], [])
            if readable:
                answers += connection.recv(1 << 16).count(b"\n")
            if writable:
                sent += connection.send(data[sent : sent + (1 << 16)])


def check_once(run, to, n, taken=()):
    """All that there were, each once, in order within a priority."""
    received = [each.id for each in run.queue(to).drain()]
    expected = [f"m{i}" for p in range(3) for i in range(p, n, 3)]
    if taken:
        assert sorted([*received, *taken]) == sorted(expected)
    else:
        assert received == expected


def test_twenty_thousand(tool, to):
    run = tool()
    fill(run.old, to, 20000)
    began = time.monotonic()
    assert run.totals()["copied"] == 20000
    assert time.monotonic() - began < within(60)
    check_once(run, to, 20000)


@pytest.mark.parametrize("consumes", [False, True])
def test_killed_at_random(tool, to, consumes):
    run = tool()
    n, taken, kills = 4000, [], 0
    fill(run.old, to, n, senders=3)
    for _ in range(60):
        process = run.start()
        try:
            process.wait(random.uniform(0.005, 0.15) * within(1))
        except subprocess.TimeoutExpired:
            process.kill()
            kills += 1
        run.finish(process)
        run.unlock()
        if consumes:
            taken += [each.id for each in run.queue(to).drain()]
        if process.returncode == 0:
            break
    run.report()
    assert kills
    check_once(run, to, n, taken)


@pytest.mark.parametrize("point", ["sending", "sent", "settled"])
def test_killed_at_a_chosen_point(tool, to, tmp_path, point):
    run = tool()
    n, taken = 3000, []
    fill(run.old, to, n)
    for round_ in range(3):
        count = 0

        def watch(data):
            nonlocal count
            word = b"HSETNX" if point == "sending" else b"send_batch" if point == "sent" else b"'HSET', KEYS"
            count += word in data
            if count <= round_:
                return None
            return "deaf"  # it is done, and the answer never comes

        at_redis = point != "sent"
        proxy = Proxy(tmp_path, run.old.redis.socket if at_redis else run.broker.unix_path, watch)
        plain = run.redis_url, run.server
        if at_redis:
            run.redis_url = f"unix://{proxy.path}"
        else:
            run.server = f"unix://{proxy.path}"
        process = run.start()
        assert proxy.held.wait(within(20))
        process.kill()
        run.finish(process)
        proxy.close()
        run.redis_url, run.server = plain
        run.unlock()
        taken += [each.id for each in run.queue(to).drain()]
    assert run.totals()["uncertain"] == 0
    check_once(run, to, n, taken)


def test_the_broker_is_killed(tool, to):
    run = tool()
    fill(run.old, to, 3000)
    for _ in range(4):
        process = run.start()
        time.sleep(random.uniform(0.02, 0.2))
        run.broker.kill()
        code, _, err = run.finish(process)
        assert code in (0, 69, 75), (code, err)
        run.broker.start()
    run.report()
    check_once(run, to, 3000)


def test_the_old_redis_is_killed(tool, to):
    run = tool()
    fill(run.old, to, 3000)
    for _ in range(4):
        process = run.start()
        time.sleep(random.uniform(0.02, 0.2))
        run.old.redis.kill()
        code, _, err = run.finish(process)
        assert code in (0, 69, 75), (code, err)
        run.old.redis.start()
        run.unlock()
    run.report()
    check_once(run, to, 3000)


def test_the_lock_of_one_that_was_killed_ends(tool, to):
    run = tool()
    run.old.send(to)
    lock = f"{run.old.prefix}:adopt:lock"
    run.old.redis.command("SET", lock, "dead", "PX", 700)
    assert run.totals()["copied"] == 1
    run.old.redis.command("SET", lock, "alive", "PX", 60000)
    stop = threading.Event()

    def renew():
        while not stop.wait(0.05):
            run.old.redis.command("PEXPIRE", lock, 60000)

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        status, _, err = run.run()
    finally:
        stop.set()
        thread.join()
    assert status == 75 and "another adopt" in err


def test_what_is_uncertain_is_not_guessed(tool, to):
    run = tool()
    old = run.old
    journal = f"{old.prefix}:adopt:{old.prefix}:{to['type']}:{to['instance']}"
    for each in ("seen", "dead", "gone"):
        (old.bury if each == "dead" else old.send)(to, message_id=each)
    assert run.totals()["copied"] == 3
    queue = run.queue(to)
    marks = {each.id: each.message["adopted"]["mark"] for each in queue.take(visibility_timeout=0.05)}
    wait_until(lambda: queue.peek() == ["seen", "gone"])
    got = queue.take()
    assert queue.ack([each for each in got if each.id == "gone"][0])
    assert queue.release([each for each in got if each.id == "seen"][0])
    # As after an interruption two days ago.
    fields = old.redis.command("EVAL", "local out = {} for i, v in ipairs(redis.call('HKEYS', KEYS[1])) do"
        f" redis.call('HSET', KEYS[1], v, 's{now_us() - 2 * 86400 * SECOND}') out[i] = #v end return out", 1, journal)  # fmt: skip
    assert fields == [16, 16, 16] and set(marks) == {"seen", "gone"}
    assert run.totals("--dry-run", code=1)["uncertain"] == 3  # a trial does not look
    report = run.report(code=1)
    assert (report["totals"]["before"], report["totals"]["uncertain"]) == (2, 1)
    assert [each["member"] for each in problems(report, "uncertain")] == ["gone"]
    assert "--uncertain" in problems(report, "uncertain")[0]["reason"]
    status, _, err = run.run("--delete", "--yes")
    assert status == 1 and "nothing was removed" in err
    assert run.run("--uncertain", "maybe")[0] == 64
    assert run.totals("--uncertain", "skip")["before"] == 3
    assert run.totals()["before"] == 3
    assert queue.counts() == (1, 0, 0, 1)


def test_what_is_uncertain_can_be_sent(tool, to):
    run = tool()
    old = run.old
    old.send(to, message_id="m")
    run.report()
    queue = run.queue(to)
    queue.drain()
    mark_key = f"{old.prefix}:adopt:{old.prefix}:{to['type']}:{to['instance']}"
    old.redis.command("EVAL", f"redis.call('HSET', KEYS[1], redis.call('HKEYS', KEYS[1])[1], 's1')", 1, mark_key)
    assert run.totals(code=1)["uncertain"] == 1
    totals = run.totals("--uncertain", "send")
    assert (totals["uncertain"], totals["copied"]) == (0, 1)  # the broker still knew it: nothing is there twice
    assert queue.drain() == []


def test_what_goes_wrong_before_it_begins(old, adopt, to):
    assert adopt.run("--prefix", "")[0] == 64
    for url, code in (("http://x", 64), ("unix:///nowhere", 69), ("redis://127.0.0.1:1", 69)):
        adopt.redis_url = url
        assert adopt.run()[0] == code
    adopt.redis_url, adopt.server = old.redis.url, "unix:///nowhere"
    assert adopt.run()[0] == 69
