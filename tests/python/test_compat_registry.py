"""RedisAgentRegistry and AgentProxy, against real brokers."""

import asyncio
import time
from enum import Enum

import pytest

from harness import fresh, within
from tta_agent_coordination import AgentId, AgentProxy, AgentRegistry, AgentRegistryError, Connection, RedisAgentRegistry


async def eventually(what, limit=15):
    """The first value of `await what()` that is true."""
    async with asyncio.timeout(within(limit)):
        while not (value := await what()):
            await asyncio.sleep(0.01)
    return value


class Plain:
    """Has a name to be registered under, and nothing else."""

    def __init__(self, agent_id=None):
        self.agent_id = agent_id or AgentId(type="plain", instance=fresh("i"))


class Worker(AgentProxy):
    """Remembers what it did."""

    def __init__(self, instance=None):
        self.agent_id = AgentId(type="worker", instance=instance or fresh("w"))
        self.name = f"worker {self.agent_id.instance}"
        self.capabilities = {"write", "read"}
        self.memory = {}

    async def process(self, input_payload):
        self.memory["seen"] = self.memory.get("seen", 0) + 1
        return {"echo": input_payload}

    async def export_state(self):
        return dict(self.memory)

    async def import_state(self, state):
        self.memory = dict(state)


class Mood(Enum):
    GOOD = "good"


class Rich:
    """Tells everything with methods, as the agents of the replaced package did."""

    name = "rich"
    metadata = {"since": 1}

    def __init__(self):
        self.agent_id = AgentId(type="rich")
        self.state = {"a": 1}
        self.restored = None

    def status_snapshot(self):
        return {"running": True, "status": Mood.GOOD}

    async def get_capabilities(self):
        return {"write": {"languages": ["en"]}}

    def restore_state(self, state):
        self.restored = state


@pytest.fixture
def make(url):
    """A registry of the test's own namespace."""
    prefix = fresh("registry")

    def make(where=url, **more):
        return RedisAgentRegistry(where, key_prefix=prefix, **more)

    return make


@pytest.fixture
def using(run, make):
    """Run `body(registry)`."""

    def using(body, **more):
        async def main():
            registry = make(**more)
            try:
                await body(registry)
            finally:
                await registry.close()

        run(main())

    return using


def test_an_agent_is_registered_and_leaves(using):
    async def body(registry):
        assert await registry.list_registered() == []
        worker = Worker()
        before = time.time()
        registry.register(worker)
        assert registry.get(worker.agent_id) is worker and registry.all() == [worker]
        (row,) = await eventually(registry.list_registered)
        assert row["name"] == worker.name
        assert row["agent_id"] == {"type": "worker", "instance": worker.agent_id.instance}
        assert (row["status"], row["alive"], row["ttl"]) == ("idle", True, 30)
        assert sorted(row["capabilities"]) == ["read", "write"]
        assert before - 1 < row["last_heartbeat"] < time.time() + 1
        assert row["incarnation"] and row["metadata"] == {} and "error" not in row
        registry.deregister(worker.agent_id)
        await registry.flush()
        assert await registry.list_registered() == []
        assert registry.get(worker.agent_id) is None and registry.all() == []

    using(body)


def test_an_object_with_an_agent_id_is_enough(using):
    async def body(registry):
        plain = Plain()
        registry.register(plain)
        await registry.flush()
        (row,) = await registry.list_registered()
        assert row["name"] == f"plain:{plain.agent_id.instance}" and row["status"] is None
        assert registry.snapshot() == {
            row["name"]: {"name": row["name"], "agent_id": row["agent_id"], "status": None, "registered": True}
        }
        assert await registry.restore_state_if_available(plain) is False

    using(body)


def test_methods_are_asked(using):
    async def body(registry):
        rich = Rich()
        registry.register(rich)
        await registry.flush()
        (row,) = await registry.list_registered()
        assert row["status"] == {"running": True, "status": "good"}
        assert row["capabilities"] == {"write": {"languages": ["en"]}}
        assert row["metadata"] == {"since": 1}
        assert rich.restored is None
        assert await registry.restore_state_if_available(rich) is True
        assert rich.restored == {"a": 1}
        snapshot = registry.snapshot()["rich"]
        assert snapshot["running"] is True and snapshot["registered"] is True
        both = await registry.snapshot_async()
        assert both["local"] == registry.snapshot()
        assert [each["name"] for each in both["redis_index"]] == ["rich"]

    using(body)


def test_calls_for_one_agent_are_done_in_order(using):
    async def body(registry):
        worker = Worker()
        for _ in range(5):
            registry.register(worker)
            registry.deregister(worker.agent_id)
        registry.register(worker)
        await registry.flush()
        (row,) = await registry.list_registered()
        assert row["alive"]
        registry.register(Worker())
        registry.deregister(worker.agent_id)
        await registry.flush()
        assert len(await registry.list_registered()) == 1

    using(body)


def test_what_is_started_before_the_loop_runs_begins_with_it(run, make):
    registry = make(heartbeat_ttl_s=0.5)
    worker = Worker()
    registry.start_heartbeats()
    registry.register(worker)

    async def main():
        await registry.flush()
        (first,) = await registry.list_registered()

        async def later():
            (row,) = await registry.list_registered()
            return row["last_heartbeat"] > first["last_heartbeat"] + 1 and row

        assert (await eventually(later))["alive"]
        await registry.close()

    run(main())


def test_heartbeats_keep_an_agent_alive_and_their_end_does_not(using):
    async def body(registry):
        worker = Worker()
        registry.register(worker)
        registry.start_heartbeats()
        registry.start_heartbeats()  # once is enough
        end = time.monotonic() + 2 * ttl
        worker.status = "busy"
        while time.monotonic() < end:
            (row,) = await eventually(registry.list_registered)
            await asyncio.sleep(0.01)
        assert row["status"] == "busy" and row["alive"]

        async def has_died():
            (row,) = await registry.list_registered()
            return not row["alive"]

        registry.stop_heartbeats()
        registry.stop_heartbeats()
        await eventually(has_died)

    ttl = within(0.6)
    using(body, heartbeat_ttl_s=ttl, heartbeat_interval_s=0.05)


def test_state_survives_to_the_next_one_of_that_name(using):
    async def body(registry):
        worker = Worker()
        registry.register(worker)
        await registry.flush()
        await worker.process({})
        await worker.process({})
        registry.start_heartbeats()
        successor = Worker(worker.agent_id.instance)

        async def is_there():
            return await registry.restore_state_if_available(successor) and successor.memory == {"seen": 2}

        await eventually(is_there)
        third = Worker(worker.agent_id.instance)
        registry.register(third)
        await registry.flush()
        assert third.memory == {"seen": 2}
        # Who is not registered can ask as well, and is not registered afterwards.
        registry.deregister(worker.agent_id)
        await registry.flush()
        fourth = Worker(worker.agent_id.instance)
        assert await registry.restore_state_if_available(fourth) is True
        assert fourth.memory == {"seen": 2}
        assert await registry.list_registered() == []
        assert await registry.restore_state_if_available(Worker()) is False

    using(body, heartbeat_interval_s=0.02)


def test_a_state_that_is_not_taken_changes_nothing(using, caplog):
    class Picky(Worker):
        async def import_state(self, state):
            raise KeyError("not mine")

    class Without(Plain):
        state = {"a": 1}

    async def body(registry):
        picky = Picky()
        picky.memory = {"a": 1}
        registry.register(picky)
        await registry.flush()
        assert await registry.restore_state_if_available(picky) is False
        assert "did not take its state" in caplog.text
        without = Without()
        registry.register(without)
        await registry.flush()
        assert await registry.restore_state_if_available(without) is False

    using(body)


def test_an_agent_that_fails_is_shown_and_recovers(using, caplog):
    class Broken(Worker):
        fails = True

        async def export_state(self):
            return {"bad": object()} if self.fails else {}

    async def body(registry):
        broken, wrong = Broken(), Plain(AgentId(type="a\nb"))
        registry.register(broken)
        registry.register(wrong)
        await registry.flush()
        rows = {row["name"]: row for row in await registry.list_registered()}
        assert "state.bad is of the type object" in rows[broken.name]["error"] and rows[broken.name]["alive"]
        row = rows["a\nb:default"]
        assert (row["alive"], row["last_heartbeat"], row["registered"]) == (False, None, False)
        assert "bad_request" in row["error"] and "bad_request" in registry.snapshot()["a\nb:default"]["error"]
        assert "state.bad" in caplog.text
        broken.fails = False
        registry.start_heartbeats()

        async def is_well():
            return "error" not in registry.snapshot()[broken.name]

        await eventually(is_well)

    using(body, heartbeat_interval_s=0.02)


def test_one_that_was_forgotten_is_registered_again(using):
    async def body(registry):
        worker = Worker()
        registry.register(worker)
        await registry.flush()
        worker.memory = {"mine": 1}
        await registry._connection.call("deregister", agent={"type": "worker", "instance": worker.agent_id.instance})
        assert await registry.list_registered() == []
        registry.start_heartbeats()
        await eventually(registry.list_registered)
        await registry.flush()
        assert worker.memory == {"mine": 1}  # it knows better than what it left
        other = Worker(worker.agent_id.instance)
        assert await registry.restore_state_if_available(other) and other.memory == {"mine": 1}

    using(body, heartbeat_interval_s=0.05)


def test_a_list_of_many_pages(using):
    async def body(registry):
        agents = [Plain(AgentId(type="many", instance=f"{i:04}")) for i in range(1100)]
        for agent in agents:
            registry.register(agent)
        await registry.flush()
        rows = await registry.list_registered()
        assert [row["agent_id"]["instance"] for row in rows] == [agent.agent_id.instance for agent in agents]

    using(body)


def test_the_interface(run):
    class Memory(AgentRegistry):
        def __init__(self):
            self.agents = {}

        def register(self, agent):
            self.agents[agent.agent_id] = agent

        def deregister(self, agent_id):
            del self.agents[agent_id]

        async def list_registered(self):
            return [{"name": agent.name} for agent in self.agents.values()]

    class Proxy(AgentProxy):
        agent_id = AgentId(type="p")

        async def process(self, input_payload):
            return input_payload

    proxy, registry = Proxy(), Memory()
    proxy.register(registry)
    assert run(registry.list_registered()) == [{"name": None}]
    proxy.deregister(registry)
    assert run(registry.list_registered()) == []
    assert run(proxy.export_state()) == {} and run(proxy.import_state({})) is None
    assert run(proxy.process({"a": 1})) == {"a": 1}
    for abstract in (AgentRegistry, AgentProxy):
        with pytest.raises(TypeError):
            abstract()


@pytest.mark.parametrize("wrong", [{"heartbeat_ttl_s": 0}, {"heartbeat_interval_s": -1}])
def test_times_are_above_zero(url, wrong):
    with pytest.raises(ValueError, match="above 0"):
        RedisAgentRegistry(url, **wrong)


def test_two_registries_of_two_brokers_see_the_same(run, redis, make_broker):
    config = {"redis": {"key_prefix": fresh("two")}}
    brokers = [make_broker(redis, config=config).start() for _ in range(2)]

    async def main():
        one, other = (RedisAgentRegistry(f"unix://{broker.unix_path}", heartbeat_ttl_s=1) for broker in brokers)
        worker = Worker()
        one.register(worker)
        one.start_heartbeats()
        (row,) = await eventually(other.list_registered)
        assert row["name"] == worker.name and "error" not in row
        # Its broker goes and comes back; the agent is alive again, or still.
        brokers[0].kill()
        await asyncio.to_thread(brokers[0].start)

        async def beats():
            (now,) = await other.list_registered()
            return now["last_heartbeat"] > row["last_heartbeat"] + 2 and now

        now = await eventually(beats)
        assert now["alive"] and now["incarnation"] == row["incarnation"]
        await one.close()
        await other.close()

    run(main())


def test_a_broker_that_is_away(run, make_broker, caplog):
    broker = make_broker()
    broker.start()

    async def main():
        connection = Connection(f"unix://{broker.unix_path}", request_timeout=0.3)
        registry = RedisAgentRegistry(connection, heartbeat_ttl_s=3, heartbeat_interval_s=0.1)
        broker.kill()
        worker = Worker()
        registry.register(worker)
        registry.start_heartbeats()
        await registry.flush()
        assert "error" in registry.snapshot()[worker.name] and registry.snapshot()[worker.name]["registered"] is False
        with pytest.raises(AgentRegistryError) as away:
            await registry.list_registered()
        assert away.value.retryable
        await asyncio.to_thread(broker.start)

        async def is_there():
            row = registry.snapshot()[worker.name]
            return row["registered"] and "error" not in row

        await eventually(is_there)
        assert sum("Connection refused" in line for line in caplog.messages) <= 2  # told once, not with each heartbeat
        broker.kill()

        async def is_missed():
            return "error" in registry.snapshot()[worker.name]

        await eventually(is_missed)
        await registry.close()
        await connection.close()

    run(main())


def test_agents_of_one_name_are_all_in_the_snapshot():
    class Named:
        name = "same"

        def __init__(self, instance):
            self.agent_id = AgentId(type="worker", instance=instance)

    registry = RedisAgentRegistry("tcp://127.0.0.1:1")
    registry.register(Named("one"))
    registry.register(Named("two"))
    snapshot = registry.snapshot()
    assert sorted(row["agent_id"]["instance"] for row in snapshot.values()) == ["one", "two"]
    assert list(snapshot) == ["same", "worker:two"]
