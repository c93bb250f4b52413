"""register, heartbeat, deregister, list_registered, get_agent: who is there, who lives, and what is told of it."""

import itertools
import json
import os
import re
import signal
import subprocess
import time

import msgpack
import pytest

from harness import (
    AGENT_ID,
    REPO,
    Queue,
    Worker,
    check_shape,
    fresh,
    is_count,
    is_number,
    is_text,
    is_time,
    pack,
    seconds_of,
    spelled_out,
    wait_for_time,
    wait_until,
    within,
)

COORDCTL = os.environ.get("COORDCTL", str(REPO / "build" / "coordctl"))
REGISTERED = {
    "agent_id": AGENT_ID,
    "name": is_text,
    "incarnation": is_count,
    "ttl": is_number,
    "heartbeat_interval": is_number,
    "state": lambda value: True,
}
AGENT_INFO = {
    "name": is_text,
    "agent_id": AGENT_ID,
    "incarnation": is_count,
    "status": lambda value: True,
    "alive": bool,
    "last_heartbeat": is_time,
    "heartbeat_age": is_number,
    "ttl": is_number,
    "capabilities": (list, dict),
    "metadata": (dict, list),
}
# From when an agent must be found dead until it is: the sweep and what a busy machine adds.
SWEEP = 0.5


class Agents:
    """The agents of one namespace, as one connection sees them."""

    def __init__(self, client):
        self.client = client
        self.events = []

    def register(self, agent, **params):
        value = check_shape(self.client.call("register", agent=agent, **params), REGISTERED)
        assert value["agent_id"] == spelled_out(agent)
        assert value["heartbeat_interval"] == pytest.approx(value["ttl"] / 3)
        return value

    def beat(self, agent, **params):
        value = self.client.call("heartbeat", agent=agent, **params)
        return check_shape(value, {"ttl": is_number, "heartbeat_interval": is_number})

    def is_unknown(self, agent, **params):
        refusal = self.client.refused("heartbeat", {"agent": agent, **params})
        assert refusal.code == "not_found"
        return True

    def get(self, agent):
        value = self.client.call("get_agent", agent=agent)
        if value is not None:
            check_shape(value, AGENT_INFO)
            assert value["agent_id"] == spelled_out(agent)
        return value

    def list(self, **params):
        """One page."""
        return check_shape(self.client.call("list_registered", **params), [AGENT_INFO])

    def all(self, **params):
        """Every page."""
        rows = []
        while page := self.list(**params):
            rows += page
            params["after"] = page[-1]["agent_id"]
        return rows

    def names(self, **params):
        return [instance(each) for each in self.all(**params)]

    def is_alive(self, agent):
        return self.get(agent)["alive"]

    def watch(self):
        """Be told of events from now on."""
        self.client.call("watch", events=["agent"])
        return self

    def told(self):
        """What was told since the last time."""
        try:
            while True:
                self.client._take(self.client.read_frame(0))
        except TimeoutError:
            pass
        new = [value for _, value in self.client.notifications]
        self.client.notifications.clear()
        for each in new:
            assert each["event"] != "lost", each
            keys = {"watch_id": is_text, "event": is_text, "at": is_time, "agent_id": AGENT_ID, "name": is_text}
            check_shape(each, keys)
        self.events += new
        return new

    def wait_for(self, *kinds, limit=5.0):
        """Exactly these events come next, in this order; they."""
        found = []
        wait_until(lambda: found.extend(self.told()) or len(found) >= len(kinds), limit, f"events {kinds}")
        assert [each["event"] for each in found] == list(kinds)
        return found


def instance(info):
    return info["agent_id"]["instance"]


def agent(name=None, kind="worker"):
    return {"type": kind, "instance": name or fresh("a")}


def namespace_of(client):
    return client.call("hello")["namespace"]


@pytest.fixture
def agents(broker):
    """A namespace of its own."""
    return Agents(broker.in_namespace(fresh("registry")))


@pytest.fixture
def second(redis, make_broker, broker):
    """Another coordd on the shared Redis, under the same prefix."""
    return make_broker(redis).start()


def also(agents, broker):
    """The same namespace through another connection."""
    return Agents(broker.in_namespace(namespace_of(agents.client)))


def keys_of(redis, agents):
    """What Redis holds of a namespace's agents: names of keys, and members of indexes."""
    ns = namespace_of(agents.client)
    keys = [key for key in redis.command("KEYS", f"*{ns}:*") if not key.startswith("coordd:q:")]
    for index in ("coordd:agents", "coordd:beats"):
        keys += [f"{index} {each}" for each in redis.command("ZRANGE", index, 0, -1) if each.startswith(ns + ":")]
    return keys


# -- register -----------------------------------------------------------------------------------


def test_what_nobody_registered_is_not_there(agents):
    a = agent()
    assert agents.get(a) is None
    assert agents.is_unknown(a)
    assert agents.client.call("deregister", agent=a) is False
    assert agents.all() == []


def test_an_agent_is_registered_with_what_it_says(agents):
    a = agent()
    made = agents.register(
        a,
        name="the worker",
        status={"busy": False},
        capabilities=["plan", "code"],
        metadata={"host": "h", "pid": 7},
        ttl=12.5,
        state={"step": 1},
    )
    assert made["name"] == "the worker" and made["ttl"] == 12.5 and made["state"] is None
    info = agents.get(a)
    assert info == agents.all()[0] | {"heartbeat_age": info["heartbeat_age"]}
    assert info["name"] == "the worker"
    assert info["incarnation"] == made["incarnation"] > 0
    assert info["status"] == {"busy": False}
    assert info["capabilities"] == ["plan", "code"]
    assert info["metadata"] == {"host": "h", "pid": 7}
    assert info["ttl"] == 12.5 and info["alive"]
    assert 0 <= info["heartbeat_age"] < within(5)


def test_one_look_tells_that_an_agent_is_not_there(agents, redis):
    """However many there are whose names begin with its own."""
    many = [("register", {"agent": agent(f"x{i}"), "ttl": 60}) for i in range(500)]
    agents.client.results(agents.client.submit_all(many))

    def scripts():
        stats = redis.command("INFO", "commandstats")
        return int(re.search(r"cmdstat_evalsha:calls=(\d+)", stats)[1])

    before = scripts()
    assert agents.get(agent("x")) is None
    assert scripts() - before < 250  # others use this Redis, too


def test_an_agent_that_says_nothing_has_defaults(agents):
    a = {"type": "a:b%"}
    made = agents.register(a)
    assert made["name"] == "a%3Ab%25:default" and made["ttl"] == 30 and made["heartbeat_interval"] == 10
    info = agents.get(a)
    assert info["name"] == made["name"]
    assert (info["status"], info["capabilities"], info["metadata"]) == (None, [], {})
    assert agents.register({"type": "x"}, name=None, status=None, ttl=None, resume=None)["ttl"] == 30


def test_the_ttl_of_the_configuration_is_the_default(own):
    agents = Agents(own(registry={"heartbeat_ttl": "7s"}).connect())
    assert agents.register(agent())["ttl"] == 7
    assert agents.register(agent(), ttl=2)["ttl"] == 2


def test_heartbeat_age_and_time_follow_redis(agents, redis):
    a = agent()
    before = redis.time()
    agents.register(a)
    after = redis.time()
    info = agents.get(a)
    assert before - 0.001 <= seconds_of(info["last_heartbeat"]) <= after + 0.001
    assert 0 <= info["heartbeat_age"] <= redis.time() - before
    agents.beat(a)
    assert seconds_of(agents.get(a)["last_heartbeat"]) > seconds_of(info["last_heartbeat"])


def test_each_registration_is_a_new_incarnation_unless_it_resumes(agents, second):
    a, there = agent(), also(agents, second)
    first = agents.register(a, name="n", status=1, capabilities={"x": True}, metadata={"m": 1}, ttl=60)
    again = there.register(a)["incarnation"]
    assert again > first["incarnation"]
    assert there.register(a, resume=again)["incarnation"] == again
    assert agents.register(a, resume=first["incarnation"])["incarnation"] > again
    assert agents.register(agent(), resume=again)["incarnation"] != again  # that of somebody else


def test_a_new_incarnation_begins_anew_and_one_that_goes_on_keeps_what_is_not_said(agents):
    a = agent()

    def seen():
        info = agents.get(a)
        return [info[key] for key in ("name", "status", "capabilities", "metadata", "ttl")]

    first = agents.register(a, name="n", status=1, capabilities={"x": True}, metadata={"m": 1}, ttl=60)
    kept = agents.register(a, resume=first["incarnation"])
    assert (kept["name"], kept["ttl"]) == ("n", 60)
    assert seen() == ["n", 1, {"x": True}, {"m": 1}, 60]
    assert len(agents.list(capability="x")) == 1
    agents.register(a, resume=first["incarnation"], status=2, capabilities=["y"])
    assert seen() == ["n", 2, ["y"], {"m": 1}, 60]
    assert not agents.list(capability="x") and len(agents.list(capability="y")) == 1
    agents.register(a)
    assert seen() == [f"worker:{a['instance']}", None, [], {}, 30]
    assert not agents.list(capability="y")


# -- state --------------------------------------------------------------------------------------


def test_the_state_is_given_back_to_the_next_registration(agents, second):
    a, there = agent(), also(agents, second)
    assert agents.register(a, state={"n": 1})["state"] is None
    assert there.register(a)["state"] == {"n": 1}
    assert there.register(a, state="two")["state"] == {"n": 1}
    agents.beat(a, state=[3])
    agents.beat(a, status="busy")  # leaves it alone
    assert agents.register(a)["state"] == [3]
    agents.beat(a, state=False)
    assert agents.client.call("deregister", agent=a)
    assert there.register(a)["state"] is False


def test_the_state_survives_death_until_the_agent_is_forgotten(agents, redis):
    agents.watch()
    a = agent()
    first = agents.register(a, ttl=0.3, state="s")
    agents.wait_for("agent_registered", "agent_expired")
    kept = agents.register(a, ttl=0.3, resume=first["incarnation"])  # dead, and in force still
    assert kept["state"] == "s" and kept["incarnation"] == first["incarnation"]
    wait_until(lambda: agents.get(a) is None, 10, "it is forgotten")
    assert agents.register(a)["state"] is None


def test_the_state_of_who_deregistered_is_forgotten_as_well(agents, redis):
    a, b, c = agent(), agent(), agent()
    for each in (a, b):
        agents.register(each, ttl=0.2, state=1)
    agents.register(c)
    for each in (a, b, c):
        assert agents.client.call("deregister", agent=each) is True
        assert agents.client.call("deregister", agent=each) is False
        assert agents.is_unknown(each) and agents.get(each) is None
    assert agents.all() == []
    assert agents.register(a)["state"] == 1  # in time
    ns = namespace_of(agents.client)
    wait_until(lambda: not redis.command("EXISTS", f"coordd:a:{ns}:worker:{b['instance']}"), 10)
    assert agents.client.call("deregister", agent=a)
    assert agents.register(b)["state"] is None and agents.register(c)["state"] is None


# -- heartbeat ----------------------------------------------------------------------------------


def test_heartbeats_keep_an_agent_alive_through_any_broker(agents, second):
    agents.watch()
    a, there = agent(), also(agents, second)
    made = agents.register(a, ttl=1)
    assert made["heartbeat_interval"] == pytest.approx(1 / 3)
    began = time.monotonic()
    for each in itertools.cycle((agents, there)):
        assert each.beat(a) == {"ttl": 1.0, "heartbeat_interval": pytest.approx(1 / 3)}
        assert agents.is_alive(a) and there.is_alive(a)
        if time.monotonic() > began + 3:
            break
        wait_for_time(time.monotonic() + 0.2)
    agents.wait_for("agent_registered")


@pytest.mark.parametrize("ttl", [0.05, 0.5, 1.3])
def test_an_agent_is_dead_when_its_ttl_is_over_and_not_before(agents, ttl):
    agents.watch()
    a = agent()
    agents.register(a, ttl=ttl)
    last = seconds_of(agents.get(a)["last_heartbeat"])
    while not (expired := [each for each in agents.told() if each["event"] == "agent_expired"]):
        info = agents.get(a)
        assert info["alive"] == (info["heartbeat_age"] <= ttl), info
    late = seconds_of(expired[0]["at"]) - last - ttl
    assert 0 <= late <= within(SWEEP), late
    assert expired[0]["agent_id"] == a
    assert not agents.is_alive(a)


def test_a_heartbeat_revives_the_dead(agents, second):
    agents.watch()
    a, there = agent(), also(agents, second)
    made = agents.register(a, ttl=0.5, name="n")
    agents.wait_for("agent_registered", "agent_expired")
    assert not there.is_alive(a) and there.names(alive=False) == [a["instance"]] and not there.names(alive=True)
    there.beat(a, incarnation=made["incarnation"])
    assert agents.is_alive(a) and agents.names(alive=True) == [a["instance"]]
    assert agents.get(a)["incarnation"] == made["incarnation"]
    told = agents.wait_for("agent_revived", "agent_expired")  # and it dies again
    assert {each["name"] for each in told} == {"n"}
    there.register(a, resume=made["incarnation"], ttl=30)
    agents.wait_for("agent_revived")
    assert agents.is_alive(a)


def test_a_heartbeat_of_an_older_incarnation_is_refused(agents, second):
    a, there = agent(), also(agents, second)
    old = agents.register(a, status="old", ttl=1)["incarnation"]
    agents.beat(a, incarnation=old)
    new = there.register(a, status="new", ttl=1)["incarnation"]
    before = agents.get(a)["last_heartbeat"]
    assert agents.is_unknown(a, incarnation=old, status="x", state="x")
    assert agents.is_unknown(a, incarnation=new + 1)
    assert agents.is_unknown(a, incarnation=2**53)
    info = agents.get(a)
    assert info["status"] == "new" and info["last_heartbeat"] == before
    agents.beat(a, incarnation=new)
    agents.beat(a)  # who names none is taken at its word
    assert agents.register(a)["state"] is None


def test_heartbeats_may_be_notifications(agents):
    a = agent()
    agents.register(a, ttl=1)
    for n in range(8):
        agents.client.notify("heartbeat", {"agent": a, "status": n, "state": n})
        assert agents.get(a)["status"] == n  # it sees what its connection sent before
        wait_for_time(time.monotonic() + 0.2)
        assert agents.is_alive(a)
    agents.client.notify("heartbeat", {"agent": agent()})
    agents.client.notify("heartbeat", {"agent": a, "nonsense": 1})
    agents.client.notify("register", {"agent": agent("never")})  # is none that is taken as a notification
    agents.client.notify("deregister", {"agent": a})
    agents.client.expect_silence()
    assert agents.names() == [a["instance"]]
    assert agents.register(a)["state"] == 7


def test_many_heartbeats_of_one_connection_are_answered_each_for_itself(agents):
    known = [agent() for _ in range(700)]
    ids = agents.client.submit_all([("register", {"agent": each, "ttl": 1 + i}) for i, each in enumerate(known)])
    incarnations = [each["incarnation"] for each in agents.client.results(ids)]
    calls = []
    for i, each in enumerate(known):
        calls.append(("heartbeat", {"agent": each, "status": i}))
        calls.append(("heartbeat", {"agent": agent()}))
        calls.append(("heartbeat", {"agent": each, "incarnation": incarnations[i] - 1, "status": "bad"}))
    ids = agents.client.submit_all(calls)
    for i in range(700):
        assert agents.client.result(ids[3 * i])["ttl"] == 1 + i
        for bad in (1, 2):
            with pytest.raises(Exception, match="not_found"):
                agents.client.result(ids[3 * i + bad])
    rows = {instance(each): each["status"] for each in agents.all()}
    assert rows == {each["instance"]: i for i, each in enumerate(known)}


def test_one_that_sends_one_after_the_other_waits_for_none(agents):
    a = agent()
    agents.register(a)
    began = time.monotonic()
    for _ in range(1000):
        agents.beat(a)
    assert time.monotonic() - began < within(4)


# -- events -------------------------------------------------------------------------------------


def test_each_event_is_told_once_in_order_through_any_broker(agents, second, broker):
    here, there = also(agents, broker).watch(), also(agents, second).watch()
    a, b = agent(), agent()
    made = agents.register(a, name="A", status=1)
    agents.beat(a, status=1)
    agents.beat(a, status=2)
    agents.register(b, name="B")
    agents.register(a, resume=made["incarnation"])
    agents.register(a, resume=made["incarnation"], status=3)
    agents.client.call("deregister", agent=b)
    agents.register(a, name="C")
    expected = [
        ("agent_registered", a, "A"),
        ("agent_status", a, "A"),
        ("agent_registered", b, "B"),
        ("agent_status", a, "A"),
        ("agent_deregistered", b, "B"),
        ("agent_registered", a, "C"),
    ]
    for each in (here, there):
        told = each.wait_for(*(kind for kind, _, _ in expected))
        assert [(e["event"], e["agent_id"], e["name"]) for e in told] == expected
        assert [e["at"] for e in told] == sorted(e["at"] for e in told)


def test_a_status_is_an_event_only_when_its_bytes_change(agents):
    agents.watch()
    a = agent()
    statuses = [None, 1, "1", 1.0, [1], {"a": 1}, {"a": 1, "b": 2}, {"b": 2, "a": 1}, False, "x" * 60000, ""]
    agents.register(a)
    agents.wait_for("agent_registered")
    for status in statuses:
        for _ in range(3):
            agents.beat(a, status=status)
            agents.beat(a)
        assert agents.get(a)["status"] == status
        if status is not None:
            agents.wait_for("agent_status")
    assert agents.told() == []


def test_an_agent_expires_once_over_all_brokers(agents, second, broker):
    here, there = also(agents, broker).watch(), also(agents, second).watch()
    names = [agent() for _ in range(300)]
    client = agents.client
    client.results(client.submit_all([("register", {"agent": each, "ttl": 0.4}) for each in names]))
    for each in (here, there):
        wait_until(lambda: each.told() is not None and len(each.events) >= 600, 10, "all are told")
        kinds = [e["event"] for e in each.events]
        assert kinds.count("agent_registered") == kinds.count("agent_expired") == 300
        assert {instance(e) for e in each.events if e["event"] == "agent_expired"} == {e["instance"] for e in names}
    wait_until(lambda: agents.all() == [], 15, "all are forgotten")
    assert here.told() == [] and there.told() == []


# -- list_registered ----------------------------------------------------------------------------


def test_a_list_is_filtered(agents):
    made = {}
    for i in range(12):
        each = agent(f"i{i:02}", kind=f"t{i % 3}")
        caps = [["x", "y:z"], {"x": 1, "off": False, "none": None}, [], ["xy", 5, b"bin", ["x"]]][i % 4]
        agents.register(each, capabilities=caps, ttl=0.5 if i < 6 else 60)
        made[each["instance"]] = caps
    wait_until(lambda: len(agents.list(alive=False)) == 6, 5)

    def numbers(**params):
        return [int(name[1:]) for name in agents.names(**params)]

    everyone = sorted(range(12), key=lambda i: (i % 3, i))
    assert numbers() == everyone
    assert numbers(type="t1") == [1, 4, 7, 10]
    assert numbers(type="t") == [] and numbers(type="t11") == []
    assert numbers(alive=False) == [i for i in everyone if i < 6]
    assert numbers(alive=True) == [i for i in everyone if i >= 6]
    assert numbers(capability="x") == [i for i in everyone if i % 4 in (0, 1)]
    assert numbers(capability="y:z") == [i for i in everyone if i % 4 == 0]
    assert numbers(capability="xy") == numbers(capability="bin") == [i for i in everyone if i % 4 == 3]
    for nobody in ("off", "none", "", "z", "y", "x:y", "%", ":"):
        assert numbers(capability=nobody) == []
    assert numbers(type="t2", capability="x", alive=True) == [8]
    for limit in (1, 2, 5, 7, 12, 1000):
        assert numbers(limit=limit) == everyone
        assert numbers(limit=limit, capability="x", alive=True) == [i for i in everyone if i % 4 < 2 and i >= 6]


def test_a_page_begins_after_the_agent_named_wherever_that_is(agents):
    for kind, name in itertools.product(("a", "b", "c"), ("1", "2")):
        agents.register(agent(name, kind))

    def seen(**params):
        return "".join(each["agent_id"]["type"] + instance(each) for each in agents.list(**params))

    assert seen(after=agent("1", "b")) == "b2c1c2"
    assert seen(after=agent("15", "b")) == "b2c1c2"  # one that is not there
    assert seen(after={"type": "b"}) == "c1c2"  # b:default comes after b:2
    assert seen(after=agent("2", "c")) == "" == seen(after=agent("1", "d"))
    assert seen(type="b", after=agent("9", "a")) == "b1b2"
    assert seen(type="b", after=agent("1", "b")) == "b2"
    assert seen(type="b", after=agent("1", "c")) == ""


def test_names_of_every_kind_are_told_apart(agents, broker):
    parts = ["a", "a:b", "a%3Ab", "%", ":", "{x}", "*", "?", "[", " ", "..", "א", "a" * 128, "default"]
    known = [{"type": t, "instance": i} for t in parts for i in parts]
    for each in known:
        agents.register(each, metadata={"i": each})
    rows = agents.all(limit=50)
    assert len(rows) == len(known)
    assert sorted(map(json.dumps, (e["agent_id"] for e in rows))) == sorted(map(json.dumps, known))
    assert all(each["metadata"]["i"] == each["agent_id"] for each in rows)
    for each in parts:
        assert len(agents.all(type=each)) == len(parts)
    for each in known:
        assert agents.client.call("deregister", agent=each)
        assert agents.get(each) is None
    assert agents.all() == []


def test_pages_are_complete_and_without_doubles_while_others_register(agents, broker):
    there = [agent(f"k{i:04}") for i in range(1500)]
    client = agents.client
    client.results(client.submit_all([("register", {"agent": each}) for each in there]))
    stop, other = [], also(agents, broker)

    def come_and_go():
        for i in itertools.count():
            if stop:
                return
            each = agent(f"k{i * 7 % 1500:04}x")
            other.register(each)
            other.client.call("deregister", agent=each)

    worker = Worker(come_and_go)
    try:
        for limit in (7, 100, 1000):
            names = agents.names(limit=limit)
            assert len(names) == len(set(names)) and names == sorted(names)
            assert [each for each in names if not each.endswith("x")] == [each["instance"] for each in there]
    finally:
        stop.append(True)
        worker.finish()


def test_two_thousand_agents_come_beat_and_are_listed_quickly(agents):
    client = agents.client
    names = [agent(f"n{i:04}") for i in range(2000)]
    began = time.monotonic()
    for method in ("register", "heartbeat"):
        for i in range(0, 2000, 500):
            client.results(client.submit_all([(method, {"agent": each}) for each in names[i : i + 500]]))
    assert agents.names() == [each["instance"] for each in names]
    assert len(agents.list(capability="none")) == 0
    status = client.call("status")
    assert status["agents"] == {"known": 2000, "alive": 2000, "late": 0}
    assert time.monotonic() - began < within(5)


# -- what is carried ----------------------------------------------------------------------------


def raw_request(method, agent, **raw):
    """A request with a map of which some values are given as MessagePack."""
    body = b"\x94\x00\x01" + pack(method) + b"\x91" + bytes([0x81 + len(raw)]) + pack("agent") + pack(agent)
    return body + b"".join(pack(key) + value for key, value in raw.items())


def ask_raw(client, data):
    """The bytes of the answer's frame."""
    client.pending.add(1)
    client.send_bytes(data)
    client.result(1)
    return client.raw


ODD = b"\xdb\x00\x00\x00\x01x"  # a str in a longer form than it needs
VALUES = {
    "status": b"\x92\xcd\x00\x05" + ODD,
    "capabilities": b"\xdc\x00\x02" + ODD + b"\xa1y",
    "metadata": b"\xde\x00\x02" + ODD + b"\xca\x3f\x80\x00\x00\xa1b\xc4\x02\xff\x00",
}


def test_values_are_carried_byte_for_byte(agents):
    a, state = agent(), b"\xdd\x00\x00\x00\x01" + ODD
    ask_raw(agents.client, raw_request("register", a, state=state, **VALUES))
    agents.client.pending.add(1)
    agents.client.send_bytes(raw_request("get_agent", a))
    agents.client.result(1)
    frame = agents.client.raw
    for key, value in VALUES.items():
        assert pack(key) + value in frame
    assert pack("state") + state in ask_raw(agents.client, raw_request("register", a))
    assert len(agents.list(capability="x")) == 0
    ask_raw(agents.client, raw_request("register", a, **VALUES))
    assert [instance(each) for each in agents.list(capability="x")] == [a["instance"]]


def test_64_kib_pass_and_a_byte_more_does_not(agents):
    text = "x" * (65536 - 3)  # with its head of 3 bytes
    biggest = {
        "status": text,
        "state": text,
        "capabilities": ["x" * (65536 - 4)],
        "metadata": {"k": "x" * (65536 - 6)},
    }
    for key, value in biggest.items():
        assert len(pack(value)) == 65536, key
    a = agent()
    agents.register(a, **biggest)
    info = agents.get(a)
    assert all(info[key] == biggest[key] for key in ("status", "capabilities", "metadata"))
    agents.beat(a, status=text, state=text)
    assert agents.register(a)["state"] == text
    for key in biggest:
        larger = {"status": text + "x", "state": text + "x", "capabilities": [biggest["capabilities"][0] + "x"]}
        larger["metadata"] = {"k": biggest["metadata"]["k"] + "x"}
        for method in ("register", "heartbeat") if key in ("status", "state") else ("register",):
            refusal = agents.client.refused(method, {"agent": a, key: larger[key]})
            assert refusal.code == "bad_request" and key in refusal.message and "65536" in refusal.message


def test_a_list_of_large_agents_ends_at_a_frame_and_goes_on(agents):
    names = [agent(f"n{i:02}") for i in range(20)]
    for each in names:
        agents.register(each, status="s" * 60000, metadata={"m": "m" * 60000})
    page = agents.list()
    assert len(agents.client.raw) <= 1 << 20
    assert 1 < len(page) < 20
    assert agents.names() == [each["instance"] for each in names]


def test_an_agent_larger_than_a_frame_is_told_alone(own):
    agents = Agents(own(limits={"max_frame": "4KiB"}).connect())
    for i in range(4):
        a = agent(f"n{i}")
        agents.register(a, status="s" * 2000, metadata={"m": "m" * 1500})
        agents.beat(a, status="t" * 3000)
    assert [len(agents.list(limit=n)) for n in (1, 2, 1000)] == [1, 1, 1]
    assert agents.names() == ["n0", "n1", "n2", "n3"]


BAD = [
    ({"agent": "worker"}, "agent"),
    ({}, "agent"),
    ({"agent": {"type": "w"}, "nonsense": 1}, "nonsense"),
    ({"agent": {"type": "w"}, "name": ""}, "name"),
    ({"agent": {"type": "w"}, "name": "n" * 129}, "name"),
    ({"agent": {"type": "w"}, "name": "a\nb"}, "name"),
    ({"agent": {"type": "w"}, "name": 5}, "name"),
    ({"agent": {"type": "w"}, "ttl": -1}, "ttl"),
    ({"agent": {"type": "w"}, "ttl": 31536001}, "ttl"),
    ({"agent": {"type": "w"}, "ttl": "5"}, "ttl"),
    ({"agent": {"type": "w"}, "resume": -1}, "resume"),
    ({"agent": {"type": "w"}, "resume": "1"}, "resume"),
    ({"agent": {"type": "w"}, "resume": 1.5}, "resume"),
    ({"agent": {"type": "w"}, "capabilities": "plan"}, "capabilities"),
    ({"agent": {"type": "w"}, "capabilities": 5}, "capabilities"),
    ({"agent": {"type": "w"}, "metadata": "m"}, "metadata"),
    ({"agent": {"type": "w"}, "metadata": ["m"]}, "metadata"),
    ({"agent": {"type": "w"}, "metadata": {"a": msgpack.ExtType(1, b"x")}}, "metadata"),
    ({"agent": {"type": "w"}, "status": {1: 2}}, "status"),
    ({"agent": {"type": "w"}, "state": [msgpack.Timestamp(1)]}, "state"),
    ({"agent": {"type": "w"}, "state": {b"bin": 1}}, "state"),
]


@pytest.mark.parametrize("params, field", BAD)
def test_a_bad_registration_names_its_field(agents, params, field):
    refusal = agents.client.refused("register", params)
    assert refusal.code == "bad_request" and field in refusal.message
    assert agents.all() == []


def test_other_bad_requests_name_their_fields(agents):
    a = {"type": "w"}
    agents.register(a)
    for method, params, field in [
        ("heartbeat", {"agent": a, "status": {1: 2}}, "status"),
        ("heartbeat", {"agent": a, "incarnation": "x"}, "incarnation"),
        ("heartbeat", {"agent": a, "incarnation": -1}, "incarnation"),
        ("heartbeat", {"agent": a, "ttl": 5}, "ttl"),
        ("heartbeat", {}, "agent"),
        ("deregister", {}, "agent"),
        ("get_agent", {}, "agent"),
        ("list_registered", {"alive": 1}, "alive"),
        ("list_registered", {"alive": "true"}, "alive"),
        ("list_registered", {"capability": 5}, "capability"),
        ("list_registered", {"capability": ["x"]}, "capability"),
        ("list_registered", {"limit": 0}, "limit"),
        ("list_registered", {"limit": 1001}, "limit"),
        ("list_registered", {"after": "worker:x"}, "after"),
        ("list_registered", {"after": {"instance": "x"}}, "after"),
        ("list_registered", {"type": ""}, "type"),
    ]:
        refusal = agents.client.refused(method, params)
        assert refusal.code == "bad_request" and field in refusal.message, (method, params)
    nested = 1
    for _ in range(24):
        nested = [nested]
    agents.beat(a, status=nested)
    assert agents.get(a)["status"] == nested
    assert agents.client.refused("heartbeat", {"agent": a, "status": [nested]}).code == "bad_request"


def test_other_content_passes_where_that_is_allowed(own):
    agents = Agents(own(limits={"portable_payloads": False}).connect(relaxed=True))
    a = agent()
    agents.register(a, status={1: msgpack.ExtType(5, b"x")})
    assert agents.client.call("get_agent", agent=a)["status"] == {1: msgpack.ExtType(5, b"x")}


# -- namespaces, subscriptions, what is left ----------------------------------------------------


def test_namespaces_are_worlds_of_their_own(agents, broker):
    other = Agents(broker.in_namespace(namespace_of(agents.client) + "x"))
    a = agent()
    agents.register(a, state=1)
    assert other.get(a) is None and other.all() == [] and other.is_unknown(a)
    assert other.client.call("deregister", agent=a) is False
    assert other.register(a)["state"] is None
    assert other.client.call("deregister", agent=a) is True
    assert agents.is_alive(a) and len(agents.all()) == 1


def test_who_deregisters_or_is_forgotten_is_subscribed_to_nothing(agents):
    client = agents.client
    stays, leaves, dies = agent("stays"), agent("leaves"), agent("dies")
    for each in (stays, leaves):
        agents.register(each, state=1, ttl=0.2 if each is leaves else 60)
    agents.register(dies, ttl=0.1)
    for each in (stays, leaves, dies):
        client.call("subscribe", agent=each, message_types=["event", "request"])

    def reached():
        message = {"message_id": fresh("m"), "message_type": "event"}
        results = client.call("publish", sender={"type": "s"}, message=message)
        return [each["recipient"]["instance"] for each in results]

    assert "leaves" in reached()
    client.call("deregister", agent=leaves)
    assert "leaves" not in reached()
    # It needs no registration; what it stored is forgotten meanwhile, and that is another matter.
    client.call("subscribe", agent=leaves, message_types=["event"])
    wait_until(lambda: reached() == ["leaves", "stays"], 10, "the dead one is forgotten")
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        assert reached() == ["leaves", "stays"]
        wait_for_time(time.monotonic() + 0.2)


def test_nothing_is_left_of_who_is_forgotten(agents, redis):
    ns = namespace_of(agents.client)
    for i in range(40):
        each = agent(f"n{i}")
        agents.register(each, ttl=0.1 + i / 200, state=i, capabilities=["c"], metadata={"m": 1})
        agents.client.call("subscribe", agent=each, message_types=["event"])
        if i % 4 == 0:
            agents.client.call("unsubscribe", agent=each, subscription_id="x")
            agents.client.call("deregister", agent=each)
    assert keys_of(redis, agents)
    wait_until(lambda: not keys_of(redis, agents), 15, "nothing is left")
    assert agents.all() == []
    assert ns not in str(redis.command("HKEYS", "coordd:ended"))


def test_an_agents_queue_stays(agents):
    a = agent()
    queue = Queue(agents.client, a)
    agents.register(a, ttl=0.1)
    sent = queue.send()
    wait_until(lambda: agents.get(a) is None, 10)
    agents.register(a)
    agents.client.call("deregister", agent=a)
    assert [each.id for each in queue.drain()] == [sent]


def test_a_forget_after_of_the_configuration_holds_for_all(own):
    agents = Agents(own(registry={"forget_after": "1s"}).connect())
    a = agent()
    agents.watch()
    agents.register(a, ttl=0.3)
    died = seconds_of(agents.wait_for("agent_registered", "agent_expired")[1]["at"])
    wait_until(lambda: agents.get(a) is None, 5)
    b = agent()
    agents.register(b, ttl=30, state=1)
    told = agents.wait_for("agent_registered")[0]
    assert 1 <= seconds_of(told["at"]) - died < 1 + within(SWEEP)
    agents.client.call("deregister", agent=b)
    wait_for_time(time.monotonic() + 1.5 + within(SWEEP))
    assert agents.register(b)["state"] is None


def test_what_somebody_else_left_under_our_names_stops_nobody(own, redis):
    broker = own()
    prefix = broker.config["redis"]["key_prefix"]
    agents = Agents(broker.connect())
    known = [agent(f"n{i}") for i in range(5)]
    for each in known:
        agents.register(each, ttl=0.5)
    redis.command("DEL", f"{prefix}:a:default:worker:n1")  # the index still names it
    redis.command("DEL", f"{prefix}:a:default:worker:n2")
    redis.command("SET", f"{prefix}:a:default:worker:n2", "nonsense")
    broker.expected_errors = ["request.internal"]
    agents.client.submit_all([("heartbeat", {"agent": each}) for each in known])
    wait_until(lambda: redis.command("ZCARD", f"{prefix}:beats") == 0, 15, "all are forgotten")
    assert redis.command("ZCARD", f"{prefix}:agents") == 0 and agents.all() == []
    assert redis.command("GET", f"{prefix}:a:default:worker:n2") == "nonsense"


# -- when something goes wrong ------------------------------------------------------------------


def keep_beating(agents, known, period, stop):
    """Beat for all of them, each every `period` seconds, until told to stop; a thread."""

    def work():
        while not stop:
            began = time.monotonic()
            for each in known:
                agents.client.notify("heartbeat", {"agent": each})
            wait_for_time(began + period)

    return Worker(work)


def test_the_living_are_not_maligned_under_load(agents, broker, second):
    watch = also(agents, second).watch()
    known = [agent() for _ in range(200)]
    for each in known:
        agents.register(each, ttl=1.5)
    stop = []
    beating = keep_beating(also(agents, broker), known, 0.4, stop)

    def load(where):
        queue = Queue(where.connect(), {"type": "load", "instance": fresh("q")})
        while not stop:
            for _ in range(20):
                queue.send(payload={"x": "y" * 2000})
            queue.drain()

    loads = [Worker(lambda w=w: load(w)) for w in (broker, second)]
    try:
        deadline = time.monotonic() + 6
        while time.monotonic() < deadline:
            assert agents.names(alive=True) == sorted(each["instance"] for each in known)
    finally:
        stop.append(True)
        for each in (beating, *loads):
            each.finish()
    assert {each["event"] for each in watch.told() + watch.events} == {"agent_registered"}


def test_a_broker_that_stood_still_has_nobody_declared_dead(agents, redis, make_broker):
    """While the only one that sweeps stands still nobody can beat: who lived before may say so first."""
    prefix = fresh("own")
    broker = make_broker(redis, config={"redis": {"key_prefix": prefix}, "sweep": {"grace": "2s"}}).start()
    agents = Agents(broker.connect()).watch()
    lives, dead = agent(), agent()
    agents.register(lives, ttl=1)
    agents.register(dead, ttl=1)
    agents.wait_for("agent_registered", "agent_registered")
    broker.signal(signal.SIGSTOP)
    wait_for_time(time.monotonic() + 2.5)
    broker.signal(signal.SIGCONT)
    resumed = redis.time()
    wait_for_time(time.monotonic() + 0.5)
    stop = []
    beating = keep_beating(Agents(broker.connect()), [lives], 0.25, stop)
    try:
        told = agents.wait_for("agent_expired", limit=8)
        assert told[0]["agent_id"] == dead
        assert 2 <= seconds_of(told[0]["at"]) - resumed + 0.05 < 2 + within(1)
        assert agents.is_alive(lives)
    finally:
        stop.append(True)
        beating.finish()


def test_after_an_outage_an_agent_has_its_own_ttl_when_that_is_longer(start_redis, make_broker):
    redis = start_redis()
    config = {"sweep": {"grace": "500ms"}, "redis": {"command_timeout": "500ms"}}
    broker = make_broker(redis, config=config, expected_errors=["redis"]).start()
    agents = Agents(broker.connect()).watch()
    short, long = agent("short"), agent("long")
    agents.register(short, ttl=0.4)
    agents.register(long, ttl=2)
    redis.pause()
    wait_for_time(time.monotonic() + 3)
    redis.resume()
    resumed = redis.time()
    wait_until(lambda: answers(agents), 10, "it answers again")
    told = agents.wait_for("agent_registered", "agent_registered", "agent_expired", "agent_expired", limit=10)
    found = {instance(each): seconds_of(each["at"]) for each in told[2:]}
    assert 0.4 <= found["short"] - resumed < 2
    assert 1.9 <= found["long"] - resumed < 4 + within(1)


def answers(agents):
    try:
        agents.all()
    except Exception:
        return False
    return True


@pytest.mark.parametrize("ttl", [1, 30])
def test_agents_survive_a_restart_of_redis(start_redis, make_broker, ttl):
    redis = start_redis(fsync="always")
    config = {"redis": {"command_timeout": "500ms"}}
    agents = Agents(make_broker(redis, config=config, expected_errors=["redis"]).start().connect())
    known = [agent(f"n{i}") for i in range(50)]
    made = [agents.register(each, ttl=ttl, status=1, state={"i": i}) for i, each in enumerate(known)]
    redis.kill()
    refusal = wait_until(lambda: agents.client.refused("heartbeat", {"agent": known[0]}), 5)
    assert refusal.code == "unavailable"
    wait_for_time(time.monotonic() + 2)
    redis.start()
    wait_until(lambda: answers(agents), 10, "it answers again")
    for each, before in zip(known, made):
        agents.beat(each, incarnation=before["incarnation"])
    rows = agents.all()
    assert len(rows) == 50 and all(each["alive"] and each["status"] == 1 for each in rows)
    assert [agents.register(each, resume=m["incarnation"])["state"] for each, m in zip(known, made)] == [
        {"i": i} for i in range(50)
    ]


def test_a_killed_broker_takes_nothing_with_it(agents, redis, make_broker):
    dying = make_broker(redis).start()
    there = also(agents, dying)
    agents.watch()
    a, b = agent(), agent()
    made = there.register(a, ttl=2)
    there.register(b, ttl=0.6)
    dying.kill()
    agents.beat(a, incarnation=made["incarnation"])
    told = agents.wait_for("agent_registered", "agent_registered", "agent_expired")
    assert told[2]["agent_id"] == b
    assert seconds_of(told[2]["at"]) - seconds_of(told[1]["at"]) < 0.6 + within(2)
    agents.beat(a)
    assert agents.is_alive(a)


def test_a_heartbeat_gets_through_when_redis_is_out_of_memory(start_redis, make_broker):
    redis = start_redis()
    agents = Agents(make_broker(redis, expected_errors=["redis"]).start().connect())
    a = agent()
    agents.register(a, ttl=1)
    redis.command("CONFIG", "SET", "maxmemory", "1mb")
    began = time.monotonic()
    while time.monotonic() < began + 2.5:
        agents.beat(a)
        assert agents.is_alive(a)
        wait_for_time(time.monotonic() + 0.2)
    refusal = agents.client.refused("register", {"agent": agent()})
    assert refusal.code == "unavailable" and refusal.applied == "no"
    assert agents.client.call("deregister", agent=a) is True


def test_a_broker_that_stops_still_takes_heartbeats(redis, make_broker):
    broker = make_broker(redis).start()
    agents = Agents(broker.connect())
    a = agent()
    agents.register(a)
    # An unanswered request keeps its connection open, and Redis does not answer while it stands still.
    redis.pause()
    try:
        slow = agents.client.submit("get_agent", {"agent": a})
        broker.signal(signal.SIGTERM)
        wait_until(lambda: broker.logged("server.stop"), 5)
        beat = agents.client.submit("heartbeat", {"agent": a})
        refused = agents.client.submit("register", {"agent": a})
        with pytest.raises(Exception, match="shutting_down"):
            agents.client.result(refused)
    finally:
        redis.resume()
    assert agents.client.result(slow)["alive"]
    assert agents.client.result(beat)["ttl"] == 30


# -- coordctl -----------------------------------------------------------------------------------


def ctl(agents, broker, *words, status=0):
    done = subprocess.run(
        [COORDCTL, "-s", f"unix://{broker.unix_path}", "-N", namespace_of(agents.client), *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=within(20),
    )
    assert done.returncode == status, (words, done.stdout, done.stderr)
    return done.stdout + done.stderr


def test_coordctl_shows_agents(agents, broker):
    agents.watch()
    agents.register(agent("w1", "planner"), name="the planner", status={"busy": 1}, capabilities=["plan"])
    agents.register(agent("w:2"), ttl=0.2, metadata={"host": "h"})
    agents.wait_for("agent_registered", "agent_registered", "agent_expired")
    table = ctl(agents, broker, "agent", "ls").splitlines()
    assert table[0].split() == ["AGENT", "NAME", "STATE", "BEAT", "TTL", "STATUS", "CAPABILITIES"]
    assert "planner:w1" in table[1] and "alive" in table[1] and '["plan"]' in table[1] and "the planner" in table[1]
    assert "worker:w%3A2" in table[2] and "DEAD" in table[2] and len(table) == 3
    assert "planner" not in ctl(agents, broker, "agent", "ls", "worker")
    rows = json.loads(ctl(agents, broker, "-o", "json", "agent", "ls"))
    assert [each["agent_id"]["instance"] for each in rows] == ["w1", "w:2"]
    assert len(json.loads(ctl(agents, broker, "-o", "json", "agent", "ls", "--limit", "1"))) == 1
    shown = ctl(agents, broker, "agent", "show", "worker:w%3A2")
    assert "DEAD" in shown and '{"host": "h"}' in shown
    ctl(agents, broker, "agent", "show", "nobody", status=3)
    assert "agents   known 2   alive 1" in ctl(agents, broker, "status")


def test_coordctl_lists_more_agents_than_a_page_holds(agents, broker):
    client = agents.client
    client.results(client.submit_all([("register", {"agent": agent(f"n{i:04}")}) for i in range(1001)]))
    rows = json.loads(ctl(agents, broker, "-o", "json", "agent", "ls"))
    assert [each["agent_id"]["instance"] for each in rows] == [f"n{i:04}" for i in range(1001)]


def test_coordctl_removes_an_agent(agents, broker):
    a = agent("w1")
    agents.register(a)
    assert "would deregister" in ctl(agents, broker, "agent", "rm", "worker:w1", "--dry-run")
    ctl(agents, broker, "agent", "rm", "worker:w1", status=2)
    assert agents.is_alive(a)
    assert "deregistered worker:w1" in ctl(agents, broker, "agent", "rm", "worker:w1", "--yes")
    assert agents.get(a) is None
    ctl(agents, broker, "agent", "rm", "worker:w1", "--yes", status=3)
