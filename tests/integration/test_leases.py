"""Sections 4 and 5 of the protocol: what ends a lease, of whichever kind, and what does not."""

import collections
import itertools
import random
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from harness import (
    Closed,
    Process,
    Queue,
    Received,
    Refused,
    Worker,
    fresh,
    ids_of,
    read_many,
    read_one,
    wait_for_time,
    wait_until,
    within,
)
from test_consume import Consumer
from test_registry import Agents

REDIS_TROUBLE = ("redis.", "request.")
LEASES = ("timeout", "connection", "heartbeat")
# Of a holder whose death is waited for, and of one that is to live. Seconds.
TTL, LONG_TTL = within(0.6), within(5)
# How late the sweep, and a busy machine, may make what is due.
SWEEP = 0.6
EXPIRED, DIED, CLOSED = "visibility timeout expired", "holder died", "connection closed"
GRACE = within(1.5)
FAST_RETURN = {"redis": {"reconnect_max": "200ms"}, "sweep": {"grace": f"{GRACE * 1000:.0f}ms"}, "server": {"drain_timeout": "1s"}}


class Holder:
    """A registered agent. It beats in a thread of its own, through whatever connection it gets, until told to stop."""

    def __init__(self, connect, agent=None, ttl=LONG_TTL, beats=True, notify=False, **params):
        self.connect, self.notify = connect, notify
        self.agent = agent or {"type": "worker", "instance": fresh("w")}
        self.ttl = ttl
        self.stopped = threading.Event()
        self.superseded = False
        self.beat_at = time.monotonic()  # before the last beat was sent
        made = Agents(connect()).register(self.agent, ttl=ttl, **params)
        self.incarnation = made["incarnation"]
        self.thread = Worker(self.beat) if beats else None

    def beat(self):
        client = None
        while not self.stopped.wait(min(self.ttl / 5, 0.5)):
            try:
                client = client or self.connect()
                self.beat_once(client)
            except Refused as refusal:
                if refusal.code == "not_found":
                    self.superseded = True
                    return
                assert refusal.error["retryable"], refusal
            except (Closed, OSError):
                client = None
        if client:
            client.close()

    def beat_once(self, client=None):
        params = {"agent": self.agent, "incarnation": self.incarnation}
        at = time.monotonic()
        if self.notify:
            client.notify("heartbeat", params)
        else:
            (client or self.connect()).call("heartbeat", **params)
        self.beat_at = at

    def stop(self):
        """It falls silent; when it is dead at the earliest."""
        self.stopped.set()
        if self.thread:
            self.thread.finish()
        return self.beat_at + self.ttl

    def die(self):
        """Fall silent, and wait until it is dead."""
        self.stop()
        agents = Agents(self.connect())
        wait_until(lambda: not agents.is_alive(self.agent), self.ttl + 5, "it is dead")

    def deregister(self):
        assert self.connect().call("deregister", agent=self.agent) is True
        self.stop()

    def register_again(self, **params):
        """A new incarnation, which does not beat; this one goes on beating, in vain. Or, with `resume`, still this one."""
        ttl = self.ttl if "resume" in params else LONG_TTL
        return Holder(self.connect, self.agent, ttl=ttl, beats=False, **params)


class World:
    """Brokers on one Redis, and one namespace there in which nobody else is."""

    def __init__(self, brokers, namespace):
        self.brokers, self.namespace, self.holders = list(brokers), namespace, []

    def connect(self, at=0):
        return self.brokers[at].in_namespace(self.namespace)

    def jobs(self, agent=None, at=0):
        """A queue that a pool shares, through a connection of its own."""
        return Queue(self.connect(at), agent or {"type": fresh("jobs")})

    def again(self, jobs, at=0):
        """The same queue through a connection of its own."""
        return jobs.at(self.connect(at))

    def holder(self, agent=None, at=0, **params):
        self.holders.append(Holder(lambda: self.connect(at), agent, **params))
        return self.holders[-1]

    def holders_of(self, count, **params):
        return [self.holder(**params) for _ in range(count)]

    def watch(self):
        return Agents(self.connect()).watch()

    def close(self):
        for each in self.holders:
            each.stopped.set()
        for each in self.holders:
            each.stop()


@pytest.fixture
def make_world():
    made = []

    def make(*brokers, namespace=None):
        made.append(World(brokers, namespace or fresh("leases")))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def world(broker, make_world):
    return make_world(broker)


@pytest.fixture
def own_world(redis, make_broker, make_world):
    """A world whose broker may be broken, or is set otherwise, on the shared Redis or on one of its own."""

    def make(on=None, brokers=1, **config):
        prefix = fresh("own")
        config["redis"] = {"key_prefix": prefix, **config.get("redis", {})}
        made = [
            make_broker(on or redis, config=config, expected_errors=REDIS_TROUBLE).start()
            for _ in range(brokers)
        ]
        world = make_world(*made)
        world.prefix, world.redis = prefix, on or redis
        return world

    return make


@pytest.fixture
def pair(redis, make_broker, broker, make_world):
    """The shared broker and another one."""
    return make_world(broker, make_broker(redis).start())


def by_heart(holder):
    return {"lease": "heartbeat", "holder": holder.agent}


def numbered(n, first=0):
    return [f"m{i:05}" for i in range(first, first + n)]


def is_kept(jobs, *held):
    """They are still reserved after a sweep that took something else of the queue back, and nobody else gets them."""
    canary = jobs.send(fresh("canary"))
    taken = jobs.take_one(visibility_timeout=0.1)
    assert taken.id == canary, f"{taken.id} was given away"
    taken = jobs.take_one(wait=10, visibility_timeout=600)
    assert (taken.id, taken.attempts) == (canary, 1)
    assert jobs.ack(taken)
    assert jobs.counts() == (0, 0, len(held), 0)
    return True


def answers(jobs):
    try:
        return jobs.counts()
    except Refused as refusal:
        assert refusal.code == "unavailable"


def is_worthless(jobs, held):
    assert jobs.ack(held) is False
    assert jobs.nack(held) is False
    assert jobs.release(held) is False
    assert jobs.extend(held, 60) is None
    return True


def comes_back(jobs, held, attempts, error, due, limit=SWEEP):
    """Somebody who asks gets it, not before it is `due` and not much later; the new reservation."""
    received = jobs.take_one(wait=min(60, due - time.monotonic() + within(limit) + 5), visibility_timeout=600)
    late = time.monotonic() - due
    assert received.id == held.id
    assert (received.attempts, received.last_error) == (attempts, error)
    assert -0.005 <= late < within(limit), late
    assert received.fence > held.fence and received.token != held.token
    return received


# -- what ends which lease --------------------------------------------------------------------


Back = collections.namedtuple("Back", "attempts error limit")
GONE, KEPT = "gone", "kept"
AT_ONCE = SWEEP
FAILS, EXPIRES, DIES = Back(1, "no", AT_ONCE), Back(1, EXPIRED, SWEEP), Back(1, DIED, SWEEP)
CLOSES, RELEASED = Back(1, CLOSED, AT_ONCE), Back(0, None, AT_ONCE)


class Case:
    """One message, held under one kind of lease by one worker, and somebody else who would take it."""

    def __init__(self, world, lease, timeout, ttl):
        self.world, self.lease, self.timeout = world, lease, timeout
        self.holder = world.holder(ttl=ttl)
        self.jobs = world.jobs()
        self.hands = world.again(self.jobs)
        self.jobs.send("m1")
        self.took_at = time.monotonic()
        self.held = self.hands.take_one(lease=lease, holder=self.holder.agent, visibility_timeout=timeout)
        assert (self.held.deadline is None) == (lease == "heartbeat")
        assert (self.held.id, self.held.attempts) == ("m1", 0)

    def reconnect(self):
        self.jobs = self.world.again(self.jobs)


# Each does what it is called and answers from when on the lease may have ended, if not from now on.


def ack(case):
    assert case.jobs.ack(case.held)


def nack(case):
    assert case.jobs.nack(case.held, error="no", delay=0)


def release(case):
    assert case.jobs.release(case.held)


def expiry(case):
    return case.took_at + case.timeout


def recovery(case):
    assert case.jobs.client.call("recover_pending", agent=case.jobs.agent) == 0
    assert case.jobs.client.call("recover_pending") == 0


def death(case):
    watch = case.world.watch()
    due = case.holder.stop()
    if case.lease != "heartbeat":
        watch.wait_for("agent_expired")
    return due


def new_incarnation(case):
    case.holder.register_again()


def resumption(case):
    case.holder.register_again(resume=case.holder.incarnation)


def deregistration(case):
    case.holder.deregister()


def disconnection(case):
    case.hands.client.close()


def cut(case):
    case.hands.client.reset()


def kill_of_the_broker(case):
    case.world.brokers[0].kill()
    case.world.brokers[0].start()
    case.reconnect()


def stop_of_the_broker(case):
    broker = case.world.brokers[0]
    broker.signal(signal.SIGTERM)
    case.hands.client.expect_closed()
    broker.close_clients()  # for a while it waits for those who do not
    assert broker.wait(10) == 0
    broker.start()
    case.reconnect()


def restart_of_redis(case):
    case.world.redis.kill()
    case.world.redis.start()
    wait_until(lambda: answers(case.jobs), 10, "it answers again")


def end_after(breaking):
    """What ends it anyway does so as well after something was broken."""

    def end(case):
        if case.lease == "heartbeat":
            due = case.holder.stop()
            breaking(case)
            return due
        breaking(case)
        if case.lease == "connection" and breaking is restart_of_redis:
            case.hands.client.close()
            return None
        return case.took_at + case.timeout

    return end


end_after_a_kill_of_the_broker = end_after(kill_of_the_broker)
end_after_a_restart_of_redis = end_after(restart_of_redis)

# After a pause that somebody may take for an outage.
EXPIRES_LATER, DIES_LATER, CLOSES_LATER = (each._replace(limit=GRACE + 2) for each in (EXPIRES, DIES, CLOSES))

#                                   timeout        connection     heartbeat
TABLE = {
    ack:                            (GONE,         GONE,          GONE),
    nack:                           (FAILS,        FAILS,         FAILS),
    release:                        (RELEASED,     RELEASED,      RELEASED),
    expiry:                         (EXPIRES,      EXPIRES,       EXPIRES),
    recovery:                       (KEPT,         KEPT,          KEPT),
    death:                          (KEPT,         KEPT,          DIES),
    new_incarnation:                (KEPT,         KEPT,          DIES),
    resumption:                     (KEPT,         KEPT,          KEPT),
    deregistration:                 (KEPT,         KEPT,          RELEASED),
    disconnection:                  (KEPT,         CLOSES,        KEPT),
    cut:                            (KEPT,         CLOSES,        KEPT),
    kill_of_the_broker:             (KEPT,         KEPT,          KEPT),
    end_after_a_kill_of_the_broker: (EXPIRES_LATER, EXPIRES_LATER, DIES_LATER),
    stop_of_the_broker:             (KEPT,         CLOSES,        KEPT),
    restart_of_redis:               (KEPT,         KEPT,          KEPT),
    end_after_a_restart_of_redis:   (EXPIRES_LATER, CLOSES_LATER, DIES_LATER),
}
BREAKS_THE_BROKER = (kill_of_the_broker, end_after_a_kill_of_the_broker, stop_of_the_broker)
BREAKS_REDIS = (restart_of_redis, end_after_a_restart_of_redis)
TAKES_TIME = (expiry, death, end_after_a_kill_of_the_broker, end_after_a_restart_of_redis)
CASES = [
    pytest.param(event, lease, outcome, id=f"{lease}-{name}")
    for event, outcomes in TABLE.items()
    for name in [next(name for name, value in globals().items() if value is event)]
    for lease, outcome in zip(LEASES, outcomes)
]


@pytest.mark.parametrize("event, lease, outcome", CASES)
def test_what_becomes_of_a_lease(event, lease, outcome, world, own_world, start_redis):
    if event in BREAKS_REDIS:
        world = own_world(start_redis(fsync="always"), **FAST_RETURN)
    elif event in BREAKS_THE_BROKER:
        world = own_world(**FAST_RETURN)
    elif event is expiry:
        world = own_world(queues={"defaults": {"max_lease": "1s"}} if lease == "heartbeat" else {})
    waits = event in TAKES_TIME and outcome != KEPT
    case = Case(world, lease, 1 if waits else 600, TTL if event in TAKES_TIME and event is not expiry else LONG_TTL)
    due = event(case) or time.monotonic()
    jobs, held = case.jobs, case.held
    if outcome == GONE:
        assert is_worthless(jobs, held)
    elif outcome == KEPT:
        assert is_kept(jobs, held)
        assert jobs.ack(held) is True
    else:
        received = comes_back(jobs, held, outcome.attempts, outcome.error, due, outcome.limit)
        assert is_worthless(jobs, held)
        assert jobs.ack(received) is True
    assert jobs.receive() is None
    assert jobs.counts() == (0, 0, 0, 0)


# -- a heartbeat lease -------------------------------------------------------------------------


def test_it_has_no_deadline_whatever_timeout_is_asked_for(world):
    jobs, holder = world.jobs(), world.holder()
    jobs.send_all(numbered(2))
    taken = [jobs.take_one(**by_heart(holder), visibility_timeout=0.05), jobs.take_one(**by_heart(holder))]
    assert [each.deadline for each in taken] == [None, None]
    assert taken[0].fence < taken[1].fence
    assert is_kept(jobs, *taken)
    assert all(jobs.ack_all(taken))


def test_the_holder_is_the_agent_itself_where_none_is_named(world):
    for agent in ({"type": fresh("solo")}, {"type": fresh("solo"), "instance": "default"}, {"type": "solo", "instance": "x"}):
        jobs = world.jobs(agent)
        holder = world.holder(agent, beats=False)
        jobs.send("m1")
        held = jobs.take_one(lease="heartbeat", holder=None)
        assert held.deadline is None
        holder.register_again()
        assert jobs.take_one(lease="heartbeat").attempts == 1


def test_names_of_all_sorts_hold_and_lose_their_leases(world):
    for name in ("a:b", "100%3A", "two words", "ü 水", "%s\\d[", " ", "x" * 128):
        jobs = world.jobs({"type": name, "instance": name})
        holder = world.holder({"type": name, "instance": name + "y" if len(name) < 128 else name}, beats=False)
        jobs.send("m1")
        held = jobs.take_one(**by_heart(holder))
        holder.register_again()
        received = comes_back(jobs, held, 1, DIED, time.monotonic(), AT_ONCE)
        assert jobs.ack(received)


UNFIT = {
    "never registered": lambda world: {"type": "worker", "instance": fresh("nobody")},
    "dead": lambda world: gone(world, lambda holder: holder.die(), ttl=0.1),
    "deregistered": lambda world: gone(world, Holder.deregister),
    "registered in another namespace": lambda world: World(world.brokers, fresh("leases")).holder(beats=False).agent,
}


def gone(world, end, **params):
    holder = world.holder(beats=False, **params)
    end(holder)
    return holder.agent


@pytest.mark.parametrize("method", ["receive", "receive_batch", "consume"])
@pytest.mark.parametrize("why", UNFIT)
def test_a_holder_that_is_not_registered_and_alive_gets_nothing(world, why, method):
    jobs = world.jobs()
    more = {"receive": {}, "receive_batch": {"max": 5}, "consume": {"prefetch": 5}}[method]
    params = {"agent": jobs.agent, "lease": "heartbeat", "holder": UNFIT[why](world), **more}
    begun = time.monotonic()
    waits = [{}] if method == "consume" else [{}, {"wait": 20}]
    for message_there in (False, True):
        if message_there:
            jobs.send("m1")
        for wait in waits:
            refusal = jobs.client.refused(method, {**params, **wait})
            assert refusal.code == "not_found" and "holder" in refusal.message
            assert params["holder"]["instance"] in refusal.message
    assert time.monotonic() - begun < within(5)
    jobs.client.expect_silence()
    assert jobs.counts() == (1, 0, 0, 0)
    received = jobs.take_one()
    assert (received.attempts, received.last_error) == (0, None)


@pytest.mark.parametrize("lease", ["timeout", "connection"])
def test_a_holder_means_nothing_to_other_leases(world, lease):
    jobs = world.jobs()
    jobs.send("m1")
    assert jobs.take_one(lease=lease, holder={"type": "nobody"}).deadline is not None


def test_a_holder_must_be_an_agent(world):
    jobs = world.jobs()
    for method, more in (("receive", {}), ("receive_batch", {"max": 1}), ("consume", {"prefetch": 1})):
        for bad in (5, "x", [], {}, {"type": ""}, {"type": "a\nb"}, {"type": "x" * 129}, {"type": "x", "y": 1}):
            params = {"agent": jobs.agent, "lease": "heartbeat", "holder": bad, **more}
            refusal = jobs.client.refused(method, params)
            assert refusal.code == "bad_request" and "holder" in refusal.message, (bad, refusal)


def test_receives_of_many_holders_in_one_write_are_each_judged_for_themselves(world):
    jobs, holders = world.jobs(), world.holders_of(6, beats=False)
    jobs.send_all(numbered(7))
    holders[2].deregister()
    calls = []
    for each in holders:
        calls.append(("receive", {"agent": jobs.agent, **by_heart(each)}))
    calls.append(("receive", {"agent": jobs.agent}))
    calls.append(("receive_batch", {"agent": jobs.agent, "max": 9, **by_heart(holders[0])}))
    asked = jobs.client.submit_all(calls)
    with pytest.raises(Refused, match="not_found"):
        jobs.client.result(asked.pop(2))
    taken = [read_one(jobs.client.result(each)) for each in asked[:-1]]
    taken += read_many(jobs.client.result(asked[-1]))
    assert ids_of(taken) == numbered(7)
    assert [each.deadline is None for each in taken] == [True] * 5 + [False] + [True]
    holders[0].register_again()
    wait_until(lambda: jobs.counts() == (2, 0, 5, 0), SWEEP, "the leases of one holder are over")
    assert ids_of(jobs.take()) == ["m00000", "m00006"]


def test_acks_of_several_leases_in_one_write_settle_what_they_name(world):
    jobs, holders = world.jobs(), world.holders_of(3, beats=False)
    jobs.send_all(numbered(16))
    held = []
    for _ in range(4):
        held += [jobs.take_one(**by_heart(each)) for each in holders] + [jobs.take_one(visibility_timeout=600)]
    assert jobs.ack_all(held[:8] + held[:2]) == [True] * 8 + [False] * 2
    calls = [("ack", {"agent": jobs.agent, "token": each.token}) for each in held[6:]]
    assert jobs.client.results(jobs.client.submit_all(calls)) == [False] * 2 + [True] * 8
    assert jobs.counts() == (0, 0, 0, 0)


def test_a_token_is_of_one_lease(world):
    jobs, holders = world.jobs(), world.holders_of(2, beats=False)
    jobs.send_all(numbered(3))
    held = [jobs.take_one(**by_heart(each)) for each in holders] + [jobs.take_one(visibility_timeout=600)]
    tokens = {each.token for each in held}
    made_up = {a[:n] + b[n:] for a in tokens for b in tokens for n in range(68)}
    made_up |= {each[:n] for each in tokens for n in range(68)} | {each + "A" * n for each in tokens for n in range(1, 12)}
    for token in made_up - tokens:
        assert jobs.ack(token) is False, token
        assert jobs.extend(token, 60) is None, token
    assert jobs.counts() == (0, 0, 3, 0)
    assert jobs.ack_all(held) == [True] * 3


def test_a_paused_queue_gives_no_lease_and_keeps_those_it_has(world):
    jobs, holder, other = world.jobs(), world.holder(ttl=TTL), world.holder()
    jobs.send_all(numbered(2))
    held = jobs.take_one(**by_heart(holder))
    assert jobs.client.call("pause_queue", agent=jobs.agent) is True
    assert jobs.receive(**by_heart(other)) is None
    unfit = {"agent": jobs.agent, "lease": "heartbeat", "holder": {"type": "nobody"}}
    assert jobs.client.refused("receive", unfit).code == "not_found"
    assert jobs.client.call("purge", agent=jobs.agent) == 1
    assert jobs.counts() == (0, 0, 1, 0)
    holder.die()
    wait_until(lambda: jobs.counts() == (1, 0, 0, 0), SWEEP, "it is back")
    assert jobs.receive(**by_heart(other)) is None
    parked = world.again(jobs).park(**by_heart(other))
    assert jobs.client.call("resume_queue", agent=jobs.agent) is True
    received = parked.result(within(3))
    assert (received.id, received.attempts) == ("m00000", 1)
    assert received.fence > held.fence


def test_it_is_kept_for_many_times_the_ttl_by_requests_notifications_or_both_kinds_of_taking(world):
    jobs, other = world.jobs(), world.jobs()
    ttl = within(0.5)
    asking, notifying = world.holder(ttl=ttl), world.holder(ttl=ttl, notify=True)
    jobs.send_all(numbered(2))
    held = [jobs.take_one(**by_heart(each)) for each in (asking, notifying)]
    other.send_all(numbered(3))
    consumer = Consumer(world.again(other), 2, **by_heart(notifying))
    held_there = consumer.wait_for(2)
    assert [each.deadline for each in held_there] == [None, None]
    begun = time.monotonic()
    while time.monotonic() < begun + 10 * ttl:
        assert jobs.receive(wait=1) is None
        assert ids_of(consumer.quiet()) == numbered(2)
    assert not asking.superseded
    assert all(jobs.ack_all(held)) and jobs.counts() == (0, 0, 0, 0)
    for each in held_there:
        consumer.settle("ack", each)
    assert consumer.wait_for(3)[-1].id == "m00002"


def test_a_new_incarnation_takes_its_predecessors_work_and_keeps_it(world):
    jobs, old = world.jobs(), world.holder(ttl=TTL)
    jobs.send("m1")
    held = jobs.take_one(**by_heart(old))
    new = world.holder(old.agent, ttl=TTL)
    received = jobs.take_one(**by_heart(new))
    assert (received.id, received.attempts, received.last_error) == ("m1", 1, DIED)
    assert is_worthless(jobs, held)
    wait_until(lambda: old.superseded, 5, "the old one learns of it")
    assert is_kept(jobs, received)
    received = comes_back(jobs, received, 2, DIED, new.stop())
    assert jobs.ack(received)


def test_each_incarnation_costs_an_attempt_and_then_it_is_a_dead_letter(world):
    jobs, agent, watch = world.jobs(), {"type": "crasher"}, world.watch()
    watch.client.call("watch", events=["queue"])
    jobs.configure(retry_attempts=2)
    jobs.send("m1")
    for attempts in range(3):
        holder = world.holder(agent, ttl=0.2, beats=False)
        held = jobs.take_one(**by_heart(holder), wait=5)
        assert (held.attempts, held.last_error) == (attempts, DIED if attempts else None)
    [letter] = wait_until(jobs.dead, 3, "it is a dead letter")
    assert letter["reason"] == "attempts"
    queued = letter["queue_message"]
    assert (queued["delivery_attempts"], queued["last_error"]) == (3, DIED)
    assert jobs.counts() == (0, 0, 0, 1)
    assert jobs.ack(held) is False
    assert jobs.client.call("dlq_redrive", agent=jobs.agent) == 1
    assert jobs.take_one().attempts == 0


def test_a_message_whose_ttl_passed_while_it_was_held_expires_when_its_holder_dies(world):
    jobs, holder = world.jobs(), world.holder(ttl=TTL)
    jobs.send("m1", ttl=0.2)
    held = jobs.take_one(**by_heart(holder))
    begun = time.monotonic()
    wait_for_time(begun + 0.3)
    assert jobs.receive() is None and jobs.extend(held, 1) is not None  # the ttl does not end it
    holder.die()
    wait_until(lambda: jobs.counts()[2] == 0, 3, "the lease is over")
    assert jobs.receive() is None
    assert [each["reason"] for each in jobs.dead()] == ["expired"]


def test_who_comes_to_life_again_does_not_get_its_leases_back(world):
    jobs, holder, watch = world.jobs(), world.holder(ttl=TTL), world.watch()
    jobs.send_all(numbered(2))
    held = jobs.take(**by_heart(holder))
    holder.stop()
    watch.wait_for("agent_expired")
    holder.beat_once()
    watch.wait_for("agent_revived")
    assert is_worthless(jobs, held[0])
    again = jobs.take_one(**by_heart(holder))
    assert (again.id, again.attempts, again.last_error) == ("m00000", 1, DIED)
    # Its new lease is as good as any: it ends with its next death, and not with the one before.
    wait_until(lambda: jobs.counts() == (1, 0, 1, 0), 3)
    holder.beat_once()
    assert jobs.extend(again, 1) is not None
    jobs.take_one(visibility_timeout=600)
    assert comes_back(jobs, again, 2, DIED, holder.beat_at + TTL).id == "m00000"


def test_resuming_keeps_leases_for_as_long_as_it_beats(world):
    jobs, holder = world.jobs(), world.holder(ttl=TTL)
    jobs.send("m1")
    held = jobs.take_one(**by_heart(holder))
    holder.stop()
    again = world.holder(holder.agent, ttl=TTL, resume=holder.incarnation)
    assert again.incarnation == holder.incarnation
    begun = time.monotonic()
    while time.monotonic() < begun + 2 * TTL:
        assert jobs.receive(wait=0.3) is None
    resumed = again.register_again(resume=again.incarnation, status="twice")
    assert resumed.incarnation == again.incarnation
    assert is_kept(jobs, held)
    comes_back(jobs, held, 1, DIED, again.stop())


def test_a_resume_that_comes_after_death_keeps_nothing(world):
    jobs, holder, watch = world.jobs(), world.holder(ttl=TTL), world.watch()
    jobs.send("m1")
    held = jobs.take_one(**by_heart(holder))
    holder.stop()
    watch.wait_for("agent_expired")
    assert holder.register_again(resume=holder.incarnation).incarnation == holder.incarnation
    received = jobs.take_one(**by_heart(holder))
    assert (received.attempts, received.last_error) == (1, DIED)
    assert jobs.ack(held) is False and jobs.ack(received) is True


def test_deregistering_gives_back_without_counting_and_registering_then_finds_it(world):
    jobs, holder = world.jobs(), world.holder()
    ids = jobs.send_all(numbered(3))
    jobs.take(2, **by_heart(holder))
    holder.deregister()
    again = world.holder(holder.agent)
    wait_until(lambda: jobs.counts() == (3, 0, 0, 0), AT_ONCE, "they are back")
    taken = jobs.take(**by_heart(again))
    assert ids_of(taken) == ids
    assert {(each.attempts, each.last_error) for each in taken} == {(0, None)}


def test_a_longer_or_shorter_ttl_said_later_counts(world):
    jobs, holder = world.jobs(), world.holder(ttl=LONG_TTL, beats=False)
    jobs.send("m1")
    held = jobs.take_one(**by_heart(holder))
    holder.ttl = TTL
    at = time.monotonic()
    assert holder.register_again(resume=holder.incarnation).incarnation == holder.incarnation
    comes_back(jobs, held, 1, DIED, at + TTL)


def test_a_queue_that_only_holds_leases_is_not_forgotten(own_world):
    world = own_world(queues={"forget_after": "1s", "defaults": {"dedup_window": "0s"}})
    jobs, holder = world.jobs(), world.holder()
    jobs.send("m1")
    begun = time.monotonic()
    held = jobs.take_one(**by_heart(holder))
    wait_for_time(begun + 2)
    assert jobs.counts() == (0, 0, 1, 0)
    holder.register_again()
    comes_back(jobs, held, 1, DIED, time.monotonic(), AT_ONCE)


def test_a_client_that_is_gone_before_its_answer_takes_no_lease(own_world, start_redis):
    world = own_world(start_redis())
    jobs, holder = world.jobs(), world.holder(beats=False)
    jobs.send_all(numbered(10))
    impatient = world.again(jobs)
    world.redis.pause()
    params = {"agent": jobs.agent, **by_heart(holder)}
    impatient.client.submit_all([("receive", params)] * 3 + [("receive_batch", {**params, "max": 3})])
    assert impatient.client.call("ping") == "pong"
    impatient.client.reset()
    assert jobs.client.call("ping") == "pong"
    world.redis.resume()
    wait_until(lambda: jobs.counts() == (10, 0, 0, 0), 3, "all are released")
    taken = jobs.take()
    assert ids_of(taken) == numbered(10) and {each.attempts for each in taken} == {0}


def test_leases_end_while_redis_takes_no_more_memory(own_world, start_redis):
    world = own_world(start_redis())
    jobs, holder, late = world.jobs(), world.holder(ttl=TTL), world.holder(ttl=TTL)
    jobs.send_all(numbered(2))
    held = jobs.take_one(**by_heart(holder))
    world.redis.command("CONFIG", "SET", "maxmemory", "1mb")
    there = jobs.take_one(**by_heart(late))  # a lease is no send: it is given
    comes_back(jobs, held, 1, DIED, holder.stop())
    comes_back(jobs, there, 1, DIED, late.stop())


# -- extend and the cap ------------------------------------------------------------------------


def test_extending_a_heartbeat_lease_answers_when_its_cap_ends_and_changes_nothing(pair, redis):
    world = pair
    jobs, holder = world.jobs(), world.holder(ttl=TTL)
    there = world.again(jobs, at=1)
    jobs.send("m1")
    before = redis.time()
    held = jobs.take_one(**by_heart(holder), visibility_timeout=1)
    after = redis.time()
    ends = jobs.extend(held, 0.1)
    assert before + 43200 - 1 <= ends <= after + 43200 + 1
    for each, seconds in itertools.product((jobs, there), (0.05, 60, 43200)):
        assert each.extend(held, seconds) == ends
    comes_back(there, held, 1, DIED, holder.stop())
    assert jobs.extend(held, 60) is None and there.extend(held, 60) is None
    for bad in (0, -1, 43201, "x", None):
        params = {"agent": jobs.agent, "token": held.token, "visibility_timeout": bad}
        assert jobs.client.refused("extend", params).code == "bad_request"


def test_extending_moves_the_deadline_of_other_leases_and_nothing_else(world):
    jobs = world.jobs()
    hands = world.again(jobs)
    jobs.send_all(numbered(2))
    begun = time.monotonic()
    by_time = hands.take_one(visibility_timeout=0.4)
    by_connection = hands.take_one(visibility_timeout=0.4, lease="connection")
    for each in (by_time, by_connection):
        assert jobs.extend(each, 600) == pytest.approx(each.deadline + 600 - 0.4, abs=within(1))
        assert jobs.extend(each, 1) > each.deadline + 500
    wait_for_time(begun + 0.5)
    assert is_kept(jobs, by_time, by_connection)
    hands.client.close()
    received = comes_back(jobs, by_connection, 1, CLOSED, time.monotonic(), AT_ONCE)
    assert jobs.ack(received) and jobs.ack(by_time) and not jobs.ack(by_connection)


def capped(own_world, seconds=1, **more):
    return own_world(queues={"defaults": {"max_lease": f"{seconds * 1000:.0f}ms"}}, **more)


def test_the_cap_ends_a_lease_while_its_holder_lives(own_world, redis):
    world = capped(own_world, brokers=2)
    jobs, holder = world.jobs(), world.holder(ttl=TTL)
    ids = jobs.send_all(numbered(3))
    asked = time.monotonic()
    before = redis.time()
    held = jobs.take(3, **by_heart(holder), visibility_timeout=600)
    after = redis.time()
    assert ids_of(held) == ids and {each.deadline for each in held} == {None}
    for each in held:
        # From the hand-out on, through any broker, and whatever is asked for.
        assert before + 1 - 0.01 <= jobs.extend(each, 0.01) <= after + 1 + 0.1
        assert world.again(jobs, at=1).extend(each, 600) == jobs.extend(each, 1)
    first = comes_back(world.again(jobs, at=1), held[0], 1, EXPIRED, asked + 1)
    assert jobs.ack(first)
    wait_until(lambda: jobs.counts() == (2, 0, 0, 0), SWEEP, "all are back")
    assert all(is_worthless(jobs, each) for each in held)
    again = jobs.take_one(**by_heart(holder))
    assert (again.id, again.attempts, again.last_error) == (ids[1], 1, EXPIRED)
    assert jobs.extend(again, 1) > after + 1.5  # its own cap
    assert jobs.ack(again)


def test_each_lease_has_a_cap_of_its_own(own_world):
    world = capped(own_world)
    jobs, holder = world.jobs(), world.holder()
    jobs.send_all(numbered(3))
    taken = []
    for i in range(3):
        asked = time.monotonic()
        taken.append((asked, jobs.take_one(**by_heart(holder))))
        wait_for_time(asked + 0.15)
    for asked, held in taken:
        comes_back(jobs, held, 1, EXPIRED, asked + 1)


def test_a_death_before_the_cap_is_a_death_and_the_cap_counts_attempts(own_world):
    world = capped(own_world)
    jobs, holder = world.jobs(), world.holder(beats=False)
    jobs.configure(retry_attempts=1)
    jobs.send_all(["died", "capped"])
    held = jobs.take(2, **by_heart(holder))
    holder.register_again()
    taken = [comes_back(jobs, each, 1, DIED, time.monotonic(), AT_ONCE) for each in held]
    assert jobs.ack(taken[0]) and jobs.release(taken[1])
    assert jobs.take_one(**by_heart(holder)).attempts == 1
    [letter] = wait_until(jobs.dead, 4, "it is a dead letter")
    assert letter["reason"] == "attempts"
    assert letter["queue_message"]["last_error"] == EXPIRED


def test_the_cap_is_none_of_other_leases(own_world):
    world = capped(own_world, 0.2)
    jobs = world.jobs()
    jobs.send_all(numbered(2))
    begun = time.monotonic()
    held = [jobs.take_one(visibility_timeout=600, lease=each) for each in ("timeout", "connection")]
    wait_for_time(begun + 0.5)
    assert is_kept(jobs, *held)


def test_a_cap_frees_the_place_of_a_consumer(own_world):
    world = capped(own_world, 0.5)
    jobs, holder = world.jobs(), world.holder()
    jobs.configure(retry_attempts=0)
    jobs.send_all(numbered(4))
    consumer = Consumer(world.again(jobs), 2, **by_heart(holder))
    begun = time.monotonic()
    consumer.wait_for(4, 4)
    assert 0.5 <= time.monotonic() - begun < within(1.5 + SWEEP)
    wait_until(lambda: jobs.counts() == (0, 0, 0, 4), 4, "all were tried")


# -- one queue, many holders -------------------------------------------------------------------


def test_one_holders_death_leaves_the_others_alone(world):
    jobs, dead, lives = world.jobs(), world.holder(ttl=TTL), world.holder(ttl=TTL)
    ids = jobs.send_all(numbered(400))
    held = {dead: [], lives: [], None: []}
    for _ in range(20):
        for each in held:
            held[each] += jobs.take(5, **(by_heart(each) if each else {"visibility_timeout": 600}))
    dead.die()
    wait_until(lambda: jobs.counts() == (200, 0, 200, 0), SWEEP, "the leases of the dead one are over")
    taken = jobs.take()
    assert ids_of(taken) == ids_of(held[dead]) + ids[300:]
    assert [each.attempts for each in taken] == [1] * 100 + [0] * 100
    assert all(jobs.ack_all(held[lives] + held[None]))
    assert not any(jobs.ack_all(held[dead]))


def test_what_comes_back_goes_to_the_head_of_its_priority(world):
    jobs, holder = world.jobs(), world.holder(ttl=TTL)
    for i in range(3):
        for priority in (1, 5, 9):
            jobs.send(f"p{priority}.{i}", priority=priority)
    held = jobs.take(8, **by_heart(holder))
    for priority in (1, 5, 9):
        jobs.send(f"p{priority}.later", priority=priority)
    assert jobs.ack(held[1])
    holder.die()
    wait_until(lambda: jobs.counts() == (11, 0, 0, 0), SWEEP, "all are back")
    order = [f"p{p}.{i}" for p in (9, 5, 1) for i in (0, 1, 2, "later")]
    order.remove("p9.1")
    assert ids_of(jobs.take()) == order


@pytest.mark.parametrize("count", [5, 100])
def test_what_those_who_die_together_held_comes_back_in_the_old_order(own_world, count):
    """The broker stands still while they die, so that it finds them dead together."""
    world = own_world(sweep={"grace": "100ms"})
    jobs = world.jobs()
    ids = jobs.send_all(numbered(600))
    agents = [{"type": "doomed", "instance": f"{i}"} for i in range(count)]
    client, params = jobs.client, {"ttl": within(1)}
    client.results(client.submit_all([("register", {"agent": each, **params}) for each in agents]))
    begun = time.monotonic()
    calls = [("receive", {"agent": jobs.agent, "lease": "heartbeat", "holder": each}) for each in agents * (500 // count)]
    assert ids_of(read_one(each) for each in client.results(client.submit_all(calls))) == ids[:500]
    assert time.monotonic() - begun < within(1), "too slow to tell"
    world.brokers[0].signal(signal.SIGSTOP)
    wait_for_time(begun + within(1.1))
    world.brokers[0].signal(signal.SIGCONT)
    continued = time.monotonic()
    wait_until(lambda: jobs.counts() == (600, 0, 0, 0), 10, "all are back")
    assert time.monotonic() - continued < within(3)
    taken = jobs.take()
    assert [each.attempts for each in taken] == [1] * 500 + [0] * 100
    assert sorted(ids_of(taken)) == ids and ids_of(taken)[500:] == ids[500:]
    if count == 5:
        assert ids_of(taken) == ids
    else:  # more than are found dead at once; what one held is in order all the same
        for i in range(count):
            assert [each for each in ids_of(taken[:500]) if int(each[1:]) % count == i] == ids[i:500:count]


SHAPES = {"5,000 over five queues": (5, 1000), "1,200 over as many queues": (1200, 1)}
ENDS = {
    "death": (lambda holder: holder.stop(), 1, DIED),
    "a new incarnation": (lambda holder: holder.register_again() and None, 1, DIED),
    "deregistration": (lambda holder: holder.deregister(), 0, None),
}
MANY = [(shape, end) for shape in SHAPES for end in ENDS if shape.startswith("5") or end != "deregistration"]


@pytest.mark.parametrize("shape, end", MANY)
def test_many_leases_of_one_holder_end_within_seconds(world, shape, end):
    count, each_holds = SHAPES[shape]
    ending, attempts, error = ENDS[end]
    kind, client = fresh("many"), world.connect()
    queues = [Queue(client, {"type": kind, "instance": f"{i:04}"}) for i in range(count)]
    ids = numbered(each_holds + 3)
    items = [
        {"recipient": queue.agent, "message": {"message_id": each, "message_type": "event"}}
        for queue in queues
        for each in ids
    ]
    batches = [("send_batch", {"sender": Queue.sender, "messages": items[i : i + 1000]}) for i in range(0, len(items), 1000)]
    for results in client.results(client.submit_all(batches)):
        assert all(each["delivered"] for each in results)
    holder = world.holder(ttl=within(1.5))
    params = {"max": each_holds, **by_heart(holder)}
    asked = client.submit_all([("receive_batch", {"agent": queue.agent, **params}) for queue in queues])
    for batch in client.results(asked):
        assert [each["queue_message"]["message"]["message_id"] for each in batch] == ids[:-3]

    def reserved():
        total, after = 0, None
        while True:
            page = client.call("list_queues", type=kind, after=after)
            total += sum(each["reserved"] for each in page["queues"])
            after = page["after"]
            if after is None:
                return total

    assert reserved() == count * each_holds
    due = ending(holder) or time.monotonic()
    wait_until(lambda: reserved() == 0, 12, "all are back")
    assert time.monotonic() - due < within(4)
    # In the old order, before what was not yet handed out.
    asked = []
    for queue in queues:
        asked += client.submit_all([("receive_batch", {"agent": queue.agent, "max": 600, "visibility_timeout": 600})] * 2)
    batches = client.results(asked)
    for first, second in zip(batches[::2], batches[1::2]):
        taken = [Received(each) for each in first + second]
        assert ids_of(taken) == ids
        assert {(each.attempts, each.last_error) for each in taken[:-3]} == {(attempts, error)}
        assert {(each.attempts, each.last_error) for each in taken[-3:]} == {(0, None)}


def test_a_pool_whose_workers_crash_loses_and_doubles_nothing(own_world):
    """Each takes from one queue in its own name, beats through one broker and works through the other; a tenth of all
    deliveries kills its worker, and its successor comes under the old name or another one."""
    world = own_world(brokers=2)
    jobs = world.jobs()
    jobs.configure(retry_attempts=1000)
    ids = set(jobs.send_all(numbered(100)))
    lock, deliveries, acked = threading.Lock(), collections.defaultdict(list), set()

    def work(number):
        chance = random.Random(number)
        name = {"type": "worker", "instance": fresh("w")}
        while len(acked) < len(ids):
            with lock:
                holder = world.holder(name, at=number % 2, ttl=TTL)
            mine = world.again(jobs, at=chance.randrange(2))
            while len(acked) < len(ids):
                received = mine.receive(**by_heart(holder), wait=0.3)
                if not received:
                    continue
                with lock:
                    deliveries[received.id].append((received.fence, received.attempts, time.monotonic(), holder))
                if chance.random() < 0.1:
                    # It dies: at once where its successor has its name, else when its ttl is over.
                    holder.stop()
                    if chance.random() < 0.5:
                        name = {"type": "worker", "instance": fresh("w")}
                    else:
                        holder.ttl = 0
                    mine.client.reset()
                    break
                wait_for_time(time.monotonic() + chance.random() * 0.02)
                assert mine.ack(received) is True, "it was taken from a living worker"
                with lock:
                    assert received.id not in acked
                    acked.add(received.id)

    workers = [Worker(lambda number=number: work(number)) for number in range(6)]
    for each in workers:
        each.finish()
    assert acked == ids and jobs.counts() == (0, 0, 0, 0)
    assert any(len(each) > 1 for each in deliveries.values())
    for each in deliveries.values():
        each.sort(key=lambda delivery: delivery[0])
        assert [attempts for _, attempts, _, _ in each] == list(range(len(each)))
        for (*_, holder), (_, _, came, _) in itertools.pairwise(each):
            assert came >= holder.beat_at + holder.ttl - 0.005, "it was handed out while its holder lived"


# -- waiting -----------------------------------------------------------------------------------


def dies(holder):
    holder.die()


def deregisters(holder):
    holder.deregister()


def is_superseded(holder):
    holder.register_again()


@pytest.mark.parametrize("method", ["receive", "receive_batch"])
@pytest.mark.parametrize("at", [0, 1], ids=["here", "through another broker"])
@pytest.mark.parametrize("ends", [dies, deregisters, is_superseded])
def test_a_holder_that_ends_while_it_waits_is_told_and_the_next_in_line_is_served(pair, ends, at, method):
    world = pair
    jobs, holder = world.jobs(), world.holder(ttl=TTL)
    more = {"max": 9} if method == "receive_batch" else {}
    parked = [world.again(jobs, at).park(method, **by_heart(holder), **more) for _ in range(2)]
    behind = world.again(jobs, at).park(visibility_timeout=600)
    for each in (*parked, behind):
        each.client.call("queue_stats", agent=jobs.agent)  # which comes after what its connection asked before
        assert not each.is_answered()
    ends(holder)
    begun = time.monotonic()
    jobs.send("m1")
    received = behind.result(within(3))
    assert (received.id, received.attempts) == ("m1", 0)
    assert time.monotonic() - begun < within(2)
    for each in parked:
        with pytest.raises(Refused, match="not_found"):
            each.result(within(3))
    assert jobs.counts() == (0, 0, 1, 0)


def test_who_waits_and_lives_gets_what_comes(pair):
    world = pair
    jobs, holder = world.jobs(), world.holder(ttl=TTL)
    begun = time.monotonic()
    parked = [world.again(jobs, at).park(**by_heart(holder)) for at in (0, 1)]
    assert world.again(jobs).receive(**by_heart(holder), wait=0.2) is None
    assert world.again(jobs).take(**by_heart(holder), wait=0.2) == []
    wait_for_time(begun + 2 * TTL)
    assert not any(each.is_answered() for each in parked)
    holder.register_again(resume=holder.incarnation)
    jobs.send_all(numbered(2))
    taken = [each.result(within(3)) for each in parked]
    assert sorted(ids_of(taken)) == numbered(2) and {each.deadline for each in taken} == {None}
    assert is_kept(jobs, *taken)


def test_what_a_death_gives_back_wakes_who_waits(pair):
    world = pair
    jobs, holder, heir = world.jobs(), world.holder(ttl=TTL), world.holder()
    jobs.send_all(numbered(2))
    held = jobs.take(**by_heart(holder))
    parked = [
        world.again(jobs, at=0).park(**by_heart(heir)),
        world.again(jobs, at=1).park(visibility_timeout=600),
    ]
    due = holder.stop()
    taken = [each.result(due - time.monotonic() + within(SWEEP + 1)) for each in parked]
    assert time.monotonic() - due < within(SWEEP + 0.5)
    assert sorted(ids_of(taken)) == ids_of(held)
    assert {(each.attempts, each.last_error) for each in taken} == {(1, DIED)}


# -- batches and consumers ---------------------------------------------------------------------


def test_a_batch_is_held_whole_and_given_back_whole(world):
    jobs, holder = world.jobs(), world.holder(ttl=TTL)
    ids = jobs.send_all(numbered(300))
    held = jobs.take(290, **by_heart(holder), visibility_timeout=0.05)
    assert ids_of(held) == ids[:290] and {each.deadline for each in held} == {None}
    assert len({each.token for each in held}) == 290
    assert all(jobs.ack_all(held[10:20]))
    due = holder.stop()
    wait_until(lambda: jobs.counts() == (290, 0, 0, 0), TTL + 3, "they are back")
    assert 0 <= time.monotonic() - due < within(SWEEP)
    taken = jobs.take()
    assert ids_of(taken) == ids[:10] + ids[20:]
    assert [each.attempts for each in taken] == [1] * 280 + [0] * 10


def test_a_consumers_messages_go_to_others_when_its_holder_dies(world):
    jobs, holder = world.jobs(), world.holder(ttl=TTL)
    ids = jobs.send_all(numbered(6))
    consumer = Consumer(world.again(jobs), 4, **by_heart(holder))
    seen = consumer.wait_for(4)
    assert ids_of(seen) == ids[:4] and {each.deadline for each in seen} == {None}
    consumer.settle("ack", seen[0])
    seen = consumer.wait_for(5)
    due = holder.stop()
    got = []

    def collect():
        got.extend(jobs.take(visibility_timeout=600))
        return len(got) == 5

    wait_until(collect, TTL + 3, "others have them")
    late = time.monotonic() - due
    assert 0 <= late < within(SWEEP + 0.5)
    assert sorted(ids_of(got)) == ids[1:]
    assert {(each.id, each.attempts) for each in got} == {(each, 1) for each in ids[1:5]} | {(ids[5], 0)}
    assert not any(jobs.ack_all(seen[1:]))
    # Nobody is there in whose name it could be given more, until there is.
    jobs.send("later")
    assert jobs.take_one().id == "later"
    assert len(consumer.poll().seen()) == 5
    holder.beat_once()
    revived = world.holder(holder.agent, resume=holder.incarnation)
    assert revived.incarnation == holder.incarnation
    jobs.send("last")
    received = consumer.wait_for(6)[-1]
    assert (received.id, received.deadline) == ("last", None)


def test_a_consumer_whose_holder_is_gone_stands_in_nobodys_way(world):
    for end in (dies, deregisters, is_superseded):
        jobs, holder = world.jobs(), world.holder(ttl=TTL)
        consumer = Consumer(world.again(jobs), 10, **by_heart(holder))
        behind = world.again(jobs).park()
        end(holder)
        jobs.send_all(numbered(3))
        assert behind.result(within(3)).id == "m00000"
        assert ids_of([jobs.take_one(), jobs.take_one()]) == ["m00001", "m00002"]
        assert consumer.poll().seen() == []


def test_a_consumers_leases_outlive_its_connection_and_are_given_back_when_it_cancels(world):
    jobs, holder = world.jobs(), world.holder(ttl=TTL)
    ids = jobs.send_all(numbered(3))
    consumer = Consumer(world.again(jobs), 2, **by_heart(holder))
    consumer.wait_for(2)
    assert consumer.cancel() is True
    assert jobs.counts() == (3, 0, 0, 0)
    consumer = Consumer(world.again(jobs), 3, **by_heart(holder))
    held = consumer.wait_for(3)
    assert ids_of(held) == ids and {each.attempts for each in held} == {0}
    consumer.client.close()
    wait_until(lambda: jobs.stats()["consumers"] == 0, 3, "the consumer is gone")
    assert is_kept(jobs, *held)
    assert jobs.ack(held[0])
    due = holder.stop()
    wait_until(lambda: jobs.counts() == (2, 0, 0, 0), TTL + 3, "they are back")
    assert 0 <= time.monotonic() - due < within(SWEEP)
    assert {(each.attempts, each.last_error) for each in jobs.take()} == {(1, DIED)}


# -- brokers and namespaces --------------------------------------------------------------------


def leads(world):
    """Which of the brokers leads the sweep."""
    owner = world.redis.command("HGET", f"{world.prefix}:sweep", "owner")
    return [each.connect().call("hello")["instance_id"] for each in world.brokers].index(owner)


@pytest.mark.parametrize("leader", [0, 1], ids=["who hears the beats leads", "who handed out leads"])
def test_registered_through_one_broker_reserved_through_the_other(own_world, leader):
    world = own_world(brokers=2)
    if leader == 1:
        world.brokers.reverse()
    assert leads(world) == leader
    holder = world.holder(at=0, ttl=TTL)
    here = world.jobs(at=0)
    there = world.again(here, at=1)
    here.send_all(numbered(2))
    held = there.take_one(**by_heart(holder))
    begun = time.monotonic()
    while time.monotonic() < begun + 2 * TTL:
        assert here.extend(held, 1) is not None
        wait_for_time(time.monotonic() + 0.1)
    assert there.take_one(visibility_timeout=600).id == "m00001"
    parked = here.park(visibility_timeout=600)
    due = holder.stop()
    received = parked.result(within(10))
    assert -0.005 <= time.monotonic() - due < within(SWEEP)
    assert (received.id, received.attempts, received.last_error) == ("m00000", 1, DIED)
    assert is_worthless(there, held)
    assert leads(world) == leader


@pytest.mark.parametrize("ends", [is_superseded, deregisters])
def test_what_ends_through_one_broker_is_given_back_through_the_other_at_once(own_world, ends):
    world = own_world(brokers=2)
    for here, there in ((0, 1), (1, 0)):
        holder = world.holder(at=here)
        jobs = world.jobs(at=there)
        jobs.send("m1")
        held = jobs.take_one(**by_heart(holder))
        ends(holder)
        counted = ends is is_superseded
        comes_back(jobs, held, int(counted), DIED if counted else None, time.monotonic(), AT_ONCE)


@pytest.mark.parametrize("dying", [0, 1], ids=["who led", "who did not lead"])
def test_when_a_broker_is_killed_the_other_one_ends_and_keeps_its_leases(own_world, dying):
    world = own_world(brokers=2, sweep={"grace": f"{GRACE * 1000:.0f}ms"})
    assert leads(world) == 0
    living = 1 - dying
    jobs = world.jobs(at=living)
    lives, dead = world.holder(at=living, ttl=TTL), world.holder(at=dying, ttl=TTL)
    jobs.send_all(numbered(2))
    there = world.again(jobs, at=dying)
    kept, held = there.take_one(**by_heart(lives)), there.take_one(**by_heart(dead))
    world.brokers[dying].kill()  # and with it all that beats of one of them
    received = comes_back(jobs, held, 1, DIED, dead.stop(), SWEEP + GRACE)
    assert jobs.ack(received) and is_kept(jobs, kept)
    assert jobs.ack(kept) is True


@pytest.mark.parametrize("breaks", ["the broker", "Redis"])
def test_after_an_outage_who_lives_can_say_so_first(own_world, start_redis, breaks):
    world = own_world(start_redis(fsync="always"), **FAST_RETURN)
    broker, redis = world.brokers[0], world.redis
    long = GRACE + 0.7
    jobs = world.jobs()
    lives, silent, patient = world.holder(ttl=TTL), world.holder(ttl=TTL), world.holder(ttl=long)
    jobs.send_all(numbered(4))
    kept, lost, late = (jobs.take_one(**by_heart(each)) for each in (lives, silent, patient))
    silent.stop()
    patient.stop()
    victim = broker if breaks == "the broker" else redis
    victim.kill()
    wait_for_time(time.monotonic() + 0.7 + TTL)
    back = time.monotonic()
    victim.start()
    if breaks == "the broker":
        jobs = world.again(jobs)
    wait_until(lambda: answers(jobs), 10, "it answers again")
    # What is reserved from now on follows the ordinary rule.
    soon = world.holder(ttl=0.3, beats=False)
    held = jobs.take_one(**by_heart(soon))
    assert held.id == "m00003"
    comes_back(jobs, held, 1, DIED, soon.beat_at + soon.ttl)
    served = time.monotonic()
    assert served < back + GRACE, "too slow to tell"
    delay = served - back + 1
    comes_back(jobs, lost, 1, DIED, back + GRACE, SWEEP + delay)
    comes_back(jobs, late, 1, DIED, back + long, SWEEP + delay)
    assert jobs.receive() is None
    assert jobs.ack(kept) is True


def test_the_cap_waits_for_the_grace_as_every_deadline_does(own_world):
    world = capped(own_world, brokers=1, **FAST_RETURN)
    jobs, holder = world.jobs(), world.holder()
    jobs.send_all(numbered(2))
    first, second = jobs.take(2, **by_heart(holder))
    world.brokers[0].kill()
    wait_for_time(time.monotonic() + 1.2)
    back = time.monotonic()
    world.brokers[0].start()
    jobs = world.again(jobs)
    assert jobs.receive() is None
    assert jobs.ack(first) is True
    comes_back(jobs, second, 1, EXPIRED, back + GRACE, SWEEP + 1)


def test_leases_survive_everything_at_once(own_world, start_redis):
    """All brokers and Redis are killed; the worker beats again as soon as it can."""
    world = own_world(start_redis(fsync="always"), brokers=2, **FAST_RETURN)
    jobs, lives, dead = world.jobs(), world.holder(), world.holder(ttl=TTL)
    ids = jobs.send_all(numbered(600))
    kept, lost = jobs.take(290, **by_heart(lives)), jobs.take(290, **by_heart(dead))
    dead.stop()
    for each in (*world.brokers, world.redis):
        each.kill()
    world.redis.start()
    for each in world.brokers:
        each.start()
    jobs = world.again(jobs, at=1)
    wait_until(lambda: jobs.counts() == (310, 0, 290, 0), GRACE + 5, "the leases of the dead one are over")
    taken = jobs.take()
    assert ids_of(taken) == ids[290:]
    assert [each.attempts for each in taken] == [1] * 290 + [0] * 20
    assert jobs.ack_all(kept) == [True] * 290
    assert jobs.ack_all(lost) == [False] * 290


def test_a_namespace_is_a_world_of_its_own(broker, make_world):
    here, there = make_world(broker), make_world(broker)
    name, queue = {"type": "worker", "instance": "same"}, {"type": "jobs"}
    one, other = here.jobs(queue), there.jobs(queue)
    for each in (one, other):
        each.send("m1")
    first = here.holder(name, ttl=TTL)
    held = one.take_one(**by_heart(first))
    assert other.client.refused("receive", {"agent": queue, **by_heart(first)}).code == "not_found"
    second = there.holder(name, ttl=TTL)
    kept = other.take_one(**by_heart(second))
    assert other.ack(held) is False and other.extend(held, 1) is None
    due = first.stop()
    received = comes_back(one, held, 1, DIED, due)
    assert one.ack(received) and is_kept(other, kept)
    here.holder(name).deregister()
    assert is_kept(other, kept)
    assert other.ack(kept) is True


# -- what is left ------------------------------------------------------------------------------

READ = {
    "string": lambda key: ("GET", key),
    "hash": lambda key: ("HGETALL", key),
    "zset": lambda key: ("ZRANGE", key, 0, -1),
    "set": lambda key: ("SMEMBERS", key),
    "list": lambda key: ("LRANGE", key, 0, -1),
}


def contents(redis, prefix):
    """All that Redis holds under a prefix, but what is told of the past (events, the audit), the sweep, and a number for the next lease."""
    found = {}
    for key in redis.command("KEYS", f"{prefix}:*"):
        if key.split(":")[1] not in ("version", "sweep", "events", "e", "leases", "audit"):
            kind = redis.command("TYPE", key)
            if kind != "none":
                found[key] = str(redis.command(*READ[kind](key)))
    return found


def test_nothing_is_left_of_what_is_over(own_world, redis):
    world = own_world(
        queues={"forget_after": "1s", "defaults": {"dedup_window": "0s", "max_lease": "1s"}},
        registry={"forget_after": "1s"},
    )
    keeper = world.holder()

    def some_jobs(count=300):
        jobs = world.jobs({"type": fresh("ghostly"), "instance": "jobs of all"})
        jobs.send_all(numbered(count))
        return jobs

    acked, dead, superseded, capped, cancelled, reached, alone = (some_jobs(n) for n in (300, 300, 300, 300, 9, 9, 300))
    ended = [world.holder({"type": "ghost", "instance": fresh("g")}, ttl=within(1), beats=False) for _ in range(5)]
    assert all(acked.ack_all(acked.take(**by_heart(keeper))))
    alone.take(100, **by_heart(keeper))
    alone.take(100, **by_heart(ended[4]))
    dead.take(200, **by_heart(ended[0]))
    superseded.take(100, **by_heart(ended[1]))
    superseded.take(200, **by_heart(ended[2]))
    world.holder(ended[1].agent, ttl=within(1), beats=False)
    ended[2].deregister()
    capped.take(**by_heart(keeper))
    consumer = Consumer(world.again(cancelled), 5, **by_heart(keeper))
    consumer.wait_for(5)
    assert consumer.cancel()
    reached.configure(retry_attempts=0)
    reached.take(**by_heart(ended[3]))
    wait_until(lambda: len(reached.dead()) == 9, 5, "they are dead letters")
    reached.configure(retry_attempts=None)
    assert reached.client.call("dlq_purge", agent=reached.agent) == 9
    wait_until(lambda: alone.counts() == dead.counts() == (300, 0, 0, 0), 5, "all came back")
    for each in (dead, superseded, capped, cancelled, alone):
        wait_until(lambda: each.counts()[2] == 0, 5, "all came back")
        assert len(each.drain()) == (9 if each is cancelled else 300)

    # Who lives on leaves nothing of what it held, when the queues are forgotten ...
    wait_until(lambda: not world.connect().call("list_queues")["queues"], 10, "the queues are forgotten")
    wait_until(lambda: len(world.connect().call("list_registered")) == 1, 10, "the dead are forgotten")
    left = contents(redis, world.prefix)
    assert not any("ghost" in key + value for key, value in left.items()), left
    assert {key.split(":")[1] for key in left} <= {"a", "agents", "beats"}, left
    # ... and when it is gone, nothing at all.
    keeper.deregister()
    assert contents(redis, world.prefix) == {}


def test_a_queue_that_is_forgotten_leaves_nothing_with_a_holder_that_lives(own_world, redis):
    world = own_world(queues={"forget_after": "1s", "defaults": {"dedup_window": "0s"}})
    holder = world.holder()
    for _ in range(3):
        jobs = world.jobs({"type": fresh("ghostly")})
        jobs.send_all(numbered(300))
        assert all(jobs.ack_all(jobs.take(**by_heart(holder))))
    client = world.connect()
    wait_until(lambda: not client.call("list_queues")["queues"], 10, "the queues are forgotten")
    left = contents(redis, world.prefix)
    assert not any("ghost" in key + value for key, value in left.items()), left
    assert {key.split(":")[1] for key in left} <= {"a", "agents", "beats"}, left


def test_a_worker_that_goes_on_for_long_gathers_nothing(own_world, redis):
    """A queue that is never idle, and one worker that lives: what Redis holds does not grow with what was done."""
    world = own_world(queues={"defaults": {"dedup_window": "0s"}})
    jobs, holder = world.jobs(), world.holder()

    def size():
        return sum(len(each) for each in contents(redis, world.prefix).values())

    def work(rounds):
        for _ in range(rounds):
            jobs.send_all(numbered(500))
            assert all(jobs.ack_all(jobs.take(**by_heart(holder))))

    work(2)
    before = size()
    work(20)
    assert size() < before + 4096, contents(redis, world.prefix)


# -- processes that are killed -----------------------------------------------------------------

PROGRAM = """
import signal, socket, sys, threading, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
sys.path.insert(0, sys.argv[1])
from harness import Client

def connect():
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(sys.argv[2])
    client = Client(connection)
    client.call("hello", namespace=sys.argv[3])
    return client

jobs, me, ttl = {"type": sys.argv[4]}, {"type": "worker", "instance": sys.argv[5]}, float(sys.argv[6])
client = connect()
life = client.call("register", agent=me, ttl=ttl)

def beat():
    heart = connect()
    while True:
        time.sleep(life["heartbeat_interval"])
        heart.call("heartbeat", agent=me)

threading.Thread(target=beat, daemon=True).start()
job = client.call("receive", agent=jobs, lease="heartbeat", holder=me, wait=20)
print("holds", job["queue_message"]["message"]["message_id"], flush=True)
signal.sigwait([signal.SIGUSR1])
print("ack", client.call("ack", agent=jobs, token=job["token"]), flush=True)
"""


class Program(Process):
    """A worker in a process of its own, that holds one message until it is told to ack it."""

    def __init__(self, world, jobs, name, ttl):
        super().__init__("worker")
        path, here = world.brokers[0].unix_path, Path(__file__).parent
        words = (here, path, world.namespace, jobs.agent["type"], name, ttl)
        self.spawn([sys.executable, "-B", "-c", PROGRAM, *words])

    def said(self, line):
        wait_until(lambda: line in self.errors().splitlines(), 10, f"{line!r} is printed")


@pytest.fixture
def hire(pair):
    """Start a worker through the first of two brokers."""
    hired = []

    def start(jobs, ttl=1):
        hired.append(Program(pair, jobs, fresh("p"), ttl))
        return hired[-1]

    yield start
    for each in hired:
        each.remove()


def test_the_message_of_a_killed_process_is_anothers_within_moments(pair, hire):
    world, ttl = pair, 1
    jobs = world.jobs(at=1)
    jobs.send("m1")
    worker = hire(jobs, ttl)
    worker.said("holds m1")
    parked = jobs.park(visibility_timeout=600)
    begun = time.monotonic()
    wait_for_time(begun + 1.3 * ttl)
    assert not parked.is_answered()  # it works on, and lives
    worker.kill()
    killed = time.monotonic()
    received = parked.result(within(10))
    took = time.monotonic() - killed
    print(f"killed with a ttl of {ttl} s; another had its message after {took:.3f} s")
    assert (received.id, received.attempts, received.last_error) == ("m1", 1, DIED)
    # Its last beat was up to a third of its ttl ago.
    assert ttl * 0.6 < took < ttl + within(SWEEP)


def test_a_process_that_hangs_loses_its_message_though_its_connection_stays(pair, hire):
    world, ttl = pair, 1
    jobs = world.jobs(at=1)
    jobs.send("m1")
    worker = hire(jobs, ttl)
    worker.said("holds m1")
    worker.signal(signal.SIGSTOP)
    received = jobs.take_one(wait=10, visibility_timeout=600)
    assert (received.id, received.attempts, received.last_error) == ("m1", 1, DIED)
    worker.signal(signal.SIGCONT)
    worker.signal(signal.SIGUSR1)
    worker.said("ack False")
    assert jobs.ack(received) is True


def test_a_process_that_lives_acks_what_it_worked_on_for_long(pair, hire):
    jobs = pair.jobs(at=1)
    jobs.send("m1")
    worker = hire(jobs, TTL)
    worker.said("holds m1")
    assert jobs.receive(wait=2 * TTL) is None
    worker.signal(signal.SIGUSR1)
    worker.said("ack True")
    assert jobs.counts() == (0, 0, 0, 0)
