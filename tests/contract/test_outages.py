"""Brokers that hang, die and come back while something waits."""

import signal
import time

import pytest

from contract import url_of
from harness import Queue, fresh, wait_for_time, wait_until, within


@pytest.fixture
def pause():
    """SIGSTOP a broker, until the test ends or resumes it."""
    paused = []

    def stop(broker):
        broker.signal(signal.SIGSTOP)
        paused.append(broker)

    yield stop
    for each in paused:
        if each.is_running():
            each.signal(signal.SIGCONT)


def test_a_broker_that_hangs_is_left_for_another(driver, two_brokers, pause, name):
    one, other = two_brokers
    connection = driver.connect(url_of(one), url_of(other), idle_timeout=1, connect_timeout=1)
    assert connection.call("ping") == "pong"
    assert connection.states()[-1]["url"] == url_of(one)
    pause(one)
    queue = Queue(None, {"type": name, "instance": "i"})
    answers = [connection.submit("send", queue.sending(f"m{i}"), timeout=20) for i in range(10)]
    assert all(each.result()["delivered"] for each in answers)
    assert 0.5 < answers[0].took() < within(4)
    assert connection.states()[-1]["url"] == url_of(other)
    one.signal(signal.SIGCONT)
    # The one that hung may do late what it had read: a send is stored once all the same.
    assert one.connect().call("ping") == "pong"
    assert queue.at(other.connect()).stats()["size"] == 10


def test_a_broker_that_hangs_for_a_moment_is_not_left(driver, own, make_proxy, pause):
    broker = own()
    proxy = make_proxy(broker)
    connection = driver.connect(proxy.url, idle_timeout=within(5))
    assert connection.call("ping") == "pong"
    pause(broker)
    answer = connection.submit("breaker_list", timeout=20)
    wait_for_time(time.monotonic() + 0.5)
    assert not answer.is_there()
    broker.signal(signal.SIGCONT)
    assert answer.result() == []
    assert len(proxy.connects) == 1


def test_a_connection_without_anything_to_do_stays(driver, broker, make_proxy):
    proxy = make_proxy(broker)
    connection = driver.connect(proxy.url, idle_timeout=0.4)
    assert connection.call("ping") == "pong"
    wait_for_time(time.monotonic() + 1.5)
    assert connection.call("ping") == "pong"
    assert len(proxy.connects) == 1


def test_a_receive_that_waits_is_no_silence(driver, broker, make_proxy, name):
    proxy = make_proxy(broker)
    connection = driver.connect(proxy.url, idle_timeout=0.6)
    answer = connection.submit("receive", {"agent": {"type": name, "instance": "i"}, "wait": 2.5}, timeout=20)
    assert answer.result() is None
    assert answer.took() >= 2.4
    assert len(proxy.connects) == 1 and proxy.count("receive") == 1


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_receive_that_waits_survives_a_restart(driver, own, name, how):
    broker = own()
    connection = driver.connect(url_of(broker), backoff_max=0.3)
    agent = {"type": name, "instance": "i"}
    parked = connection.submit("receive", {"agent": agent, "wait": 20}, timeout=30)
    assert connection.call("ping") == "pong"
    if how == "killed":
        broker.kill()
    else:
        broker.stop()
    broker.start()
    queue = Queue(broker.connect(), agent)
    wait_until(lambda: queue.stats()["consumers"], what="the receiver is back")
    queue.send("m")
    assert parked.result()["queue_message"]["message"]["message_id"] == "m"


def test_a_receive_that_waits_is_noticed_to_be_lost_in_a_hang(driver, two_brokers, pause, name):
    one, other = two_brokers
    connection = driver.connect(url_of(one), url_of(other), idle_timeout=0.8, connect_timeout=1)
    agent = {"type": name, "instance": "i"}
    parked = connection.submit("receive", {"agent": agent, "wait": 30}, timeout=40)
    assert connection.call("ping") == "pong"
    pause(one)
    queue = Queue(other.connect(), agent)
    wait_until(
        lambda: len(connection.states()) > 1 and connection.states()[-1]["why"] is None,
        limit=8,
        what="the move to the other broker",
    )
    queue.send("m")
    assert parked.result()["queue_message"]["message"]["message_id"] == "m"


def test_a_broker_with_an_embedded_redis_is_killed(driver, make_broker, tmp_path, name):
    broker = make_broker(
        "", arguments=["--embedded-redis", str(tmp_path / "redis")], expected_errors=("redis.", "request.")
    ).start()
    connection = driver.connect(url_of(broker))
    queue = Queue(None, {"type": name, "instance": "i"})
    ids = [fresh(name) for _ in range(200)]
    answers = connection.submit_all([("send", queue.sending(each)) for each in ids[:100]])
    answers[10].line()
    broker.kill()
    answers += connection.submit_all([("send", queue.sending(each)) for each in ids[100:]])
    broker.start()
    assert all(each.result()["delivered"] for each in answers)
    taken = queue.at(broker.connect()).take(1000, visibility_timeout=60)
    assert [each.id for each in taken] == ids


def test_many_restarts(driver, own, name):
    """Three kills under a stream of sends and receives; all that was sent is received, nothing else."""
    broker = own()
    connection = driver.connect(url_of(broker), backoff_max=0.2)
    queue = Queue(None, {"type": name, "instance": "i"})
    ids, sends = [], []
    for _ in range(3):
        for _ in range(60):
            ids.append(fresh(name))
            sends.append(connection.submit("send", queue.sending(ids[-1])))
        sends[-30].line(40)
        broker.kill()
        broker.start()
    assert all(each.result()["delivered"] for each in sends)
    taken = queue.at(broker.connect()).take(1000, visibility_timeout=60)
    assert [each.id for each in taken] == ids


# ---------------------------------------------------------------------------------------------
# Watches


def registers(client, name):
    client.call("register", agent={"type": name, "instance": "i"})


def saw(name):
    return lambda events: [
        each for each in events if each["event"] == "agent_registered" and each["agent_id"]["type"] == name
    ]


def test_a_watch_tells_events_of_its_classes(driver, broker, client, name):
    watch = driver.connect(url_of(broker), namespace=name).watch("agent", "queue")
    client = broker.in_namespace(name)

    def has_begun():  # the library asks for it by itself
        registers(client, f"{name}-0")
        return saw(f"{name}-0")(watch.events())

    wait_until(has_begun)
    client.call("breaker_trip", name=name) if client.call("breaker_acquire", name=name) else None
    client.call("pause_queue", agent={"type": name, "instance": "i"})
    watch.wait_for(lambda events: [each for each in events if each["event"] == "queue_paused"])
    assert not watch.events("breaker_opened")


def test_a_watch_goes_on_after_a_restart_and_tells_the_gap(driver, own, name):
    broker = own()
    watch = driver.connect(url_of(broker), backoff_max=0.3).watch("agent")

    def has_begun():
        registers(broker.connect(), f"{name}-0")
        return saw(f"{name}-0")(watch.events())

    wait_until(has_begun)
    broker.close_clients()
    broker.kill()
    broker.start()
    watch.wait_for(lambda events: [each for each in events if each["event"] == "lost"])
    registers(broker.connect(), f"{name}-1")
    watch.wait_for(saw(f"{name}-1"))
    kinds = [each["event"] for each in watch.events()]
    assert kinds.count("lost") == 1 and kinds[-1] == "agent_registered"


def test_a_watch_that_is_begun_while_nothing_is_there_begins_later(driver, own, name):
    broker = own()
    broker.kill()
    watch = driver.connect(url_of(broker), backoff_max=0.3).watch("agent")
    broker.start()

    def has_begun():
        registers(broker.connect(), name)
        return saw(name)(watch.events())

    wait_until(has_begun)
    assert not watch.events("lost")
