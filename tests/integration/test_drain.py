"""drain and undrain, SIGUSR2, how a stop waits for what was handed out, and the level of the log."""

import signal
import time

import pytest

from harness import (
    Closed,
    Queue,
    Received,
    check_shape,
    fresh,
    is_count,
    is_number,
    wait_for_time,
    wait_until,
    within,
)
from test_coordctl import Ctl

DRAIN = {"draining": bool, "connections": is_count, "in_flight": is_count, "unsettled": is_count}
LEVEL = {"level": str, "configured": str, "for": (None, is_number)}


def agent():
    return {"type": "worker", "instance": fresh("q")}


def drain(client):
    answer = check_shape(client.call("drain"), DRAIN)
    assert answer["draining"] is True
    return answer


def undrain(client):
    answer = check_shape(client.call("undrain"), DRAIN)
    assert answer["draining"] is False
    return answer


def consume(queue, prefetch=10, **more):
    params = {"agent": queue.agent, "prefetch": prefetch, **more}
    return queue.client.call("consume", **params)["consumer_id"]


def pushed(client, n):
    """The first `n` messages that were pushed to a connection."""

    def messages():
        client.call("ping")
        return [value for method, value in client.notifications if method == "message"]

    got = wait_until(lambda: len(messages()) >= n and messages(), 5, f"{n} messages are pushed")
    return [
        Received({key: value for key, value in each.items() if key != "consumer_id"})
        for each in got
    ]


def told(client):
    """The consumers that were told that they get nothing any more."""
    client.call("ping")
    return [
        value["consumer_id"]
        for method, value in client.notifications
        if method == "shutting_down"
    ]


@pytest.fixture
def ctl(own):
    broker = own()
    ctl = Ctl(f"unix://{broker.unix_path}")
    ctl.broker = broker
    return ctl


# -- what is not served, and what is


def test_a_drained_broker_hands_out_nothing_and_serves_all_else(own):
    broker = own()
    queue = Queue(broker.connect(), agent())
    held = queue.at(broker.connect())
    queue.send_all(["m1", "m2", "m3"])
    received = [held.take_one(visibility_timeout=60) for _ in range(3)]
    operator = broker.connect()
    assert drain(operator)["connections"] == 3
    assert operator.call("status")["draining"] is True
    assert operator.call("status")["ready"] is False

    for method, params in (
        ("receive", {}),
        ("receive", {"wait": 5}),
        ("receive_batch", {"max": 5}),
        ("consume", {"prefetch": 5}),
    ):
        refusal = queue.client.refused(method, {"agent": queue.agent, **params})
        assert refusal.code == "shutting_down" and "drains" in refusal.message

    # Whoever works on something finishes: its result is sent, its message settled.
    queue.send("m4")
    assert held.ack(received[0]) is True
    assert held.release(received[1]) is True
    assert held.extend(received[2], 120) is not None
    assert held.nack(received[2], delay=0) is True
    assert queue.counts() == (3, 0, 0, 0)
    late = broker.connect()
    assert late.call("hello")["server"] == "coordd"
    assert late.call("register", agent=agent())["ttl"] == 30

    undrain(operator)
    assert operator.call("status")["draining"] is False
    assert len(queue.drain()) == 3


def test_parked_receivers_are_told(own):
    broker = own()
    queue = Queue(broker.connect(), agent())
    parked = [queue.at(broker.connect()).park(wait=60) for _ in range(3)]
    parked.append(queue.at(broker.connect()).park("receive_batch", max=5, wait=60))
    drain(broker.connect())
    for each in parked:
        with pytest.raises(Exception, match="shutting_down"):
            each.result()
    assert broker.connect().call("status")["parked"] == 0
    # A message for those who waited is for others.
    queue.send("m1")
    assert queue.counts() == (1, 0, 0, 0)


def test_another_broker_takes_over(own, redis, make_broker):
    config = {"redis": {"key_prefix": fresh("own")}}
    leaving = make_broker(redis, config=config).start()
    staying = make_broker(redis, config=config).start()
    queue = Queue(leaving.connect(), agent())
    parked = queue.park(wait=60)
    elsewhere = queue.at(staying.connect()).park(wait=60)
    drain(leaving.connect())
    with pytest.raises(Exception, match="shutting_down"):
        parked.result()
    queue.send("m1")  # through the one that drains
    assert elsewhere.result(within(5)).id == "m1"


def test_a_consumer_is_told_and_goes_on_after_undrain(own):
    broker = own()
    queue = Queue(broker.connect(), agent())
    sender = queue.at(broker.connect())
    sender.send_all(["m1", "m2"])
    consumer = consume(queue)
    idle = Queue(queue.client, agent())
    other = consume(idle)
    m1, m2 = pushed(queue.client, 2)
    assert told(queue.client) == []

    operator = broker.connect()
    assert drain(operator)["unsettled"] == 2
    wait_until(lambda: sorted(told(queue.client)) == sorted([consumer, other]), 5)
    drain(operator)
    sender.send_all(["m3", "m4"])
    assert queue.ack(m1) is True
    assert drain(operator)["unsettled"] == 1
    assert queue.ack(m2) is True
    assert drain(operator)["unsettled"] == 0
    assert len(told(queue.client)) == 2, "told once"
    assert sender.counts() == (2, 0, 0, 0)
    assert len(pushed(queue.client, 2)) == 2

    undrain(operator)
    assert [each.id for each in pushed(queue.client, 4)][2:] == ["m3", "m4"]
    Queue(sender.client, idle.agent).send("m5")
    assert pushed(queue.client, 5)[4].id == "m5"


def test_what_a_consumer_held_and_settled_elsewhere_does_not_hold_up_a_drain(own, redis, make_broker):
    config = {"redis": {"key_prefix": fresh("own")}}
    leaving = make_broker(redis, config=config).start()
    staying = make_broker(redis, config=config).start()
    queue = Queue(leaving.connect(), agent())
    queue.send("m1")
    consume(queue, visibility_timeout=600)
    (m1,) = pushed(queue.client, 1)
    operator = leaving.connect()
    assert drain(operator)["unsettled"] == 1
    assert queue.at(staying.connect()).ack(m1) is True
    wait_until(lambda: drain(operator)["unsettled"] == 0, 5)


def test_expired_reservations_come_back_while_it_drains(own):
    broker = own()
    queue = Queue(broker.connect(), agent())
    queue.send("m1")
    queue.take_one(visibility_timeout=0.2)
    drain(broker.connect())
    wait_until(lambda: queue.counts() == (1, 0, 0, 0), 5, "the sweep goes on")


def test_sigusr2_drains_and_the_process_stays(own):
    broker = own()
    client = broker.connect()
    parked = Queue(client, agent()).park(wait=60)
    broker.signal(signal.SIGUSR2)
    with pytest.raises(Exception, match="shutting_down"):
        parked.result()
    broker.signal(signal.SIGUSR2)
    assert client.call("status")["draining"] is True
    assert [line["by"] for line in broker.logged("server.drain")] == ["SIGUSR2"]
    undrain(client)
    assert Queue(client, agent()).receive() is None
    broker.signal(signal.SIGUSR2)
    wait_until(lambda: client.call("status")["draining"], 5)
    broker.stop()


def test_its_states_are_told(own):
    broker = own()
    client = broker.connect()
    drain(client)
    undrain(client)
    undrain(client)
    broker.stop()
    states = [(line["from"], line["to"]) for line in broker.logged("server.state")]
    assert states == [
        ("starting", "ready"),
        ("ready", "draining"),
        ("draining", "ready"),
        ("ready", "stopping"),
    ]


# -- stop


def test_a_stop_waits_for_what_was_handed_out(own):
    broker = own()
    queue = Queue(broker.connect(), agent())
    leaser = queue.at(broker.connect())
    queue.send_all(["m1", "m2"])
    leased = leaser.take_one(lease="connection", visibility_timeout=60)
    consumer = consume(queue)
    (m2,) = pushed(queue.client, 1)
    broker.signal(signal.SIGTERM)
    wait_until(lambda: told(queue.client) == [consumer], 5)
    refusal = queue.client.refused("send", queue.sending())
    assert refusal.code == "shutting_down"
    assert queue.ack(m2) is True
    assert broker.is_running(), "the other one is not settled"
    assert leaser.ack(leased) is True
    assert broker.wait(5) == 0
    broker.start()
    assert queue.at(broker.connect()).counts() == (0, 0, 0, 0)


def test_a_stop_waits_no_longer_than_the_drain_timeout(own):
    broker = own(server={"drain_timeout": "2s"})
    queue = Queue(broker.connect(), agent())
    queue.send("m1")
    queue.take_one(lease="connection", visibility_timeout=600)
    begun = time.monotonic()
    broker.signal(signal.SIGTERM)
    assert broker.wait(5) == 0
    assert 1.2 < time.monotonic() - begun < 2 + within(1)
    # It went back as the connection was closed, and not by its deadline.
    broker.start()
    received = queue.at(broker.connect()).take_one(wait=1)
    assert received.id == "m1" and received.last_error == "connection closed"


def test_a_stop_does_not_wait_for_leases_that_are_over(own):
    broker = own(sweep={"grace": "0s"})
    queue = Queue(broker.connect(), agent())
    queue.send("m1")
    queue.take_one(lease="connection", visibility_timeout=0.3)
    broker.signal(signal.SIGTERM)
    assert broker.wait(5) == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_leaves_at_once(own, second):
    broker = own()
    queue = Queue(broker.connect(), agent())
    queue.send("m1")
    queue.take_one(lease="connection", visibility_timeout=600)
    broker.signal(signal.SIGTERM)
    wait_until(lambda: broker.logged("server.stop"), 5)
    assert queue.client.call("status")["draining"] is True
    begun = time.monotonic()
    broker.signal(second)
    assert broker.wait(5) == 0
    assert time.monotonic() - begun < within(1)
    with pytest.raises((Closed, OSError)):
        queue.client.call("ping")


def test_a_drained_broker_stops(own):
    broker = own()
    client = broker.connect()
    drain(client)
    broker.signal(signal.SIGTERM)
    assert broker.wait(5) == 0


# -- coordctl drain


def test_coordctl_drain_waits_until_all_is_settled(ctl):
    queue = Queue(ctl.broker.connect(), agent())
    assert "drained" in ctl.out("drain")
    assert "DRAINING" in ctl.out("status")
    assert ctl.out("undrain") == "it hands out again\n"
    assert "ready" in ctl.out("status")

    queue.send("m1")
    received = queue.take_one(lease="connection", visibility_timeout=60)
    assert ctl.json("drain")["unsettled"] == 1
    begun = time.monotonic()
    assert "goes on draining" in ctl.fails(75, "drain", "--wait", "300ms")
    assert time.monotonic() - begun > 0.25
    queue.ack(received)
    assert "drained" in ctl.out("drain", "--wait")
    assert ctl.broker.connect().call("status")["draining"] is True


# -- the level of the log


def level(client, **params):
    return check_shape(client.call("log_level", **params), LEVEL)


def test_the_log_level_is_changed_and_taken_back(own):
    broker = own(log={"level": "info"})
    client = broker.connect()
    assert level(client) == {"level": "info", "configured": "info", "for": None}
    answer = level(client, level="debug", **{"for": 1.0})
    assert answer["level"] == "debug" and 0.5 < answer["for"] <= 1
    begun = time.monotonic()
    broker.connect().close()
    wait_until(lambda: broker.logged("conn.closed"), 5, "debug lines are written")
    wait_until(lambda: level(client)["level"] == "info", 5, "it is taken back")
    assert time.monotonic() - begun > 0.9
    assert [(line["from"], line["to"]) for line in broker.logged("log.level")] == [
        ("info", "debug"),
        ("debug", "info"),
    ]
    before = len(broker.logged("conn.closed"))
    stranger = broker.connect()
    stranger.call("ping")
    stranger.close()
    wait_until(lambda: len(client.call("list_connections")) == 1, 5)
    assert len(broker.logged("conn.closed")) == before

    assert level(client, level="error") == {"level": "error", "configured": "info", "for": None}
    wait_for_time(time.monotonic() + 0.1)
    assert level(client)["level"] == "error"


def test_a_bad_level_is_refused_by_name(client):
    for params in ({"level": "loud"}, {"level": 3}, {"level": "debug", "for": 0}, {"for": 5}):
        refusal = client.refused("log_level", params)
        assert refusal.code == "bad_request"
        assert "level" in refusal.message or "for" in refusal.message


def test_coordctl_loglevel(ctl):
    assert ctl.out("loglevel") == "debug\n"
    assert ctl.out("loglevel", "warning") == "warning\n"
    assert ctl.out("loglevel", "debug", "--for", "10m").startswith("debug for 10m")
    assert ctl.json("loglevel")["configured"] == "debug"
    assert "level" in ctl.fails(1, "loglevel", "loud")
