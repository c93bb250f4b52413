"""The AgentRegistry that coordd serves, under the name that its users know.

register() and deregister() are synchronous: what they start is done in the background, for one agent in order. What goes wrong there
is logged, and stands as `error` in the rows of list_registered() and snapshot() until it goes right.
"""
from __future__ import annotations

import asyncio
import datetime
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .._attach import Attached
from .._background import Background
from .._model import to_wire
from ..connection import Connection
from ..errors import AgentRegistryError
from ..interfaces import AgentRegistry, RegisteredAgent
from ..models import AgentId, agent_key, agent_text, agent_wire

logger = logging.getLogger(__name__)


@dataclass
class _Local:
    """An agent that was registered here."""

    agent: RegisteredAgent
    has_begun: bool = False  # the broker has said that it is registered
    error: str | None = None


class RedisAgentRegistry(Attached, AgentRegistry):
    """Which agents there are, and which of them are alive, as coordd knows it.

    `connection` is a coordd URL or a Connection, `key_prefix` the namespace. An agent is alive for `heartbeat_ttl_s` seconds after its
    last heartbeat; start_heartbeats() sends one every `heartbeat_interval_s` (a third of that) for those registered here.
    """

    def __init__(
        self,
        connection: Connection | str | Sequence[str],
        key_prefix: str = "ao",
        heartbeat_ttl_s: float = 30.0,
        heartbeat_interval_s: float | None = None,
    ) -> None:
        self._ttl = float(heartbeat_ttl_s)
        self._interval = self._ttl / 3 if heartbeat_interval_s is None else float(heartbeat_interval_s)
        if self._ttl <= 0 or self._interval <= 0:
            raise ValueError("heartbeat_ttl_s and heartbeat_interval_s are seconds above 0")
        # A broker that hangs has to be noticed within the ttl.
        super().__init__(connection, key_prefix, idle_timeout=min(10.0, self._ttl / 3))
        self._local: dict[tuple[str, str], _Local] = {}
        self._background = Background()
        self._wants_heartbeats = False
        self._beating: asyncio.Task[None] | None = None

    async def _call(self, method: str, **params: Any) -> Any:
        self._wake()
        return await self._ask(AgentRegistryError, method, params)

    # --- coming and going

    def register(self, agent: RegisteredAgent) -> None:
        """An agent is there. The state that an earlier one of its name left is restored into it, then its own is stored."""
        local = _Local(agent)
        self._local[agent_key(agent.agent_id)] = local
        self._start(local, self._register, "register")

    def deregister(self, agent_id: AgentId) -> None:
        """An agent leaves, whoever registered it. The broker keeps its state until it forgets it, ten times its ttl later."""
        self._local.pop(agent_key(agent_id), None)

        async def work() -> None:
            await self._call("deregister", agent=agent_wire(agent_id))

        self._background.start(agent_key(agent_id), work, f"deregister {agent_text(agent_id)}")

    def get(self, agent_id: AgentId) -> RegisteredAgent | None:
        """The agent of this name that was registered here."""
        local = self._local.get(agent_key(agent_id))
        return local.agent if local else None

    def all(self) -> list[RegisteredAgent]:
        """All that were registered here."""
        return [local.agent for local in self._local.values()]

    def _start(self, local: _Local, work: Callable[[_Local], Awaitable[None]], what: str) -> None:
        """Do it in the background, and remember how it went. What goes wrong in the same way again is logged once."""
        agent_id = local.agent.agent_id

        async def watched() -> None:
            try:
                await work(local)
            except Exception as error:
                if str(error) != local.error:
                    logger.warning("%s %s: %s", what, agent_text(agent_id), error)
                local.error = str(error)
            else:
                local.error = None

        self._background.start(agent_key(agent_id), watched, what)
        self._wake()

    async def _register(self, local: _Local) -> None:
        """Only one that begins takes what a predecessor left; one that the broker had forgotten knows better itself."""
        agent = local.agent
        state = await self._state(agent) if local.has_begun else {}
        answer = await self._call("register", agent=agent_wire(agent.agent_id), **await self._told(agent), **state)
        if not local.has_begun:
            local.has_begun = True
            await _restore(agent, answer["state"])
            await self._say(local)

    async def _told(self, agent: RegisteredAgent) -> dict[str, Any]:
        """What register says of an agent."""
        told = {
            "name": getattr(agent, "name", None),
            "status": await _of(agent, "status_snapshot", "status"),
            "capabilities": await _of(agent, "get_capabilities", "capabilities"),
            "metadata": await _of(agent, "metadata"),
            "ttl": self._ttl,
        }
        return {key: to_wire(value, key) for key, value in told.items() if value is not None}

    async def _state(self, agent: RegisteredAgent) -> dict[str, Any]:
        """What a heartbeat says of its state: nothing when it has none."""
        state = await _of(agent, "export_state", "state")
        return {"state": to_wire(state, "state")} if state else {}

    async def restore_state_if_available(self, agent: RegisteredAgent) -> bool:
        """Give an agent the state that was stored last under its name. False when there is none, or when it does not take it. The broker
        tells a state only to who registers, so this is a heartbeat, too; one who was not registered is not afterwards."""
        agent_id = agent_wire(agent.agent_id)
        there = await self._call("get_agent", agent=agent_id)
        resume = {"resume": there["incarnation"]} if there else {"ttl": self._ttl}
        answer = await self._call("register", agent=agent_id, **resume)
        if not there:
            await self._call("deregister", agent=agent_id)
        return await _restore(agent, answer["state"])

    # --- heartbeats

    def start_heartbeats(self) -> None:
        """Beat for those registered here, now and later, until stop_heartbeats()."""
        self._wants_heartbeats = True
        self._wake()

    def stop_heartbeats(self) -> None:
        """Stop that. The agents stay registered, and count as dead when their ttl is over."""
        self._wants_heartbeats = False
        if self._beating is not None:
            self._beating.cancel()
            self._beating = None

    def _wake(self) -> None:
        """Begin what found no loop when it was started."""
        self._background.wake()
        if self._wants_heartbeats and (self._beating is None or self._beating.done()):
            try:
                self._beating = asyncio.get_running_loop().create_task(self._keep_beating())
            except RuntimeError:
                return

    async def _keep_beating(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            for key, local in self._local.items():
                if not self._background.is_busy(key):  # else the one before is still on its way
                    self._start(local, self._beat, "heartbeat")

    async def _beat(self, local: _Local) -> None:
        """One heartbeat. Who is not known any more, or never came to be, is registered."""
        if not local.has_begun:
            await self._register(local)
            return
        try:
            await self._say(local)
        except AgentRegistryError as error:
            if error.code != "not_found":
                raise
            await self._register(local)

    async def _say(self, local: _Local) -> None:
        agent = local.agent
        status = await _of(agent, "status_snapshot", "status")
        said = {} if status is None else {"status": to_wire(status, "status")}
        await self._call("heartbeat", agent=agent_wire(agent.agent_id), **said, **await self._state(agent))

    # --- looking

    async def list_registered(self) -> list[dict[str, Any]]:
        """All agents of the namespace, whoever registered them, also dead ones until they are forgotten: `name`, `agent_id`,
        `status`, `alive`, `last_heartbeat` (seconds since 1970), `heartbeat_age`, `ttl`, `incarnation`, `capabilities`, `metadata`. Those of this
        registry have an `error` when something went wrong, and are here even if the broker does not know them."""
        rows: list[dict[str, Any]] = []
        after: dict[str, Any] = {}
        while True:
            page = await self._call("list_registered", **after)
            if not page:
                break
            rows += page
            after = {"after": page[-1]["agent_id"]}
        known: set[tuple[str, str]] = set()
        for row in rows:
            row["last_heartbeat"] = datetime.datetime.fromisoformat(row["last_heartbeat"]).timestamp()
            key = (row["agent_id"]["type"], row["agent_id"]["instance"])
            known.add(key)
            if key in self._local and self._local[key].error:
                row["error"] = self._local[key].error
        rows += [
            {**_row(local), "alive": False, "last_heartbeat": None}
            for key, local in self._local.items()
            if local.error and key not in known
        ]
        return rows

    def snapshot(self) -> dict[str, Any]:
        """The agents that were registered here, by name (`type:instance` where another has it): `name`, `agent_id`,
        `status` (or all that its status_snapshot() has), `registered` (the broker has said so), and `error`."""
        rows: dict[str, Any] = {}
        for local in self._local.values():
            row = _row(local)
            key = agent_text(local.agent.agent_id) if row["name"] in rows else str(row["name"])
            rows[key] = {**row, **row["status"]} if isinstance(row["status"], dict) else row
        return rows

    async def snapshot_async(self) -> dict[str, Any]:
        """`{"local": snapshot(), "redis_index": list_registered()}`."""
        redis_index = await self.list_registered()
        return {"local": self.snapshot(), "redis_index": redis_index}

    # --- the end

    async def flush(self) -> None:
        """Wait until the broker has heard of all that was started, or it failed."""
        self._wake()
        await self._background.flush()

    async def close(self) -> None:
        """Stop the heartbeats, give up what is not done, and close the connection if it was made here. Nobody is deregistered."""
        self.stop_heartbeats()
        await self._background.cancel()
        await self._detach()


def _row(local: _Local) -> dict[str, Any]:
    agent = local.agent
    status = getattr(agent, "status_snapshot", getattr(agent, "status", None))
    row = {
        "name": getattr(agent, "name", None) or agent_text(agent.agent_id),
        "agent_id": agent_wire(agent.agent_id),
        "status": None if inspect.iscoroutinefunction(status) else status() if callable(status) else status,
        "registered": local.has_begun,
    }
    return {**row, "error": local.error} if local.error else row


async def _of(agent: RegisteredAgent, *names: str) -> Any:
    """The first of these that the agent has: an attribute, or what a method or coroutine function returns."""
    for name in names:
        value = getattr(agent, name, None)
        if value is not None:
            value = value() if callable(value) else value
            return await value if inspect.isawaitable(value) else value
    return None


async def _restore(agent: RegisteredAgent, state: object) -> bool:
    """Give an agent its state. One that cannot take it goes on without."""
    if not isinstance(state, dict) or not state:
        return False
    restore = getattr(agent, "import_state", getattr(agent, "restore_state", None))
    if not callable(restore):
        return False
    try:
        done = restore(state)
        if inspect.isawaitable(done):
            await done
    except Exception as error:
        logger.warning("%s did not take its state: %s", agent_text(agent.agent_id), error)
        return False
    return True
