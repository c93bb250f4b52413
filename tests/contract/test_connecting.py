"""To which broker a library connects, as whom, and what it tells when there is none."""

import socket
import time

import pytest

from contract import Failure, Foreign, Server, Silent, url_of
from harness import fresh, wait_for_time, wait_until, within


@pytest.fixture
def serve():
    """Start a server that is no broker."""
    started = []

    def start(kind):
        started.append(kind())
        return started[-1]

    yield start
    for each in started:
        each.close()


class Refusing(Server):
    """What answers every request with one error."""

    error = {"code": "unauthenticated", "message": "no such token", "retryable": False}

    def __init__(self):
        self.hellos = []
        super().__init__()

    def serve(self, connection):
        import msgpack

        from contract import frames_of

        for frame, _ in frames_of(connection):
            if frame[2] == "hello":
                self.hellos.append(frame[3][0])
            connection.sendall(msgpack.packb([1, frame[1], self.error, None]))


def a_free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def nowhere(tmp_path):
    return f"unix://{tmp_path}/nobody.sock"


@pytest.mark.parametrize("kind", ["unix", "tcp", "tcp6", "name"])
def test_it_speaks_to_a_broker_at_each_kind_of_address(driver, broker, kind):
    assert driver.connect(url_of(broker, kind)).call("ping") == "pong"


def test_it_says_hello_with_its_name_and_namespace(driver, broker, client, name):
    connection = driver.connect(url_of(broker), name=name, namespace=f"ns-{name}")
    assert connection.call("ping") == "pong"
    assert [
        each["namespace"] for each in client.call("list_connections") if each["client"] == name
    ] == [f"ns-{name}"]


def test_a_namespace_is_a_world_of_its_own(driver, broker, name):
    agent = {"type": name, "instance": "i"}
    message = {"message_id": "m", "message_type": "event", "payload": {}}
    one = driver.connect(url_of(broker), namespace=f"one-{name}")
    other = driver.connect(url_of(broker), namespace=f"other-{name}")
    assert one.call("send", sender=agent, recipient=agent, message=message)["delivered"]
    assert other.call("receive", agent=agent) is None
    assert one.call("receive", agent=agent)["queue_message"]["message"]["message_id"] == "m"


def test_a_bad_namespace_is_told_and_not_tried_for_ever(driver, broker):
    connection = driver.connect(url_of(broker), namespace="a\nb")
    failure = connection.submit("ping", timeout=10).failure()
    assert failure.kind == ("bad_request", False) and "namespace" in failure.message


def test_a_token_is_shown(driver, broker, make_proxy):
    proxy = make_proxy(broker)
    driver.connect(proxy.url, token="secret-1").call("ping")
    assert proxy.requests[0][0] == "hello" and proxy.requests[0][1]["token"] == "secret-1"


def test_a_refused_token_is_told_at_once(driver, serve):
    server = serve(Refusing)
    connection = driver.connect(server.url, token="wrong")
    for answer in connection.submit_all([("ping", {})] * 3, timeout=20):
        assert answer.failure().kind == ("unauthenticated", False)
        assert answer.took() < within(5)
    assert all(hello["token"] == "wrong" for hello in server.hellos)


def test_without_a_broker_a_call_fails_at_its_deadline(driver, tmp_path):
    connection = driver.connect(nowhere(tmp_path))
    answer = connection.submit("ping", timeout=0.7)
    failure = answer.failure()
    assert failure.code == "unavailable" and failure.retryable and failure.applied == "no"
    assert "nobody.sock" in failure.message
    assert 0.6 < answer.took() < 0.7 + within(1)


def test_a_closed_port_is_told(driver):
    port = a_free_port()
    failure = driver.connect(f"tcp://127.0.0.1:{port}").submit("ping", timeout=0.5).failure()
    assert failure.shape == ("unavailable", True, "no")
    assert str(port) in failure.message


def test_a_name_that_nobody_has_is_told(driver):
    connection = driver.connect("tcp://nobody.invalid:7420")
    answer = connection.submit("ping", timeout=1)
    assert answer.failure().shape == ("unavailable", True, "no")
    assert answer.took() < 1 + within(2)


@pytest.mark.parametrize("url", ["", "http://127.0.0.1:1", "tcp://", "tcp://h:99999", "unix://", "nonsense"])
def test_a_bad_url_is_refused_at_once(driver, url):
    with pytest.raises(Failure) as refusal:
        driver.connect(url).open.result()
    assert refusal.value.code == "usage" and not refusal.value.retryable


def test_one_bad_url_among_good_ones_is_refused(driver, broker):
    with pytest.raises(Failure) as refusal:
        driver.connect(url_of(broker), "gopher://x").open.result()
    assert refusal.value.code == "usage"


@pytest.mark.parametrize("kind", [Foreign, Server])
def test_a_server_of_another_kind_is_told(driver, serve, kind):
    server = serve(kind)
    answer = driver.connect(server.url).submit("ping", timeout=0.7)
    failure = answer.failure()
    assert failure.code in ("unavailable", "protocol_error")
    assert answer.took() < 0.7 + within(1)


@pytest.mark.parametrize("kind", [Foreign, Server, Silent])
def test_of_several_addresses_it_finds_the_good_one(driver, broker, serve, kind, tmp_path):
    bad = serve(kind)
    for urls in ([nowhere(tmp_path), bad.url, url_of(broker)], [url_of(broker), bad.url]):
        answer = driver.connect(*urls, connect_timeout=0.5).submit("ping", timeout=20)
        assert answer.result() == "pong"
        assert answer.took() < within(3)


def test_connects_are_few_while_nothing_answers(driver, serve):
    """50 ms, doubled each time and at random up to that: some ten in three seconds."""
    server = serve(Server)
    began = time.monotonic()
    connection = driver.connect(server.url)
    connection.submit("ping", timeout=2.5).failure()
    wait_for_time(began + 2.5)
    assert 3 <= len(server.connects) <= 30


def test_connects_to_two_addresses_are_few_too(driver, serve):
    servers = [serve(Server), serve(Server)]
    began = time.monotonic()
    driver.connect(*(each.url for each in servers)).submit("ping", timeout=2).failure()
    wait_for_time(began + 2)
    assert all(servers[i].connects for i in range(2))
    assert sum(len(each.connects) for each in servers) <= 50


def test_a_call_waits_for_a_broker_that_comes_later(driver, own):
    broker = own()
    broker.kill()
    broker.unix_path.unlink(missing_ok=True)
    answer = driver.connect(url_of(broker), backoff_max=0.3).submit("ping", timeout=30)
    wait_until(lambda: driver.is_running())
    broker.start()
    assert answer.result() == "pong"


def test_states_are_told(driver, own):
    broker = own()
    url = url_of(broker)
    connection = driver.connect(url)
    assert connection.call("ping") == "pong"
    assert [(each["url"], each["why"]) for each in connection.states()] == [(url, None)]
    broker.kill()
    broker.start()
    assert connection.call("ping") == "pong"
    assert connection.states()[-1]["why"] is None
    assert sum(each["why"] is None for each in connection.states()) == 2


def test_two_connections_of_a_program_are_apart(driver, broker, tmp_path, name):
    lost = driver.connect(nowhere(tmp_path)).submit("ping", timeout=1)
    assert driver.connect(url_of(broker), name=fresh(name)).call("ping") == "pong"
    assert lost.failure().code == "unavailable"
