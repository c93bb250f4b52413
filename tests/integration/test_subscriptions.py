"""subscribe, unsubscribe, publish, and broadcast by type."""

import itertools

import pytest

from harness import (
    AGENT_ID,
    MESSAGE_RESULT,
    Queue,
    check_shape,
    fresh,
    is_text,
    spelled_out,
    wait_until,
)

KINDS = ("event", "request", "response")
SENDER = {"type": "tester", "instance": "one"}
SUBSCRIPTION = {"subscription_id": is_text, "agent_id": AGENT_ID, "message_types": [is_text]}


@pytest.fixture
def ns(broker):
    """A connection to a namespace of its own, in which nobody is subscribed to anything."""
    return broker.in_namespace(fresh("subs"))


@pytest.fixture
def second(redis, make_broker, broker):
    """Another coordd on the shared Redis, under the same prefix."""
    return make_broker(redis).start()


def namespace_of(client):
    return client.call("hello")["namespace"]


def subscribe(client, agent, *kinds):
    """Its id."""
    value = client.call("subscribe", agent=agent, message_types=list(kinds))
    check_shape(value, SUBSCRIPTION)
    assert value["agent_id"] == spelled_out(agent)
    assert value["message_types"] == sorted(set(kinds))
    return value["subscription_id"]


def message(kind="event", **more):
    return {"message_id": fresh("m"), "message_type": kind, **more}


def reached(client, kind="event", method="publish", **more):
    """Who got a message that is sent now, as results say and as their queues do."""
    sent = message(kind, payload={"n": [1, 2, {"x": None}]})
    results = client.call(method, sender=SENDER, message=sent, **more)
    agents = []
    for each in check_shape(results, [MESSAGE_RESULT]):
        assert each["message_id"] == sent["message_id"]
        assert each["delivered"] and "duplicate" not in each, each
        agents.append(each["recipient"])
        received = Queue(client, each["recipient"]).take_one(wait=0, visibility_timeout=60)
        assert received.id == sent["message_id"] and received.message["payload"] == sent["payload"]
        assert received.message["sender"] == SENDER
        assert received.message["recipient"] == each["recipient"]
        assert client.call("ack", agent=each["recipient"], token=received.token)
    return [f"{each['type']}:{each['instance']}" for each in agents]


def agent(name):
    kind, _, instance = name.partition(":")
    return {"type": kind, "instance": instance or "default"}


# -- subscribe, unsubscribe ---------------------------------------------------------------------


def test_who_is_subscribed_to_a_type_gets_what_is_published_of_it(ns):
    assert reached(ns) == []
    subscribe(ns, agent("a"), "event")
    subscribe(ns, agent("b"), "request", "response")
    subscribe(ns, agent("c"), "event", "response")
    assert reached(ns, "event") == ["a:default", "c:default"]
    assert reached(ns, "request") == ["b:default"]
    assert reached(ns, "response") == ["b:default", "c:default"]


def test_the_same_agent_and_types_have_the_same_id(ns, broker):
    ids = set()
    for n in range(1, 4):
        for kinds in itertools.combinations(KINDS, n):
            one = {subscribe(ns, agent("a"), *order) for order in itertools.permutations(kinds)}
            assert len(one) == 1 and not one & ids
            ids |= one
    assert subscribe(ns, agent("a"), "event", "event") == subscribe(ns, agent("a"), "event")
    assert subscribe(ns, agent("a:default"), "event") in ids
    assert subscribe(ns, agent("a:b"), "event") not in ids
    elsewhere = broker.in_namespace(fresh("subs"))
    assert subscribe(elsewhere, agent("a"), "event") not in ids


def test_who_is_subscribed_twice_gets_it_once(ns):
    subscribe(ns, agent("a"), "event", "request")
    subscribe(ns, agent("a"), "event")
    assert reached(ns) == ["a:default"]
    assert Queue(ns, agent("a")).counts() == (0, 0, 0, 0)


def test_a_subscription_lasts_until_it_is_taken_back(ns):
    both = subscribe(ns, agent("a"), "event", "request")
    one = subscribe(ns, agent("a"), "event")
    assert ns.call("unsubscribe", agent=agent("b"), subscription_id=both) is False
    assert ns.call("unsubscribe", agent=agent("a"), subscription_id="nonsense") is False
    assert ns.call("unsubscribe", agent=agent("a"), subscription_id=both) is True
    assert ns.call("unsubscribe", agent=agent("a"), subscription_id=both) is False
    assert reached(ns, "event") == ["a:default"]  # the other one is left
    assert reached(ns, "request") == []
    assert ns.call("unsubscribe", agent=agent("a"), subscription_id=one) is True
    assert reached(ns, "event") == []


def test_nothing_is_left_of_what_was_taken_back(ns, redis):
    for kinds in (("event",), ("event", "response"), KINDS):
        assert ns.call("unsubscribe", agent=agent("a"), subscription_id=subscribe(ns, agent("a"), *kinds))
    assert redis.command("KEYS", f"coordd:sub*{namespace_of(ns)}*") == []


def test_subscriptions_are_of_a_namespace(ns, broker):
    elsewhere = broker.in_namespace(fresh("subs"))
    subscribe(elsewhere, agent("a"), "event")
    assert reached(ns) == []
    assert reached(elsewhere) == ["a:default"]


def test_they_hold_through_any_broker_and_every_restart(start_redis, make_broker):
    redis = start_redis(fsync="always")
    first, second = make_broker(redis), make_broker(redis)
    client = first.start().connect()
    identity = subscribe(client, agent("a"), "event")
    assert reached(second.start().connect()) == ["a:default"]
    first.stop()
    second.kill()
    redis.kill()
    redis.start()
    client = first.start().connect()
    assert reached(client) == ["a:default"]
    assert subscribe(client, agent("a"), "event") == identity
    assert second.start().connect().call("unsubscribe", agent=agent("a"), subscription_id=identity)
    assert reached(client) == []


@pytest.mark.parametrize(
    "types, field",
    [
        (None, "message_types"),
        ("event", "message_types"),
        ([], "message_types"),
        (["event", "events"], "message_types[1]"),
        ([None], "message_types[0]"),
    ],
)
def test_subscribe_is_refused(ns, types, field):
    params = {"agent": agent("a")}
    if types is not None:
        params["message_types"] = types
    refusal = ns.refused("subscribe", params)
    assert refusal.code == "bad_request" and field in refusal.message
    assert [reached(ns, each) for each in KINDS] == [[], [], []]


# -- publish -----------------------------------------------------------------------------------------


def test_results_are_in_the_order_of_names(ns):
    names = ["b:2", "b:10", "a:x", "b:default", "a%:y", "a::y", "ä:1", "B:1"]
    for each in names:
        subscribe(ns, agent(each), "event")
    got = reached(ns)
    assert sorted(got) == sorted(names)
    assert got == sorted(got, key=encoded)


def encoded(name):
    kind, _, instance = name.partition(":")
    each = [part.replace("%", "%25").replace(":", "%3A") for part in (kind, instance)]
    return ":".join(each).encode()


def test_a_full_queue_and_a_repetition_are_told(ns):
    for name in ("a", "b"):
        subscribe(ns, agent(name), "event")
    Queue(ns, agent("a")).configure(queue_size=1)
    sent = message()
    first = ns.call("publish", sender=SENDER, message=sent)
    assert [each["delivered"] for each in first] == [True, True]
    again = ns.call("publish", sender=SENDER, message=sent)
    assert [each.get("duplicate") for each in again] == [True, True]
    other = ns.call("publish", sender=SENDER, message=message())
    assert [(each["delivered"], each["error"]) for each in other] == [(False, "queue full"), (True, None)]


def test_everything_of_the_message_arrives(ns):
    subscribe(ns, agent("a"), "response")
    sent = message(
        "response",
        payload={"deep": [{"er": b"\x00\xff"}], "n": 1.5},
        priority=9,
        timestamp="2026-01-02T03:04:05Z",
        correlation_id="c-1",
        traceparent="00-x-y-01",
    )
    ns.call("publish", sender={"type": "s:%"}, message=sent)
    received = Queue(ns, agent("a")).take_one()
    for key, value in sent.items():
        assert received.message[key] == value
    assert received.message["sender"] == {"type": "s:%", "instance": "default"}


@pytest.mark.parametrize("payload", ["absent", None, {}])
def test_a_message_without_a_payload_arrives(ns, payload):
    subscribe(ns, agent("a"), "event")
    sent = message() if payload == "absent" else message(payload=payload)
    ns.call("publish", sender=SENDER, message=sent)
    assert Queue(ns, agent("a")).take_one().message["payload"] == {}


def test_publish_keeps_its_place_among_the_sends_of_its_connection(ns):
    subscribe(ns, agent("a"), "event")
    for round in range(20):
        calls, ids = [], []
        for i in range(10):
            sent = message("event")
            ids.append(sent["message_id"])
            params = {"sender": SENDER, "message": sent}
            which = (i + round) % 3
            if which == 0:
                calls.append(("publish", params))
            else:
                calls.append(("send", {**params, "recipient": agent("a")}))
        calls.append(("receive_batch", {"agent": agent("a"), "max": 1000, "visibility_timeout": 60}))
        *_, received = ns.results(ns.submit_all(calls))
        assert [each["queue_message"]["message"]["message_id"] for each in received] == ids
        tokens = [each["token"] for each in received]
        assert all(ns.call("ack_batch", agent=agent("a"), tokens=tokens))


def test_a_subscription_counts_for_what_the_same_connection_publishes_behind_it(ns):
    calls = [
        ("subscribe", {"agent": agent("a"), "message_types": ["event"]}),
        ("publish", {"sender": SENDER, "message": message()}),
    ]
    made, results = ns.results(ns.submit_all(calls))
    assert len(results) == 1
    calls = [
        ("unsubscribe", {"agent": agent("a"), "subscription_id": made["subscription_id"]}),
        ("publish", {"sender": SENDER, "message": message()}),
    ]
    assert ns.results(ns.submit_all(calls)) == [True, []]


def test_publish_as_a_notification_is_executed(ns):
    subscribe(ns, agent("a"), "event")
    ns.notify("publish", {"sender": SENDER, "message": message()})
    ns.notify("publish", {"sender": SENDER, "message": message("request")})
    assert ns.call("ping") == "pong"
    received = Queue(ns, agent("a")).take_one(wait=2)
    assert received.message["message_type"] == "event"
    ns.expect_silence()


def test_who_leaves_at_once_has_published_all_the_same(ns, broker):
    subscribe(ns, agent("a"), "event")
    leaving = broker.in_namespace(namespace_of(ns))
    leaving.submit("publish", {"sender": SENDER, "message": message()})
    leaving.close()
    Queue(ns, agent("a")).take_one(wait=5)


def test_a_thousand_get_it_and_more_are_refused_whole(ns):
    calls = [("subscribe", {"agent": agent(f"a:{i:04}"), "message_types": ["event"]}) for i in range(1001)]
    ids = [each["subscription_id"] for each in ns.results(ns.submit_all(calls))]
    refusal = ns.refused("publish", {"sender": SENDER, "message": message()})
    assert refusal.code == "too_large" and "1000" in refusal.message
    assert ns.call("list_queues")["queues"] == []
    assert ns.call("unsubscribe", agent=agent("a:0500"), subscription_id=ids[500])
    results = ns.call("publish", sender=SENDER, message=message())
    names = [each["recipient"]["instance"] for each in results]
    assert names == [f"{i:04}" for i in range(1001) if i != 500]


def test_it_is_unavailable_without_redis(start_redis, make_broker):
    redis = start_redis()
    broker = make_broker(redis, expected_errors=["redis"]).start()
    client = broker.connect()
    subscribe(client, agent("a"), "event")
    redis.kill()
    wait_until(lambda: not client.call("status")["redis"]["up"], 10)
    for method, params in (
        ("publish", {"sender": SENDER, "message": message()}),
        ("broadcast", {"sender": SENDER, "message": message(), "type": "a"}),
        ("subscribe", {"agent": agent("a"), "message_types": ["event"]}),
        ("unsubscribe", {"agent": agent("a"), "subscription_id": "x"}),
    ):
        refusal = client.refused(method, params)
        assert refusal.code == "unavailable" and refusal.applied == "no"
    assert client.call("ping") == "pong"  # it is read from again


# -- broadcast by type ------------------------------------------------------------------------------


def put_agent(redis, client, name, live=1, age=0.0, ttl=30.0):
    """As a registration leaves it."""
    full = f"{namespace_of(client)}:{name}"
    beat = int((redis.time() - age) * 1e6)
    redis.command("ZADD", "coordd:agents", 0, full)
    redis.command("HSET", f"coordd:a:{full}", "live", live, "beat", beat, "ttl", int(ttl * 1e6))


def test_a_broadcast_by_type_reaches_every_live_instance_in_order(ns, redis):
    assert reached(ns, method="broadcast", type="worker") == []
    for name in ("worker:b", "worker:a", "worker:10", "worke:x", "worker2:x", "worker%3A:x"):
        put_agent(redis, ns, name)
    put_agent(redis, ns, "worker:dead", live=0)
    put_agent(redis, ns, "worker:silent", age=31, ttl=30)
    put_agent(redis, ns, "worker:slow", age=31, ttl=60)
    expected = ["worker:10", "worker:a", "worker:b", "worker:slow"]
    assert reached(ns, method="broadcast", type="worker") == expected
    assert reached(ns, method="broadcast", type="worke") == ["worke:x"]


def test_a_broadcast_by_type_stays_in_its_namespace(ns, redis, broker):
    elsewhere = broker.in_namespace(fresh("subs"))
    put_agent(redis, elsewhere, "worker:a")
    assert reached(ns, method="broadcast", type="worker") == []
    assert reached(elsewhere, method="broadcast", type="worker") == ["worker:a"]


def test_a_broadcast_by_type_finds_the_living_among_many_dead(ns, redis):
    for i in range(2500):
        if i % 500 == 7:
            put_agent(redis, ns, f"worker:{i:04}")
    script = "for i = 0, 2499 do redis.call('ZADD', 'coordd:agents', 0, ARGV[1] .. ':worker:' .. string.format('%04d', i)) end"
    redis.command("EVAL", script, 0, namespace_of(ns))
    expected = [f"worker:{i:04}" for i in range(7, 2500, 500)]
    assert reached(ns, method="broadcast", type="worker") == expected


def test_a_broadcast_by_type_to_more_than_a_thousand_is_refused_whole(ns, redis):
    script = """
        for i = 0, 1000 do
            local name = ARGV[1] .. ':worker:' .. string.format('%04d', i)
            redis.call('ZADD', 'coordd:agents', 0, name)
            redis.call('HSET', 'coordd:a:' .. name, 'live', 1, 'beat', ARGV[2], 'ttl', '30000000')
        end
    """
    redis.command("EVAL", script, 0, namespace_of(ns), int(redis.time() * 1e6))
    params = {"sender": SENDER, "message": message(), "type": "worker"}
    refusal = ns.refused("broadcast", params)
    assert refusal.code == "too_large" and "1000" in refusal.message
    assert ns.call("list_queues")["queues"] == []
    redis.command("ZREM", "coordd:agents", f"{namespace_of(ns)}:worker:0000")
    assert len(ns.call("broadcast", **params)) == 1000


def test_either_recipients_or_a_type(ns):
    params = {"sender": SENDER, "message": message()}
    for more in ({}, {"type": "a", "recipients": [agent("a")]}):
        assert ns.refused("broadcast", {**params, **more}).code == "bad_request"
