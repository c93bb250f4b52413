#!/usr/bin/python3
"""What goes wrong, and what becomes of the work: a worker that is killed, a call that fails, a service that is down, a job that
cannot be done.

fault_tolerance.py            the whole story
fault_tolerance.py work NAME  one of its workers
"""
import asyncio
import signal
import sys

from tta_agent_coordination import Agent, CircuitBreaker, CircuitBreakerConfig, CircuitBreakerOpenError, Connection, Permanent, Retry

TTL = 1.5  # seconds without a heartbeat after which a worker is dead; 30 by default


async def work(name):
    """A worker of the queue `jobs`: it does one job at a time."""
    worker = Agent(Connection(namespace="faults"), "worker", name, ttl=TTL)

    @worker.consume("jobs")
    async def do(job):
        print(f"{name} begins {job.payload['what']}" + " again" * bool(job.attempts), flush=True)
        match job.payload["what"]:
            case "sleep":
                if not job.attempts:
                    await asyncio.sleep(3600)  # however long it takes: the job is this worker's while it lives
            case "flaky":
                if job.attempts < 2:
                    raise Retry("the network is down", delay=0.1)  # any exception does, after a growing pause
            case "nonsense":
                raise Permanent("no such work")  # again would be the same
        print(f"{name} has done {job.payload['what']}", flush=True)

    await worker.run()  # until SIGTERM; what it holds then, it finishes


async def start(name):
    return await asyncio.create_subprocess_exec(sys.executable, __file__, "work", name, stdout=asyncio.subprocess.PIPE)


async def says(worker, line):
    """Show what a worker prints, until it is that line."""
    async for printed in worker.stdout:
        text = printed.decode().strip()
        print(text)
        if text == line:
            return


async def main():
    async with Connection(namespace="faults") as connection, Agent(connection, "boss") as boss:
        print("# A worker is killed in the middle of its work; another one gets the job.")
        first = await start("anna")
        await boss.send("jobs", {"what": "sleep"})
        await says(first, "anna begins sleep")
        first.kill()
        await first.wait()
        second = await start("bert")
        await says(second, "bert has done sleep")

        print("# A job that fails is tried again.")
        await boss.send("jobs", {"what": "flaky"})
        await says(second, "bert has done flaky")

        print("# One that can never be done goes to the dead letters, and is not lost.")
        await boss.send("jobs", {"what": "nonsense"})
        await says(second, "bert begins nonsense")
        second.send_signal(signal.SIGTERM)
        await second.wait()
        for letter in (await connection.call("dlq_list", agent={"type": "jobs"}))["dead"]:
            failed = letter["queue_message"]
            print(f"dead: {failed['message']['payload']['what']} ({letter['reason']}: {failed['last_error']})")
        await connection.call("dlq_purge", agent={"type": "jobs"})

        print("# While a service is down a breaker spares it the calls, of all programs that share it.")
        breaker = CircuitBreaker(connection, "model", CircuitBreakerConfig(failure_threshold=2, timeout_seconds=60))
        for _ in range(4):
            try:
                await breaker.call(the_model)
            except CircuitBreakerOpenError:
                print("not even asked")
            except ConnectionError as problem:
                print(problem)
        await breaker.reset()


async def the_model():
    raise ConnectionError("the model does not answer")


asyncio.run(work(*sys.argv[2:]) if sys.argv[1:2] == ["work"] else main())
