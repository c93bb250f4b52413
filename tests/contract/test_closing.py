"""What is under way when a program closes the connection, cancels a call, or ends."""

import time

import pytest

from conftest import LANGUAGES
from contract import Dropped, Failure, url_of
from harness import Queue, fresh, wait_until, within


def test_pending_calls_end_with_the_connection(driver, broker, client, name):
    connection = driver.connect(url_of(broker))
    agent = {"type": name, "instance": "i"}
    parked = connection.submit_all([("receive", {"agent": agent, "wait": 30})] * 20, 40)
    assert connection.call("ping") == "pong"
    began = time.monotonic()
    connection.close()
    for each in parked:
        with pytest.raises(Dropped):
            each.result()
    assert time.monotonic() - began < within(3)
    wait_until(lambda: Queue(client, agent).stats()["consumers"] == 0, what="the receivers are gone")


def test_a_close_while_nothing_is_there(driver, tmp_path):
    connection = driver.connect(f"unix://{tmp_path}/nobody.sock")
    answers = connection.submit_all([("ping", {})] * 5, 30)
    connection.close()
    for each in answers:
        with pytest.raises(Dropped):
            each.result()


def test_a_close_while_it_connects(driver, broker):
    for _ in range(10):
        connection = driver.connect(url_of(broker))
        connection.submit("ping")
        connection.close()


def test_a_close_with_everything_under_way(driver, own, name):
    """An agent with a running job, a consumer, a watch, a request and calls; the broker sees one client less."""
    broker = own()
    client = broker.connect()
    connection = driver.connect(url_of(broker))
    agent = connection.agent(name, "w", ttl=within(1))
    agent.registered()
    queue = Queue(client, {"type": name, "instance": "jobs"})
    consumer = agent.consume(queue.agent, concurrency=3, params={"lease": "connection"})
    queue.send_all([fresh("m") for _ in range(5)])
    consumer.wait_for_jobs(3)
    connection.watch("agent", "breaker", "queue")
    request = agent.request({"type": name, "instance": "nobody"}, {}, 30)
    parked = connection.submit("receive", {"agent": {"type": name, "instance": "x"}, "wait": 30}, 40)
    assert connection.call("ping") == "pong"
    connection.close()
    for each in (request, parked):
        with pytest.raises((Dropped, Failure)):
            each.result()
    wait_until(lambda: len(client.call("list_connections")) == 1, what="its connection is gone")
    taken = []
    wait_until(lambda: taken.extend(queue.take(10, visibility_timeout=60)) or len(taken) == 5)


def test_what_was_sent_before_a_close_is_not_lost_when_it_was_answered(driver, broker, client, name):
    queue = Queue(client, {"type": name, "instance": "i"})
    connection = driver.connect(url_of(broker))
    for each in connection.submit_all([("send", queue.sending(f"m{i}")) for i in range(50)]):
        each.result()
    connection.close()
    assert queue.stats()["size"] == 50


def test_a_program_that_ends_without_closing_leaves_nothing(driver, start_driver, own, name):
    """Everything is freed, which valgrind and the address sanitizer look at."""
    broker = own()
    program = start_driver(driver.language)
    connection = program.connect(url_of(broker))
    agent = connection.agent(name, "w")
    agent.registered()
    agent.consume()
    connection.watch("agent")
    program.connect("unix:///nonexistent/x.sock").submit("ping")
    connection.submit_all([("receive", {"agent": {"type": name, "instance": "x"}, "wait": 30})] * 3, 40)
    assert connection.call("ping") == "pong"
    program.end()
    client = broker.connect()
    wait_until(lambda: len(client.call("list_connections")) == 1)


def test_a_cancelled_call_is_given_up(drivers, broker, name):
    """Python can; its answer is nobody's, and the connection goes on."""
    if "python" not in LANGUAGES:
        pytest.skip("for Python alone")
    driver = drivers.of("python")
    connection = driver.connect(url_of(broker))
    agent = {"type": name, "instance": "i"}
    parked = connection.submit("receive", {"agent": agent, "wait": 1.0}, 20)
    assert connection.call("ping") == "pong"
    driver.do("forget", call=parked.number)
    with pytest.raises(Dropped):
        parked.result()
    for _ in range(20):
        assert connection.call("ping") == "pong"
    connection.close()
