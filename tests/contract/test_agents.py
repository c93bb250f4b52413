"""Agents of both libraries: registration, heartbeats, state, and a graceful end."""

import time

import pytest

from contract import url_of
from harness import Queue, fresh, wait_for_time, wait_until, within


@pytest.fixture
def url(broker):
    return url_of(broker)


def info(client, agent):
    return client.call("get_agent", agent=agent.id)


def test_an_agent_is_registered_with_all_it_says(driver, url, client, name):
    agent = driver.connect(url).agent(
        name, "i", name="Añita", ttl=20, capabilities={"tools": ["a"]}, metadata={"v": 1}
    )
    told = agent.registered()
    seen = info(client, agent)
    assert seen["alive"] and seen["incarnation"] == told["incarnation"]
    assert (seen["name"], seen["ttl"]) == ("Añita", 20)
    assert (seen["capabilities"], seen["metadata"]) == ({"tools": ["a"]}, {"v": 1})


def test_it_beats(driver, url, client, name):
    agent = driver.connect(url).agent(name, "i", ttl=within(0.9))
    agent.registered()
    wait_for_time(time.monotonic() + within(0.9) * 3)
    seen = info(client, agent)
    assert seen["alive"] and seen["incarnation"] == agent.registered()["incarnation"]


def test_status_and_state_are_told_at_once_and_state_is_given_back(driver, url, client, name):
    first = driver.connect(url).agent(name, "i", ttl=300)
    first.registered()
    first.set("status", "busy")
    first.set("state", {"step": 3, "of": [1, 2.5, None]})
    wait_until(lambda: info(client, first)["status"] == "busy")
    first.stop()
    second = driver.connect(url).agent(name, "i", ttl=300)
    from contract import unpack

    assert unpack(second.registered()["state"]) == {"step": 3, "of": [1, 2.5, None]}
    assert second.registered()["incarnation"] > first.registered()["incarnation"]


def test_an_agent_that_was_forgotten_registers_anew(driver, url, client, name):
    agent = driver.connect(url).agent(name, "i", ttl=within(0.9))
    first = agent.registered()["incarnation"]
    client.call("deregister", agent=agent.id)
    assert agent.registered(2)["incarnation"] != first
    assert info(client, agent)["alive"]


def test_the_leases_of_a_forgotten_agent_are_told_as_lost(driver, url, client, name):
    agent = driver.connect(url).agent(name, "i", ttl=within(0.9))
    agent.registered()
    queue = Queue(client, {"type": name, "instance": "jobs"})
    consumer = agent.consume(queue.agent)
    queue.send("m")
    job = consumer.took()
    client.call("deregister", agent=agent.id)
    job.wait_until_lost()
    agent.registered(2)
    again = consumer.took(2)
    assert again.id == "m"
    again.finish("ack")
    wait_until(lambda: queue.stats()["size"] == 0)


def test_an_agent_is_registered_when_a_broker_comes(driver, own, name):
    broker = own()
    broker.kill()
    agent = driver.connect(url_of(broker), backoff_max=0.3).agent(name, "i")
    broker.start()
    agent.registered()
    assert info(broker.connect(), agent)["alive"]


def test_an_agent_whose_broker_hangs_beats_at_the_other(driver, two_brokers, name):
    import signal

    one, other = two_brokers
    agent = driver.connect(url_of(one), url_of(other), idle_timeout=0.6, connect_timeout=1).agent(
        name, "i", ttl=within(6)
    )
    first = agent.registered()["incarnation"]
    client = other.connect()
    one.signal(signal.SIGSTOP)
    try:
        wait_until(
            lambda: [each for each in client.call("list_connections") if each["client"] or each["requests"] > 1]
            and len(client.call("list_connections")) >= 2,
            15,
            "it has come to the other broker",
        )
        wait_for_time(time.monotonic() + within(2.5))
        seen = info(client, agent)
        assert seen["alive"] and seen["incarnation"] == first
    finally:
        one.signal(signal.SIGCONT)


# ---------------------------------------------------------------------------------------------
# The end


def test_a_graceful_stop_finishes_what_runs_and_touches_nothing_else(driver, url, client, name):
    agent = driver.connect(url).agent(name, "i")
    agent.registered()
    queue = Queue(client, {"type": name, "instance": "jobs"})
    ids = queue.send_all([fresh("m") for _ in range(6)])
    consumer = agent.consume(queue.agent, concurrency=2)
    running = consumer.wait_for_jobs(2)
    stopping = agent.stopping(20)
    wait_for_time(time.monotonic() + 0.3)
    assert not stopping.is_there()
    for job in running:
        job.finish("ack")
    stopping.result()
    assert info(client, agent) is None or not info(client, agent)["alive"]
    rest = queue.take(100)
    assert [each.id for each in rest] == ids[2:]
    assert all(each.attempts == 0 for each in rest)
    assert len(consumer.jobs()) == 2


def test_a_stop_does_not_wait_longer_than_told(driver, url, client, name):
    agent = driver.connect(url).agent(name, "i")
    agent.registered()
    queue = Queue(client, {"type": name, "instance": "jobs"})
    queue.send("m")
    consumer = agent.consume(queue.agent)
    job = consumer.took()
    stopping = agent.stopping(0.5)
    stopping.result()
    assert 0.4 < stopping.took() < within(4)
    back = queue.take_one()
    assert back.id == "m" and back.attempts == 0
    assert job.is_lost()


def test_an_agent_stops_without_a_broker(driver, own, name):
    broker = own()
    agent = driver.connect(url_of(broker)).agent(name, "i")
    agent.registered()
    broker.kill()
    stopping = agent.stopping(1)
    stopping.line(30)
    assert stopping.took() < within(10)
    broker.start()


def test_a_name_is_free_after_a_stop(driver, url, name):
    connection = driver.connect(url)
    for _ in range(3):
        agent = connection.agent(name, "i")
        agent.registered()
        agent.stop()


# ---------------------------------------------------------------------------------------------
# Requests and replies


def test_a_request_is_answered_by_the_other_library(pair, url, name):
    asker = pair[0].connect(url).agent(name, "asker")
    server = pair[1].connect(url).agent(name, "server")
    asker.registered(), server.registered()
    payload = {"text": "žluťoučký 🐎", "n": 2**53, "f": 0.5, "nil": None, "list": [1, {"deep": b"\x00\xff"}]}
    from contract import pack

    consumer = server.consume(then="reply", payload=pack(payload))
    answer = asker.request(server.id, {"question": "ότι"})
    assert answer.result() == payload
    request = consumer.took()
    assert request.message["payload"] == {"question": "ότι"}
    assert request.message["sender"] == asker.id
    assert request.message["message_type"] == "request"


def test_many_requests_at_once_get_their_own_answers(pair, url, client, name):
    asker = pair[0].connect(url).agent(name, "asker")
    asker.registered()
    servers = [pair[1].connect(url).agent(name, f"server-{i}") for i in range(3)]
    from contract import pack

    for i, server in enumerate(servers):
        server.registered()
        server.consume(concurrency=4, then="reply", payload=pack({"server": i}), after=0.01)
    answers = [(i % 3, asker.request(servers[i % 3].id, {"n": i}, 30)) for i in range(60)]
    for i, answer in answers:
        assert answer.result() == {"server": i}
    for agent in [asker, *servers]:
        queue = Queue(client, agent.id)
        wait_until(lambda: queue.stats()["size"] == 0, what="the replies are settled")


def test_a_request_that_nobody_answers_ends_at_its_deadline(driver, url, name):
    asker = driver.connect(url).agent(name, "asker")
    asker.registered()
    answer = asker.request({"type": name, "instance": "nobody"}, {}, 0.6)
    failure = answer.failure()
    assert failure.retryable
    assert 0.5 < answer.took() < 0.6 + within(1)


def test_a_request_survives_the_brokers_death(pair, own, name):
    broker = own()
    options = {"backoff_max": 0.3}
    asker = pair[0].connect(url_of(broker), **options).agent(name, "asker", ttl=300)
    server = pair[1].connect(url_of(broker), **options).agent(name, "server", ttl=300)
    asker.registered(), server.registered()
    from contract import pack

    consumer = server.consume(then="hang")
    answer = asker.request(server.id, {"n": 1}, 30)
    job = consumer.took()
    broker.kill()
    broker.start()
    job.finish("reply", payload=pack({"n": 2}))
    assert answer.result() == {"n": 2}
