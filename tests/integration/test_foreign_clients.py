"""Clients that nobody wrote for coordd."""

import socket

import msgpack
import pytest

from harness import fresh, wait_until


def test_ten_lines_of_msgpack_are_a_client(broker):
    with socket.create_connection(broker.address("tcp")) as connection:
        unpacker = msgpack.Unpacker()

        def call(method, **params):
            connection.sendall(msgpack.packb([0, 1, method, [params]]))
            while True:
                unpacker.feed(connection.recv(65536))
                for _, _, error, result in unpacker:
                    assert error is None, error
                    return result

        agent = {"type": "worker", "instance": fresh("q")}
        message = {"message_id": "m1", "message_type": "request", "payload": {"n": 1}}
        assert call("send", sender={"type": "me"}, recipient=agent, message=message)["delivered"]
        received = call("receive", agent=agent, wait=5)
        assert received["queue_message"]["message"]["payload"] == {"n": 1}
        assert call("ack", agent=agent, token=received["token"]) is True


@pytest.fixture
def session(broker):
    rpc = pytest.importorskip("pynvim.msgpack_rpc", reason="needs python3-pynvim")
    session = rpc.tcp_session(*broker.address("tcp"))
    session.error_wrapper = lambda error: RuntimeError(error[1])
    yield session
    session.close()


def test_pynvim_sends_receives_and_settles(session):
    agent = {"type": "worker", "instance": fresh("q")}
    assert session.request("ping", {}) == "pong"
    message = {
        "message_id": "m1",
        "message_type": "request",
        "priority": 9,
        "payload": {"text": "grüße", "list": [1, 2.5, None]},
    }
    sent = session.request(
        "send", {"sender": {"type": "pynvim"}, "recipient": agent, "message": message}
    )
    assert sent["delivered"] is True
    received = session.request("receive", {"agent": agent, "wait": 5})
    assert received["queue_message"]["message"]["payload"] == message["payload"]
    assert received["queue_message"]["message"]["sender"]["type"] == "pynvim"
    assert session.request("ack", {"agent": agent, "token": received["token"]}) is True
    assert session.request("receive", {"agent": agent, "wait": 0.1}) is None


def test_pynvim_is_told_errors_in_the_shape_it_shows(session):
    with pytest.raises(RuntimeError, match="^unknown_method: "):
        session.request("no_such_method", {})
    with pytest.raises(RuntimeError, match="^bad_request: .*agent"):
        session.request("receive", {})
    assert session.request("ping", {}) == "pong"


def test_pynvim_notifies_without_waiting(session):
    agent = {"type": "worker", "instance": fresh("q")}
    for i in range(20):
        message = {"message_id": f"m{i}", "message_type": "event"}
        params = {"sender": {"type": "pynvim"}, "recipient": agent, "message": message}
        session._async_session.notify("send", [params])
    wait_until(
        lambda: session.request("queue_stats", {"agent": agent})["size"] == 20, 3, "all are stored"
    )
