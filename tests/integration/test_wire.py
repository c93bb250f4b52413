"""Section 1 of the protocol: frames, encodings, notifications, and what is no MessagePack-RPC."""

import socket
import struct
import time

import msgpack
import pytest

from harness import (
    MAX_FRAME,
    Closed,
    Queue,
    Refused,
    fresh,
    ids_of,
    pack,
    request,
    seconds_of,
    wait_until,
    within,
)


def nested(depth):
    """`depth` arrays, one in the other."""
    return b"\x91" * (depth - 1) + b"\x90"


def raw_map(*pairs):
    """A map of raw keys and values."""
    assert len(pairs) < 16
    return bytes([0x80 + len(pairs)]) + b"".join(key + value for key, value in pairs)


def raw_send(queue, msgid=1, payload=None, extra=(), message_id=None):
    """The bytes of a send whose payload, or other keys, are given as raw bytes."""
    pairs = [
        (pack("message_id"), pack(message_id or fresh("m"))),
        (pack("message_type"), pack("request")),
        *extra,
    ]
    if payload is not None:
        pairs.append((pack("payload"), payload))
    params = raw_map(
        (pack("sender"), pack(queue.sender)),
        (pack("recipient"), pack(queue.agent)),
        (pack("message"), raw_map(*pairs)),
    )
    return b"\x94\x00" + pack(msgid) + pack("send") + b"\x91" + params


def answer(client):
    """(error, result) of the next frame, a response."""
    kind, _, error, result = client.read_frame()
    assert kind == 1
    return error, result


def expect_cut(client, code):
    """One answer that says why, then the connection is closed."""
    frames = client.expect_closed()
    assert len(frames) == 1, frames
    kind, msgid, error, result = frames[0]
    assert (kind, msgid, result) == (1, 0, None)
    refusal = Refused(error)
    assert refusal.code in code if isinstance(code, tuple) else refusal.code == code, refusal
    return refusal


# -- message ids


@pytest.mark.parametrize("msgid", [0, 1, 127, 128, 255, 65535, 65536, 2**31, 2**32 - 1])
def test_a_message_id_is_echoed(client, msgid):
    client.send_bytes(request(msgid, "ping", {}))
    assert client.read_frame() == [1, msgid, None, "pong"]


def test_a_small_message_id_in_a_wide_encoding_is_the_same_number(client):
    for wide in (b"\xcc\x07", b"\xcd\0\x07", b"\xce\0\0\0\x07", b"\xcf" + b"\0" * 7 + b"\x07", b"\xd0\x07"):
        client.send_bytes(b"\x94\x00" + wide + pack("ping") + b"\x90")
        assert client.read_frame() == [1, 7, None, "pong"]


def test_a_message_id_may_be_used_again_even_in_flight(queue, other):
    params = {"agent": queue.agent, "wait": 10}
    queue.client.send_bytes(request(5, "receive", params) * 2 + request(5, "ping", {}))
    assert queue.client.read_frame() == [1, 5, None, "pong"]
    other.send_all(["m1", "m2"])
    got = [answer(queue.client)[1]["queue_message"]["message"]["message_id"] for _ in range(2)]
    assert got == ["m1", "m2"]


# -- what is no MessagePack-RPC

CLIENT_HELLO = bytes.fromhex("16030100c8010000c40303") + b"\x11" * 190
STRANGERS = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "http post": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc",
    "tls": CLIENT_HELLO,
    "resp": b"*1\r\n$4\r\nPING\r\n",
    "newline": b"\r\n",
    "never used byte": b"\xc1",
    "nil": b"\xc0",
    "map": pack({"method": "ping"}),
    "string": pack("ping"),
    "float": pack(1.5),
    "ext": pack(msgpack.ExtType(5, b"xx")),
    "empty array": pack([]),
    "one element": pack([0]),
    "two elements": pack([0, 1]),
    "request without params": pack([0, 1, "ping"]),
    "request with five elements": pack([0, 1, "ping", [], 0]),
    "response with three elements": pack([1, 1, None]),
    "notification with two elements": pack([2, "ping"]),
    "notification with four elements": pack([2, "ping", [], 0]),
    "type 3": pack([3, 1, "ping", []]),
    "type -1": pack([-1, 1, "ping", []]),
    "type 2^64-1": pack([2**64 - 1, 1, "ping", []]),
    "type string": pack(["0", 1, "ping", []]),
    "type nil": pack([None, 1, "ping", []]),
    "type float": pack([0.0, 1, "ping", []]),
    "id 2^32": pack([0, 2**32, "ping", []]),
    "id 2^64-1": pack([0, 2**64 - 1, "ping", []]),
    "id -1": pack([0, -1, "ping", []]),
    "id string": pack([0, "1", "ping", []]),
    "id nil": pack([0, None, "ping", []]),
    "id float": pack([0, 1.0, "ping", []]),
    "id nan": pack([0, float("nan"), "ping", []]),
    "method number": pack([0, 1, 5, []]),
    "method nil": pack([0, 1, None, []]),
    "method array": pack([0, 1, ["ping"], []]),
    "method of a notification a number": pack([2, 5, []]),
    "never used byte inside": b"\x94\x00\x01" + pack("ping") + b"\x91\x81" + pack("x") + b"\xc1",
    "depth 33": b"\x94\x00\x01" + pack("ping") + b"\x91\x81" + pack("x") + nested(30),
    "depth 100000": b"\x91" * 100_000,
    "deep maps": b"\x81\xa1x" * 50_000,
}


@pytest.mark.parametrize("name", STRANGERS)
def test_a_stranger_is_told_once_and_cut_off(client, broker, name):
    client.send_bytes(STRANGERS[name])
    expect_cut(client, "protocol_error")
    assert broker.connect().call("ping") == "pong"


def test_a_stranger_on_the_unix_socket_is_cut_off_as_well(broker):
    client = broker.connect("unix")
    client.send_bytes(STRANGERS["http"])
    expect_cut(client, "protocol_error")


def test_depth_32_is_still_a_frame(client):
    client.send_bytes(b"\x94\x00\x01" + pack("ping") + b"\x91\x81" + pack("x") + nested(29))
    error, _ = answer(client)
    assert error["code"] == "bad_request" and "x" in error["message"]


def test_what_a_stranger_had_completed_is_not_lost(queue, other):
    frames = b"".join(request(i, "send", other.sending(f"m{i}")) for i in range(50))
    other.client.send_bytes(frames + b"\xc1" + request(99, "send", other.sending("never")))
    answers = other.client.expect_closed()
    assert answers[-1][1] == 0 and answers[-1][2]["code"] == "protocol_error"
    wait_until(lambda: queue.counts()[0] == 50, 3, "what was complete is stored")
    assert ids_of(queue.take()) == [f"m{i}" for i in range(50)]


def test_what_a_client_sent_before_it_closed_is_not_lost(queue, broker):
    for i in range(10):
        gone = queue.at(broker.connect())
        gone.client.send_bytes(b"".join(pack([2, "send", [gone.sending(f"m{i}.{n}")]]) for n in range(20)))
        gone.client.close()
    wait_until(lambda: queue.counts()[0] == 200, 3, "all are stored")


def test_half_a_frame_of_a_lost_client_is_nothing(queue, broker):
    gone = queue.at(broker.connect())
    data = request(1, "send", gone.sending("m1"))
    gone.client.send_bytes(data + data[:-1])
    gone.client.close()
    wait_until(lambda: queue.counts()[0] == 1, 3, "the whole one is stored")
    assert ids_of(queue.take()) == ["m1"]


# -- params


@pytest.mark.parametrize(
    "params",
    [[{}, {}], [{}, 1], [5], ["x"], [[1]], [True], {"agent": {"type": "a"}}, "x", 5, None],
    ids=repr,
)
def test_params_of_another_shape_are_the_requests_fault_alone(client, params):
    client.send_bytes(pack([0, 1, "queue_stats", params]))
    error, _ = answer(client)
    assert Refused(error).code == "bad_request"
    assert client.call("ping") == "pong"


ODD_KEYS = {
    "a number": b"\x05",
    "nil": b"\xc0",
    "a bool": b"\xc3",
    "a map": b"\x80",
    "an array": b"\x90",
    "an ext": pack(msgpack.ExtType(1, b"x")),
}


@pytest.mark.parametrize("name", ODD_KEYS)
def test_keys_of_params_are_strings(client, name):
    params = raw_map((pack("agent"), pack({"type": "a"})), (ODD_KEYS[name], pack(1)))
    client.send_bytes(b"\x94\x00\x01" + pack("queue_stats") + b"\x91" + params)
    assert Refused(answer(client)[0]).code == "bad_request"
    assert client.call("ping") == "pong"


def test_a_key_given_twice_is_refused(client):
    pair = (pack("agent"), pack({"type": "a"}))
    client.send_bytes(b"\x94\x00\x01" + pack("queue_stats") + b"\x91" + raw_map(pair, pair))
    refusal = Refused(answer(client)[0])
    assert refusal.code == "bad_request" and "agent" in refusal.message


def test_an_ext_is_no_value_of_a_field(client):
    refusal = client.refused("queue_stats", {"agent": msgpack.ExtType(1, b"x")})
    assert refusal.code == "bad_request" and "agent" in refusal.message


# -- encodings


def test_bin_is_taken_where_a_string_is_meant(queue):
    binary = {b"type": queue.agent["type"].encode(), b"instance": queue.agent["instance"].encode()}
    message = {b"message_id": b"m1", b"message_type": b"event", b"payload": {"x": b"y"}, b"priority": 9}
    params = {b"sender": {b"type": b"me"}, b"recipient": binary, b"message": message}
    client = queue.client
    client.send_bytes(pack([0, 1, b"send", [params]]))
    error, result = answer(client)
    assert error is None
    queue.checked(result, "m1")
    received = queue.take_one(visibility_timeout=60)
    assert received.message["message_type"] == "event"
    assert received.message["sender"] == {"type": "me", "instance": "default"}
    assert received.message["payload"] == {"x": b"y"}
    assert client.call("nack", agent=binary, token=received.token.encode(), failure=b"transient",
                       error="grün".encode(), delay=0) is True
    received = queue.take_one(visibility_timeout=60)
    assert received.last_error == "grün"
    assert client.call("ack_batch", agent=binary, tokens=[received.token.encode()]) == [True]


@pytest.mark.parametrize("bad", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"a\xc3"])
def test_bytes_that_are_no_text_are_no_name(client, bad):
    for agent in ({"type": bad}, {"type": "a", "instance": bad}):
        refusal = client.refused("queue_stats", {"agent": agent})
        assert refusal.code == "bad_request" and "agent" in refusal.message
    # the same bytes under a str header
    text = bytes([0xA0 + len(bad)]) + bad
    params = raw_map((pack("agent"), raw_map((pack("type"), text))))
    client.send_bytes(b"\x94\x00\x63" + pack("queue_stats") + b"\x91" + params)
    assert Refused(answer(client)[0]).code == "bad_request"


def test_an_empty_array_is_taken_for_an_empty_map(queue):
    queue.send("m1", payload=[])
    assert queue.take_one().message["payload"] in ([], {})
    queue.client.send_bytes(pack([0, 77, "recover_pending", [[]]]))
    assert answer(queue.client)[0] is None


def float32(value):
    return b"\xca" + struct.pack(">f", value)


def test_seconds_may_be_integers_and_floats_of_any_width(queue, redis):
    client = queue.client
    widths = [b"\x02", b"\xcc\x02", b"\xcd\0\x02", b"\xd3" + b"\0" * 7 + b"\x02", float32(2), pack(2.0)]
    widths += [float32(2.5), pack(2.5)]
    for width in widths:
        queue.send()
        params = raw_map((pack("agent"), pack(queue.agent)), (pack("visibility_timeout"), width))
        before = redis.time()
        client.send_bytes(b"\x94\x00\x01" + pack("receive") + b"\x91" + params)
        error, result = answer(client)
        assert error is None
        length = seconds_of(result["visibility_deadline"]) - before
        assert 1.99 < length < 2.5 + within(0.5)
    params = raw_map((pack("agent"), pack(queue.agent)), (pack("wait"), float32(0.1)))
    begun = time.monotonic()
    client.send_bytes(b"\x94\x00\x02" + pack("receive") + b"\x91" + params)
    assert answer(client) == (None, None)
    assert time.monotonic() - begun > 0.09


# Values that an encoder would write shorter, or differently.
ODD_VALUES = {
    "str8": b"\xd9\x02hi",
    "str16": b"\xda\0\x02hi",
    "str32": b"\xdb\0\0\0\x02hi",
    "bin8": b"\xc4\x03\0\xff\x80",
    "bin16": b"\xc5\0\x01\xff",
    "bin32": b"\xc6\0\0\0\x01\xff",
    "uint8": b"\xcc\x01",
    "uint64": b"\xcf" + b"\0" * 7 + b"\x01",
    "int64": b"\xd3" + b"\0" * 7 + b"\x01",
    "largest uint64": b"\xcf" + b"\xff" * 8,
    "smallest int64": b"\xd3\x80" + b"\0" * 7,
    "float32": float32(0.1),
    "nan": b"\xcb\x7f\xf8\0\0\0\0\0\x01",
    "minus zero": b"\xcb\x80" + b"\0" * 7,
    "infinity": b"\xca\x7f\x80\0\0",
    "array16": b"\xdc\0\x01\xc0",
    "array32": b"\xdd\0\0\0\x01\xc2",
    "map16": b"\xde\0\x01\xa1k\x01",
    "map32": b"\xdf\0\0\0\0",
    "bools": b"\x93\xc0\xc2\xc3",
    "nul and newline": b"\xa5a\0b\r\n",
    "empty": b"\xa0",
}


@pytest.mark.parametrize("name", ODD_VALUES)
def test_payload_and_unknown_keys_are_carried_byte_for_byte(queue, name):
    value = ODD_VALUES[name]
    payload = b"\xde\0\x02" + b"\xd9\x01a" + value + b"\xa1b" + b"\x92" + value + value
    extra_key = b"\xda\0\x05extra"
    queue.client.send_bytes(raw_send(queue, payload=payload, extra=[(extra_key, value)]))
    assert answer(queue.client)[0] is None
    assert queue.client.call("peek", agent=queue.agent)
    assert payload in queue.client.raw and extra_key + value in queue.client.raw
    received = queue.take_one(visibility_timeout=60)
    assert payload in queue.client.raw and extra_key + value in queue.client.raw
    assert queue.nack(received, failure="permanent")
    assert queue.dead()
    assert payload in queue.client.raw and extra_key + value in queue.client.raw


def test_a_large_payload_is_carried_byte_for_byte(queue):
    body = bytes(range(256)) * 3000
    queue.send("m1", payload={"body": body}, note="x" * 70_000)
    received = queue.take_one()
    assert received.message["payload"]["body"] == body
    assert received.message["note"] == "x" * 70_000


NOT_PORTABLE = {
    "a number as key": b"\x81\x01\x01",
    "nil as key": b"\x81\xc0\x01",
    "an array as key": b"\x81\x90\x01",
    "a number as inner key": b"\x81\xa1a\x91\x81\x01\x01",
    "an ext": b"\x81\xa1a\xd4\x01\x00",
    "a timestamp": b"\x81\xa1a\xd6\xff\0\0\0\x01",
    "no utf-8": b"\x81\xa1a\xa1\xff",
    "no utf-8 in a key": b"\x81\xa1\xff\x01",
    "an overlong utf-8": b"\x81\xa1a\xa2\xc0\x80",
    "a surrogate": b"\x81\xa1a\xa3\xed\xa0\x80",
    "a cut off utf-8": b"\x81\xa1a\xa1\xc3",
}


@pytest.mark.parametrize("name", NOT_PORTABLE)
def test_what_would_kill_some_receivers_is_refused(queue, name):
    value = NOT_PORTABLE[name]
    queue.client.send_bytes(raw_send(queue, payload=value))
    refusal = Refused(answer(queue.client)[0])
    assert refusal.code == "bad_request" and "payload" in refusal.message
    queue.client.send_bytes(raw_send(queue, extra=[(pack("extra"), value)]))
    refusal = Refused(answer(queue.client)[0])
    assert refusal.code == "bad_request" and "extra" in refusal.message
    assert queue.stats()["size"] == 0


def test_other_content_can_be_allowed_except_for_its_depth(own):
    broker = own(limits={"portable_payloads": False})
    queue = Queue(broker.connect(relaxed=True), {"type": "w"})
    for value in NOT_PORTABLE.values():
        if value == NOT_PORTABLE["an array as key"] or value == NOT_PORTABLE["nil as key"]:
            continue  # nothing this client's decoder could show
        queue.client.send_bytes(raw_send(queue, payload=value))
        assert answer(queue.client)[0] is None
        queue.client.call("receive", agent=queue.agent)
        assert value in queue.client.raw
    queue.client.send_bytes(raw_send(queue, payload=b"\x81\xa1a" + nested(24)))
    assert Refused(answer(queue.client)[0]).code == "bad_request"


def test_a_payload_is_nested_at_most_24_deep(queue):
    for place in ("payload", "extra"):
        values = {24: b"\x81\xa1a" + nested(23), 25: b"\x81\xa1a" + nested(24)}
        for depth, value in values.items():
            more = {"payload": value} if place == "payload" else {"extra": [(pack("extra"), value)]}
            queue.client.send_bytes(raw_send(queue, **more))
            error, _ = answer(queue.client)
            if depth == 24:
                assert error is None
            else:
                refusal = Refused(error)
                assert refusal.code == "bad_request" and place in refusal.message
    assert queue.stats()["size"] == 2


# -- sizes


def padded_send(queue, size):
    """A send whose frame has exactly `size` bytes."""
    fixed = len(request(1, "send", queue.sending("m1", payload={"body": b"x" * 70_000}))) - 70_000
    return request(1, "send", queue.sending("m1", payload={"body": b"x" * (size - fixed)}))


def test_a_frame_may_be_exactly_as_large_as_the_limit(queue):
    for size in (MAX_FRAME - 1, MAX_FRAME):
        data = padded_send(queue, size)
        assert len(data) == size
        queue.client.send_bytes(data)
        assert answer(queue.client)[0] is None
    assert queue.client.call("ping") == "pong"


def test_a_frame_one_byte_larger_is_cut_off(queue, other):
    data = padded_send(queue, MAX_FRAME + 1)
    try:
        other.client.send_bytes(data)
    except ConnectionError:
        pass
    refusal = expect_cut(other.client, "too_large")
    assert str(MAX_FRAME) in refusal.message
    assert queue.stats()["size"] == 0


def test_the_limit_of_a_frame_can_be_set(own):
    broker = own(limits={"max_frame": "64KiB"})
    queue = Queue(broker.connect(), {"type": "w"})
    assert queue.client.call("hello")["limits"]["max_frame"] == 65536
    queue.client.send_bytes(padded_send(queue, 65536 + 70_000))
    expect_cut(queue.client, "too_large")


HEADERS = {
    "array32": b"\xdd\xff\xff\xff\xff",
    "array of 100 million": b"\xdd\x05\xf5\xe1\x00",
    "array of 128 million": b"\xdd\x08\x00\x00\x00",
    "map32": b"\xdf\xff\xff\xff\xff",
    "str32": b"\xdb\xff\xff\xff\xff",
    "str over the limit": b"\xdb\x00\x10\x00\x00",
    "bin32": b"\xc6\xff\xff\xff\xff",
    "ext32": b"\xc9\xff\xff\xff\xff\x01",
}


@pytest.mark.parametrize("where", ["first", "as method", "in params", "in payload"])
@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_announces_too_much_costs_nothing(broker, queue, name, where):
    header = HEADERS[name]
    before = broker.resident()
    if where == "in payload":
        whole = raw_send(queue, payload=b"\x81\xa1a" + b"\xc0")
        data = whole[:-1] + header
    else:
        data = {
            "first": b"",
            "as method": b"\x94\x00\x01",
            "in params": b"\x94\x00\x01" + pack("ping") + b"\x91",
        }[where] + header
    clients = [broker.connect() for _ in range(5)]
    for client in clients:
        client.send_bytes(data)
    for client in clients:
        expect_cut(client, ("too_large", "protocol_error"))
    assert broker.resident() - before < 8 << 20


# -- segments


def test_a_frame_may_be_cut_at_every_byte(queue, other):
    """The other connection's answer proves that the first part was read by then."""
    data = request(1, "send", queue.sending("mXXX", payload={"list": [1, "two", 3.5], "m": {"a": b"b"}}))
    at = data.index(b"mXXX")
    ids = []
    for cut in range(1, len(data)):
        ids.append(f"m{cut:03}")
        frame = data[:at] + ids[-1].encode() + data[at + 4 :]
        queue.client.send_bytes(frame[:cut])
        other.client.call("ping")
        queue.client.send_bytes(frame[cut:])
        error, _ = answer(queue.client)
        assert error is None
    assert ids_of(queue.take()) == ids


def test_a_frame_may_come_byte_by_byte(queue, other):
    for byte in request(1, "send", queue.sending("m1", payload={"n": 1})):
        queue.client.send_bytes(bytes([byte]))
        other.client.call("ping")
    assert answer(queue.client)[0] is None
    assert queue.take_one().message["payload"] == {"n": 1}


def test_a_thousand_frames_in_one_segment_are_a_thousand_requests(queue):
    assert queue.client.results(queue.client.submit_all([("ping", {})] * 1000)) == ["pong"] * 1000
    calls = []
    for i in range(500):
        calls += [("ping", {}), ("send", queue.sending(f"m{i}"))]
    queue.client.results(queue.client.submit_all(calls))
    assert ids_of(queue.take()) == [f"m{i}" for i in range(500)]


def test_a_cut_in_the_middle_of_many_frames_changes_nothing(queue, other):
    data = b"".join(request(i, "send", queue.sending(f"m{i}")) for i in range(300))
    step = 4093
    for at in range(0, len(data), step):
        queue.client.send_bytes(data[at : at + step])
        other.client.call("ping")
    assert sorted(queue.client.read_frame()[1] for _ in range(300)) == list(range(300))
    assert ids_of(queue.take()) == [f"m{i}" for i in range(300)]


def test_answers_that_wait_for_a_slow_reader_all_arrive(client):
    ids = client.submit_all([("ping", {})] * 20_000)
    assert client.results(ids) == ["pong"] * 20_000


def test_a_client_that_never_reads_costs_bounded_memory(broker, queue, other):
    for i in range(4):
        queue.send(payload={"body": b"x" * 200_000})
    before = broker.resident()
    deaf = broker.connect()
    deaf.sock.setblocking(False)
    data = request(1, "peek", {"agent": queue.agent}) * 200
    try:
        while True:
            deaf.sock.send(data)
    except BlockingIOError:
        pass
    except ConnectionError:
        pass  # closed at its limit is as good
    lags = []
    for _ in range(50):
        begun = time.monotonic()
        other.stats()
        lags.append(time.monotonic() - begun)
    assert sorted(lags)[25] < within(0.1)
    assert broker.resident() - before < 64 << 20


# -- notifications


def test_notifications_are_executed_and_never_answered(queue, other):
    client = queue.client

    def notify(method, **params):
        client.notify(method, params)

    notify("send", **queue.sending("m1"))
    item = queue.sending("m2")
    sender = item.pop("sender")
    notify("send_batch", sender=sender, messages=[item])
    message = {"message_id": "m3", "message_type": "event"}
    notify("broadcast", sender=sender, message=message, recipients=[queue.agent])
    queue.send_all(["m4", "m5", "m6"])
    received = queue.take(6, visibility_timeout=60)
    assert ids_of(received) == ["m1", "m2", "m3", "m4", "m5", "m6"]
    tokens = [each.token for each in received]
    notify("ack", agent=queue.agent, token=tokens[0])
    notify("ack_batch", agent=queue.agent, tokens=[tokens[1], "never"])
    notify("nack", agent=queue.agent, token=tokens[2], failure="permanent")
    notify("release", agent=queue.agent, token=tokens[3])
    notify("extend", agent=queue.agent, token=tokens[4], visibility_timeout=600)
    client.expect_silence()
    assert queue.counts() == (1, 0, 2, 1)
    assert queue.extend(tokens[4], 1) > received[4].deadline + 300
    client.expect_silence()


def test_other_notifications_are_ignored(queue):
    queue.kill("dead")
    queue.send("m1")
    agent = {"agent": queue.agent}
    for method, params in [
        ("receive", agent),
        ("receive_batch", {**agent, "max": 5}),
        ("purge", agent),
        ("dlq_purge", agent),
        ("dlq_redrive", agent),
        ("configure", {**agent, "queue_size": 1}),
        ("ping", {}),
        ("status", {}),
        ("no_such_method", {"any": "thing"}),
        ("", {}),
    ]:
        queue.client.notify(method, params)
    queue.client.expect_silence()
    assert queue.counts() == (1, 0, 0, 1)
    assert queue.stats()["capacity"] == 10000


@pytest.mark.parametrize(
    "frame",
    [
        [2, "no_such_method", ["a", 1, {}, None]],
        [2, b"nvim_error_event", [0, "text"]],
        [2, "redraw", []],
        [2, "send", []],
        [2, "send", [5]],
        [2, "send", [{"sender": 5}]],
        [2, "ack", [{"agent": {"type": "a"}, "token": 5}]],
        [2, "no_such_method", {}],
        [1, 5, None, None],
        [1, 5, "Traceback (most recent call last): ...", None],
        [1, 2**32 - 1, [0, "x"], {"a": 1}],
        [1, 0, {"code": "x"}, None],
    ],
    ids=repr,
)
def test_bad_notifications_and_all_responses_are_ignored(client, frame):
    client.send_bytes(pack(frame))
    client.expect_silence()


def test_a_notification_that_is_refused_is_not_answered(queue):
    queue.configure(queue_size=1)
    queue.send("m1")
    queue.client.notify("send", queue.sending("m2"))
    queue.client.expect_silence()
    assert queue.stats()["size"] == 1


def test_nothing_is_pushed_to_who_did_not_ask(queue, other):
    queue.send_all([f"m{i}" for i in range(10)])
    queue.drain()
    other.client.expect_silence()


# -- connections that say nothing


def test_a_silent_connection_is_closed_after_hello_timeout(own):
    broker = own(server={"hello_timeout": "300ms"})
    spoke, silent = broker.connect(), broker.connect()
    spoke.call("ping")
    begun = time.monotonic()
    silent.expect_closed()
    assert time.monotonic() - begun > 0.2
    assert spoke.call("ping") == "pong"


def test_an_idle_connection_is_closed_after_idle_timeout(own):
    broker = own(server={"idle_timeout": "400ms"})
    idle, busy = broker.connect(), broker.connect()
    idle.call("ping")
    begun = time.monotonic()
    while time.monotonic() - begun < 0.3:
        busy.call("ping")
    idle.expect_closed()
    assert time.monotonic() - begun > 0.35


def test_connections_over_the_limit_are_refused(own):
    broker = own(server={"max_connections": 5})
    held = [broker.connect() for _ in range(5)]
    assert [each.call("ping") for each in held] == ["pong"] * 5
    frames = broker.connect().expect_closed()
    assert [Refused(each[2]).code for each in frames] in ([], ["overloaded"])
    assert [each.call("ping") for each in held] == ["pong"] * 5
    held.pop().close()

    def served():
        try:
            return broker.connect().call("ping") == "pong"
        except (Refused, Closed, AssertionError, OSError):
            return False

    wait_until(served, 3, "there is room again")


@pytest.mark.parametrize("kind", ["tcp", "tcp6", "unix"])
def test_every_kind_of_listener_serves(broker, kind):
    queue = Queue(broker.connect(kind), {"type": "worker", "instance": fresh("q")})
    queue.send("m1")
    assert queue.ack(queue.take_one())


def test_what_a_client_sent_before_it_shut_down_its_side_is_stored(queue, broker):
    half = queue.at(broker.connect())
    half.client.submit_all([("send", half.sending(f"m{i}")) for i in range(20)])
    half.client.sock.shutdown(socket.SHUT_WR)
    wait_until(lambda: queue.counts()[0] == 20, 3, "all are stored")


def test_descriptors_do_not_leak(broker, client):
    client.call("ping")
    before = broker.open_files()
    for i in range(100):
        each = broker.connect()
        if i % 2:
            each.call("ping")
        each.reset() if i % 3 else each.close()
    client.call("ping")
    wait_until(lambda: broker.open_files() <= before, 5, "all are closed")
