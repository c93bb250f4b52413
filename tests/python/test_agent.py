"""Agents: alive, at work, asking each other, and coming to a graceful end."""

import asyncio
import logging
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from conftest import url_of
from harness import Queue, fresh, wait_until, within
from peer import Peer
from test_connection import QUICK, refused, sending, until
from tta_agent_coordination import (
    Agent,
    AgentId,
    Connection,
    Permanent,
    Release,
    RequestTimeout,
    Retry,
    StaleAgent,
)
from tta_agent_coordination.agent import agent_id
from tta_agent_coordination.errors import Settle


@pytest.fixture
def name():
    return fresh("agent")


@pytest.fixture
def jobs(client, name):
    return Queue(client, {"type": name, "instance": "jobs"})


# ---------------------------------------------------------------------------------------------
# Alive


def test_it_is_registered_with_all_it_says_and_deregistered(run, coordd, name, client):
    async def main():
        async with coordd:
            said = {"name": "Añita", "ttl": 20, "capabilities": ["a"], "metadata": {"v": 1}, "status": "idle"}
            async with Agent(coordd, name, "i", state={"n": 1}, **said) as agent:
                assert str(agent) == f"{name}:i"
                info = client.call("get_agent", agent=agent.id)
                assert info["alive"] and info["incarnation"] == agent.incarnation
                assert {key: info[key] for key in said} == said
                agent.start()  # again
                agent.set_status("busy")
                agent.set_state({"n": 2})
                await until(lambda: client.call("get_agent", agent=agent.id)["status"] == "busy")
            assert client.call("get_agent", agent=agent.id) is None
            async with agent:  # once more
                assert agent.restored == {"n": 2}
            await agent.stop()
            assert await coordd.call("ping") == "pong"

    run(main())


def test_it_beats(run, url, name, client):
    async def main():
        async with Agent(url, name, ttl=within(0.6)) as agent:
            first = agent.incarnation
            await asyncio.sleep(within(1.5))
            info = client.call("get_agent", agent=agent.id)
            assert info["alive"] and info["incarnation"] == first == agent.incarnation

    run(main())


def test_a_namespace_of_its_own(run, coordd, url, name, client):
    async def main():
        async with coordd:
            there = fresh("ns")
            async with Agent(coordd, name, key_prefix=there) as one, Agent(url, name, "2", namespace=there):
                assert len(await coordd.in_namespace(there).call("list_registered")) == 2
                assert one.connection is coordd.in_namespace(there)
                assert client.call("get_agent", agent=one.id) is None

    run(main())


def test_one_that_was_forgotten_registers_anew_and_tells_its_work_is_lost(run, coordd, name, client, jobs):
    changes = []

    async def main():
        async with coordd:
            agent = Agent(coordd, name, ttl=within(0.9), state="kept", status="s")
            agent.on_change(lambda what, detail: changes.append(what))
            lost = asyncio.Event()
            seen = []

            @agent.consume(jobs.agent, concurrency=2)
            async def work(delivery):
                seen.append(delivery)
                if len(seen) == 1:
                    try:
                        await asyncio.sleep(60)
                    except asyncio.CancelledError:
                        lost.set()
                        raise

            async with agent:
                jobs.send("m")
                await until(lambda: seen)
                client.call("deregister", agent=agent.id)
                async with asyncio.timeout(within(10)):
                    await lost.wait()
                assert seen[0].is_lost
                await until(lambda: jobs.stats()["size"] == 0)
                assert len(seen) == 2 and changes == ["registered", "registered"]
                assert client.call("get_agent", agent=agent.id)["status"] == "s"

    run(main())


def test_one_whose_name_was_taken_ends_and_does_not_fight(run, coordd, name, client, jobs):
    changes = []

    async def main():
        async with coordd:
            agent = Agent(coordd, name, ttl=within(0.9))
            agent.on_change(lambda what, detail: changes.append(what))

            @agent.consume(jobs.agent)
            async def work(delivery):
                await asyncio.sleep(60)

            running = asyncio.create_task(agent.run())
            jobs.send("m")
            await until(lambda: jobs.stats()["reserved"])
            incarnation = client.call("register", agent=agent.id, ttl=300)["incarnation"]
            with pytest.raises(StaleAgent, match="another process"):
                await running
            assert changes == ["registered", "superseded"]
            assert client.call("get_agent", agent=agent.id)["incarnation"] == incarnation
            await until(lambda: jobs.stats()["ready"]["5"] == 1)

    run(main())


def test_what_the_broker_refuses_ends_it(run, coordd, name):
    async def main():
        async with coordd:
            errors = []
            for bad in (Agent(coordd, name, ttl=-1), Agent(coordd, "\n")):
                bad.on_change(lambda what, detail: errors.append(detail.code))
                assert (await refused(bad.__aenter__())).code == "bad_request"
            assert errors == ["bad_request"] * 2
            agent = Agent(coordd, name)
            agent.consume(concurrency=0)(None)
            assert (await refused(agent.run())).code == "bad_request"

    run(main())


def test_it_is_registered_when_a_broker_comes(run, name):
    """What fails for now is told as an error, and it goes on."""

    async def main():
        errors = []

        def answer(line, msgid, method, params):
            if method == "register":
                line.reply(msgid, {"incarnation": 1, "state": None, "ttl": 30, "heartbeat_interval": 10})
            else:
                line.reply(msgid, True)

        async with Peer(answer) as peer:
            async with Connection("tcp://127.0.0.1:1", request_timeout=0.1, **QUICK) as coordd:
                agent = Agent(coordd, name)
                agent.on_change(lambda what, detail: errors.append((what, detail)))
                agent.start()
                await until(lambda: errors)
                assert errors[0][0] == "error" and errors[0][1].retryable
                coordd.servers[0] = peer.url
                await agent.ready()
                await agent.stop()

    run(main())


def test_it_goes_on_over_a_restart_and_keeps_what_it_works_on(run, own, name):
    broker = own()
    url = url_of(broker)

    async def main():
        agent = Agent(Connection(url, **QUICK), name, ttl=300)
        done = asyncio.Event()
        seen = []

        @agent.consume(concurrency=2)
        async def work(delivery):
            seen.append(delivery.payload["n"])
            if delivery.payload["n"] == 1:
                await done.wait()

        async with agent.connection, agent:
            first = agent.incarnation
            await agent.send(agent.id, {"n": 1})
            await until(lambda: seen)
            broker.kill()
            broker.config["server"]["listen"] = [url]
            await asyncio.to_thread(broker.start)
            await agent.send(agent.id, {"n": 2})
            await until(lambda: len(seen) == 2)
            done.set()
            await until(lambda: not agent._lines[0].working)
            stats = await agent.connection.call("queue_stats", agent=agent.id)
            assert (stats["size"], stats["dead"], seen, agent.incarnation) == (0, 0, [1, 2], first)

    run(main())


def test_leases_are_feared_to_be_lost_when_it_does_not_get_through_for_its_ttl(run, own, name):
    broker = own()
    url = url_of(broker)

    async def main():
        agent = Agent(Connection(url, **QUICK, idle_timeout=60), name, ttl=within(1))
        seen = []
        lost = []

        @agent.consume(concurrency=2)
        async def work(delivery):
            seen.append(delivery)
            if len(seen) <= 2:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    lost.append(delivery)
                    raise

        async with agent.connection, agent:
            first = agent.incarnation
            for n in (1, 2):
                await agent.send(agent.id, {"n": n})
            await until(lambda: len(seen) == 2)
            broker.signal(signal.SIGSTOP)
            await until(lambda: len(lost) == 2)
            broker.signal(signal.SIGCONT)
            await until(lambda: len(seen) == 4)
            await until(lambda: not agent._lines[0].working)
            assert agent.incarnation == first
            assert (await agent.connection.call("queue_stats", agent=agent.id))["size"] == 0

    run(main())


# ---------------------------------------------------------------------------------------------
# At work


def dead_letters(queue):
    return queue.client.call("dlq_list", agent=queue.agent)["dead"]


@pytest.mark.parametrize(
    "error, attempts, reason, last_error",
    [
        (ValueError("not today"), 3, "attempts", "ValueError: not today"),
        (Retry("later", delay=0), 3, "attempts", "later"),
        (Retry(delay=0), 3, "attempts", "Retry: "),
        (TimeoutError("slow"), 3, "attempts", "TimeoutError: slow"),
        (asyncio.CancelledError(), 3, "attempts", "RuntimeError: the handler cancelled itself"),
        (Permanent("never"), 1, "permanent", "never"),
        (ValueError("é" * 2000), 3, "attempts", "ValueError: " + "é" * 506),
    ],
)
def test_an_exception_is_a_failed_delivery(run, coordd, name, jobs, caplog, error, attempts, reason, last_error):
    jobs.configure(retry_attempts=2, backoff_base=0.05)
    seen = []

    async def main():
        async with coordd:
            agent = Agent(coordd, name)

            @agent.consume(jobs.agent)
            async def work(delivery):
                seen.append(delivery.attempts)
                raise error

            async with agent:
                jobs.send("m")
                await until(lambda: dead_letters(jobs))

    with caplog.at_level(logging.INFO, "tta_agent_coordination"):
        run(main())
    (dead,) = dead_letters(jobs)
    assert seen == list(range(attempts))
    assert (dead["reason"], dead["queue_message"]["last_error"]) == (reason, last_error)
    assert "the handler of message m" in caplog.text
    # What was said on purpose needs no traceback.
    assert bool([record for record in caplog.records if record.exc_info]) is not isinstance(error, Settle)


def test_release_hands_back_without_counting(run, coordd, name, jobs):
    seen = []

    async def main():
        async with coordd:
            agent = Agent(coordd, name)

            @agent.consume(jobs.agent)
            async def work(delivery):
                seen.append(delivery.attempts)
                if len(seen) < 3:
                    raise Release(0.05 if len(seen) == 1 else None)

            async with agent:
                jobs.send("m")
                await until(lambda: jobs.stats()["size"] == 0)

    run(main())
    assert seen == [0, 0, 0]


def test_a_handler_may_settle_by_itself(run, coordd, name, jobs):
    async def main():
        async with coordd:
            agent = Agent(coordd, name)

            @agent.consume(jobs.agent)
            async def work(delivery):
                await delivery.nack("permanent", "by itself")

            async with agent:
                jobs.send("m")
                await until(lambda: dead_letters(jobs))

    run(main())


@pytest.mark.parametrize("lease", ["heartbeat", "timeout", "connection"])
def test_never_more_at_once_than_wanted(run, coordd, name, jobs, lease):
    at_once, most, seen = 0, 0, []

    async def main():
        async with coordd:
            agent = Agent(coordd, name)
            jobs.send_all([fresh("m") for _ in range(60)])

            async with agent:

                @agent.consume(jobs.agent, concurrency=4, lease=lease)
                async def work(delivery):
                    nonlocal at_once, most
                    at_once += 1
                    most = max(most, at_once)
                    await asyncio.sleep(0.01)
                    seen.append(delivery.message["message_id"])
                    at_once -= 1

                await until(lambda: jobs.stats()["size"] == 0)

    run(main())
    assert most == 4 and len(seen) == len(set(seen)) == 60


def test_never_more_at_once_over_connections_that_break(run, name):
    """The peer breaks the connection again and again, and gives as many as were asked for on each."""
    running = most = 0

    async def main():
        def answer(line, msgid, method, params):
            if method == "register":
                line.reply(msgid, {"incarnation": 1, "state": None, "ttl": 30, "heartbeat_interval": 10})
            elif method == "heartbeat":
                line.reply(msgid, {"ttl": 30, "heartbeat_interval": 10})
            elif method == "consume":
                line.reply(msgid, {"consumer_id": "C"})
                for n in range(params["prefetch"]):
                    message = {"message": {"message_id": f"{line.number}-{n}"}}
                    delivery = {"token": f"{line.number}-{n}", "queue_message": message}
                    line.say([2, "message", [{"consumer_id": "C", "visibility_deadline": None, "fence": 1, **delivery}]])
                if line.number < 5:
                    asyncio.get_running_loop().call_later(0.05, line.end)
            elif msgid is not None:
                line.reply(msgid, True)

        async with Peer(answer) as peer, Connection(peer.url, **QUICK) as coordd:
            agent = Agent(coordd, name)

            @agent.consume(concurrency=2)
            async def work(delivery):
                nonlocal running, most
                running += 1
                most = max(most, running)
                try:
                    await asyncio.sleep(0.12)
                finally:
                    running -= 1

            async with agent:
                await until(lambda: len(peer.lines) == 6)
                await asyncio.sleep(0.3)
            released = [params["token"] for _, method, params in peer.asked if method == "release"]
            assert most == 2 and released

    run(main())


def test_a_lease_with_a_deadline_is_extended_while_the_handler_runs(run, coordd, name, jobs):
    seen = []

    async def main():
        async with coordd:
            agent = Agent(coordd, name)

            @agent.consume(jobs.agent, lease="timeout", visibility_timeout=within(0.6))
            async def work(delivery):
                seen.append(delivery)
                await asyncio.sleep(within(1.6))

            async with agent:
                jobs.send("m")
                await until(lambda: seen and jobs.stats()["size"] == 0)

    run(main())
    assert len(seen) == 1


def test_a_handler_whose_lease_is_lost_is_cancelled(run, coordd, name, jobs, caplog):
    seen, cancelled = [], []

    async def main():
        async with coordd:
            agent = Agent(coordd, name)

            @agent.consume(jobs.agent, lease="timeout", visibility_timeout=within(0.6))
            async def work(delivery):
                seen.append(delivery)
                try:
                    await asyncio.sleep(0 if delivery.payload else 60)
                except asyncio.CancelledError:
                    cancelled.append(delivery)
                    raise

            async with agent:
                jobs.send("m", payload={})
                await until(lambda: seen)
                assert jobs.client.call("ack", agent=jobs.agent, token=seen[0].token)
                await until(lambda: cancelled)
                jobs.send("next", payload={"n": 1})
                await until(lambda: jobs.stats()["size"] == 0)

    run(main())
    assert cancelled == seen[:1] and "was lost" in caplog.text


def test_a_lease_that_cannot_be_extended_in_time_is_lost(run, name):
    cancelled = asyncio.Event()

    async def main():
        def answer(line, msgid, method, params):
            if method == "register":
                line.reply(msgid, {"incarnation": 1, "state": None, "ttl": 30, "heartbeat_interval": 10})
            elif method == "consume":
                line.reply(msgid, {"consumer_id": "C"})
                for token in ("one", "waits too long"):
                    delivery = {"token": token, "queue_message": {"message": {"message_id": token}}}
                    line.say([2, "message", [{"consumer_id": "C", "visibility_deadline": None, "fence": 1, **delivery}]])
            elif method != "extend":
                line.reply(msgid, method != "ack")  # an ack finds nothing

        async with Peer(answer) as peer, Connection(peer.url) as coordd:
            agent = Agent(coordd, name)
            tokens = []

            @agent.consume(lease="timeout", visibility_timeout=0.3)
            async def work(delivery):
                tokens.append(delivery.token)
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    cancelled.set()  # and it returns as if all were well

            agent._lines[0].concurrency = 2
            async with agent:
                agent._lines[0].concurrency = 1
                async with asyncio.timeout(within(10)):
                    await cancelled.wait()
                await until(lambda: "ack" in peer.methods())
                await asyncio.sleep(0.05)
            assert tokens == ["one"]

    run(main())


def test_what_was_lost_before_its_handler_began_is_not_begun(run, name):
    async def main():
        def answer(line, msgid, method, params):
            if method == "register":
                line.reply(msgid, {"incarnation": 1, "state": None, "ttl": 30, "heartbeat_interval": 10})
            elif method == "consume":
                line.reply(msgid, {"consumer_id": "C"})
                delivery = {"token": "T", "queue_message": {"message": {"message_id": "m"}}}
                line.say([2, "message", [{"consumer_id": "C", "visibility_deadline": None, "fence": 1, **delivery}]])
            else:
                line.reply(msgid, True)

        async with Peer(answer) as peer, Connection(peer.url) as coordd:
            agent = Agent(coordd, name)
            begun = []

            @agent.handler
            async def work(delivery):
                begun.append(delivery)

            line = agent._lines[0]
            work_on = line._work
            line._work = lambda delivery: (delivery._lose(), work_on(delivery))[1]
            async with agent:
                await until(lambda: "consume" in peer.methods())
                await asyncio.sleep(0.1)
            assert not begun and "ack" not in peer.methods()

    run(main())


def test_a_settling_that_fails_is_told_in_the_log(run, name, caplog):
    async def main():
        def answer(line, msgid, method, params):
            if method == "register":
                line.reply(msgid, {"incarnation": 1, "state": None, "ttl": 30, "heartbeat_interval": 10})
            elif method == "consume":
                line.reply(msgid, {"consumer_id": "C"})
                delivery = {"token": "T", "queue_message": {"message": {"message_id": "m"}}}
                line.say([2, "message", [{"consumer_id": "C", "visibility_deadline": None, "fence": 1, **delivery}]])
            elif method == "ack":
                line.refuse(msgid, "internal")
            else:
                line.reply(msgid, True)

        async with Peer(answer) as peer, Connection(peer.url) as coordd:
            agent = Agent(coordd, name)

            @agent.handler
            async def work(delivery):
                pass

            async with agent:
                await until(lambda: "not known to be done" in caplog.text)

    run(main())


def test_a_holder_that_is_not_there_yet_is_asked_for_again(run, name):
    async def main():
        def answer(line, msgid, method, params):
            if method == "register":
                line.reply(msgid, {"incarnation": 1, "state": None, "ttl": 0.3, "heartbeat_interval": 0.1})
            elif method == "heartbeat":
                line.reply(msgid, {"ttl": 0.3, "heartbeat_interval": 0.1})
            elif method == "consume" and peer.methods().count("consume") < 3:
                line.refuse(msgid, "not_found")
            elif method == "consume":
                line.reply(msgid, {"consumer_id": "C"})
            else:
                line.reply(msgid, True)

        async with Peer(answer) as peer, Connection(peer.url) as coordd:
            agent = Agent(coordd, name)
            agent.handler(None)
            async with agent:
                await until(lambda: peer.methods().count("consume") == 3)

    run(main())


def test_a_beat_that_is_refused_for_good_ends_it(run, name):
    async def main():
        def answer(line, msgid, method, params):
            if method == "register":
                line.reply(msgid, {"incarnation": 1, "state": None, "ttl": 0.3, "heartbeat_interval": 0.1})
            else:
                line.refuse(msgid, "forbidden")

        async with Peer(answer) as peer, Connection(peer.url) as coordd:
            assert (await refused(Agent(coordd, name).run())).code == "forbidden"

    run(main())


def test_a_defect_ends_run(run, coordd, name, jobs):
    """What is no Exception is not a failed delivery."""

    class Stop(BaseException):
        pass

    async def main():
        async with coordd:
            agent = Agent(coordd, name)

            @agent.consume(jobs.agent)
            async def work(delivery):
                raise Stop

            jobs.send("m")
            with pytest.raises(Stop):
                await agent.run()

    run(main())


# ---------------------------------------------------------------------------------------------
# The end


def test_a_stop_waits_for_handlers_and_begins_nothing_new(run, coordd, name, jobs):
    ended = []

    async def main():
        async with coordd:
            agent = Agent(coordd, name)

            @agent.consume(jobs.agent, concurrency=2)
            async def work(delivery):
                await asyncio.sleep(0.4)
                ended.append(delivery.message["message_id"])

            ids = jobs.send_all([fresh("m") for _ in range(6)])
            await agent.ready()
            await until(lambda: len(agent._lines[0].working) == 2)
            await agent.stop()
            assert sorted(ended) == sorted(ids[:2])
            rest = jobs.take(10)
            assert [each.id for each in rest] == ids[2:] and all(each.attempts == 0 for each in rest)
            assert await coordd.call("get_agent", agent=agent.id) is None

    run(main())


def test_a_stop_hands_back_what_does_not_end_in_time(run, coordd, name, jobs):
    async def main():
        async with coordd:
            agent = Agent(coordd, name)
            stubborn = asyncio.Event()

            @agent.consume(jobs.agent, concurrency=2)
            async def work(delivery):
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    if delivery.payload:
                        await stubborn.wait()
                    raise

            jobs.send("m1", payload={})
            jobs.send("m2", payload={"is": "stubborn"})
            await agent.ready()
            await until(lambda: len(agent._lines[0].working) == 2)
            began = time.monotonic()
            await agent.stop(0.2)
            assert 0.2 < time.monotonic() - began < within(5)
            back = jobs.take(10)
            assert sorted(each.id for each in back) == ["m1", "m2"] and all(each.attempts == 0 for each in back)

    run(main())


def test_a_stop_without_a_broker(run, own, name):
    broker = own()

    async def main():
        agent = Agent(url_of(broker), name)

        @agent.handler
        async def work(delivery):
            pass

        await agent.ready()
        broker.kill()
        began = time.monotonic()
        await agent.stop(0.5)
        assert time.monotonic() - began < within(10)

    run(main())


def test_closed_at_once(run, coordd, name, jobs):
    async def main():
        async with coordd:
            agent = Agent(coordd, name)
            cancelled = []

            @agent.consume(jobs.agent)
            async def work(delivery):
                try:
                    await asyncio.sleep(60)
                finally:
                    cancelled.append(delivery)

            await agent.ready()
            jobs.send("m")
            await until(lambda: agent._lines[0].working)
            asking = asyncio.create_task(refused(agent.request({"type": name, "instance": "nobody"}, {})))
            await until(lambda: agent._asked and agent._replies)
            await asyncio.sleep(0.1)
            await agent.close()
            await agent.close()
            assert cancelled and (await asking).code == "closed"
            assert await coordd.call("get_agent", agent=agent.id)

    run(main())


WORKER = """
    import asyncio, sys
    from tta_agent_coordination import Agent

    agent = Agent(sys.argv[1], sys.argv[2], "w", stop_timeout=30)

    @agent.consume({"type": sys.argv[2]}, concurrency=2)
    async def work(delivery):
        print("begun", flush=True)
        await asyncio.sleep(delivery.payload["seconds"])
        print("done", flush=True)

    asyncio.run(agent.run())
    print("ended", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_program_ends_gracefully_by_a_signal(client, url, name, number):
    queue = Queue(client, {"type": name})
    worker = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WORKER), url, name], stdout=subprocess.PIPE, text=True
    )
    try:
        queue.send("quick", payload={"seconds": 0.5})
        assert worker.stdout.readline() == "begun\n"
        worker.send_signal(number)
        assert worker.stdout.read() == "done\nended\n"
        assert worker.wait(within(10)) == 0
        assert queue.stats()["size"] == 0 and client.call("list_registered", type=name) == []
        assert queue.stats()["consumers"] == 0
    finally:
        worker.kill()
        worker.wait()


def test_a_second_signal_does_not_wait(client, url, name):
    queue = Queue(client, {"type": name})
    worker = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WORKER), url, name], stdout=subprocess.PIPE, text=True
    )
    try:
        queue.send("slow", payload={"seconds": 600})
        assert worker.stdout.readline() == "begun\n"
        worker.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        worker.send_signal(signal.SIGTERM)
        assert worker.stdout.read() == "ended\n"
        assert worker.wait(within(10)) == 0
        wait_until(lambda: queue.stats()["ready"]["5"] == 1)
    finally:
        worker.kill()
        worker.wait()


def test_run_ends_by_end(run, coordd, name):
    async def main():
        async with coordd:
            agent = Agent(coordd, name)
            agent.end()  # it does not run
            running = asyncio.create_task(agent.run())
            await agent.ready()
            agent.end()
            await running
            await agent.stop()

    run(main())


def test_run_outside_of_the_main_thread_leaves_signals_alone(run, url, name):
    async def main():
        agent = Agent(url, name)

        async def end():
            asyncio.get_running_loop().call_later(0.2, agent.end)
            await agent.run()

        await asyncio.to_thread(asyncio.run, end())

    run(main())


# ---------------------------------------------------------------------------------------------
# Messages and requests


def test_ids():
    assert agent_id("t") == {"type": "t", "instance": "default"}
    assert agent_id("t", "i") == agent_id({"type": "t", "instance": "i"}) == {"type": "t", "instance": "i"}
    assert agent_id(AgentId(type="t", instance="i")) == {"type": "t", "instance": "i"}


def test_a_message_that_finds_no_room_is_an_error(run, coordd, name, jobs):
    async def main():
        async with coordd, Agent(coordd, name) as agent:
            jobs.configure(queue_size=1)
            result = await agent.send(jobs.agent, {"n": 1}, priority=9, message_id="m")
            assert result["message_id"] == "m"
            error = await refused(agent.send(jobs.agent, {"n": 2}))
            assert (error.code, error.message, error.retryable) == ("overloaded", "queue full", True)
            (got,) = jobs.take(1)
            assert got.message["priority"] == 9 and got.message["sender"] == agent.id

    run(main())


@pytest.mark.parametrize("value, answer", [({"n": 2}, {"n": 2}), (3, {"result": 3}), ([], {"result": []})])
def test_a_request_is_answered_by_what_the_handler_returns(run, coordd, name, client, value, answer):
    async def main():
        async with coordd:
            server = Agent(coordd, name, "server")

            @server.handler
            async def serve(delivery):
                return value

            async with server, Agent(coordd, name, "asker") as asker, Agent(coordd, name) as nameless:
                assert await asker.request(server.id, {"q": 1}) == answer
                assert asker._reply_to == {"type": name, "instance": "asker.replies"}
                assert await nameless.request(server.id, {"q": 1}) == answer
                # Each of those that share a name has a queue of its own.
                assert nameless._reply_to["instance"].endswith(".replies")
                assert nameless._reply_to["instance"] != "default.replies"
                replies = Queue(client, asker._reply_to)
                await until(lambda: replies.stats()["size"] == 0)
                await asker.send(server.id, {"no": "request"})
                await until(lambda: Queue(client, server.id).stats()["size"] == 0)

    run(main())


def test_many_requests_at_once(run, coordd, name):
    async def main():
        async with coordd:
            server = Agent(coordd, name, "server")

            @server.consume(concurrency=10)
            async def serve(delivery):
                return {"n": delivery.payload["n"] * 2}

            async with server, Agent(coordd, name, "asker") as asker:
                answers = await asyncio.gather(*(asker.request(server.id, {"n": n}) for n in range(300)))
                assert [each["n"] for each in answers] == [2 * n for n in range(300)]

    run(main())


def test_names_that_are_as_long_as_can_be(run, coordd, name):
    async def main():
        async with coordd:
            server = Agent(coordd, name, "s" * 128)

            @server.handler
            async def serve(delivery):
                return {"n": 1}

            async with server, Agent(coordd, name, "é" * 64) as asker:
                assert await asker.request(server.id, {}, message_id="m" * 128) == {"n": 1}

    run(main())


def test_a_request_without_an_answer(run, coordd, name, client):
    async def main():
        async with coordd, Agent(coordd, name, "asker") as asker:
            nobody = {"type": name, "instance": "nobody"}
            began = time.monotonic()
            with pytest.raises(RequestTimeout) as late:
                await asker.request(nobody, {}, timeout=0.3, message_id="m")
            assert late.value.retryable and 0.29 < time.monotonic() - began < within(3)
            assert not asker._asked
            await asyncio.sleep(0.3)  # its time began a little later than ours
            # It is not handed out any more, and a late answer is thrown away.
            assert await coordd.call("receive", agent=nobody) is None
            await asker.send(asker._reply_to, {}, message_type="response", correlation_id="m")
            await until(lambda: Queue(client, asker._reply_to).stats()["size"] == 0)
            first = asyncio.create_task(asker.request(nobody, {}, timeout=0.2, message_id="n"))
            await asyncio.sleep(0)
            with pytest.raises(ValueError):
                await asker.request(nobody, {}, message_id="n")
            assert isinstance(await refused(first), RequestTimeout)

    run(main())


def test_a_request_that_finds_no_broker(run, name):
    async def main():
        async with Connection("tcp://127.0.0.1:1", **QUICK) as coordd:
            agent = Agent(coordd, name)
            error = await refused(agent.request(name, {}, timeout=0.3))
            assert error.applied == "no" and "Connection refused" in str(error.__cause__)
            await agent.close()

    run(main())


def test_an_answer_that_cannot_be_sent_is_a_failed_delivery(run, coordd, name, client, caplog):
    async def main():
        async with coordd:
            server = Agent(coordd, name, "server")

            @server.handler
            async def serve(delivery):
                return {"not to be packed": object()}

            async with server, Agent(coordd, name, "asker") as asker:
                with pytest.raises(RequestTimeout):
                    await asker.request(server.id, {}, timeout=0.5)

    run(main())
    assert "CoorddError" in caplog.text


def test_an_answer_by_hand_goes_to_the_sender_too(run, coordd, name, client):
    async def main():
        async with coordd, Agent(coordd, name, "server") as server:
            sender = Queue(client, {"type": name, "instance": "sender"})
            params = {**sending(server.id), "sender": sender.agent}
            await coordd.call("send", **params)
            async with await coordd.consume(server.id, 1) as consumer:
                delivery = await consumer.__anext__()
                await server.reply(delivery, "hello")
                await server.reply(delivery, "hello")  # the same message
                await delivery.ack()
            (got,) = sender.take(10)
            assert got.message["payload"] == {"result": "hello"} and got.message["message_type"] == "response"
            assert got.message["correlation_id"] == params["message"]["message_id"]

    run(main())
