"""What breaks around the daemon, and what its clients see of it (promises.md is the long list)."""

import collections
import signal
import threading
import time

import pytest

from harness import (
    Closed,
    Queue,
    Refused,
    Worker,
    ids_of,
    wait_for_time,
    wait_until,
    within,
)

AGENT = {"type": "worker", "instance": "one"}
REDIS_TROUBLE = ("redis.", "request.")  # events that may be errors in the log


@pytest.fixture
def safe_redis(start_redis):
    """A Redis that has written what it answered."""
    return start_redis(fsync="always")


@pytest.fixture
def lab(safe_redis, make_broker):
    """(redis, broker, queue), all to be broken."""
    broker = make_broker(safe_redis, expected_errors=REDIS_TROUBLE).start()
    return safe_redis, broker, Queue(broker.connect(), AGENT)


def works(queue):
    """Whether a message can be sent, received and acked now."""
    try:
        message_id = queue.send()
        received = queue.take()
        return message_id in ids_of(received) and all(queue.ack_all(received))
    except Refused as refusal:
        assert refusal.code == "unavailable"
        return False


ALL_METHODS = {
    "send": lambda queue: queue.sending(),
    "receive": lambda queue: {"agent": queue.agent},
    "receive_batch": lambda queue: {"agent": queue.agent, "max": 10},
    "ack": lambda queue: {"agent": queue.agent, "token": queue.held.token},
    "nack": lambda queue: {"agent": queue.agent, "token": queue.held.token},
    "release": lambda queue: {"agent": queue.agent, "token": queue.held.token},
    "extend": lambda queue: {
        "agent": queue.agent,
        "token": queue.held.token,
        "visibility_timeout": 60,
    },
    "queue_stats": lambda queue: {"agent": queue.agent},
    "list_queues": lambda queue: {},
    "peek": lambda queue: {"agent": queue.agent},
    "purge": lambda queue: {"agent": queue.agent},
    "dlq_list": lambda queue: {"agent": queue.agent},
    "dlq_redrive": lambda queue: {"agent": queue.agent},
    "dlq_purge": lambda queue: {"agent": queue.agent},
    "configure": lambda queue: {"agent": queue.agent, "queue_size": 100},
    "recover_pending": lambda queue: {"agent": queue.agent},
}


# -- Redis goes away


def test_without_redis_every_method_answers_unavailable_in_time(lab):
    redis, broker, queue = lab
    queue.send("m1")
    queue.held = queue.take_one(visibility_timeout=600)
    redis.kill()
    for _ in range(2):
        begun = time.monotonic()
        ids = queue.client.submit_all([(each, make(queue)) for each, make in ALL_METHODS.items()])
        for method, msgid in zip(ALL_METHODS, ids):
            with pytest.raises(Refused) as refused:
                queue.client.result(msgid, within(4))
            assert refused.value.code == "unavailable", method
            assert refused.value.applied in ("no", "unknown"), method
        assert time.monotonic() - begun < within(3)
        assert queue.client.call("ping") == "pong"
    # By now the broker knows, so it cannot have tried.
    assert queue.client.refused("send", queue.sending()).applied == "no"
    status = queue.client.call("status")
    assert status["redis"]["up"] is False and status["ready"] is False
    redis.start()
    wait_until(lambda: works(queue), 6, "the service is back")
    assert queue.ack(queue.held) is True


def test_service_returns_soon_after_redis_does(lab):
    redis, broker, queue = lab
    redis.kill()
    wait_until(lambda: queue.client.refused("send", queue.sending()).applied == "no", 5)
    redis.start()
    begun = time.monotonic()
    wait_until(lambda: works(queue), 6, "the service is back")
    assert time.monotonic() - begun < within(2.5)
    assert queue.client.call("status")["ready"] is True


def test_a_killed_redis_loses_nothing_that_was_answered(lab):
    """What was answered `no` never appears, what was answered `unknown` may."""
    redis, broker, queue = lab
    outcome, stop = {}, []

    def produce(name):
        mine = queue.at(broker.connect())
        sent = 0
        while not stop:
            ids = [f"{name}.{sent + i}" for i in range(50)]
            sent += 50
            calls = [("send", mine.sending(each)) for each in ids]
            for message_id, msgid in zip(ids, mine.client.submit_all(calls)):
                try:
                    result = mine.client.result(msgid)
                    outcome[message_id] = "ok" if result["delivered"] else "no"
                except Refused as refusal:
                    assert refusal.code == "unavailable"
                    outcome[message_id] = refusal.applied
            if len(outcome) and outcome[ids[-1]] != "ok":
                time.sleep(0.02)

    workers = [Worker(lambda name=name: produce(name)) for name in "ab"]
    for _ in range(3):
        reached = sum(each == "ok" for each in list(outcome.values())) + 300
        wait_until(
            lambda: sum(each == "ok" for each in list(outcome.values())) >= reached, 15, "load flows"
        )
        redis.kill()
        redis.start()
    wait_until(lambda: works(Queue(queue.client, {"type": "probe"})), 6, "the service is back")
    stop.append(True)
    for each in workers:
        each.finish()
    by = collections.defaultdict(set)
    for message_id, what in outcome.items():
        by[what].add(message_id)
    drained = collections.Counter(ids_of(queue.drain()))
    assert set(drained.values()) == {1}
    assert by["ok"] <= set(drained), "a message that was answered is lost"
    assert not by["no"] & set(drained), "a message that was refused appeared"
    assert set(drained) <= by["ok"] | by["unknown"]


def test_an_unknown_send_repeated_is_stored_once(lab):
    redis, broker, queue = lab
    redis.pause()
    begun = time.monotonic()
    ids = queue.client.submit_all([("send", queue.sending(f"m{i}")) for i in range(20)])
    for msgid in ids:
        with pytest.raises(Refused) as refused:
            queue.client.result(msgid, within(4))
        assert (refused.value.code, refused.value.applied) == ("unavailable", "unknown")
    assert 1 < time.monotonic() - begun < within(3)
    assert queue.client.call("ping") == "pong"
    redis.resume()
    wait_until(lambda: works(Queue(queue.client, {"type": "probe"})), 6, "the service is back")
    for i in range(20):
        assert queue.try_send(f"m{i}")["delivered"] is True
    assert ids_of(queue.drain()) == [f"m{i}" for i in range(20)]


def test_a_pause_shorter_than_the_deadline_is_only_a_delay(lab):
    redis, broker, queue = lab
    redis.pause()
    ids = queue.client.submit_all([("send", queue.sending(f"m{i}")) for i in range(20)])
    wait_for_time(time.monotonic() + 0.5)
    redis.resume()
    assert all(each["delivered"] for each in queue.client.results(ids))
    assert ids_of(queue.drain()) == [f"m{i}" for i in range(20)]


def test_a_batch_whose_outcome_is_unknown_in_part_is_unknown_whole(lab):
    redis, broker, queue = lab
    messages = []
    for i in range(10):
        item = Queue(queue.client, {"type": "many", "instance": f"i{i}"}).sending(f"m{i}")
        sender = item.pop("sender")
        messages.append(item)
    redis.pause()
    refusal = queue.client.refused("send_batch", {"sender": sender, "messages": messages})
    assert (refusal.code, refusal.applied) == ("unavailable", "unknown")
    redis.resume()
    wait_until(lambda: works(queue), 6, "the service is back")


def test_a_reservation_nobody_heard_of_comes_back(lab):
    redis, broker, queue = lab
    queue.send("m1")
    redis.pause()
    refusal = queue.client.refused("receive", {"agent": AGENT, "visibility_timeout": 0.5})
    assert (refusal.code, refusal.applied) == ("unavailable", "unknown")
    redis.resume()

    def come():
        try:
            return queue.receive(wait=1)
        except Refused as refusal:
            assert refusal.code == "unavailable"

    assert wait_until(come, 15, "the message came back").id == "m1"


def test_receivers_that_are_parked_survive_redis_or_hear_of_it(lab):
    redis, broker, queue = lab
    parked = [queue.at(broker.connect()).park(wait=30) for _ in range(5)]
    redis.kill()
    wait_until(lambda: queue.client.refused("queue_stats", {"agent": AGENT}).applied == "no", 5)
    redis.start()
    wait_until(lambda: works(Queue(queue.client, {"type": "probe"})), 6, "the service is back")
    queue.send_all([f"m{i}" for i in range(5)])
    served = []
    for each in parked:
        try:
            served.append(each.result(within(5)).id)
        except Refused as refusal:
            assert refusal.code == "unavailable"
    served += ids_of(queue.take())
    assert sorted(served) == [f"m{i}" for i in range(5)]


def test_a_broker_started_before_its_redis_serves_once_redis_is_there(safe_redis, make_broker):
    redis = safe_redis
    redis.kill()
    broker = make_broker(redis, expected_errors=REDIS_TROUBLE)
    broker.launch()

    def connected():
        try:
            return broker.connect("unix")
        except OSError:
            return None

    client = wait_until(connected, 5, "coordd listens")
    queue = Queue(client, AGENT)
    assert queue.client.refused("send", queue.sending()).code == "unavailable"
    redis.start()
    wait_until(lambda: works(queue), 8, "the service is there")


# -- Redis is there but refuses


def test_a_flushed_script_cache_goes_unnoticed_in_mid_load(lab):
    redis, broker, queue = lab
    stop = []

    def flush():
        while not stop:
            redis.command("SCRIPT", "FLUSH")
            time.sleep(0.003)

    worker = Worker(flush)
    try:
        for block in range(10):
            ids = [f"m{block}.{i}" for i in range(500)]
            queue.send_all(ids)
            assert ids_of(queue.drain()) == ids
    finally:
        stop.append(True)
        worker.finish()
    assert queue.counts() == (0, 0, 0, 0)


def test_without_memory_sends_are_refused_and_the_rest_goes_on(lab):
    redis, broker, queue = lab
    queue.configure(backoff_base=0)
    queue.send_all([f"m{i}" for i in range(50)], payload={"body": b"x" * 1000})
    redis.command("CONFIG", "SET", "maxmemory", "1mb")
    refusal = queue.client.refused("send", queue.sending(payload={"body": b"x" * 1000}))
    assert (refusal.code, refusal.applied) == ("unavailable", "no")
    first, second, third, fourth, *_ = queue.take(10, visibility_timeout=60)
    assert queue.ack(first)
    assert queue.nack(second)
    assert queue.nack(third, failure="permanent")
    assert queue.release(fourth)
    assert queue.extend(queue.take_one(visibility_timeout=0.2), 0.3) is not None
    assert queue.counts()[2] > 0
    assert queue.peek() and queue.dead() and queue.client.call("recover_pending") >= 0
    redis.command("CONFIG", "SET", "maxmemory", "0")
    queue.send("after")
    assert "after" in ids_of(queue.drain())


def test_sends_refused_for_memory_beside_acks_do_not_spoil_them(lab):
    """All of one turn travels together; what may go on goes on."""
    redis, broker, queue = lab
    queue.send_all([f"m{i}" for i in range(10)])
    received = queue.take(10, visibility_timeout=60)
    redis.command("CONFIG", "SET", "maxmemory", "1mb")
    calls = []
    for each in received:
        calls.append(("ack", {"agent": AGENT, "token": each.token}))
        calls.append(("send", queue.sending()))
    ids = queue.client.submit_all(calls)
    for i, msgid in enumerate(ids):
        if i % 2 == 0:
            assert queue.client.result(msgid) is True
        else:
            with pytest.raises(Refused) as refused:
                queue.client.result(msgid)
            assert (refused.value.code, refused.value.applied) == ("unavailable", "no")
    redis.command("CONFIG", "SET", "maxmemory", "0")
    assert queue.counts() == (0, 0, 0, 0)


def test_a_redis_made_read_only_is_unavailable_until_it_writes_again(lab):
    redis, broker, queue = lab
    queue.send("m1")
    redis.command("REPLICAOF", "127.0.0.1", "1")
    refusal = queue.client.refused("send", queue.sending())
    assert (refusal.code, refusal.applied) == ("unavailable", "no")
    redis.command("REPLICAOF", "NO", "ONE")
    wait_until(lambda: works(Queue(queue.client, {"type": "probe"})), 8, "the service is back")
    assert queue.take_one().id == "m1"


def test_a_redis_busy_with_a_foreign_script_is_unavailable_until_it_is_done(lab):
    redis, broker, queue = lab
    redis.command("CONFIG", "SET", "busy-reply-threshold", "50")

    def endless():
        with pytest.raises(RuntimeError):
            redis.command("EVAL", "while true do end", "0")

    worker = Worker(endless)
    refusals = []

    def refused():
        try:
            queue.try_send()
        except Refused as refusal:
            assert refusal.code == "unavailable"
            refusals.append(refusal)
        return len(refusals) >= 3

    wait_until(refused, 10, "sends are refused")
    assert queue.client.call("ping") == "pong"
    redis.command("SCRIPT", "KILL")
    worker.finish()
    wait_until(lambda: works(Queue(queue.client, {"type": "probe"})), 8, "the service is back")


def test_a_flushed_redis_is_an_empty_service(lab):
    redis, broker, queue = lab
    queue.send_all(["m1", "m2"])
    held = queue.take_one(visibility_timeout=60)
    parked = Queue(broker.connect(), {"type": "other"}).park()
    redis.command("FLUSHALL")
    assert queue.ack(held) is False
    wait_until(lambda: works(queue), 5, "the service goes on")
    Queue(queue.client, {"type": "other"}).send("m3")
    assert parked.result(within(3)).id == "m3"


def test_foreign_connections_killed_by_redis_are_made_anew(lab):
    redis, broker, queue = lab
    for _ in range(5):
        redis.command("CLIENT", "KILL", "TYPE", "normal")
        redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        wait_until(lambda: works(queue), 5, "the service is back")
    parked = queue.at(broker.connect()).park()
    queue.send("m1")
    assert parked.result(within(3)).id == "m1"


def test_a_deaf_bell_is_noticed_within_moments(lab, make_broker):
    """The connection that wakes receivers may be lost alone; they look again by themselves."""
    redis, broker, queue = lab
    second = make_broker(redis, expected_errors=REDIS_TROUBLE).start()
    parked = queue.at(second.connect()).park()
    redis.command("CLIENT", "KILL", "TYPE", "pubsub")
    queue.send("m1")
    assert parked.result(within(3)).id == "m1"


# -- the broker dies


class Load:
    """Producers that repeat what they do not know, consumers that log what they saw."""

    def __init__(self, connect, count, producers=2, consumers=2):
        self.connect, self.stop = connect, threading.Event()
        self.lock = threading.Lock()
        self.deliveries = []  # (asked, id)
        self.acked = {}  # id: when the answer came
        self.doubted = set()  # acks without an answer
        self.confirmed = set()
        ids = [f"m{i}" for i in range(count)]
        self.ids = set(ids)
        self.producers = [
            Worker(lambda mine=ids[i::producers]: self.produce(mine)) for i in range(producers)
        ]
        self.consumers = [Worker(self.consume) for _ in range(consumers)]

    def client(self):
        while True:
            try:
                return self.connect()
            except OSError:
                time.sleep(0.01)

    def produce(self, ids):
        client = self.client()
        while ids:
            block, unsure = ids[:40], []
            queue = Queue(client, AGENT)
            try:
                numbers = client.submit_all([("send", queue.sending(each)) for each in block])
                for i, msgid in enumerate(numbers):
                    try:
                        assert client.result(msgid)["delivered"] is True
                        self.confirmed.add(block[i])
                    except Refused as refusal:
                        assert refusal.error["retryable"], refusal
                        unsure.append(block[i])
            except (Closed, OSError):
                unsure = [each for each in block if each not in self.confirmed]
                client.close()
                client = self.client()
            ids = unsure + ids[len(block) :]

    def consume(self):
        client = self.client()
        while not self.stop.is_set():
            queue = Queue(client, AGENT)
            tokens = []
            try:
                asked = time.monotonic()
                batch = queue.take(20, wait=0.3, visibility_timeout=1.5)
                with self.lock:
                    self.deliveries += [(asked, each.id) for each in batch]
                tokens = batch
                if batch:
                    answers = queue.ack_all(batch)
                    now = time.monotonic()
                    with self.lock:
                        for each, settled in zip(batch, answers):
                            if settled:
                                assert each.id not in self.acked, "a message was acked twice"
                                self.acked[each.id] = now
            except Refused as refusal:
                assert refusal.error["retryable"], refusal
                self.doubted.update(ids_of(tokens))
            except (Closed, OSError):
                self.doubted.update(ids_of(tokens))
                client.close()
                client = self.client()

    def finish(self, broker):
        for each in self.producers:
            each.finish()
        queue = Queue(self.client(), AGENT)
        wait_until(lambda: queue.counts() == (0, 0, 0, 0), 30, "all is drained")
        self.stop.set()
        for each in self.consumers:
            each.finish()
        assert self.confirmed == self.ids
        gone = set(self.acked) | self.doubted
        assert self.ids <= gone, f"lost: {sorted(self.ids - gone)[:10]}"
        for asked, message_id in self.deliveries:
            when = self.acked.get(message_id)
            assert when is None or asked < when, f"{message_id} came again after its ack"
        seen = collections.Counter(message_id for _, message_id in self.deliveries)
        assert self.ids <= set(seen)


def test_a_broker_killed_under_load_loses_and_doubles_nothing(lab):
    redis, broker, queue = lab
    Queue(queue.client, AGENT).configure(retry_attempts=100)
    load = Load(lambda: broker.connect("unix"), 6000)
    for _ in range(4):
        reached = len(load.acked) + 500
        wait_until(lambda: len(load.acked) >= reached or len(load.acked) > 5500, 15, "load flows")
        broker.kill()
        broker.start()
    load.finish(broker)


def test_one_of_two_brokers_killed_under_load_loses_and_doubles_nothing(lab, make_broker):
    redis, broker, queue = lab
    second = make_broker(redis, expected_errors=REDIS_TROUBLE).start()
    Queue(queue.client, AGENT).configure(retry_attempts=100)
    turn = iter(range(10**9))

    def connect():
        return (broker, second)[next(turn) % 2].connect("unix")

    load = Load(connect, 6000, consumers=3)
    for i in range(4):
        reached = len(load.acked) + 500
        wait_until(lambda: len(load.acked) >= reached or len(load.acked) > 5500, 15, "load flows")
        dying = (second, broker)[i % 2]
        dying.kill()
        dying.start()
    load.finish(broker)


def test_a_stopped_broker_comes_back_to_a_world_that_went_on(lab, make_broker):
    redis, broker, queue = lab
    second = make_broker(redis, expected_errors=REDIS_TROUBLE).start()
    there = queue.at(second.connect())
    queue.send("m1")
    held = queue.take_one(visibility_timeout=0.5)
    broker.signal(signal.SIGSTOP)
    again = there.take_one(wait=5, visibility_timeout=60)
    assert (again.id, again.attempts) == ("m1", 1)
    broker.signal(signal.SIGCONT)
    assert queue.ack(held) is False
    assert queue.ack(again) is True


# -- outage: who was away is not blamed


GRACE = {"sweep": {"grace": "3s"}}


@pytest.fixture
def away(safe_redis, make_broker):
    """Reserve three messages, then let the only broker be away past their deadlines."""
    broker = make_broker(safe_redis, config=GRACE, expected_errors=REDIS_TROUBLE).start()
    queue = Queue(broker.connect(), AGENT)
    queue.send_all(["m1", "m2", "m3"])
    queue.held = queue.take(3, visibility_timeout=1.5)
    broker.kill()
    wait_for_time(time.monotonic() + 2)
    broker.start()
    queue.back = time.monotonic()
    return broker, queue.at(broker.connect()), queue.held, queue.back


def test_after_an_outage_the_living_can_say_so_first(away):
    broker, queue, held, back = away
    assert queue.receive() is None
    assert queue.ack(held[0]) is True
    assert queue.extend(held[1], 60) is not None
    assert queue.receive(wait=1.5) is None
    received = queue.take_one(wait=10)
    assert received.id == "m3" and received.attempts == 1
    took = time.monotonic() - back
    assert 2.5 < took < within(4.5)
    assert queue.receive() is None
    assert queue.ack(held[1]) is True
    assert queue.ack(held[2]) is False


def test_what_is_reserved_after_an_outage_follows_the_ordinary_rule(away):
    broker, queue, held, back = away
    queue.send("new")
    begun = time.monotonic()
    assert queue.take_one(visibility_timeout=0.3).id == "new"
    again = queue.take_one(wait=5)
    assert (again.id, again.attempts) == ("new", 1)
    assert time.monotonic() - begun < within(1)
    assert time.monotonic() - back < 2.5, "too slow to tell"


def test_recover_pending_does_not_wait_for_the_grace(away):
    broker, queue, held, back = away
    assert queue.client.call("recover_pending", agent={"type": "unused"}) == 0
    assert queue.client.call("recover_pending", agent=AGENT) == 3
    assert time.monotonic() - back < 2.5, "too slow to tell"
    assert ids_of(queue.take()) == ["m1", "m2", "m3"]
    assert queue.ack(held[0]) is False


def test_recover_pending_takes_all_queues_of_a_namespace(away):
    broker, queue, held, back = away
    assert broker.in_namespace("elsewhere").call("recover_pending") == 0
    assert queue.client.call("recover_pending") == 3


def test_a_grace_binds_every_broker_and_survives_restarts(away, safe_redis, make_broker):
    broker, queue, held, back = away
    second = make_broker(safe_redis, config=GRACE, expected_errors=REDIS_TROUBLE).start()
    broker.kill()
    broker.start()
    there = queue.at(second.connect())
    assert there.receive(wait=1.2) is None
    received = there.take_one(wait=10)
    assert received.attempts == 1
    assert 2.5 < time.monotonic() - back < within(4.5)


def test_a_redis_that_was_away_gives_the_same_grace(safe_redis, make_broker):
    redis = safe_redis
    broker = make_broker(redis, config=GRACE, expected_errors=REDIS_TROUBLE).start()
    queue = Queue(broker.connect(), AGENT)
    queue.send_all(["m1", "m2"])
    first, _ = queue.take(2, visibility_timeout=1)
    redis.pause()
    wait_for_time(time.monotonic() + 2.5)
    redis.resume()
    back = time.monotonic()
    wait_until(lambda: works(Queue(queue.client, {"type": "probe"})), 6, "the service is back")
    assert queue.ack(first) is True
    received = queue.take_one(wait=10)
    assert (received.id, received.attempts) == ("m2", 1)
    assert time.monotonic() - back > 2


def test_a_moment_away_is_no_outage_and_an_empty_redis_has_none(lab):
    redis, broker, queue = lab
    queue.send("m1")
    held = queue.take_one(visibility_timeout=0.3)
    assert queue.take_one(wait=5).attempts == 1
    assert redis.time() - held.deadline < within(0.6)
    queue = Queue(queue.client, {"type": "other"})
    queue.send("m2")
    held = queue.take_one(visibility_timeout=1.2)
    broker.kill()
    broker.start()
    queue = queue.at(broker.connect())
    assert queue.take_one(wait=5).attempts == 1
    assert redis.time() - held.deadline < within(0.8)


# -- clients die


def test_clients_that_die_under_load_lose_nothing(lab):
    """Half hold under a connection lease and half are parked when they go."""
    redis, broker, queue = lab
    queue.configure(retry_attempts=1000)
    ids = [f"m{i}" for i in range(500)]
    queue.send_all(ids)
    for i in range(60):
        doomed = queue.at(broker.connect())
        lease = "connection" if i % 2 else "timeout"
        params = {"agent": AGENT, "max": 20, "visibility_timeout": 1, "lease": lease, "wait": 5}
        doomed.client.submit("receive_batch", params)
        if i % 3:
            doomed.client.call("ping")
        doomed.client.reset() if i % 4 else doomed.client.close()
    seen = collections.Counter()

    def drained():
        batch = queue.take(visibility_timeout=60)
        seen.update(ids_of(batch))
        if batch:
            assert all(queue.ack_all(batch))
        return queue.counts() == (0, 0, 0, 0)

    wait_until(drained, 10, "all is drained")
    assert set(seen) == set(ids) and set(seen.values()) == {1}


@pytest.mark.parametrize("lease", ["timeout", "connection"])
def test_what_was_reserved_for_a_client_that_is_gone_is_released(lab, lease):
    """Redis takes its time, the client does not."""
    redis, broker, queue = lab
    queue.send_all([f"m{i}" for i in range(20)])
    impatient = queue.at(broker.connect())
    redis.pause()
    params = {"agent": AGENT, "visibility_timeout": 600, "lease": lease}
    impatient.client.submit_all([("receive", params)] * 5 + [("receive_batch", {**params, "max": 5})])
    assert impatient.client.call("ping") == "pong"
    impatient.client.reset()
    assert queue.client.call("ping") == "pong"
    redis.resume()
    wait_until(lambda: queue.counts() == (20, 0, 0, 0), 3, "all are released")
    received = queue.take()
    assert ids_of(received) == [f"m{i}" for i in range(20)]
    assert {each.attempts for each in received} == {0}


def test_a_thousand_connections_are_served(lab):
    redis, broker, queue = lab
    before = broker.resident()
    clients = [broker.connect() for _ in range(1000)]
    asked = [(each, each.submit("receive", {"agent": AGENT, "wait": 60})) for each in clients]
    for each in clients:
        assert each.call("ping") == "pong"
    assert broker.resident() - before < 64 << 20
    queue.send_all([f"m{i}" for i in range(1000)])
    got = [
        each.result(msgid, within(20))["queue_message"]["message"]["message_id"]
        for each, msgid in asked
    ]
    assert got == [f"m{i}" for i in range(1000)]
    sent = [(each, each.submit("send", queue.at(each).sending())) for each in clients]
    assert all(each.result(msgid)["delivered"] for each, msgid in sent)
    broker.close_clients()
    queue = queue.at(broker.connect())
    assert queue.counts() == (1000, 0, 1000, 0)
    wait_until(lambda: broker.open_files() < 60, 10, "the connections are gone")


def test_a_hundred_thousand_reservations_that_expire_at_once_all_come_back(lab):
    redis, broker, queue = lab
    count = 100_000
    queue.configure(queue_size=2 * count, retry_attempts=5)
    sender, number = queue.sender, 0
    started = time.monotonic()
    batches = []
    for _ in range(count // 1000):
        items = []
        for _ in range(1000):
            message = {"message_id": f"m{number}", "message_type": "event"}
            items.append({"recipient": AGENT, "message": message})
            number += 1
        batches.append(queue.client.submit("send_batch", {"sender": sender, "messages": items}))
    for msgid in batches:
        assert all(each["delivered"] for each in queue.client.result(msgid, within(30)))
    end = time.monotonic() + max(4, 3 * (time.monotonic() - started))
    taken = 0
    while batch := queue.client.call(
        "receive_batch", agent=AGENT, max=1000, visibility_timeout=end - time.monotonic()
    ):
        taken += len(batch)
    assert taken == count
    assert time.monotonic() < end, "too slow to tell"
    assert queue.counts() == (0, 0, count, 0)
    # While they come back others are served as ever.
    wait_for_time(end)
    elsewhere = Queue(broker.connect(), {"type": "elsewhere"})
    lags = []

    def all_back():
        started = time.monotonic()
        assert works(elsewhere)
        lags.append(time.monotonic() - started)
        return queue.counts() == (count, 0, 0, 0)

    wait_until(all_back, 20, "all came back")
    assert max(lags) < within(0.5), sorted(lags)[-5:]
    seen, ids = 0, set()
    params = {"agent": AGENT, "max": 1000, "visibility_timeout": 600}
    asked = queue.client.submit_all([("receive_batch", params)] * (count // 1000))
    for msgid in asked:
        for each in queue.client.result(msgid, within(30)):
            assert each["queue_message"]["delivery_attempts"] == 1
            ids.add(each["queue_message"]["message"]["message_id"])
            seen += 1
    assert seen == count and len(ids) == count
