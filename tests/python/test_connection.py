"""Connection: requests, their repetition, deadlines; against real brokers that come and go, and peers that misbehave."""

import asyncio
import re
import signal
import threading
import time
from pathlib import Path

import msgpack
import pytest

from conftest import url_of
from harness import Queue, fresh, within
from peer import SESSION, Peer
from tta_agent_coordination import Connection, CoorddError, RequestTimeout
from tta_agent_coordination import connection as module

ME = {"type": "tester"}
QUICK = {"backoff_min": 0.01, "backoff_max": 0.1}


def message(**more):
    return {"message_id": fresh("m"), "message_type": "request", "payload": {}, **more}


def sending(recipient, **more):
    return {"sender": ME, "recipient": recipient, "message": message(**more)}


def refused(awaited):
    """A coroutine of the CoorddError that another one raises."""

    async def main():
        with pytest.raises(CoorddError) as caught:
            await awaited
        return caught.value

    return main()


async def until(condition, limit=10):
    async with asyncio.timeout(within(limit)):
        while not condition():
            await asyncio.sleep(0.005)


# ---------------------------------------------------------------------------------------------
# Requests


def test_a_request_and_its_answer(run, coordd):
    async def main():
        async with coordd:
            assert not coordd.is_connected and coordd.server is None
            assert await coordd.call("ping") == "pong"
            assert coordd.is_connected and coordd.server == coordd.servers[0]
            assert coordd.session["namespace"] == "default"
            error = await refused(coordd.call("send", sender=ME))
            assert error.code == "bad_request" and not error.retryable
            assert str(error).startswith("bad_request: ")

    run(main())


def test_what_may_be_repeated_is_what_the_broker_says():
    table = (Path(module.__file__).parents[2] / ".." / "src" / "api" / "methods.def").resolve().read_text()
    rows = dict(re.findall(r"^METHOD\((\w+), \w+, ([^,]+),", table, re.MULTILINE))
    assert module.AGAIN == {name for name, flags in rows.items() if "AGAIN" in flags.split(" | ")}
    assert module.SENDS == {name for name, flags in rows.items() if "DEDUP" in flags.split(" | ")}


def test_many_at_once_keep_their_order(run, coordd, queue):
    async def main():
        async with coordd:
            sends = [coordd.call("send", **sending(queue.agent, n=i)) for i in range(500)]
            assert all(each["delivered"] for each in await asyncio.gather(*sends))
            got = await coordd.call("receive_batch", agent=queue.agent, max=500)
            assert [each["queue_message"]["message"]["n"] for each in got] == list(range(500))
            tokens = [each["token"] for each in got]
            assert all(await coordd.call("ack_batch", agent=queue.agent, tokens=tokens))

    run(main())


def test_a_unix_socket(run, broker):
    async def main():
        async with Connection(f"unix://{broker.unix_path}") as coordd:
            assert await coordd.call("ping") == "pong"

    run(main())


@pytest.mark.parametrize("bad", ["", "redis://localhost", "tcp://", "tcp://a:port", "unix://host/path", "localhost:7420"])
def test_an_address_that_is_none_is_refused_at_once(bad):
    with pytest.raises(ValueError):
        Connection([bad])


def test_addresses(monkeypatch):
    several = ["tcp://a:1", "tcp://[::1]:2", "unix:///x"]
    assert Connection("tcp://a:1, tcp://[::1]:2 unix:///x").servers == several
    assert Connection(several).servers == several
    assert module.address_of("tcp://a") == ("a", 7420)
    monkeypatch.setenv("COORDCTL_SERVER", "tcp://b:3")
    assert Connection().servers == ["tcp://b:3"]
    monkeypatch.delenv("COORDCTL_SERVER")
    assert Connection().servers == ["tcp://127.0.0.1:7420"]


def test_what_cannot_be_packed_is_refused_and_harms_nothing(run, coordd, queue):
    async def main():
        async with coordd:
            for bad in (object(), 1 << 70, "\ud800"):
                error = await refused(coordd.call("send", **sending(queue.agent, payload={"bad": bad})))
                assert (error.code, error.applied) == ("bad_request", "no")
            assert await coordd.call("ping") == "pong"

    run(main())


def test_bytes_that_are_no_text_come_back_as_they_went(run):
    """By the lone surrogates that Python has for them."""

    async def main():
        async with Peer(lambda line, msgid, method, params: line.reply(msgid, params["text"])) as peer:
            async with Connection(peer.url) as coordd:
                assert await coordd.call("echo", text="a\udcffb") == "a\udcffb"

    run(main())


def test_a_frame_that_the_broker_would_not_take_is_refused_here(run, coordd, queue):
    async def main():
        async with coordd:
            huge = sending(queue.agent, payload={"text": "x" * (1 << 20)})
            before = asyncio.create_task(refused(coordd.call("send", **huge)))  # the limit is not known yet
            assert await coordd.call("ping") == "pong"
            after = await refused(coordd.call("send", **huge))
            for error in (await before, after):
                assert error.code == "too_large" and not error.retryable
            assert coordd._pending_bytes == 0

    run(main())


def test_what_waits_here_has_a_bound(run, monkeypatch):
    monkeypatch.setattr(module, "MAX_PENDING", 3)

    async def main():
        async with Peer(lambda *asked: None) as peer, Connection(peer.url) as coordd:
            calls = [asyncio.create_task(coordd.call("ping")) for _ in range(3)]
            await asyncio.sleep(0)
            error = await refused(coordd.call("ping"))
            assert (error.code, error.retryable, error.applied) == ("overloaded", True, "no")
            await coordd.close()
            assert {(await refused(call)).code for call in calls} == {"closed"}

    run(main())


def test_numbers_of_requests_begin_anew(run, coordd, queue):
    async def main():
        async with coordd:
            waiting = asyncio.create_task(coordd.call("receive", agent=queue.agent, wait=1))
            await asyncio.sleep(0)
            coordd._orders = iter(range((1 << 32) - 1, 1 << 33))
            for _ in range(4):  # 2**32 - 1, then not 0, then not the one that waits
                assert await coordd.call("ping") == "pong"
            assert await waiting is None

    run(main())


# ---------------------------------------------------------------------------------------------
# Deadlines, and who does not wait any more


def test_a_deadline(run, coordd, queue):
    async def main():
        async with coordd:
            began = time.monotonic()
            with pytest.raises(TimeoutError) as late:
                await coordd.call("receive", agent=queue.agent, wait=30, timeout=0.2)
            assert isinstance(late.value, RequestTimeout)
            assert (late.value.code, late.value.applied) == ("timeout", "unknown")
            assert 0.19 < time.monotonic() - began < within(2)

    run(main())


def test_without_a_broker_the_deadline_tells_why(run):
    async def main():
        async with Connection("tcp://127.0.0.1:1", **QUICK) as coordd:
            error = await refused(coordd.call("ping", timeout=0.2))
            assert (error.code, error.applied, error.retryable) == ("unavailable", "no", True)
            assert "tcp://127.0.0.1:1: Connection refused" in error.message

    run(main())


def test_a_message_that_comes_after_the_deadline_is_handed_back(run, coordd, queue):
    async def main():
        async with coordd:
            for give_up in (True, False):
                call = coordd.call("receive", agent=queue.agent, wait=5, timeout=0.1 if give_up else None)
                waiting = asyncio.create_task(call)
                await asyncio.sleep(0.2)
                waiting.cancel()
                with pytest.raises((RequestTimeout, asyncio.CancelledError)):
                    await waiting
                queue.send(fresh("m"))
                again = await coordd.call("receive", agent=queue.agent, wait=5)
                assert again["queue_message"]["delivery_attempts"] == 0
                assert await coordd.call("ack", agent=queue.agent, token=again["token"])

    run(main())


def test_a_message_that_comes_as_the_call_is_cancelled_is_handed_back(run):
    """Its answer was read, and the caller is cancelled before it runs again."""
    got = {"token": "T"}

    async def main():
        def answer(line, msgid, method, params):
            if method == "receive_batch":
                line.reply(msgid, [got])

        async with Peer(answer) as peer, Connection(peer.url) as coordd:
            call = asyncio.create_task(coordd.call("receive_batch", agent=ME, max=1))
            finish = coordd._finish
            coordd._finish = lambda *answer: (finish(*answer), call.cancel())
            with pytest.raises(asyncio.CancelledError):
                await call
            await until(lambda: peer.asked[-1][1:] == ("release", {"agent": ME, "token": "T"}))

    run(main())


def test_what_is_cancelled_before_it_left_never_leaves(run, coordd, queue):
    async def main():
        async with coordd:
            calls = [coordd.call("send", **sending(queue.agent)), coordd.call("receive", agent=queue.agent, wait=9)]
            calls = [asyncio.create_task(call) for call in calls]
            await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            assert await coordd.call("ping") == "pong"
            assert (await coordd.call("queue_stats", agent=queue.agent))["size"] == 0
            assert not coordd._pending and coordd._pending_bytes == 0

    run(main())


def test_what_is_cancelled_while_the_socket_is_full_never_leaves(run):
    async def main():
        async with Peer(lambda line, msgid, method, params: line.reply(msgid, params["n"])) as peer:
            async with Connection(peer.url) as coordd:
                await coordd.call("ping", n=0)
                peer.lines[0].writer.transport.pause_reading()
                calls = [coordd.call("ping", n=n, text="x" * 500_000) for n in range(20)]
                calls = [asyncio.create_task(call) for call in calls]
                await until(lambda: coordd._wire._is_full)
                late = [asyncio.create_task(coordd.call("ping", n=n)) for n in (20, 21)]
                await asyncio.sleep(0)
                for call in late:
                    call.cancel()
                await asyncio.sleep(0.05)
                peer.lines[0].writer.transport.resume_reading()
                assert await asyncio.gather(*calls) == list(range(20))
                assert [params["n"] for _, _, params in peer.asked] == [0, *range(20)]

    run(main())


# ---------------------------------------------------------------------------------------------
# Repetition


def test_what_was_lost_on_the_way_is_asked_again_in_order(run):
    async def main():
        def answer(line, msgid, method, params):
            if line.number == 0:
                if params.get("n") == 4:
                    line.end()
            elif msgid is not None:
                line.reply(msgid, params.get("n"))

        async with Peer(answer) as peer, Connection(peer.url, **QUICK) as coordd:
            calls = [coordd.call("ack", agent=ME, token="t", n=i) for i in range(5)]
            assert await asyncio.gather(*calls) == [0, 1, 2, 3, 4]
            again = [params["n"] for line, _, params in peer.asked if line == 1]
            assert again == [0, 1, 2, 3, 4]

    run(main())


def test_what_must_not_be_asked_twice_fails_at_once(run):
    async def main():
        async with Peer(lambda line, msgid, method, params: line.end()) as peer, Connection(peer.url, **QUICK) as coordd:
            error = await refused(coordd.call("purge", agent=ME))
            assert (error.code, error.applied, error.retryable) == ("unavailable", "unknown", True)
            assert peer.methods() == ["purge"]
            # What did not leave is asked for all the same.
            waiting = asyncio.create_task(refused(coordd.call("dlq_purge", agent=ME)))
            await until(lambda: "dlq_purge" in peer.methods())
            assert (await waiting).applied == "unknown"

    run(main())


@pytest.mark.parametrize("code", ["overloaded", "unavailable"])
def test_a_refusal_that_changed_nothing_is_asked_again_whatever_it_is(run, code):
    async def main():
        def answer(line, msgid, method, params):
            if len(peer.asked) <= 6:
                line.refuse(msgid, code, True, "no" if code == "unavailable" else None)
            else:
                line.reply(msgid, params["n"])

        async with Peer(answer) as peer, Connection(peer.url, **QUICK) as coordd:
            assert await asyncio.gather(*(coordd.call("purge", n=i) for i in range(3))) == [0, 1, 2]
            order = [params["n"] for _, _, params in peer.asked]
            assert order[:3] == [0, 1, 2] and order == sorted(order[:3]) * (len(order) // 3)

    run(main())


def test_a_send_waits_for_those_that_were_refused_before_it(run):
    async def main():
        def answer(line, msgid, method, params):
            if len(peer.asked) == 1:
                line.refuse(msgid, "unavailable", True, "no")
            else:
                line.reply(msgid, params.get("n"))

        async with Peer(answer) as peer, Connection(peer.url, **QUICK) as coordd:
            coordd._pause = lambda attempts: 0.2
            first = asyncio.create_task(coordd.call("send", n=0))
            await until(lambda: coordd._again)
            assert await asyncio.gather(first, coordd.call("send", n=1), coordd.call("ping")) == [0, 1, None]
            assert [params["n"] for _, method, params in peer.asked if method == "send"] == [0, 0, 1]

    run(main())


def test_an_unknown_outcome_stays_unknown(run):
    """The first attempt may have been applied, whatever the second is told."""

    async def main():
        def answer(line, msgid, method, params):
            applied = "unknown" if len(peer.asked) == 1 else "no"
            line.refuse(msgid, "unavailable", True, applied, "no Redis")

        async with Peer(answer) as peer, Connection(peer.url, **QUICK) as coordd:
            error = await refused(coordd.call("ack", timeout=0.3))
            assert len(peer.asked) > 2
            assert (error.code, error.applied) == ("unavailable", "unknown") and "no Redis" in error.message
            peer.asked.clear()
            error = await refused(coordd.call("purge"))
            assert (error.applied, len(peer.asked)) == ("unknown", 1)

    run(main())


def test_a_send_is_not_repeated_once_the_broker_may_have_forgotten_it(run, monkeypatch):
    monkeypatch.setattr(module, "DEDUP_SAFE", 0.2)

    async def main():
        def answer(line, msgid, method, params):
            if method == "send":
                line.refuse(msgid, "unavailable", True, "unknown")

        async with Peer(answer) as peer, Connection(peer.url, backoff_min=0.05, backoff_max=0.05) as coordd:
            began = time.monotonic()
            error = await refused(coordd.call("send"))
            assert error.applied == "unknown" and time.monotonic() - began < within(5)
            assert len(peer.asked) > 1

    run(main())


def test_a_receive_that_is_asked_again_waits_for_the_rest(run):
    async def main():
        def answer(line, msgid, method, params):
            if line.number == 0:
                asyncio.get_running_loop().call_later(0.3, line.end)
            else:
                line.reply(msgid, None)

        async with Peer(answer) as peer, Connection(peer.url, **QUICK) as coordd:
            assert await coordd.call("receive", agent=ME, wait=5) is None
            first, second = [params["wait"] for _, _, params in peer.asked]
            assert first == 5 and 0 <= second <= 4.75
            assert coordd._pending_bytes == 0

    run(main())


def test_a_broker_that_is_killed_and_comes_back(run, own, monkeypatch):
    monkeypatch.setattr(module, "GOOD_AFTER", 0.01)
    broker = own()
    url = url_of(broker)

    async def main():
        async with Connection(url, **QUICK) as coordd:
            queue = {"type": fresh("q")}
            sent = []

            async def send():
                for _ in range(200):
                    params = sending(queue)
                    assert (await coordd.call("send", **params))["delivered"]
                    sent.append(params["message"]["message_id"])

            senders = [asyncio.create_task(send()) for _ in range(4)]
            for _ in range(2):
                count = len(sent)
                await until(lambda: len(sent) > count + 50)
                broker.kill()
                broker.config["server"]["listen"] = [url]
                await asyncio.to_thread(broker.start)
            await asyncio.gather(*senders)
            got = await coordd.call("receive_batch", agent=queue, max=1000)
            assert sorted(each["queue_message"]["message"]["message_id"] for each in got) == sorted(sent)

    run(main())


def test_redis_is_away_for_a_while(run, make_broker, start_redis):
    redis = start_redis()
    broker = make_broker(redis, expected_errors=["redis", "link"]).start()

    async def main():
        async with Connection(url_of(broker), **QUICK) as coordd:
            queue = {"type": fresh("q")}
            assert (await coordd.call("send", **sending(queue)))["delivered"]
            redis.pause()
            waiting = asyncio.create_task(coordd.call("send", **sending(queue)))
            await asyncio.sleep(0.3)
            redis.resume()
            assert (await waiting)["delivered"]
            assert (await coordd.call("queue_stats", agent=queue))["size"] == 2

    run(main())


# ---------------------------------------------------------------------------------------------
# Several servers


@pytest.fixture
def two(redis, make_broker):
    prefix = fresh("two")
    config = {"redis": {"key_prefix": prefix, "command_timeout": "15s"}}
    return [make_broker(redis, config=config).start() for _ in range(2)]


def test_the_next_server_is_tried_at_once(run, two):
    one, other = two

    async def main():
        # With such a pause between attempts, only those that are not paused for come in time.
        async with Connection(f"{url_of(one)},{url_of(other)}", backoff_min=300, backoff_max=300) as coordd:
            assert await coordd.call("ping") == "pong" and coordd.server == url_of(one)
            one.kill()
            assert await coordd.call("ping") == "pong" and coordd.server == url_of(other)

    run(main(), 20)


def test_a_broker_that_hangs_is_left(run, two):
    one, other = two

    async def main():
        urls = [url_of(one), url_of(other)]
        async with Connection(urls, idle_timeout=within(0.5), connect_timeout=within(1)) as coordd:
            assert await coordd.call("ping") == "pong"
            one.signal(signal.SIGSTOP)
            try:
                began = time.monotonic()
                assert await coordd.call("ping") == "pong"
                assert coordd.server == url_of(other) and time.monotonic() - began < within(5)
            finally:
                one.signal(signal.SIGCONT)

    run(main())


def test_a_broker_that_hangs_does_not_even_greet(run, two):
    one, other = two

    async def main():
        async with Connection([url_of(one), url_of(other)], connect_timeout=within(0.3)) as coordd:
            one.signal(signal.SIGSTOP)
            try:
                assert await coordd.call("ping") == "pong" and coordd.server == url_of(other)
            finally:
                one.signal(signal.SIGCONT)

    run(main())


def test_a_broker_that_is_silent_but_lives_is_not_left(run, url, queue):
    async def main():
        async with Connection(url, idle_timeout=within(0.4)) as coordd:
            waiting = asyncio.create_task(coordd.call("receive", agent=queue.agent, wait=within(1.5)))
            await until(lambda: coordd.is_connected)
            wire = coordd._wire
            assert await waiting is None
            assert coordd._wire is wire
            await asyncio.sleep(within(0.3))  # it owes nothing any more
            assert coordd._wire is wire and not coordd._is_pinged

    run(main())


def test_a_broker_that_drains_is_left_when_nothing_is_held(run, two):
    one, other = two

    async def main():
        async with Connection([url_of(one), url_of(other)], **QUICK) as coordd:
            queue = {"type": fresh("q")}
            await coordd.call("send_batch", sender=ME, messages=[{"recipient": queue, "message": message()}] * 1)
            held = await coordd.call("receive", agent=queue, lease="connection", visibility_timeout=60)
            await coordd.call("drain")
            waiting = asyncio.create_task(coordd.call("receive", agent=queue, wait=20))
            await asyncio.sleep(0.2)
            assert coordd.server == url_of(one)  # what is held ends with the connection
            assert await coordd.call("ack", agent=queue, token=held["token"])
            await until(lambda: coordd.server == url_of(other))
            await coordd.call("send", **sending(queue))
            assert await waiting

            # By a notification, this is acked.
            assert (await coordd.call("status"))["instance_id"] != (await asyncio.to_thread(status, one))["instance_id"]

    run(main())


def status(broker):
    client = broker.connect()
    try:
        return client.call("status")
    finally:
        client.close()
        broker.clients.remove(client)


def test_what_is_unanswered_when_a_broker_is_left_is_awaited_first(run):
    async def main():
        def answer(line, msgid, method, params):
            loop = asyncio.get_running_loop()
            if line.number == 0 and method == "receive":
                line.refuse(msgid, "shutting_down", True)
            elif line.number == 0:
                # What comes after it is not looked at any more.
                answers = msgpack.packb([1, msgid, None, "slow"]) + msgpack.packb("no frame")
                loop.call_later(0.2, line.writer.write, answers)
            else:
                line.reply(msgid, "other")

        async with Peer(answer) as one, Peer(lambda line, msgid, *asked: line.reply(msgid, "other")) as other:
            async with Connection([one.url, other.url], **QUICK) as coordd:
                slow = asyncio.create_task(coordd.call("purge"))
                await asyncio.sleep(0)
                received = await coordd.call("receive", agent=ME)
                assert (await slow, received) == ("slow", "other")
                assert one.methods() == ["purge", "receive"] and other.methods() == ["receive"]

    run(main())


def test_a_broker_that_is_left_is_not_awaited_for_ever(run, monkeypatch):
    monkeypatch.setattr(module, "LEAVE_AFTER", 0.1)

    async def main():
        def answer(line, msgid, method, params):
            if method == "receive":
                line.say([2, "shutting_down", [{}]])

        async with Peer(answer) as one, Peer(lambda line, msgid, *asked: line.reply(msgid, None)) as other:
            async with Connection([one.url, other.url], **QUICK) as coordd:
                assert await coordd.call("receive", agent=ME) is None
                assert coordd.server == other.url

    run(main())


def test_a_settling_that_nobody_answers_lets_a_stopping_broker_be_left(run):
    async def main():
        def answer(line, msgid, method, params):
            if method == "receive":
                line.reply(msgid, {"token": "T"})
                line.say([2, "shutting_down", [{}]])

        async with Peer(answer) as one, Peer(lambda line, msgid, *asked: line.reply(msgid, None)) as other:
            async with Connection([one.url, other.url], **QUICK) as coordd:
                await coordd.call("receive", agent=ME, lease="connection")
                await asyncio.sleep(0.05)
                assert coordd.server == one.url
                coordd.notify("ack", agent=ME, token="T")
                await until(lambda: not coordd.is_connected)
                await coordd.call("ping")
                assert coordd.server == other.url and one.methods() == ["receive", "ack"]

    run(main())


# ---------------------------------------------------------------------------------------------
# Greetings


def test_a_token_that_is_refused_is_told_and_not_tried_on(run):
    async def main():
        def greeting(line, msgid):
            line.refuse(msgid, "unauthenticated", message="who are you?")

        async with Peer(None, greeting) as peer, Connection(peer.url, token="secret") as coordd:
            watch = coordd.watch("agent")
            error = await refused(coordd.call("ping"))
            assert error.code == "unauthenticated" and "who are you?" in error.message
            assert (await refused(watch.__anext__())).code == "unauthenticated"
            await asyncio.sleep(0.1)
            assert len(peer.lines) == 1

    run(main())


def test_a_broker_that_refuses_for_now_is_tried_again(run):
    async def main():
        def greeting(line, msgid):
            if line.number < 2:
                line.refuse(msgid, "overloaded", True)
            else:
                line.reply(msgid, SESSION)

        async with Peer(lambda line, msgid, *asked: line.reply(msgid, 1), greeting) as peer:
            async with Connection(peer.url, **QUICK) as coordd:
                assert await coordd.call("ping") == 1

    run(main())


@pytest.mark.parametrize(
    "saying",
    [
        lambda line, msgid: line.end(),
        lambda line, msgid: line.writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        lambda line, msgid: line.reply(msgid, "hello"),
        lambda line, msgid: line.reply(msgid, {"limits": {}}),
    ],
)
def test_what_is_no_broker_is_not_taken_for_one(run, saying):
    async def main():
        async with Peer(None, saying) as peer, Connection(peer.url, **QUICK, connect_timeout=1) as coordd:
            error = await refused(coordd.call("ping", timeout=0.3))
            assert (error.code, error.applied) == ("unavailable", "no"), error
            assert peer.url in error.message

    run(main())


def test_a_name_that_does_not_exist(run):
    async def main():
        async with Connection("tcp://no-such-host.invalid:7420", **QUICK) as coordd:
            error = await refused(coordd.call("ping", timeout=within(3)))
            assert error.code == "unavailable" and "no-such-host" in error.message

    run(main())


# ---------------------------------------------------------------------------------------------
# Peers that misbehave


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1",
        msgpack.packb(7),
        msgpack.packb([]),
        msgpack.packb([9, 1, None, None]),
        msgpack.packb([1, 1]),
        msgpack.packb([2, "message", [{}]]),
        msgpack.packb([2, "event", []]),
        b"\xdb\x7f\xff\xff\xff" + bytes((17 << 20) + 1),  # a text of 2 GiB, and so much of it
        b"\xdd\x7f\xff\xff\xff",  # an array of as many
    ],
    ids=lambda data: data[:5].hex(),
)
def test_what_is_no_protocol_ends_the_connection(run, data):
    async def main():
        def answer(line, msgid, method, params):
            if line.number == 0:
                line.writer.write(data)
            else:
                line.reply(msgid, "well")

        async with Peer(answer) as peer, Connection(peer.url, **QUICK, idle_timeout=within(0.5)) as coordd:
            assert await coordd.call("ping") == "well"
            assert len(peer.lines) == 2

    run(main())


def test_what_nobody_asked_for_is_ignored(run):
    async def main():
        def answer(line, msgid, method, params):
            line.reply(4711, "what?")
            line.say([2, "news", ["of", "the", "day"]])
            line.say([2, "event", [{"watch_id": "nobody's"}]])
            line.say([1, msgid, "no map", None])

        async with Peer(answer) as peer, Connection(peer.url) as coordd:
            error = await refused(coordd.call("ping"))
            assert error.code == "internal" and "no map" in error.message
            assert len(peer.lines) == 1

    run(main())


def test_a_request_that_the_broker_hangs_up_on_fails_alone(run, coordd, queue):
    """A payload nested too deep ends the connection, and with it the neighbours' requests, which are asked again."""
    deep = {}
    for _ in range(40):
        deep = {"d": deep}

    async def main():
        async with coordd:
            for connected in (False, True):
                calls = [coordd.call("send", **sending(queue.agent, n=i)) for i in range(9)]
                calls.insert(5, refused(coordd.call("send", **sending(queue.agent, payload=deep))))
                calls.append(coordd.call("receive", agent=queue.agent, wait=5))
                *sent, got = await asyncio.gather(*calls)
                assert sent.pop(5).code == "protocol_error"
                assert all(each["delivered"] for each in sent) and got
                await coordd.call("purge", agent=queue.agent)
            error = await refused(coordd.call("send", **sending(queue.agent, payload=deep)))
            assert error.code == "protocol_error"
            assert await coordd.call("ping") == "pong"

    run(main())


def test_a_broker_that_hangs_up_on_no_request(run):
    """It was answered: what the broker then takes offence at is something else."""

    async def main():
        def answer(line, msgid, method, params):
            if line.number == 0:
                if len(peer.asked) == 2:
                    line.refuse(0, "protocol_error")
            elif line.number == 1 and method == "ping":
                line.refuse(0, "protocol_error")
            else:
                line.reply(msgid, params.get("n"))

        async with Peer(answer) as peer, Connection(peer.url, **QUICK) as coordd:
            assert await asyncio.gather(*(coordd.call("ack", n=n) for n in (1, 2))) == [1, 2]
            assert peer.methods(1) == ["ack", "ping"] and peer.methods(2) == ["ack", "ping"]

    run(main())


# ---------------------------------------------------------------------------------------------
# Notifications, loops, namespaces, the end


def test_a_notification_leaves_in_its_place(run, coordd, queue):
    async def main():
        async with coordd:
            for connected in (False, True):
                coordd.notify("send", **sending(queue.agent, n=1))
                assert (await coordd.call("send", **sending(queue.agent, n=2)))["delivered"]
                got = await coordd.call("receive_batch", agent=queue.agent, max=10)
                assert [each["queue_message"]["message"]["n"] for each in got] == [1, 2]
                for each in got:
                    coordd.notify("ack", agent=queue.agent, token=each["token"])
                assert not coordd._pending
            await coordd.call("ping")
            assert (await coordd.call("queue_stats", agent=queue.agent))["size"] == 0

    run(main())


def test_a_notification_that_finds_no_broker_in_time_is_dropped(run):
    async def main():
        async with Connection("tcp://127.0.0.1:1", **QUICK, request_timeout=0.1) as coordd:
            coordd.notify("heartbeat", agent=ME)
            await until(lambda: not coordd._pending)

    run(main())


def test_a_socket_that_takes_no_more(run, coordd, queue):
    """Much more than a socket's buffers hold: what does not fit waits here, and leaves later."""

    async def main():
        async with coordd:
            big = {"text": "x" * 100_000}
            calls = [coordd.call("send", **sending(queue.agent, payload=big)) for _ in range(200)]
            assert all(each["delivered"] for each in await asyncio.gather(*calls))
            await coordd.call("purge", agent=queue.agent)

    run(main())


def test_one_loop_after_the_other(run, url):
    coordd = Connection(url)

    async def ask():
        return await coordd.call("ping")

    for _ in range(3):
        assert run(ask()) == "pong"
    run(coordd.close())
    with pytest.raises(CoorddError, match="closed"):
        run(ask())


def test_what_a_closed_loop_left_is_forgotten(url, queue):
    coordd = Connection(url)

    async def leave():
        watch = coordd.watch("agent")
        await watch.started()
        asyncio.create_task(coordd.call("receive", agent=queue.agent, wait=60))
        await asyncio.sleep(0.05)

    async def ask():
        answer = await coordd.call("ping")
        assert not coordd._pending and not coordd._streams
        return answer

    asyncio.run(leave())
    assert asyncio.run(ask()) == "pong"
    asyncio.run(coordd.close())


def test_another_loop_is_told_so(run, coordd):
    errors = []

    async def main():
        async with coordd:
            await coordd.call("ping")

            def elsewhere():
                for use in (lambda: asyncio.run(coordd.call("ping")), lambda: coordd.notify("ping")):
                    try:
                        use()
                    except RuntimeError as error:
                        errors.append(str(error))

            thread = threading.Thread(target=elsewhere)
            thread.start()
            await asyncio.to_thread(thread.join)

    run(main())
    assert "another event loop" in errors[0] and "no running event loop" in errors[1]


def test_a_namespace_is_a_world_of_its_own(run, coordd, queue):
    async def main():
        async with coordd:
            there = coordd.in_namespace(fresh("ns"))
            assert coordd.in_namespace(there.namespace) is there and there.in_namespace(None) is coordd
            assert (await coordd.call("send", **sending(queue.agent)))["delivered"]
            assert (await there.call("queue_stats", agent=queue.agent))["size"] == 0
            assert there.session["namespace"] == there.namespace
            await there.close()
            await there.close()
            other = coordd.in_namespace(there.namespace)
            assert other is not there and await other.call("ping") == "pong"
            await coordd.call("purge", agent=queue.agent)
        assert not other.is_connected
        assert (await refused(other.call("ping"))).code == "closed"

    run(main())


def test_the_end_fails_what_waits(run, coordd, queue):
    async def main():
        watch = coordd.watch()
        consumer = await coordd.consume(queue.agent, 1)
        waiting = asyncio.create_task(refused(coordd.call("receive", agent=queue.agent, wait=60)))
        await asyncio.sleep(0.05)
        await coordd.close()
        await coordd.close()
        assert (await waiting).code == "closed"
        assert [each async for each in watch] == [] and [each async for each in consumer] == []
        assert (await refused(coordd.call("ping"))).code == "closed"
        with pytest.raises(CoorddError):
            coordd.watch()

    run(main())


def test_closed_while_it_connects(run):
    async def main():
        async with Peer(None, lambda line, msgid: None) as peer:
            coordd = Connection(peer.url)
            waiting = asyncio.create_task(refused(coordd.call("ping")))
            await until(lambda: peer.lines)
            await coordd.close()
            assert (await waiting).code == "closed"

    run(main())


def test_each_new_connection_is_told(run):
    told = []

    async def main():
        async with Peer(lambda line, msgid, *asked: line.end() if line.number == 0 else line.reply(msgid, 1)) as peer:
            async with Connection(peer.url, **QUICK) as coordd:
                end = coordd.on_connect(lambda: told.append("first"))
                assert await coordd.call("ping") == 1
                assert told == ["first", "first"]
                coordd.on_connect(lambda: told.append("second"))  # there is one already
                await asyncio.sleep(0)
                assert told[2:] == ["second"]
                end()
                end()
                peer.lines[-1].end()
                await until(lambda: told[3:] == ["second"])

    run(main())
