"""Corners that once lost something, or waited too long, and what strangers do to our keys."""
import signal
import time

from harness import Queue, fresh, ids_of, wait_until, within

AGENT = {"type": "worker", "instance": "1"}


class Corner:
    """A broker on the shared Redis under a prefix of its own, and the names of one queue's keys."""

    def __init__(self, own, redis, **config):
        self.prefix = fresh("corner")
        self.redis = redis
        self.broker = own(redis={"key_prefix": self.prefix}, **config)
        self.queue = Queue(self.broker.connect(), AGENT)
        self.name = "default:worker:1"

    def key(self, suffix):
        return f"{self.prefix}:q:{self.name}:{suffix}"

    def command(self, *words):
        return self.redis.command(*[str(each) for each in words])


def test_a_reservation_behind_many_empty_buckets_comes_back_in_time(own, redis):
    corner = Corner(own, redis)
    corner.queue.send("m1")
    corner.queue.take_one(visibility_timeout=3)
    now = int(redis.time() * 1e6)
    buckets = [(now + 1_000_000 + i, f"1.0.14.{now + i}") for i in range(120)]
    corner.command("ZADD", corner.key("b"), *[word for pair in buckets for word in pair])
    corner.command("ZADD", f"{corner.prefix}:due", now, corner.name)
    began = time.monotonic()
    assert corner.queue.take_one(wait=10).id == "m1"
    assert time.monotonic() - began < 3 + within(0.5)


def test_what_a_stranger_took_from_a_list_costs_no_other_message(own, redis):
    corner = Corner(own, redis)
    corner.queue.send_all(["m1", "m2", "m3"])
    assert corner.command("LPOP", corner.key("5"))
    assert ids_of(corner.queue.take(10)) == ["m2", "m3"]
    assert corner.queue.receive() is None
    corner.queue.send("m4")
    assert corner.queue.take_one().id == "m4"


def test_a_stranger_under_the_name_of_a_list_loses_no_message(own, redis):
    corner = Corner(own, redis)
    corner.command("SET", corner.key("5"), "not a list")
    corner.queue.send("m1")
    assert [each["queue_message"]["message"]["message_id"] for each in corner.queue.dead()] == ["m1"]
    corner.command("DEL", corner.key("5"))
    assert corner.queue.client.call("dlq_redrive", agent=AGENT) == 1
    assert corner.queue.take_one().id == "m1"


def test_a_record_that_is_none_goes_to_the_dead_letters(own, redis):
    corner = Corner(own, redis)
    corner.queue.send_all(["m1", "m2"])
    corner.command("LSET", corner.key("5"), 0, "x")
    assert corner.queue.take_one().id == "m2"
    assert corner.queue.counts()[3] == 1


def test_a_stranger_under_the_name_of_a_digest_set_spoils_no_ack(own, redis):
    corner = Corner(own, redis)
    queue = corner.queue
    queue.send("m1")
    received = queue.take_one()
    for key in corner.command("KEYS", corner.key("m*")):
        corner.command("SET", key, "no set")
    ids = queue.client.submit_all(
        [("ack", {"agent": AGENT, "token": received.token}), ("send", queue.sending("m2"))]
    )
    assert queue.client.result(ids[0]) is True
    assert queue.client.result(ids[1])["delivered"] is True
    assert queue.counts() == (1, 0, 0, 0)


def test_without_a_backoff_no_number_of_retries_loses_the_message(own, redis):
    queue = Corner(own, redis).queue
    queue.configure(backoff_base=0, backoff_factor=1000, retry_attempts=1000)
    queue.send("m1")
    for attempts in range(120):  # 1000 ^ 103 is too large for a number
        received = queue.take_one()
        assert (received.id, received.attempts) == ("m1", attempts)
        assert queue.nack(received)
    assert queue.take_one().id == "m1"


def test_a_connection_lease_ends_also_when_redis_was_away_at_the_close(start_redis, make_broker):
    redis = start_redis()
    broker = make_broker(redis, expected_errors=("redis.", "request.")).start()
    queue = Queue(broker.connect(), AGENT)
    queue.send("m1")
    queue.take_one(visibility_timeout=600, lease="connection")
    other = queue.at(broker.connect())
    redis.kill()
    queue.client.close()
    wait_until(lambda: other.client.refused("send", other.sending()), 5, "Redis is away")
    redis.start()

    def comes_back():
        got = other.client.submit("receive", {"agent": AGENT, "wait": 1})
        try:
            return other.client.result(got)
        except Exception:
            return None

    received = wait_until(comes_back, 10, "it comes back")
    assert received["queue_message"]["delivery_attempts"] == 1
    assert received["queue_message"]["last_error"] == "connection closed"


def test_a_receiver_that_waits_again_is_rung_by_another_broker(own, redis):
    corner = Corner(own, redis)
    there = own(redis={"key_prefix": corner.prefix})
    here, elsewhere = corner.queue, corner.queue.at(there.connect())
    for _ in range(3):
        parked = here.at(corner.broker.connect()).park()
        wait_until(lambda: elsewhere.stats()["consumers"] == 1, 3, "it is noted")
        here.send_all([fresh("m"), fresh("m")])
        assert here.ack(parked.result())
        assert here.ack(here.take_one())
        again = here.at(corner.broker.connect()).park()
        began = time.monotonic()
        elsewhere.send(fresh("m"))
        received = again.result()
        assert time.monotonic() - began < within(0.12)
        assert here.ack(received)


def test_every_digest_set_ends(own, redis):
    """Also when the first call of its window stores nothing, and settles something."""
    corner = Corner(own, redis, queues={"defaults": {"dedup_window": "1s", "queue_size": 2}})
    queue = corner.queue
    queue.send_all(["m1", "m2"])
    received = queue.take_one(visibility_timeout=30)
    window = int(redis.time())
    wait_until(lambda: int(redis.time()) > window, 3, "another window")
    queue.client.results(
        queue.client.submit_all(
            [("nack", {"agent": AGENT, "token": received.token}), ("send", queue.sending("m3"))]
        )
    )
    queue.client.call("purge", agent=AGENT)
    queue.send("m4")
    keys = corner.command("KEYS", corner.key("m*"))
    assert keys and all(corner.command("PTTL", key) > 0 for key in keys)


def test_an_id_that_is_named_twice_is_redriven_once(queue):
    queue.kill("m1")
    (dead,) = queue.dead()
    ids = [dead["id"], dead["id"]]
    assert queue.client.call("dlq_redrive", agent=queue.agent, ids=ids) == 1
    assert queue.counts() == (1, 0, 0, 0)


# -- who waits goes before who comes


def test_who_comes_with_a_message_does_not_overtake_who_waits(queue, other):
    parked = queue.park()
    calls = [("send", other.sending("m1")), ("receive", {"agent": other.agent})]
    sent, taken = other.client.results(other.client.submit_all(calls))  # one write, one call of Redis
    assert sent["delivered"] and taken is None
    assert parked.result(within(1)).id == "m1"


def test_who_comes_as_something_falls_due_does_not_overtake_who_waits(own, redis):
    """Somebody else leads the sweep and does nothing, so that messages fall due with the call that finds them."""
    corner = Corner(own, redis)
    queue, sweep = corner.queue, f"{corner.prefix}:sweep"

    def lead():
        now = int(redis.time() * 1e6)
        corner.command("HSET", sweep, "stamp", now, "owner", "nobody", "until", now + 450_000)
        return now / 1e6

    for _ in range(3):
        wait_until(lambda: lead() and corner.command("HGET", sweep, "owner") == "nobody", 1)
        lead()
        waits = [queue.at(corner.broker.connect()) for _ in range(3)]
        parked = [each.park(visibility_timeout=60) for each in waits]
        began = lead()
        ids = [queue.send(delay=0.2) for _ in range(2)]
        wait_until(lambda: lead() > began + 0.25, 2, "they are due")
        assert queue.receive() is None
        assert [each.result(within(2)).id for each in parked[:2]] == ids
        assert not parked[2].is_answered()
        for each in waits:
            each.client.close()
        wait_until(lambda: lead() and queue.stats()["consumers"] == 0, 5)


# -- the sweep has much to do


def test_recover_pending_in_the_grace_takes_what_is_over_and_leaves_what_lives(own, redis):
    """However many buckets end before the grace does: none of them is looked at again and again."""
    corner = Corner(own, redis, sweep={"grace": "20s"})
    queue, sweep = corner.queue, f"{corner.prefix}:sweep"
    queue.send_all([f"m{i}" for i in range(7)])
    over = queue.take(5, visibility_timeout=0.8)
    soon, late = queue.take_one(visibility_timeout=5), queue.take_one(visibility_timeout=60)
    ends = (int(soon.deadline * 1e6) >> 14) + 60  # in units of 16 ms: a second later
    buckets = [((ends + i) << 14, f"{10**12 + i}.0.14.{ends + i}") for i in range(250)]
    corner.command("ZADD", corner.key("b"), *[word for pair in buckets for word in pair])
    epoch = corner.command("HGET", sweep, "epoch")
    corner.broker.signal(signal.SIGSTOP)
    wait_until(lambda: redis.time() > over[0].deadline + 1, 5, "it was long enough")
    corner.broker.signal(signal.SIGCONT)
    wait_until(lambda: corner.command("HGET", sweep, "epoch") != epoch, 2, "the outage is noticed")
    assert queue.counts() == (0, 0, 7, 0)
    for agent in (AGENT, None):
        began = time.monotonic()
        assert queue.client.call("recover_pending", agent=agent) == (5 if agent else 0)
        assert time.monotonic() - began < within(1)
    assert redis.time() < soon.deadline, "too slow to tell"
    assert queue.counts() == (5, 0, 2, 0)
    assert queue.ack(soon) and queue.ack(late) and not queue.ack(over[0])


def test_one_queues_mass_expiry_does_not_delay_anothers(own, redis):
    """50,000 reservations end at once, and those of another queue while the sweep is at it."""
    corner = Corner(own, redis, queues={"defaults": {"queue_size": 100_000, "retry_attempts": 9}})
    queue, count, block = corner.queue, 50_000, 1000
    began = time.monotonic()
    asked = []
    for at in range(0, count, block):
        messages = [
            {"recipient": AGENT, "message": {"message_id": f"m{i}", "message_type": "event"}}
            for i in range(at, at + block)
        ]
        asked.append(("send_batch", {"sender": queue.sender, "messages": messages}))
    for results in queue.client.results(queue.client.submit_all(asked)):
        assert all(each["delivered"] for each in results)
    end = time.monotonic() + max(1.5, 2 * (time.monotonic() - began))
    taken = 0
    while taken < count:
        left = end - time.monotonic()
        batch = queue.client.call("receive_batch", agent=AGENT, max=block, visibility_timeout=left)
        taken += len(batch)
    assert time.monotonic() < end - 0.2, "too slow to tell"

    elsewhere = Queue(corner.broker.connect(), {"type": "elsewhere"})
    small = 30
    elsewhere.send_all([f"s{i}" for i in range(small)])
    held = []
    for i in range(small):  # from just before to two seconds after
        left = end - time.monotonic() - 0.1 + i * 2 / small
        held.append(elsewhere.take_one(visibility_timeout=left))
    deadline_of = {each.id: each.deadline for each in held}
    late = []
    while len(late) < small:
        received = elsewhere.take_one(wait=10, visibility_timeout=60)
        late.append(redis.time() - deadline_of[received.id])
        assert received.attempts == 1
    assert 0 <= min(late) and max(late) < 0.2 + within(0.3), sorted(late)[-5:]
    wait_until(lambda: queue.counts() == (count, 0, 0, 0), 20, "all came back")


def test_names_of_buckets_that_were_settled_empty_do_not_pile_up(own, redis):
    """They are due after hours; a sweep drops some of them whenever there are many."""
    corner = Corner(own, redis)
    queue = corner.queue
    queue.send_all(["m1", "m2"])
    held = queue.take_one(visibility_timeout=3600)
    end = int((corner.redis.time() + 3600) * 1e6)
    empty = [word for i in range(1500) for word in (end + i, f"{i}.0.27.{end >> 27}")]
    corner.command("ZADD", corner.key("b"), *empty)
    for _ in range(20):
        queue.client.call("recover_pending", agent=queue.agent)
    assert corner.command("ZCARD", corner.key("b")) <= 200
    later = queue.take_one(visibility_timeout=3600)
    assert queue.ack(held) and queue.ack(later)
