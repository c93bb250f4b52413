"""What is carried is carried unchanged, up to its limits; and errors look the same whoever tells them."""

import pytest

from conftest import LANGUAGES
from contract import pack, unpack, url_of
from harness import MAX_FRAME, Queue, Refused, fresh, within

STRANGE = {
    "unicode": "ž🐎\u0000\u200b\uffff\U0010ffff",
    "bytes": bytes(range(256)),
    "integers": [0, -1, 127, 128, -32, -33, 2**31, 2**63 - 1, -(2**63), 2**64 - 1],
    "floats": [0.0, -0.0, 1.0, 0.1, 1e300, float("inf"), -float("inf")],
    "others": [None, True, False, [], {}, "", b""],
    "ключ": {"": {"deep": [[[[1]]]]}},
    "long": "x" * 70000,
}


def test_payloads_and_unknown_keys_come_back_as_they_were(pair, broker, name):
    one, other = (each.connect(url_of(broker)) for each in pair)
    agent = {"type": name, "instance": "ž:%"}
    message = {
        **{"message_id": "ž-1", "message_type": "request", "payload": STRANGE, "priority": 9},
        **{"timestamp": "2020-01-01T00:00:00Z", "traceparent": "00-1", "neznámý": STRANGE},
    }
    assert one.call("send", sender=agent, recipient=agent, message=message)["delivered"]
    got = other.call("receive", agent=agent)["queue_message"]["message"]
    assert got["sender"] == got["recipient"] == agent
    for key, value in message.items():
        assert pack(got[key]) == pack(value), key


def test_a_job_has_them_too(driver, broker, client, name):
    worker = driver.connect(url_of(broker)).agent(name, "w")
    consumer = worker.consume(then="ack")
    Queue(client, worker.id).send("m", payload=STRANGE, neznámý=STRANGE)
    message = consumer.took().message
    assert pack(message["payload"]) == pack(STRANGE)
    assert pack(message["neznámý"]) == pack(STRANGE)


def test_every_choice_of_the_encoder_survives_in_c(drivers, broker, client, name):
    """libcoord packs what it is given as bytes; Python has no such choices."""
    odd = bytes.fromhex("82" "a161" "cd0001" "d90162" "ca3f800000")  # 1 in 16 bits; a long str; a float of 32 bits
    if "c" not in LANGUAGES:
        pytest.skip("for C alone")
    driver = drivers.of("c")
    connection = driver.connect(url_of(broker))
    agent = {"type": name, "instance": "i"}
    head = "83" + pack("message_id") + pack("m") + pack("message_type") + pack("event") + pack("payload")
    line = {"do": "call", "on": connection.name, "method": "send"}
    params = {"sender": pack(agent), "recipient": pack(agent), "message": head + odd.hex()}
    assert unpack(driver.tell({**line, "params": params})[0].line()["value"])["delivered"]
    client.call("receive", agent=agent)
    assert odd in client.raw
    connection.close()


@pytest.mark.parametrize("size", [65536, 500_000, MAX_FRAME - 2000])
def test_a_large_payload_is_carried(pair, broker, name, size):
    one, other = (each.connect(url_of(broker)) for each in pair)
    agent = {"type": name, "instance": "i"}
    payload = {"bytes": bytes(i * 7 % 251 for i in range(size))}
    message = {"message_id": "m", "message_type": "event", "payload": payload}
    assert one.call("send", sender=agent, recipient=agent, message=message)["delivered"]
    assert other.call("receive", agent=agent)["queue_message"]["message"]["payload"] == payload


def test_many_large_calls_at_once(driver, broker, name):
    connection = driver.connect(url_of(broker))
    queue = Queue(None, {"type": name, "instance": "i"})
    ids = [fresh("m") for _ in range(12)]
    calls = [("send", queue.sending(each, payload={"b": bytes(600_000)})) for each in ids]
    assert all(each.result()["delivered"] for each in connection.submit_all(calls, 60))
    got = [connection.submit("receive", {"agent": queue.agent}, 60) for _ in ids]
    assert [each.result()["queue_message"]["message"]["message_id"] for each in got] == ids


def test_too_large_a_call_is_refused_and_harms_no_other(driver, broker, make_proxy, name):
    proxy = make_proxy(broker)
    connection = driver.connect(proxy.url)
    queue = Queue(None, {"type": name, "instance": "i"})
    assert connection.call("ping") == "pong"
    parked = connection.submit("receive", {"agent": queue.agent, "wait": 10}, 30)
    answers = connection.submit_all(
        [
            ("send", queue.sending("large", payload={"b": bytes(MAX_FRAME)})),
            ("breaker_acquire", {"name": name}),
        ],
        30,
    )
    failure = answers[0].failure()
    assert failure.shape == ("too_large", False, None), failure
    assert str(MAX_FRAME) in failure.message
    assert answers[0].took() < within(5)
    assert answers[1].result()["permitted"] is True
    assert connection.call("send", **queue.sending("small"))["delivered"]
    assert parked.result()["queue_message"]["message"]["message_id"] == "small"
    assert len(proxy.connects) == 1


AGENT = {"type": "t", "instance": "i"}
BAD = {
    "unknown method": ("no_such_method", {}),
    "unknown key": ("ping", {"what": 1}),
    "missing key": ("receive", {}),
    "bad type": ("receive", {"agent": 5}),
    "out of range": ("receive", {"agent": AGENT, "wait": 61}),
    "deep inside": (
        "send_batch",
        {"sender": AGENT, "messages": [{"recipient": AGENT, "message": {"message_id": "", "payload": {}}}]},
    ),
    "too many": ("ack_batch", {"agent": AGENT, "tokens": ["t"] * 1001}),
    "not found": ("breaker_reset", {"name": "nobody"}),
    "no holder": ("receive", {"agent": AGENT, "lease": "heartbeat", "holder": {"type": "nobody", "instance": "x"}}),
}


@pytest.mark.parametrize("case", BAD)
def test_errors_are_told_as_the_broker_told_them(driver, broker, client, case):
    method, params = BAD[case]
    with pytest.raises(Refused) as refused:
        client.call(method, **params)
    answer = driver.connect(url_of(broker)).submit(method, params, timeout=10)
    failure = answer.failure()
    assert failure.code == refused.value.code and failure.applied == refused.value.applied
    assert failure.retryable is refused.value.error["retryable"]
    assert refused.value.message in failure.message
    assert answer.took() < within(3), "what cannot help was tried again"


def test_a_failed_call_does_not_end_the_connection(driver, broker, make_proxy):
    proxy = make_proxy(broker)
    connection = driver.connect(proxy.url)
    for method, params in BAD.values():
        connection.submit(method, params).failure()
    assert connection.call("ping") == "pong"
    assert len(proxy.connects) == 1
