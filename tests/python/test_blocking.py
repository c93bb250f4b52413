"""The facade for programs without asyncio."""

import asyncio
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from harness import fresh, within
from tta_agent_coordination import AgentId, AgentMessage, CoorddError, MessageType
from tta_agent_coordination.blocking import Client


@pytest.fixture
def coordd(url):
    with Client(url, name="blocking") as client:
        yield client


def message():
    return {"message_id": fresh("m"), "message_type": "request", "payload": {"n": 1}}


def test_calls_wait(coordd, queue):
    sending = {"sender": {"type": "me"}, "recipient": queue.agent, "message": message()}
    assert coordd.call("send", **sending)["delivered"]
    got = coordd.call("receive", agent=queue.agent)
    coordd.notify("ack", agent=queue.agent, token=got["token"])
    assert coordd.call("ping", timeout=5) == "pong"
    assert coordd.call("queue_stats", agent=queue.agent)["size"] == 0
    with pytest.raises(CoorddError, match="bad_request"):
        coordd.call("send")


def test_from_several_threads(coordd):
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(coordd.call("ping"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["pong"] * 8


def test_deliveries(coordd, queue):
    queue.send_all([fresh("m") for _ in range(3)])
    with coordd.consume(queue.agent, 2) as consumer:
        seen = []
        for delivery in consumer:
            assert delivery.payload == delivery.message["payload"] and delivery.attempts == 0 and not delivery.is_lost
            seen.append(delivery.token)
            assert delivery.extend(30)
            assert delivery.ack()
            if len(seen) == 3:
                break
        with pytest.raises(TimeoutError):
            consumer.next(timeout=0.05)
    assert list(consumer) == []
    with pytest.raises(StopAsyncIteration):
        consumer.next()
    assert queue.stats()["size"] == 0


def test_events(coordd, client):
    name = fresh("agent")
    with coordd.watch("agent") as events:
        client.call("register", agent={"type": name})
        assert next(events)["agent_id"]["type"] == name


def test_agents_ask_each_other(coordd, url):
    name = fresh("agent")
    with coordd.agent(name, "asker") as asker, Client(url) as other, other.agent(name, "server") as server:
        assert asker.id == {"type": name, "instance": "asker"} and asker.incarnation > 0

        def serve():
            with other.consume(server.id, 1) as consumer:
                delivery = next(consumer)
                server.reply(delivery._target, {"n": delivery.payload["n"] + 1})
                delivery.ack()

        thread = threading.Thread(target=serve)
        thread.start()
        assert asker.request(server.id, {"n": 1}, timeout=within(10)) == {"n": 2}
        thread.join()
        assert asker.send(server.id, {})["delivered"]
        coordd.call("purge", agent=server.id)


def test_the_replaced_packages_coordinator(coordd):
    coordinator = coordd.coordinator(key_prefix=fresh("ns"))
    sender, recipient = AgentId(type="a"), AgentId(type="b", instance="1")
    text = AgentMessage(
        message_id="m", sender=sender, recipient=recipient, message_type=MessageType.EVENT, payload={"n": 1}
    )
    assert coordinator.send_message(sender, recipient, text).delivered
    received = coordinator.receive(recipient)
    assert received.queue_message.message.payload == {"n": 1}
    assert coordinator.ack(recipient, received.token)


def test_closed(url):
    coordd = Client(url)
    assert coordd.call("ping") == "pong"
    thread = coordd._thread
    events = coordd.watch("agent")
    coordd.close()
    coordd.close()
    assert not thread.is_alive()
    with pytest.raises(RuntimeError, match="closed"):
        coordd.call("ping")
    with pytest.raises(RuntimeError, match="closed"):
        next(events)


def test_tasks_that_are_left_end_with_it(url):
    coordd = Client(url)
    agent = coordd.agent(fresh("agent"))
    assert agent.incarnation
    left = []
    coordd.do(lambda: left.append(asyncio.ensure_future(asyncio.sleep(600))))
    coordd.close()
    assert not coordd._thread.is_alive() and left[0].cancelled()


def test_its_own_thread_must_not_wait(coordd):
    with pytest.raises(RuntimeError, match="own thread"):
        coordd.do(lambda: coordd.call("ping"))


PROGRAM = """
    import signal, sys, threading
    from tta_agent_coordination.blocking import Client

    signal.signal(signal.SIGINT, signal.default_int_handler)
    coordd = Client(sys.argv[1])
    print(coordd.call("ping"), flush=True)
    try:
        coordd.call("receive", agent={"type": sys.argv[2]}, wait=60)
    except KeyboardInterrupt:
        coordd.call("ping")
        print("interrupted", len(coordd.connection._pending), flush=True)
    # It is not closed: that is done when the program ends.
"""


def test_an_interrupt_cancels_what_waits(url):
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), url, fresh("q")]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert program.stdout.readline() == "pong\n"
        time.sleep(0.3)
        program.send_signal(2)
        out, err = program.communicate(timeout=within(20))
        # The receive is still known, so that what it would get is handed back.
        assert (out, err, program.returncode) == ("interrupted 1\n", "", 0)
    finally:
        program.kill()
        program.wait()
