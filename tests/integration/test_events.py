"""watch, unwatch, and the events of queues: each once, in order, through any broker, or `lost` in their place."""

import csv
import itertools
import json
import os
import re
import signal
import subprocess
import time

import pytest

from harness import (
    AGENT_ID,
    REPO,
    Queue,
    Worker,
    check_shape,
    fresh,
    is_count,
    is_text,
    is_time,
    seconds_of,
    spelled_out,
    wait_for_time,
    wait_until,
    within,
)

COORDCTL = os.environ.get("COORDCTL", str(REPO / "build" / "coordctl"))
FIELDS = {
    "message_dead": {"agent_id": AGENT_ID, "message_id": is_text, "reason": is_text},
    "queue_paused": {"agent_id": AGENT_ID},
    "queue_resumed": {"agent_id": AGENT_ID},
    "dead_letter_dropped": {"agent_id": AGENT_ID, "message_id": is_text, "reason": is_text},
    "lost": {"count": (None, is_count)},
}


class Watch:
    """A watch on a connection that may have several."""

    def __init__(self, client, *classes):
        self.client = client
        result = client.call("watch", events=list(classes or ("queue",)))
        self.id = check_shape(result, {"watch_id": is_text})["watch_id"]
        # The answer came first: until then there was nobody to notify.
        assert not any(each["watch_id"] == self.id for _, each in client.notifications)

    def seen(self):
        """All it was ever told."""
        out = []
        for method, value in self.client.notifications:
            assert method == "event"
            shape = {"watch_id": is_text, "event": is_text, "at": is_time}
            check_shape(value, {**shape, **FIELDS[value["event"]]}, "event")
            if value["watch_id"] == self.id:
                out.append(value)
        return out

    def poll(self):
        """Read what is there by now."""
        try:
            while True:
                self.client._take(self.client.read_frame(0))
        except TimeoutError:
            return self.seen()

    def wait_for(self, n, limit=5.0):
        """Until it was told `n` in all; those."""
        wait_until(lambda: len(self.poll()) >= n, limit, f"{n} events are there")
        seen = self.seen()
        assert len(seen) == n, seen
        return seen

    def wait_for_message(self, message_id, limit=5.0):
        """Until it was told that this one is dead; all it was told."""
        wait_until(lambda: message_id in dead_ids(self.poll()), limit, f"{message_id} is told")
        return self.seen()

    def quiet(self):
        """It is told nothing now, by a broker that looks on each ring of the bell and each second."""
        before = len(self.poll())
        wait_for_time(time.monotonic() + 1.3)
        assert len(self.poll()) == before, self.seen()[before:]


def dead_ids(seen):
    return [each["message_id"] for each in seen if each["event"] == "message_dead"]


def kinds(seen):
    return [each["event"] for each in seen]


def accounted(seen):
    """How many events it was told of, those lost included; none of those is unknown."""
    return sum(each["count"] if each["event"] == "lost" else 1 for each in seen)


@pytest.fixture
def ns(broker):
    """A connection to a namespace of its own, so that no other test's events are heard."""
    return broker.in_namespace(fresh("events"))


@pytest.fixture
def worker(ns):
    return Queue(ns, {"type": "worker", "instance": fresh("q")})


def sibling(client, broker, namespace=None):
    """Another connection to the same namespace, maybe through another broker."""
    return broker.in_namespace(namespace or namespace_of(client))


def namespace_of(client):
    return client.call("hello")["namespace"]


@pytest.fixture
def second(redis, make_broker, broker):
    """Another coordd on the shared Redis, under the same prefix."""
    return make_broker(redis).start()


def kill_many(queue, ids, reason="permanent"):
    """Make dead letters of many messages, one after the other in their order."""
    queue.send_all(ids)
    by_id = {}
    while len(by_id) < len(ids):
        for each in queue.take(visibility_timeout=600):
            by_id[each.id] = each
    calls = [
        ("nack", {"agent": queue.agent, "token": by_id[each].token, "failure": reason})
        for each in ids
    ]
    assert all(queue.client.results(queue.client.submit_all(calls)))


# -- what is told -----------------------------------------------------------------------------


def test_a_dead_letter_is_told_with_its_queue_its_id_and_the_reason(worker, ns, broker, redis):
    watch = Watch(sibling(ns, broker))
    began = redis.time()
    worker.kill("m1")
    (event,) = watch.wait_for(1, 1)
    assert event["event"] == "message_dead" and event["message_id"] == "m1"
    assert event["agent_id"] == spelled_out(worker.agent) and event["reason"] == "permanent"
    assert began - 0.01 <= seconds_of(event["at"]) <= redis.time() + 0.01


def test_the_reason_tells_attempts_and_expiry_apart(worker, ns, broker, redis):
    watch = Watch(sibling(ns, broker))
    worker.configure(retry_attempts=0)
    worker.send("tried")
    assert worker.nack(worker.take_one())
    worker.send("late", ttl=0.05)
    wait_for_time(time.monotonic() + 0.1)
    assert worker.receive() is None
    worker.send("silent")
    worker.take_one(visibility_timeout=0.1)
    seen = watch.wait_for(3)
    told = [(each["message_id"], each["reason"]) for each in seen]
    assert told == [("tried", "attempts"), ("late", "expired"), ("silent", "attempts")]


def test_what_an_almost_full_queue_finds_expired_is_told(worker, ns, broker, redis):
    watch = Watch(sibling(ns, broker))
    worker.configure(queue_size=3)
    worker.send_all(["a", "b", "c"], ttl=0.05)
    wait_for_time(time.monotonic() + 0.1)
    worker.send("d")
    assert dead_ids(watch.wait_for(3)) == ["a", "b", "c"]
    assert {each["reason"] for each in watch.seen()} == {"expired"}


@pytest.mark.parametrize(
    "message_id",
    ["x", "00112233-4455-6677-8899-aabbccddeeff", "00112233-4455-6677-8899-AABBCCDDEEFF", "ü" * 64, "a:b%c\n"],
)
@pytest.mark.parametrize("more", [{}, {"sender": {"type": "s" * 128, "instance": "i" * 128}}, {"ttl": 60}])
def test_whatever_the_id_looks_like(worker, ns, broker, message_id, more):
    watch = Watch(sibling(ns, broker))
    worker.send(message_id, **more)
    assert worker.nack(worker.take_one(), error="e" * 300, delay=0)  # it carries an error by then
    assert worker.nack(worker.take_one(), failure="permanent")
    assert dead_ids(watch.wait_for(1)) == [message_id]


def test_pausing_and_resuming_is_told_when_it_changes_something(worker, ns, broker):
    watch = Watch(sibling(ns, broker))
    for method in ("pause_queue", "pause_queue", "resume_queue", "resume_queue"):
        ns.call(method, agent=worker.agent)
    seen = watch.wait_for(2)
    assert kinds(seen) == ["queue_paused", "queue_resumed"]
    assert all(each["agent_id"] == spelled_out(worker.agent) for each in seen)
    watch.quiet()


def test_what_was_before_a_watch_is_not_told(worker, ns, broker):
    for i in range(5):
        worker.kill(f"m{i}")
        late = Watch(sibling(ns, broker))
        first = Watch(late.client) if i == 0 else first
    worker.kill("last")
    assert dead_ids(late.wait_for(1)) == ["last"]
    assert dead_ids(first.wait_for(5)) == ["m1", "m2", "m3", "m4", "last"]


def test_a_connection_hears_of_what_it_does_itself(worker, ns):
    watch = Watch(ns)
    worker.kill("m1")
    assert dead_ids(watch.wait_for(1)) == ["m1"]


# -- classes, namespaces, the end -----------------------------------------------------------------


def test_only_the_classes_asked_for_are_told(worker, ns, broker):
    connection = sibling(ns, broker)
    others = Watch(connection, "agent", "breaker")
    every = Watch(connection, "queue", "agent", "breaker", "queue")
    worker.kill("m1")
    assert dead_ids(every.wait_for(1)) == ["m1"]
    others.quiet()
    assert others.seen() == []


def test_other_namespaces_hear_nothing(worker, ns, broker):
    elsewhere = Watch(broker.in_namespace(fresh("other")), "queue")
    odd = broker.in_namespace("e:" + namespace_of(ns))
    strange = Watch(odd, "queue")
    here = Watch(sibling(ns, broker))
    worker.kill("m1")
    here.wait_for(1)
    Queue(odd, worker.agent).kill("m2")
    assert dead_ids(strange.wait_for(1)) == ["m2"]
    here.quiet()
    assert elsewhere.poll() == []


def test_unwatch_ends_it_and_nothing_else(worker, ns, broker):
    connection = sibling(ns, broker)
    watch, stays = Watch(connection), Watch(connection)
    worker.kill("m1")
    watch.wait_for(1), stays.wait_for(1)
    assert ns.call("unwatch", watch_id=watch.id) is False  # of another connection
    assert connection.call("unwatch", watch_id=watch.id) is True
    assert connection.call("unwatch", watch_id=watch.id) is False
    assert connection.call("unwatch", watch_id="none") is False
    worker.kill("m2")
    assert dead_ids(stays.wait_for(2)) == ["m1", "m2"]
    assert len(watch.poll()) == 1


def test_unwatch_at_once_is_of_no_use_but_harmless(ns):
    watching, ending = ns.results(
        ns.submit_all([("watch", {"events": ["queue"]}), ("unwatch", {"watch_id": "unknown"})])
    )
    assert ending is False
    assert ns.call("unwatch", watch_id=watching["watch_id"]) is True


def test_a_connection_has_16_watches_at_most(ns):
    watches = [Watch(ns) for _ in range(16)]
    refusal = ns.refused("watch", {"events": ["queue"]})
    assert refusal.code == "overloaded" and "16" in refusal.message
    assert ns.call("unwatch", watch_id=watches[3].id)
    Watch(ns)


def test_closing_the_connection_ends_its_watches(worker, ns, broker):
    for i in range(20):
        leaving = sibling(ns, broker)
        Watch(leaving)
        leaving.submit("watch", {"events": ["queue"]})  # and one that has not begun
        leaving.reset() if i % 2 else leaving.close()
        worker.kill(f"m{i}")
    assert ns.call("ping") == "pong"


@pytest.mark.parametrize(
    "events, field",
    [
        (None, "events"),
        ("queue", "events"),
        ([], "events"),
        (["queue", "message"], "events[1]"),
        ([1], "events[0]"),
    ],
)
def test_watch_is_refused(ns, events, field):
    refusal = ns.refused("watch", {} if events is None else {"events": events})
    assert refusal.code == "bad_request" and field in refusal.message


def test_watch_is_no_notification(worker, ns):
    ns.notify("watch", {"events": ["queue"]})
    worker.kill("m1")
    ns.expect_silence()


# -- once, in order, through any broker ----------------------------------------------------------------


def test_each_event_is_told_once_and_in_order_by_each_broker(worker, ns, broker, second):
    namespace = namespace_of(ns)
    watches = [Watch(each.in_namespace(namespace)) for each in (broker, second, broker, second)]
    ids = [f"m{i:04}" for i in range(1000)]
    kill_many(worker, ids)
    for watch in watches:
        wait_until(lambda: len(watch.poll()) >= len(ids), 10, "all are told")
        assert dead_ids(watch.seen()) == ids
    assert watches[0].seen()[0]["at"] == watches[1].seen()[0]["at"]


def test_what_happens_through_several_brokers_is_told_in_one_order(ns, broker, second):
    namespace = namespace_of(ns)
    watches = [Watch(each.in_namespace(namespace)) for each in (broker, second)]
    brokers, each_has = (broker, second, broker, second), 100

    def work(number, through):
        queue = Queue(through.in_namespace(namespace), {"type": f"worker{number}"})
        for i in range(each_has):
            queue.kill(f"{number}-{i:03}")

    for each in [Worker(lambda n=n, b=b: work(n, b)) for n, b in enumerate(brokers)]:
        each.finish()
    for watch in watches:
        wait_until(lambda: len(watch.poll()) >= 4 * each_has, 10, "all are told")
    told = [dead_ids(watch.seen()) for watch in watches]
    assert told[0] == told[1]
    for n in range(4):
        assert [each for each in told[0] if each.startswith(f"{n}-")] == [f"{n}-{i:03}" for i in range(each_has)]
    times = [each["at"] for each in watches[0].seen()]
    assert times == sorted(times)


def test_what_a_broker_did_before_it_was_killed_is_told(ns, broker, redis, make_broker):
    namespace = namespace_of(ns)
    watch = Watch(broker.in_namespace(namespace))
    victim = make_broker(redis).start()
    ids = [f"m{i}" for i in range(50)]
    kill_many(Queue(victim.in_namespace(namespace), {"type": "worker"}), ids)
    victim.kill()
    wait_until(lambda: len(watch.poll()) >= 50, 5)
    assert dead_ids(watch.seen()) == ids


def test_an_event_is_told_within_a_second_though_no_bell_is_heard(worker, ns, broker, redis):
    """The subscribed connection is cut; whoever waits looks by himself."""
    watch = Watch(sibling(ns, broker))
    worker.send("m1")
    received = worker.take_one()
    redis.command("CLIENT", "KILL", "TYPE", "pubsub")
    assert worker.nack(received, failure="permanent")
    assert dead_ids(watch.wait_for(1, 2)) == ["m1"]


def test_events_are_told_at_once(worker, ns, broker, second):
    watch = Watch(second.in_namespace(namespace_of(ns)))
    took = []
    for i in range(10):
        worker.send(f"m{i}")
        received = worker.take_one()
        began = time.monotonic()
        assert worker.nack(received, failure="permanent")
        watch.wait_for(i + 1)
        took.append(time.monotonic() - began)
    assert sorted(took)[5] < within(0.2), took  # far from the second without a bell


# -- lost -------------------------------------------------------------------------------------------


def stream_of(redis, client):
    return f"coordd:e:{namespace_of(client)}"


def test_a_slow_watcher_is_told_how_many_it_missed_and_holds_nobody_up(start_redis, make_broker):
    config = {
        "limits": {"output_high_water": "16KiB", "output_stall_timeout": "60s"},
        "queues": {"defaults": {"queue_size": 1_000_000}},
    }
    broker = make_broker(start_redis(), config=config)
    broker.start()
    slow, fast = Watch(broker.connect()), Watch(broker.connect())
    queue = Queue(broker.connect(), {"type": "worker", "instance": "i" * 128})
    total, block = 0, 1000

    def is_stuck():
        """Until the kernel's buffers and coordd's own are full, and then some more."""
        nonlocal total
        ids = [f"m{i:06}-{'x' * 100}" for i in range(total, total + block)]
        kill_many(queue, ids)
        total += block
        fast.wait_for(total, 20)
        return total >= 12_000

    while not is_stuck():
        assert total < 100_000
    assert dead_ids(fast.seen()) == [f"m{i:06}-{'x' * 100}" for i in range(total)]
    wait_until(lambda: accounted(slow.poll()) >= total, 20, "it is told what it missed")
    queue.kill("the end")
    seen = slow.wait_for_message("the end")
    assert accounted(seen) == total + 1
    assert "lost" in kinds(seen)
    # What was missed is missing where it says so.
    at = 0
    for each in seen[:-1]:
        if each["event"] == "lost":
            at += each["count"]
        else:
            assert each["message_id"].startswith(f"m{at:06}-")
            at += 1
    assert dead_ids(fast.wait_for(total + 1))[-1] == "the end"


def test_what_was_trimmed_is_lost(worker, ns, broker, redis):
    connection = sibling(ns, broker)
    every, queues = Watch(connection, "queue", "agent", "breaker"), Watch(connection)
    worker.kill("m0")
    every.wait_for(1)
    # While nobody reads: three are added and two of them trimmed away, in one step.
    stream = stream_of(redis, ns)
    namespace = namespace_of(ns)
    script = """
        for i = 2, 4 do
            redis.call('HINCRBY', 'coordd:events', ARGV[1], 1)
            redis.call('XADD', KEYS[1], i .. '-0', 'k', 'message_dead', 'a', ARGV[1] .. ':t:i', 'n', '', 'r', 'expired',
                'm', 'm' .. i, 't', '1800000000000000')
        end
        return redis.call('XTRIM', KEYS[1], 'MINID', '4-0')
    """
    assert redis.command("EVAL", script, 1, stream, namespace) == 3
    lost, event = every.wait_for(3, 3)[1:]
    assert lost["event"] == "lost" and lost["count"] == 2
    assert event["message_id"] == "m4" and event["at"].startswith("2027-01-15T08:00:00")
    lost, event = queues.wait_for(3, 3)[1:]
    assert lost["event"] == "lost" and lost["count"] is None  # of which classes, nobody knows
    assert event["message_id"] == "m4"


def test_a_stream_that_is_gone_is_lost(worker, ns, broker, redis):
    watch = Watch(sibling(ns, broker), "queue", "agent", "breaker")
    worker.kill("m0")
    watch.wait_for(1)
    redis.command("HINCRBY", "coordd:events", namespace_of(ns), 5)
    redis.command("DEL", stream_of(redis, ns))
    (lost,) = watch.wait_for(2, 3)[1:]
    assert lost["event"] == "lost" and lost["count"] == 5
    worker.kill("m1")
    assert dead_ids(watch.wait_for(3)) == ["m0", "m1"]


def test_foreign_keys_in_the_way_harm_no_message(worker, ns, broker, redis):
    watch = Watch(sibling(ns, broker))
    redis.command("SET", stream_of(redis, ns), "not ours")
    worker.kill("m0")
    (lost,) = watch.wait_for(1, 3)
    assert lost["event"] == "lost"
    redis.command("DEL", stream_of(redis, ns))
    worker.kill("m1")
    assert dead_ids(watch.wait_for(2, 3)) == ["m1"]
    assert worker.counts()[3] == 2


def test_the_stream_is_bounded_and_ends(worker, ns, redis):
    kill_many(worker, [f"m{i}" for i in range(3000)])
    stream = stream_of(redis, ns)
    assert 0 < redis.command("PTTL", stream) <= 3_600_000
    kill_many(worker, [f"n{i}" for i in range(3000)])
    assert redis.command("XLEN", stream) < 4096 + 200


# -- Redis away -------------------------------------------------------------------------------------------


@pytest.fixture
def own(start_redis, make_broker):
    redis = start_redis(fsync="always")
    return redis, make_broker(redis, expected_errors=["redis"]).start()


def until_ready(broker):
    client = broker.connect()
    wait_until(lambda: client.call("status")["redis"]["up"], 15, "the broker has its Redis again")


def test_a_restart_of_redis_loses_no_event(own):
    redis, broker = own
    watch = Watch(broker.connect())
    queue = Queue(broker.connect(), {"type": "worker"})
    queue.kill("m1")
    watch.wait_for(1)
    redis.kill()
    redis.start()
    until_ready(broker)
    queue.kill("m2")
    assert dead_ids(watch.wait_for(2)) == ["m1", "m2"]


def test_what_happened_while_a_broker_was_cut_off_is_told_afterwards(own, make_broker):
    redis, broker = own
    other = make_broker(redis).start()
    watch = Watch(broker.connect())
    queue = Queue(other.connect(), {"type": "worker"})
    queue.kill("m1")
    watch.wait_for(1)
    broker.signal(signal.SIGSTOP)
    ids = [f"n{i}" for i in range(1000)]
    kill_many(queue, ids)
    broker.signal(signal.SIGCONT)
    wait_until(lambda: len(watch.poll()) >= 1001, 10)
    assert dead_ids(watch.seen()) == ["m1", *ids]


def test_a_redis_that_forgot_everything_is_told_as_lost(start_redis, make_broker):
    redis = start_redis(appendonly="no")
    broker = make_broker(redis, expected_errors=["redis"]).start()
    watch = Watch(broker.connect())
    queue = Queue(broker.connect(), {"type": "worker"})
    queue.kill("m1")
    queue.kill("m2")
    watch.wait_for(2)
    for round in range(2):
        redis.kill()
        redis.start()
        until_ready(broker)
        (lost,) = watch.wait_for(3 + 4 * round)[-1:]
        assert lost["event"] == "lost" and lost["count"] is None
        for i in range(3):
            queue.kill(f"again{round}{i}")
        assert dead_ids(watch.wait_for(6 + 4 * round))[-3:] == [f"again{round}{i}" for i in range(3)]


def test_a_watch_is_refused_while_redis_is_away(own):
    redis, broker = own
    client = broker.connect()
    before = Watch(client)
    redis.kill()
    wait_until(lambda: not client.call("status")["redis"]["up"], 10)
    refusal = client.refused("watch", {"events": ["queue"]})
    assert refusal.code == "unavailable" and refusal.applied == "no"
    redis.start()
    until_ready(broker)
    after = Watch(client)
    Queue(broker.connect(), {"type": "worker"}).kill("m1")
    assert dead_ids(before.wait_for(1)) == dead_ids(after.wait_for(1)) == ["m1"]


# -- coordctl tail, coordctl agent watch --------------------------------------------------------------


class Tail:
    """coordctl that prints events, and a queue whose pausing is one."""

    def __init__(self, client, broker, *arguments):
        self.client = client
        self.process = subprocess.Popen(
            [COORDCTL, *arguments, "-s", f"unix://{broker.unix_path}", "-N", namespace_of(client)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        os.set_blocking(self.process.stdout.fileno(), False)
        self.text = ""

    def lines(self):
        chunk = self.process.stdout.read()
        self.text += chunk.decode() if chunk else ""
        return self.text.splitlines()

    def has_begun(self):
        """Until it prints what happens."""
        changes = itertools.cycle(("pause_queue", "resume_queue"))
        agent = {"type": "paused", "instance": fresh("q")}

        def is_there():
            self.client.call(next(changes), agent=agent)
            return self.lines()

        wait_until(is_there, 5, "coordctl prints events")
        return self

    def end(self, status=0):
        try:
            assert self.process.wait(within(5)) == status
        finally:
            self.process.kill()
            _, errors = self.process.communicate()
        return errors.decode()


def test_tail_prints_a_line_for_each_event(worker, ns, broker):
    tail = Tail(ns, broker, "tail").has_begun()
    worker.kill("m1\x1b[31m")
    line = wait_until(lambda: [each for each in tail.lines() if "message_dead" in each], 5)[0]
    name = f"worker:{worker.agent['instance']}"
    assert re.fullmatch(rf"\S{{20}}  message_dead {{6}}  {name}  m1\\x1b\[31m  permanent", line), line
    assert re.fullmatch(r"\S{20}  queue_(paused|resumed) +paused:q-\d+", tail.lines()[0])
    tail.process.send_signal(signal.SIGINT)
    tail.end(-signal.SIGINT)


def test_tail_has_json_lines_and_csv_and_a_count(worker, ns, broker):
    tails = [
        Tail(ns, broker, "tail", "queues", "-o", form, "-n", "3") for form in ("json", "jsonl", "csv")
    ]
    for tail in tails:
        tail.has_begun()
    for i in range(3):
        worker.kill(f"m{i}")
    for tail in tails:
        wait_until(lambda: tail.process.poll() is not None, 5)
        lines = tail.lines()
        assert tail.end() == ""
        if tail is tails[-1]:
            rows = list(csv.DictReader(lines))
            assert list(rows[0]) == ["event", "at", "agent", "name", "message_id", "reason", "count"]
        else:
            rows = [json.loads(line) for line in lines]
            assert all("watch_id" not in row for row in rows)
        assert len(rows) == 3 and {row["event"] for row in rows} <= {
            "queue_paused",
            "queue_resumed",
            "message_dead",
        }


def test_tail_of_other_classes_says_nothing_of_queues(worker, ns, broker):
    tail = Tail(ns, broker, "tail", "agents", "breakers")
    both = Tail(ns, broker, "tail", "agents", "queues").has_begun()
    worker.kill("m1")
    wait_until(lambda: "m1" in both.text + "".join(both.lines()), 5)
    assert tail.lines() == []
    for each in (tail, both):
        each.process.terminate()
        each.end(-signal.SIGTERM)


def test_agent_watch_names_one_type(ns, broker, redis):
    """Its events are put there as a registration would."""
    every, one = Tail(ns, broker, "agent", "watch"), Tail(ns, broker, "agent", "watch", "worker", "-n", "2")
    namespace = namespace_of(ns)
    script = """
        local id = redis.call('HINCRBY', 'coordd:events', ARGV[1], 1)
        redis.call('HSETNX', 'coordd:events', ARGV[1] .. ':since', 1)
        redis.call('XADD', 'coordd:e:' .. ARGV[1], id .. '-0', 'k', 'agent_registered', 'a', ARGV[1] .. ':' .. ARGV[2],
            'n', 'the ' .. ARGV[2], 'r', '', 'm', '', 't', '1800000000000000')
        redis.call('PUBLISH', 'coordd:bell', 'e:' .. ARGV[1])
    """

    def is_over():
        for name in ("other:a", "worker:a"):
            redis.command("EVAL", script, 0, namespace, name)
        return one.process.poll() is not None

    wait_until(is_over, 5)
    line = "2027-01-15T08:00:00Z  agent_registered    worker:a  the worker:a"
    assert one.lines() == [line, line] and one.end() == ""
    wait_until(lambda: line in every.lines() and line.replace("worker", "other") in every.lines(), 5)
    every.process.terminate()
    every.end(-signal.SIGTERM)


def test_tail_goes_on_when_the_broker_comes_back_and_fails_when_it_is_not_there(own):
    _, broker = own
    client = broker.connect()
    tail = Tail(client, broker, "tail").has_begun()
    broker.stop()
    late = subprocess.run([COORDCTL, "tail", "-s", f"unix://{broker.unix_path}"], capture_output=True)
    assert late.returncode == 69
    broker.start()
    wait_until(lambda: any("lost" in line for line in tail.lines()), 20)
    tail.process.terminate()
    assert "connecting again" in tail.end(-signal.SIGTERM)
    wrong = subprocess.run([COORDCTL, "tail", "messages"], capture_output=True)
    assert wrong.returncode == 64 and b"messages" in wrong.stderr


def test_dead_letters_above_the_limit_leave_oldest_first_and_are_told(redis, make_broker):
    config = {"redis": {"key_prefix": fresh("own")}, "queues": {"defaults": {"dead_letter_max": 3}}}
    broker = make_broker(redis, config=config).start()
    jobs = Queue(broker.connect(), {"type": "jobs"})
    watch = Watch(broker.connect(), "queue")
    kill_many(jobs, [f"m{i}" for i in range(5)])
    watch.wait_for(7)
    told = [(each["event"], each["message_id"]) for each in watch.seen()]
    assert [name for kind, name in told if kind == "message_dead"] == [f"m{i}" for i in range(5)]
    assert [name for kind, name in told if kind == "dead_letter_dropped"] == ["m0", "m1"]
    assert {each["reason"] for each in watch.seen()} == {"permanent"}
    dead = jobs.dead()
    assert [each["queue_message"]["message"]["message_id"] for each in dead] == ["m2", "m3", "m4"]
    assert jobs.counts() == (0, 0, 0, 3)
