"""The driver of the Python package for the contract suite: it does what lines of JSON on its standard input say, and tells what
comes of it by lines on its standard output. contract.py says which lines there are."""

import asyncio
import itertools
import json
import sys
import time

import msgpack

from tta_agent_coordination import connection as connections
from tta_agent_coordination.agent import Agent
from tta_agent_coordination.errors import CoorddError, Permanent, Release, Retry

LONGEST_LINE = 64 << 20


def pack(value):
    return msgpack.packb(value, use_bin_type=True).hex()


def unpack(digits):
    return msgpack.unpackb(bytes.fromhex(digits), raw=False, strict_map_key=False)


def unpacked(params):
    return {key: unpack(value) for key, value in (params or {}).items()}


def say(**line):
    print(json.dumps({"at": time.monotonic(), **line}), flush=True)


def error_of(error):
    return {
        "code": error.code,
        "message": error.message,
        "retryable": error.retryable,
        "applied": error.applied,
    }


class Driver:
    def __init__(self):
        self.connections = {}
        self.tasks = {}  # what waits for an answer of a connection, by the number of its line
        self.watches = {}
        self.agents = {}  # by the names of their connections, and their own
        self.whose = {}  # the connection of an agent
        self.jobs = {}  # the futures of handlers that hang, by number
        self.numbers = itertools.count(1)

    # --- lines

    async def run(self):
        loop = asyncio.get_running_loop()
        lines = asyncio.StreamReader(limit=LONGEST_LINE)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while text := await lines.readline():
            line = json.loads(text)
            self.tasks[line["id"]] = line, asyncio.create_task(self.answer(line))
        for name in list(self.connections):
            await self.do_close({"on": name})

    async def answer(self, line):
        number = line["id"]
        try:
            value = await getattr(self, f"do_{line['do']}")(line)
        except ValueError as error:
            refused = {"code": "usage", "message": str(error), "retryable": False, "applied": None}
            say(id=number, error=refused)
        except CoorddError as error:
            if error.code == "closed":
                say(id=number, dropped=True)
            else:
                say(id=number, error=error_of(error))
        except asyncio.CancelledError:
            say(id=number, dropped=True)
        else:
            say(id=number, value=None if value is None else pack(value))
        finally:
            del self.tasks[number]

    # --- connections

    async def do_connect(self, line):
        name = line["as"]
        connection = connections.Connection(line["urls"], **line["options"])
        self.connections[name] = connection
        connection.on_connect(lambda: say(event="state", of=name, url=connection.server, why=None))

    async def do_call(self, line):
        return await self.connections[line["on"]].call(
            line["method"], timeout=line.get("timeout"), **unpacked(line["params"])
        )

    async def do_notify(self, line):
        self.connections[line["on"]].notify(line["method"], **unpacked(line["params"]))

    async def do_forget(self, line):
        _, task = self.tasks[line["call"]]
        task.cancel()

    async def do_close(self, line):
        name = line["on"]
        for agent in self.agents.pop(name, {}).values():
            await agent.close()
        await self.connections.pop(name).close()
        left = [task for other, task in self.tasks.values() if self.is_of(other, name) and other is not line]
        await asyncio.gather(*left, return_exceptions=True)

    def is_of(self, line, name):
        """Whether a line waits for something of this connection."""
        return line.get("on") == name or self.whose.get(line.get("of")) == name

    # --- watches

    async def do_watch(self, line):
        watch = self.connections[line["on"]].watch(*line["classes"])
        self.watches[line["as"]] = asyncio.create_task(self.follow(line["as"], watch))

    async def follow(self, name, watch):
        try:
            async for event in watch:
                say(event="event", of=name, value=pack(event))
        except CoorddError as error:
            if error.code != "closed":
                say(event="refused", of=name, error=error_of(error))

    # --- agents

    async def do_agent(self, line):
        name, on = line["as"], line["on"]
        agent = Agent(self.connections[on], line["type"], line["instance"], **unpacked(line["params"]))

        def on_change(what, detail):
            more = {}
            if what == "registered":
                more = {"incarnation": detail["incarnation"], "state": pack(detail["state"])}
            elif what == "error":
                more = {"error": error_of(detail)}
            say(event="agent", of=name, what=what, **more)

        agent.on_change(on_change)
        agent.start()
        self.agents.setdefault(on, {})[name] = agent
        self.whose[name] = on

    def agent_of(self, line):
        return self.agents[self.whose[line["of"]]][line["of"]]

    async def do_status(self, line):
        self.agent_of(line).set_status(unpack(line["value"]))

    async def do_state(self, line):
        self.agent_of(line).set_state(unpack(line["value"]))

    async def do_stop(self, line):
        await self.agent_of(line).stop(line["timeout"])

    async def do_request(self, line):
        to, payload = line["to"], unpack(line["payload"])
        return await self.agent_of(line).request({"type": to[0], "instance": to[1]}, payload, line["timeout"])

    # --- jobs

    async def do_consume(self, line):
        queue, params = line.get("queue"), unpacked(line["params"])
        queue = {"type": queue[0], "instance": queue[1]} if queue else None
        if "on" in line:
            await self.consume_alone(line, queue, params)
            return

        @self.agent_of(line).consume(queue, line["concurrency"], **params)
        async def handle(delivery):
            job = Job(self, line["as"], delivery, line["plan"])
            try:
                plan = await job.decision()
            except asyncio.CancelledError:
                job.lose()
                raise
            return outcome(plan)

    async def consume_alone(self, line, queue, params):
        """Of a connection alone: the program settles the deliveries."""
        consumer = await self.connections[line["on"]].consume(queue, line["concurrency"], **params)
        self.watches[line["as"]] = asyncio.create_task(self.take(line["as"], consumer, line["plan"]))

    async def take(self, name, consumer, plan):
        async for delivery in consumer:
            job = Job(self, name, delivery, plan)
            delivery.on_lost = job.lose
            job.task = asyncio.create_task(self.settle(job, delivery))

    async def settle(self, job, delivery):
        plan = await job.decision()
        settling = {
            "ack": lambda: delivery.ack(),
            "nack": lambda: delivery.nack(plan.get("failure", "transient"), plan.get("error"), plan.get("delay")),
            "raise": lambda: delivery.nack(),
            "release": lambda: delivery.release(plan.get("delay")),
        }
        await settling[plan["then"]]()

    async def do_finish(self, line):
        if job := self.jobs.get(line["job"]):  # else it is over, and needs no end
            job.decide(line["plan"])


def outcome(plan):
    """End a handler as a plan says: what it returns, or raises."""
    then, delay = plan["then"], plan.get("delay")
    if then == "raise":
        raise RuntimeError("a surprise")
    if then == "release":
        raise Release(delay)
    if then == "nack" and plan.get("failure") == "permanent":
        raise Permanent(plan.get("error", ""))
    if then == "nack":
        raise Retry(plan.get("error", ""), delay=delay)
    return unpack(plan["payload"]) if then == "reply" else None


class Job:
    """What a handler has in its hands. It decides as its plan says, or as it is told later."""

    def __init__(self, driver, of, delivery, plan):
        self.driver, self.of, self.plan = driver, of, plan
        self.number = next(driver.numbers)
        self.told = asyncio.Event()
        self.task = None
        driver.jobs[self.number] = self
        say(
            event="job",
            of=of,
            job=self.number,
            token=delivery.token,
            fence=delivery.fence,
            attempts=delivery.attempts,
            message=pack(delivery.message),
        )

    def decide(self, plan):
        self.plan = plan
        self.told.set()

    async def decision(self):
        """The plan, when its time has come."""
        if self.plan["then"] == "hang":
            await self.told.wait()
        await asyncio.sleep(self.plan.get("after", 0))
        say(event="done", of=self.of, job=self.number)
        del self.driver.jobs[self.number]
        return self.plan

    def lose(self):
        """It is not ours any more."""
        if self.driver.jobs.pop(self.number, None):
            say(event="lost", of=self.of, job=self.number)
            if self.task:
                self.task.cancel()


if __name__ == "__main__":
    asyncio.run(Driver().run())
