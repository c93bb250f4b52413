"""What each method refuses: missing, unknown, ill-typed and out-of-range fields, each by name."""

import pytest

NAN, INF = float("nan"), float("inf")

AGENT = {"type": "refused", "instance": "one"}
MESSAGE = {"message_id": "m", "message_type": "request"}
ITEM = {"recipient": AGENT, "message": MESSAGE}

# Each method with params that would do.
METHODS = {
    "hello": {},
    "ping": {},
    "status": {},
    "send": {"sender": AGENT, "recipient": AGENT, "message": MESSAGE},
    "send_batch": {"sender": AGENT, "messages": [ITEM]},
    "broadcast": {"sender": AGENT, "message": MESSAGE, "recipients": [AGENT]},
    "publish": {"sender": AGENT, "message": MESSAGE},
    "subscribe": {"agent": AGENT, "message_types": ["event"]},
    "unsubscribe": {"agent": AGENT, "subscription_id": "x"},
    "watch": {"events": ["queue"]},
    "unwatch": {"watch_id": "x"},
    "receive": {"agent": AGENT},
    "receive_batch": {"agent": AGENT, "max": 5},
    "ack": {"agent": AGENT, "token": "x"},
    "ack_batch": {"agent": AGENT, "tokens": ["x"]},
    "nack": {"agent": AGENT, "token": "x"},
    "release": {"agent": AGENT, "token": "x"},
    "extend": {"agent": AGENT, "token": "x", "visibility_timeout": 5},
    "recover_pending": {},
    "configure": {},
    "queue_stats": {"agent": AGENT},
    "list_queues": {},
    "peek": {"agent": AGENT},
    "purge": {"agent": AGENT},
    "dlq_list": {"agent": AGENT},
    "dlq_redrive": {"agent": AGENT},
    "dlq_purge": {"agent": AGENT},
}

NO_AGENTS = [5, "type:instance", [], [1], {}, {"type": ""}, {"type": None}, {"type": 5}]
NO_AGENTS += [{"instance": "x"}, {"type": "x", "instance": 5}, {"type": "x" * 129}]
NO_AGENTS += [{"type": "x", "instance": "y" * 129}, {"type": "a\nb"}, {"type": "a", "instance": "\0"}]
NO_AGENTS += [{"type": "\x7f"}, {"type": "\u0085"}, {"type": "x", "other": 1}]
NO_TEXTS = [5, [], {}, True]
NO_COUNTS = [0, -1, 1001, 2**31, 2**63, 2**64 - 1, 1.5, "5", True, [], NAN, INF, 1e308]
NO_SECONDS = ["5", True, [], {}, NAN, INF, -INF, -0.001, -1, -(2**63), 1e308, 2**63, 2**64 - 1]
NO_VISIBILITY = [*NO_SECONDS, 0, 0.0, -0.0, 43200.001, 43201, 2**31]
NO_WAIT = [*NO_SECONDS, 60.001, 61, 2**31]
NO_YEAR = [*NO_SECONDS, 31_536_001, 2**31]

# Field: what must not pass for it, in every method that has it.
BAD = {
    "agent": NO_AGENTS,
    "sender": NO_AGENTS,
    "recipient": NO_AGENTS,
    "token": [*NO_TEXTS, None],
    "visibility_timeout": NO_VISIBILITY,
    "wait": NO_WAIT,
    "delay": NO_YEAR,
    "ttl": NO_YEAR,
    "max": NO_COUNTS,
    "limit": NO_COUNTS,
    "lease": ["", "forever", "Timeout", 5, []],
    "failure": ["", "fatal", 5, []],
    "error": [5, [], {}, "x" * 1025, "ü" * 513],
    "after": [5, [], {}],
    "type": [5, [], "x" * 129, "a\nb"],
    "recipients": [5, {}, "x", [5], [{"type": ""}], [None]],
    "messages": [5, {}, "x", [5], [{}], [None], [{**ITEM, "sender": AGENT}]],
    "message_types": [5, {}, "event", [], [5], [None], ["event", "Event"]],
    "subscription_id": [*NO_TEXTS, None],
    "events": [5, {}, "queue", [], [5], [None], ["queue", "queues"]],
    "watch_id": [*NO_TEXTS, None],
    "tokens": [5, {}, "x", [5], [None], [["x"]]],
    "ids": [5, {}, "x", [5], [None]],
    "message_ids": [5, {}, "x", [5], [None]],
}
FIELDS = {
    "send": ["sender", "recipient", "delay", "ttl"],
    "send_batch": ["sender", "messages"],
    "broadcast": ["sender", "recipients"],
    "publish": ["sender"],
    "subscribe": ["agent", "message_types"],
    "unsubscribe": ["agent", "subscription_id"],
    "watch": ["events"],
    "unwatch": ["watch_id"],
    "receive": ["agent", "visibility_timeout", "wait", "lease"],
    "receive_batch": ["agent", "visibility_timeout", "wait", "lease", "max"],
    "ack": ["agent", "token"],
    "ack_batch": ["agent", "tokens"],
    "nack": ["agent", "token", "failure", "error", "delay"],
    "release": ["agent", "token", "delay"],
    "extend": ["agent", "token", "visibility_timeout"],
    "recover_pending": ["agent"],
    "configure": ["agent"],
    "queue_stats": ["agent"],
    "list_queues": ["type", "limit", "after"],
    "peek": ["agent", "limit"],
    "purge": ["agent"],
    "dlq_list": ["agent", "limit", "after"],
    "dlq_redrive": ["agent", "ids", "message_ids", "limit"],
    "dlq_purge": ["agent", "ids", "message_ids", "limit"],
}
BAD_MESSAGES = {
    "message_id": [None, "", "x" * 129, "ü" * 65, 5, [], b"\xff"],
    "message_type": [None, "", "Request", "other", 5],
    "payload": [5, "x", [1], True, b"x"],
    "priority": [0, 2, 10, -1, 4.5, 5.5, "5", True, 2**64 - 1, [], NAN],
    "timestamp": [5, [], {}, 1.5],
}


def refuse(client, method, params, field):
    refusal = client.refused(method, params)
    assert refusal.code == "bad_request", (refusal, params)
    assert field in refusal.message, (refusal, params)


@pytest.mark.parametrize("method", METHODS)
def test_params_that_would_do_are_taken(client, method):
    client.call(method, **METHODS[method])


@pytest.mark.parametrize("method", METHODS)
def test_an_unknown_field_is_refused_by_name(client, method):
    for name in ("surprise", "Agent", "agent ", "über"):
        refuse(client, method, {**METHODS[method], name: 1}, name)


@pytest.mark.parametrize("method", [each for each in METHODS if METHODS[each]])
def test_a_missing_field_is_refused_by_name(client, method):
    for field in METHODS[method]:
        if (method, field) == ("broadcast", "recipients"):
            continue  # `type` could stand in its place
        params = {key: value for key, value in METHODS[method].items() if key != field}
        refuse(client, method, params, field)
        refuse(client, method, {**params, field: None}, field)


@pytest.mark.parametrize(
    "method, field", [(method, field) for method, fields in FIELDS.items() for field in fields]
)
def test_a_bad_value_is_refused_by_the_name_of_its_field(client, method, field):
    for value in BAD[field]:
        refuse(client, method, {**METHODS[method], field: value}, field)
    assert client.call("ping") == "pong"


@pytest.mark.parametrize("field", BAD_MESSAGES)
def test_a_bad_message_is_refused_by_the_name_of_its_field(client, field):
    for value in BAD_MESSAGES[field]:
        if value is None and field not in ("message_id", "message_type"):
            continue
        message = {**MESSAGE, field: value}
        refuse(client, "send", {**METHODS["send"], "message": message}, field)
        refuse(client, "broadcast", {**METHODS["broadcast"], "message": message}, field)
        batch = [ITEM, ITEM, {**ITEM, "message": message}]
        refuse(client, "send_batch", {"sender": AGENT, "messages": batch}, field)
        refuse(client, "send_batch", {"sender": AGENT, "messages": batch}, "messages[2]")
    if field in ("message_id", "message_type"):
        message = {key: value for key, value in MESSAGE.items() if key != field}
        refuse(client, "send", {**METHODS["send"], "message": message}, field)
    assert client.call("queue_stats", agent=AGENT)["size"] <= 1


@pytest.mark.parametrize("value", [5, "x", [1], None, True])
def test_a_message_is_a_map(client, value):
    refuse(client, "send", {**METHODS["send"], "message": value}, "message")


def test_an_element_of_a_batch_is_refused_by_its_place(client):
    for change, place in [
        ({"delay": -1}, "delay"),
        ({"ttl": 31_536_001}, "ttl"),
        ({"recipient": {"type": ""}}, "recipient"),
        ({"surprise": 1}, "surprise"),
        ({"message": 5}, "message"),
    ]:
        params = {"sender": AGENT, "messages": [ITEM, {**ITEM, **change}]}
        refuse(client, "send_batch", params, "messages[1]")
        refuse(client, "send_batch", params, place)
    params = {"agent": AGENT, "tokens": ["x", "y", 5]}
    refuse(client, "ack_batch", params, "tokens[2]")


@pytest.mark.parametrize(
    "method, params",
    [
        ("receive", {"visibility_timeout": 43200}),
        ("receive", {"visibility_timeout": 0.000001}),
        ("receive", {"wait": 0.0}),
        ("receive_batch", {"max": 1}),
        ("receive_batch", {"max": 1000}),
        ("receive", {"lease": "timeout"}),
        ("receive", {"lease": "connection"}),
        ("receive", {"holder": None}),
        ("nack", {"error": "x" * 1024}),
        ("nack", {"error": None, "delay": None}),
        ("nack", {"delay": 31_536_000}),
        ("release", {"delay": 0}),
        ("extend", {"visibility_timeout": 43200}),
        ("peek", {"limit": 1000}),
        ("dlq_list", {"limit": 1, "after": None}),
        ("list_queues", {"limit": 1000, "after": None, "type": None}),
        ("dlq_redrive", {"ids": None, "message_ids": None, "limit": None}),
        ("dlq_purge", {"ids": ["x"], "limit": 1000}),
        ("recover_pending", {"agent": None}),
        ("configure", {"agent": None}),
        ("queue_stats", {"agent": {"type": "x" * 128, "instance": "ü" * 64}}),
    ],
)
def test_the_ends_of_each_range_are_taken(client, method, params):
    client.call(method, **{**METHODS[method], **params})


def test_the_ends_of_a_send_are_taken(client):
    for i, more in enumerate([{"delay": 31_536_000}, {"ttl": 31_536_000}, {"delay": 0, "ttl": None}]):
        message = {**MESSAGE, "message_id": f"end {i}"}
        result = client.call("send", **{**METHODS["send"], "message": message, **more})
        assert result["delivered"] is True
    client.call("purge", agent=AGENT)


