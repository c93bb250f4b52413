"""Section 3 of the protocol: hello, ping, error shapes, namespaces."""

import pytest

from harness import MAX_FRAME, Queue, Refused, check_shape, fresh, is_text, pack

HELLO = {
    "server": lambda value: value == "coordd",
    "version": is_text,
    "protocol": lambda value: value == 1,
    "instance_id": is_text,
    "limits": {
        "max_frame": lambda value: value == MAX_FRAME,
        "max_batch": lambda value: value == 1000,
        "max_wait": lambda value: value == 60,
    },
    "role": lambda value: value == "operator",
    "namespace": is_text,
}


def test_hello_tells_who_answers_and_the_limits(client):
    answer = check_shape(client.call("hello"), HELLO)
    assert answer["namespace"] == "default"


@pytest.mark.parametrize("params", [[], [{}], [[]]], ids=["nothing", "a map", "an empty array"])
def test_params_may_be_nothing_or_one_empty_map_or_array(client, params):
    client.send_bytes(pack([0, 7, "ping", params]))
    assert client.read_frame() == [1, 7, None, "pong"]
    client.send_bytes(pack([0, 8, "hello", params]))
    check_shape(client.read_frame()[3], HELLO)


def test_hello_takes_all_its_fields(client):
    answer = client.call("hello", client="tests", token="x", namespace="team", errors="map")
    assert check_shape(answer, HELLO)["namespace"] == "team"


def test_hello_is_optional(queue):
    queue.send("m1")
    assert queue.take_one().id == "m1"


def test_two_connections_see_the_same_instance(broker):
    first, second = broker.connect(), broker.connect()
    assert first.call("hello")["instance_id"] == second.call("hello")["instance_id"]


@pytest.mark.parametrize(
    "field, value",
    [
        ("errors", "other"),
        ("errors", 5),
        ("namespace", 5),
        ("namespace", "x" * 129),
        ("namespace", "new\nline"),
        ("namespace", "del\x7f"),
        ("namespace", b"\xff\xfe"),
        ("client", 5),
        ("token", []),
        ("surprise", 1),
    ],
)
def test_hello_names_the_field_it_refuses(client, field, value):
    refusal = client.refused("hello", {field: value})
    assert refusal.code == "bad_request"
    assert field in refusal.message


def test_a_refused_hello_changes_nothing(client):
    client.refused("hello", {"namespace": "elsewhere", "errors": "other"})
    assert client.call("hello", namespace="here")["namespace"] == "here"


def test_ping_refuses_unknown_fields(client):
    assert "surprise" in client.refused("ping", {"surprise": 1}).message


# -- error shapes


def test_errors_are_maps_at_first(client):
    refusal = client.refused("no_such_method")
    assert refusal.code == "unknown_method"
    assert isinstance(refusal.error, dict)


def test_errors_are_pairs_after_a_hello_that_asks_for_them(client):
    client.call("hello", errors="pair")
    refusal = client.refused("no_such_method")
    assert isinstance(refusal.error, list) and refusal.code == "unknown_method"
    refusal = client.refused("ping", {"surprise": 1})
    assert refusal.code == "bad_request" and "surprise" in refusal.message


@pytest.mark.parametrize("method", ["nvim_set_client_info", b"nvim_set_client_info"])
def test_errors_are_pairs_for_who_announces_itself_as_neovim_does(client, method):
    info = ["python3-client", {"major": 0, "minor": 4}, "remote", {}, {"license": "Apache v2"}]
    client.send_bytes(pack([2, method, info]))
    refusal = client.refused("no_such_method")
    assert isinstance(refusal.error, list) and refusal.code == "unknown_method"


def test_losing_the_frames_is_told_in_the_shape_asked_for(client):
    client.call("hello", errors="pair")
    client.send_bytes(b"\xc1")
    [[kind, msgid, error, result]] = client.expect_closed()
    assert [kind, msgid, result] == [1, 0, None]
    assert Refused(error).code == "protocol_error"


def test_a_hello_that_is_a_notification_is_ignored(client):
    client.notify("hello", {"errors": "pair", "namespace": "elsewhere"})
    assert isinstance(client.refused("no_such_method").error, dict)
    assert client.call("hello")["namespace"] == "default"


# -- methods

STRANGE_METHODS = ["", "Send", "send ", "x" * 100_000, "a\0b", "a\nlevel=error event=fake", b"\xff\xfe"]


@pytest.mark.parametrize("method", STRANGE_METHODS, ids=range(len(STRANGE_METHODS)))
def test_a_strange_method_is_unknown_and_harms_nobody(client, broker, method):
    refusal = client.refused(method)
    assert refusal.code == "unknown_method"
    assert len(refusal.message) < 1000
    assert client.call("ping") == "pong"
    assert not any(line["line"].startswith("level=error event=fake") for line in broker.log())


# -- namespaces


def test_hello_may_be_said_twice_but_not_move(client):
    client.call("hello", namespace="first")
    assert client.call("hello", namespace="first")["namespace"] == "first"
    assert client.call("hello")["namespace"] == "first"
    refusal = client.refused("hello", {"namespace": "second"})
    assert refusal.code == "bad_request" and "namespace" in refusal.message
    assert client.call("hello")["namespace"] == "first"


def test_a_first_hello_without_a_namespace_settles_on_default(client):
    client.call("hello")
    assert client.refused("hello", {"namespace": "second"}).code == "bad_request"


@pytest.mark.parametrize("name", ["x", "x" * 128, "ünï 名前", "a:b", "{a}", "%", "*", " "])
def test_a_namespace_is_any_text_of_1_to_128_bytes(client, name):
    assert client.call("hello", namespace=name)["namespace"] == name


@pytest.fixture
def worlds(broker):
    """The queue of one name in two namespaces."""
    agent = {"type": "worker", "instance": fresh("q")}
    return [Queue(broker.in_namespace(fresh("ns")), agent) for _ in range(2)]


def test_a_message_is_invisible_in_another_namespace(worlds):
    here, there = worlds
    here.send("m1")
    assert there.receive() is None
    assert there.peek() == []
    assert there.counts() == (0, 0, 0, 0)
    assert there.client.call("list_queues")["queues"] == []
    assert len(here.client.call("list_queues")["queues"]) == 1
    assert there.client.call("purge", agent=there.agent) == 0
    assert here.counts() == (1, 0, 0, 0)


def test_a_token_is_worth_nothing_in_another_namespace(worlds):
    here, there = worlds
    here.send("m1")
    received = here.take_one(visibility_timeout=30)
    assert there.ack(received) is False
    assert there.nack(received) is False
    assert there.release(received) is False
    assert there.extend(received, 60) is None
    assert here.ack(received) is True


def test_dead_letters_belong_to_one_namespace(worlds):
    here, there = worlds
    here.kill("m1")
    assert there.dead() == []
    assert there.client.call("dlq_redrive", agent=there.agent) == 0
    assert there.client.call("dlq_purge", agent=there.agent) == 0
    assert len(here.dead()) == 1


def test_settings_belong_to_one_namespace(worlds):
    here, there = worlds
    here.client.call("configure", queue_size=1)
    here.send("m1")
    assert here.try_send("m2")["error"] == "queue full"
    there.send("m1")
    there.send("m2")
    assert there.stats()["capacity"] == 10000


def test_the_same_message_in_two_namespaces_is_no_repetition(worlds):
    here, there = worlds
    here.send("m1", payload={"n": 1})
    there.send("m1", payload={"n": 1})


def test_names_that_look_alike_are_different_queues(broker):
    """Keys are made of names that clients choose, so they must not run into each other."""
    names = ["a", "b", "c", "a:b", "b:c", "a%3Ab", "{a}", "{a}:b", "a}b", "*", "?", "[a]", "a b", "%", "é"]
    names += ["e\u0301", "default", "A", "a\u200b", "..", "a/b", "\u202ea", "a" * 128]
    agents = [{"type": t, "instance": i} for t in names for i in names]
    spaces = [broker.in_namespace(name) for name in ("x", "x:a", "x%3Aa")]
    calls = []
    for client in spaces:
        queues = [Queue(client, agent) for agent in agents]
        calls.append([("send", queue.sending(f"m{i}")) for i, queue in enumerate(queues)])
    for client, sends in zip(spaces, calls):
        for result in client.results(client.submit_all(sends)):
            assert result["delivered"] and "duplicate" not in result
    for client in spaces:
        takes = [("receive_batch", {"agent": agent, "max": 10}) for agent in agents]
        for i, batch in enumerate(client.results(client.submit_all(takes))):
            assert [each["queue_message"]["message"]["message_id"] for each in batch] == [f"m{i}"]
            assert batch[0]["queue_message"]["message"]["recipient"] == agents[i]
