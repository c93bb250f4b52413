"""Consumers, deliveries and watches."""

import asyncio

import pytest

from conftest import url_of
from harness import Queue, fresh, within
from peer import Peer
from test_connection import QUICK, refused, sending, two, until  # noqa: F401
from tta_agent_coordination import Connection, CoorddError
from tta_agent_coordination import events as module

ME = {"type": "tester"}


async def take(stream, count, limit=15):
    async with asyncio.timeout(within(limit)):
        return [await stream.__anext__() for _ in range(count)]


# ---------------------------------------------------------------------------------------------
# Consumers


def test_messages_come_in_order_and_never_more_than_wanted(run, coordd, queue):
    async def main():
        async with coordd:
            ids = queue.send_all([fresh("m") for _ in range(20)])
            async with await coordd.consume(queue.agent, 5, lease="timeout", visibility_timeout=30) as consumer:
                await until(lambda: queue.stats()["reserved"] == 5)
                seen = []
                async for delivery in consumer:
                    assert delivery.message["message_id"] in str(delivery)
                    assert delivery.attempts == 0 and delivery.fence > 0 and delivery.visibility_deadline
                    assert delivery.payload == delivery.message["payload"]
                    seen.append(delivery.message["message_id"])
                    assert await delivery.ack() and not await delivery.ack()
                    if len(seen) == 20:
                        break
                assert seen == ids
            assert queue.stats()["size"] == 0 and queue.stats()["consumers"] == 0

    run(main())


def test_each_way_to_settle(run, coordd, queue):
    async def main():
        async with coordd:
            queue.configure(retry_attempts=10)
            queue.send("m")
            async with await coordd.consume(queue.agent, 1) as consumer:
                (first,) = await take(consumer, 1)
                assert await first.nack(error="é" * 1000, delay=0)
                (second,) = await take(consumer, 1)
                assert second.attempts == 1 and second.queue_message["last_error"] == "é" * 512
                assert await second.release()
                (third,) = await take(consumer, 1)
                assert third.attempts == 1
                assert await third.extend(600) > third.visibility_deadline
                assert await third.nack("permanent")
                assert await third.extend(600) is None
            assert queue.stats()["dead"] == 1

    run(main())


def test_a_cancelled_consumer_hands_back_what_it_holds(run, coordd, queue):
    async def main():
        async with coordd:
            queue.send_all([fresh("m") for _ in range(4)])
            consumer = await coordd.consume(queue.agent, 3)
            await take(consumer, 1)
            await consumer.cancel()
            await consumer.cancel()
            assert [each async for each in consumer] == []
            assert queue.stats()["ready"]["5"] == 4
            assert all(each.attempts == 0 for each in queue.take(4))

    run(main())


def test_what_the_broker_refuses_ends_a_consumer(run, coordd, queue):
    async def main():
        async with coordd:
            assert (await refused(coordd.consume(queue.agent, 0))).code == "bad_request"
            assert (await refused(coordd.consume(queue.agent, 1, lease="heartbeat", holder=ME))).code == "not_found"
            assert not coordd._streams

    run(main())


def test_only_one_may_read(run, coordd, queue):
    async def main():
        async with coordd, await coordd.consume(queue.agent, 1) as consumer:
            first = asyncio.create_task(consumer.__anext__())
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="another task"):
                await consumer.__anext__()
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            queue.send("m")
            assert await take(consumer, 1)

    run(main())


@pytest.mark.parametrize("lease", ["connection", "timeout"])
def test_a_consumer_goes_on_over_a_new_connection(run, two, lease):  # noqa: F811
    one, other = two
    agent = {"type": fresh("q")}

    async def main():
        async with Connection([url_of(one), url_of(other)], name="me", **QUICK) as coordd:
            consumer = await coordd.consume(agent, 3, lease=lease)
            for n in range(4):
                await coordd.call("send", **sending(agent, n=n))
            first, second = await take(consumer, 2)
            await until(lambda: consumer._items)  # one is here that nobody has looked at
            assert await first.ack()
            operator = one.connect()
            (mine,) = [each["id"] for each in operator.call("list_connections") if each["client"] == "me"]
            operator.call("close_connection", id=mine)
            if lease == "connection":
                await until(lambda: second.is_lost)
                assert not await second.ack()
                rest = await take(consumer, 3)
                assert sorted(each.message["n"] for each in rest) == [1, 2, 3]
            else:
                rest = await take(consumer, 2)
                assert [each.message["n"] for each in rest] == [2, 3]
                assert not second.is_lost and await second.ack()
            for each in rest:
                assert await each.ack()
            await consumer.cancel()
            assert (await coordd.call("queue_stats", agent=agent))["size"] == 0

    run(main())


def test_settled_deliveries_are_not_remembered_for_ever(run, coordd, queue):
    async def main():
        async with coordd, await coordd.consume(queue.agent, 2) as consumer:
            queue.send_all([fresh("m") for _ in range(20)])
            for _ in range(20):
                (delivery,) = await take(consumer, 1)
                assert await delivery.ack()
            assert len(consumer._out) <= 4 and not coordd._held

    run(main())


def test_a_broker_that_sends_more_than_was_asked_for_is_not_believed(run):
    async def main():
        def answer(line, msgid, method, params):
            line.reply(msgid, {"consumer_id": "C"})
            if line.number == 0:
                for token in "ab":
                    delivery = {"token": token, "queue_message": {}, "visibility_deadline": None, "fence": 1}
                    line.say([2, "message", [{"consumer_id": "C", **delivery}]])

        async with Peer(answer) as peer, Connection(peer.url, **QUICK) as coordd:
            await coordd.consume(ME, 1)
            await until(lambda: peer.methods() == ["consume", "consume"])

    run(main())


def test_a_consumer_that_ends_before_it_was_answered_is_ended_when_it_is(run):
    async def main():
        held = []

        def answer(line, msgid, method, params):
            if method == "consume":
                held.append((line, msgid))
            else:
                line.reply(msgid, True)

        async with Peer(answer) as peer, Connection(peer.url, **QUICK) as coordd:
            for is_refused in (False, True):
                waiting = asyncio.create_task(coordd.consume(ME, 1))
                await until(lambda: held)
                stream = next(iter(coordd._streams))
                await stream.cancel()
                assert (await refused(waiting)).code == "closed"
                line, msgid = held.pop()
                if is_refused:
                    line.refuse(msgid, "bad_request")
                else:
                    line.reply(msgid, {"consumer_id": "C"})
                await coordd.call("ping")
            await until(lambda: ("cancel", {"consumer_id": "C"}) in [each[1:] for each in peer.asked])

    run(main())


# ---------------------------------------------------------------------------------------------
# Watches


def test_events_from_now_on(run, coordd, client):
    name = fresh("agent")

    async def main():
        async with coordd, coordd.watch("agent") as watch:
            client.call("register", agent={"type": name})
            (event,) = await take(watch, 1)
            assert (event["event"], event["agent_id"]["type"]) == ("agent_registered", name)
            assert "watch_id" not in event
            await watch.close()
            assert [each async for each in watch] == []
            client.call("deregister", agent={"type": name})
            await coordd.call("ping")

    run(main())


def test_events_of_all_classes(run, coordd, client, queue):
    async def main():
        async with coordd, coordd.watch() as watch:
            client.call("pause_queue", agent=queue.agent)
            client.call("breaker_trip", name=client.call("breaker_configure", name=fresh("b"), config={})["name"])
            client.call("register", agent=queue.agent)
            seen = {event["event"] for event in await take(watch, 3)}
            assert seen == {"queue_paused", "breaker_opened", "agent_registered"}
            client.call("resume_queue", agent=queue.agent)

    run(main())


def test_a_gap_is_told(run, two):  # noqa: F811
    one, other = two

    async def main():
        async with Connection([url_of(one), url_of(other)], **QUICK) as coordd, coordd.watch("agent") as watch:
            await coordd.call("register", agent=ME)
            await take(watch, 1)
            one.kill()
            (gap,) = await take(watch, 1)
            assert gap == {"event": "lost", "count": None}
            await until(lambda: watch._id)
            await coordd.call("deregister", agent=ME)
            (event,) = await take(watch, 1)
            assert event["event"] == "agent_deregistered"

    run(main())


def test_a_watch_that_the_broker_refuses(run, coordd):
    async def main():
        async with coordd:
            watch = coordd.watch("nothing")
            with pytest.raises(CoorddError):
                await watch.started()
            with pytest.raises(CoorddError):
                await watch.__anext__()

    run(main())


def test_events_that_nobody_reads_have_a_bound(run, monkeypatch):
    monkeypatch.setattr(module, "MAX_EVENTS", 3)

    async def main():
        def answer(line, msgid, method, params):
            if method == "watch":
                line.reply(msgid, {"watch_id": "W"})
                for event in ("a", "b", "c", "d", "e"):
                    line.say([2, "event", [{"watch_id": "W", "event": event}]])
                line.say([2, "event", [{"watch_id": "W", "event": "lost", "count": 7}]])
            else:
                line.reply(msgid, True)

        async with Peer(answer) as peer, Connection(peer.url) as coordd, coordd.watch() as watch:
            await coordd.call("ping")
            events = await take(watch, 4)
            assert [event["event"] for event in events] == ["a", "b", "c", "lost"]
            assert events[-1]["count"] == 9

    run(main())
