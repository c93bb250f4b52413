"""An Agent: registered, alive, and at work on what comes.

    agent = Agent("tcp://127.0.0.1:7420", "summarizer", "w1")

    @agent.consume({"type": "summarizer"}, concurrency=4)
    async def summarize(delivery):
        return {"summary": await model(delivery.payload["text"])}

    asyncio.run(agent.run())

What it does:

    _live()         registers, beats, and finds out whether the name is still its own
    _Line.run()     takes deliveries of one queue, never more at once than wanted
    _Line._work()   one delivery: the handler, then ack, nack or release by its outcome
    stop()          nothing new; waits for the handlers; hands back what is left; deregisters

It goes on over lost connections. Each new one begins with a beat, after which the queues are consumed anew.
"""
from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
import signal
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from .connection import Connection
from .consumer import Consumer, Delivery
from .errors import CoorddError, Permanent, Release, RequestTimeout, Retry, Settle, StaleAgent

log = logging.getLogger("tta_agent_coordination")

Handler = Callable[[Delivery], Awaitable[Any]]
H = TypeVar("H", bound=Handler)

# How long the settling of a finished job is tried: its lease lasts, or has ended, whatever we do.
SETTLE_TIMEOUT = 3600.0
STOP_TIMEOUT = 30.0
REPLY_TTL = 60.0  # an answer that is not fetched by then is of no use to anybody
REPLY_PREFETCH = 100
MAX_ID = 128


def agent_id(of: Any, instance: str | None = None) -> dict[str, Any]:
    """An AgentId as it goes over the wire, of a type, a map, or an object with `type` and `instance`."""
    if isinstance(of, str):
        of = {"type": of, "instance": instance}
    elif not isinstance(of, Mapping):
        of = {"type": of.type, "instance": of.instance}
    return {"type": of["type"], "instance": of.get("instance") or "default"}


class Agent:
    """One agent, in one event loop.

    connection      a Connection, which stays open afterwards, or the `servers` of one of its own
    type, instance  its name; without an instance it is one of those that share the queue of their type
    ttl             it is taken for dead when it is silent for so long (30 s)
    name, capabilities, metadata, status   what others see of it
    state           kept for whoever registers under this name next; `agent.restored` is what the last one left
    namespace       another than the connection's; `key_prefix` is the same
    stop_timeout    how long run() lets handlers finish after SIGTERM or SIGINT
    """

    def __init__(
        self,
        connection: Connection | str | Sequence[str] | None,
        type: str,
        instance: str | None = None,
        *,
        name: str | None = None,
        ttl: float | None = None,
        capabilities: Any = None,
        metadata: Any = None,
        status: Any = None,
        state: Any = None,
        namespace: str | None = None,
        key_prefix: str | None = None,
        stop_timeout: float = STOP_TIMEOUT,
    ) -> None:
        self.id = agent_id(type, instance)
        self.stop_timeout = stop_timeout
        self.restored: Any = None
        self.incarnation: int | None = None
        namespace = namespace or key_prefix
        self._owns_connection = not isinstance(connection, Connection)
        if isinstance(connection, Connection):
            self.connection = connection.in_namespace(namespace) if namespace else connection
        else:
            # A broker that hangs has to be noticed within the ttl.
            idle_timeout = min(10.0, ttl / 3) if ttl else 10.0
            label = name or ":".join(self.id.values())
            self.connection = Connection(connection, namespace=namespace, name=label, idle_timeout=idle_timeout)
        said = {"name": name, "ttl": ttl, "capabilities": capabilities, "metadata": metadata}
        self._said = {key: value for key, value in said.items() if value is not None}
        self._news: dict[str, Any] = {}  # status and state that the broker does not know yet
        self._told: dict[str, Any] = {}  # ... and those that it knows
        for key, value in (("status", status), ("state", state)):
            if value is not None:
                self._news[key] = value
        self._shares_name = not instance
        self._lines: list[_Line] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._watchers: list[Callable[[str, Any], None]] = []
        self._wake: asyncio.Event | None = None
        self._registered: asyncio.Future[None] | None = None
        self._over: asyncio.Future[None] | None = None
        self._end_on_connect: Callable[[], None] | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._is_stopping = False
        self._replies: Consumer | None = None
        self._reply_to: dict[str, Any] = {}
        self._asked: dict[str, asyncio.Future[Any]] = {}

    # --- what people call

    def consume(
        self,
        queue: Any = None,
        concurrency: int = 1,
        *,
        lease: str = "heartbeat",
        visibility_timeout: float = 60.0,
    ) -> Callable[[H], H]:
        """Have the decorated coroutine handle each message of a queue, by default the agent's own.

        It gets a Delivery. Returning acks it; a value answers a request that has a `reply_to` (a dict as it is, anything else as
        {"result": value}). An exception is a failed delivery, which comes again after the queue's backoff; Permanent, Retry
        and Release say it more exactly. Never do more than `concurrency` run at once. A handler whose lease is lost is cancelled.

        lease   "heartbeat": ours while this agent lives. "timeout" and "connection": for `visibility_timeout`, which is
                extended while the handler runs.
        """

        def decorate(handler: H) -> H:
            line = _Line(self, agent_id(queue or self.id), concurrency, lease, visibility_timeout, handler)
            self._lines.append(line)
            if self._wake is not None:
                self._start_line(line)
            return handler

        return decorate

    def handler(self, handler: H) -> H:
        """Handle the messages of the agent's own queue, one at a time."""
        return self.consume()(handler)

    def on_change(self, callback: Callable[[str, Any], None]) -> None:
        """Have it told of "registered" (the answer of `register`), "superseded" (None) and "error" (a CoorddError)."""
        self._watchers.append(callback)

    def set_status(self, status: Any) -> None:
        """Say at once what it does."""
        self._say("status", status)

    def set_state(self, state: Any) -> None:
        """Have something kept at once for the next that registers under this name."""
        self._say("state", state)

    def start(self) -> None:
        """Begin to register, beat and consume; in a running loop. Starting twice is harmless. It can be started again after
        stop(), unless its connection is its own."""
        if self._wake is not None:
            return
        loop = self.connection._enter()
        self._wake, self._registered, self._over = asyncio.Event(), loop.create_future(), loop.create_future()
        self._is_stopping = False
        self._end_on_connect = self.connection.on_connect(self._wake.set)
        self._spawn(self._live())
        for line in self._lines:
            self._start_line(line)

    async def ready(self) -> None:
        """Wait until it is registered."""
        self.start()
        assert self._registered is not None
        await asyncio.shield(self._registered)

    async def run(self) -> None:
        """Work until SIGTERM, SIGINT or stop(), then end gracefully. Raises what made it end, such as StaleAgent."""
        self.start()
        assert self._over is not None
        loop = asyncio.get_running_loop()
        caught = []
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):  # not the main thread
                loop.add_signal_handler(number, self.end)
                caught.append(number)
        try:
            await asyncio.shield(self._over)
        finally:
            try:
                await self.stop(self.stop_timeout)
            finally:
                for number in caught:
                    loop.remove_signal_handler(number)

    def end(self) -> None:
        """Have run() end gracefully; the second time, without waiting for the handlers. For handlers and signals."""
        if self._over is not None and not self._over.done():
            log.info("%s stops", self)
            self._over.set_result(None)
        else:
            for line in self._lines:
                line.give_up()

    async def stop(self, timeout: float | None = None) -> None:
        """Take nothing new, wait for the handlers, at most `timeout` seconds (stop_timeout), hand back the rest, deregister."""
        if self._wake is None:
            return
        loop = asyncio.get_running_loop()
        end = loop.time() + (self.stop_timeout if timeout is None else timeout)
        self._is_stopping = True
        try:
            await asyncio.gather(*(line.stop(end) for line in self._lines))
            await self._stop_replies(end)
            if self.incarnation is not None:
                await self._deregister(max(0.5, min(5.0, end - loop.time())))
        finally:
            await self.close()

    async def close(self) -> None:
        """End at once: handlers are cancelled, it stays registered until its ttl is over. Closing twice is harmless."""
        if self._wake is None:
            return
        self._wake = None
        if self._end_on_connect is not None:
            self._end_on_connect()
        if self._expiry is not None:
            self._expiry.cancel()
        tasks = self._tasks - {asyncio.current_task()}
        for line in self._lines:
            tasks |= set(line.working) - {asyncio.current_task()}
            line.close()
        if self._replies is not None:
            self._replies._finish(None)
            self._replies = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for future in (self._over, self._registered):
            if future is not None and not future.done():
                future.set_result(None)
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(CoorddError("the agent was closed", code="closed", applied="unknown"))
        self.incarnation = None
        if self._owns_connection:
            await self.connection.close()

    async def __aenter__(self) -> Agent:
        try:
            await self.ready()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def send(
        self,
        to: Any,
        payload: Mapping[str, Any],
        *,
        message_type: str = "event",
        message_id: str | None = None,
        delay: float | None = None,
        ttl: float | None = None,
        timeout: float | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """Send a message as this agent; the MessageResult. `more` are keys of the message (priority, correlation_id ...).

        Raises CoorddError "overloaded" when the queue is full.
        """
        message = {"message_id": message_id or uuid.uuid4().hex, "message_type": message_type, "payload": payload, **more}
        result: dict[str, Any] = await self.connection.call(
            "send",
            timeout=timeout,
            sender=self.id,
            recipient=agent_id(to),
            message={key: value for key, value in message.items() if value is not None},
            delay=delay or 0,
            ttl=ttl,
        )
        if not result["delivered"]:
            raise CoorddError(str(result["error"]), code="overloaded", retryable=True, applied="no")
        return result

    async def request(self, to: Any, payload: Mapping[str, Any], timeout: float = 30.0, **more: Any) -> Any:
        """Send a request and wait for the payload of its answer.

        The answers come to a queue of this agent's own, "INSTANCE.replies". A request that nobody began with in time is not handed
        out any more. Raises RequestTimeout, or CoorddError when it could not be sent.
        """
        self.start()
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        message_id: str = more.pop("message_id", None) or uuid.uuid4().hex
        if message_id in self._asked:
            raise ValueError(f"the request {message_id} is under way")
        answer = self._asked[message_id] = loop.create_future()
        late = RequestTimeout("the request was not answered", code="timeout", retryable=True, applied="unknown")
        try:
            try:
                async with asyncio.timeout_at(end):
                    await self._take_replies()
            except TimeoutError:
                late.applied = "no"
                raise late from self.connection._problem
            more = {"message_type": "request", "reply_to": self._reply_to, "ttl": timeout, **more}
            await self.send(to, payload, message_id=message_id, timeout=max(0.001, end - loop.time()), **more)
            try:
                async with asyncio.timeout_at(end):
                    return await answer
            except TimeoutError:
                raise late from None
        finally:
            del self._asked[message_id]

    async def reply(self, delivery: Delivery, payload: Any) -> None:
        """Answer a request: to its `reply_to`, or else to its sender. The same answer when it is handed out again."""
        request = delivery.message
        message_id = f"{request['message_id']}.reply"
        if len(message_id.encode(errors="replace")) > MAX_ID:
            message_id = hashlib.sha256(message_id.encode(errors="replace")).hexdigest() + ".reply"
        await self.send(
            request.get("reply_to") or request["sender"],
            payload if isinstance(payload, Mapping) else {"result": payload},
            message_type="response",
            message_id=message_id,
            correlation_id=request["message_id"],
            ttl=REPLY_TTL,
        )

    def __str__(self) -> str:
        return f"{self.id['type']}:{self.id['instance']}"

    # --- alive

    def _spawn(self, coroutine: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """This was all: run() and ready() raise it."""
        for future in (self._registered, self._over):
            if future is not None and not future.done():
                future.set_exception(error)
                future.exception()  # nobody has to look

    def _tell(self, what: str, detail: Any) -> None:
        for watcher in self._watchers:
            watcher(what, detail)

    def _say(self, key: str, value: Any) -> None:
        self._news[key] = value
        if self._wake is not None:
            self._wake.set()

    async def _live(self) -> None:
        """Register, then beat, until another has the name."""
        failures = 0
        while True:
            assert self._wake is not None
            self._wake.clear()
            try:
                pause = await self._beat()
                failures = 0
            except StaleAgent:
                raise
            except CoorddError as error:
                self._tell("error", error)
                if not error.retryable:
                    raise
                log.warning("%s cannot be registered: %s", self, error)
                failures += 1
                pause = random.random() * min(5.0, 0.1 * 2.0 ** min(failures, 16))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def _beat(self) -> float:
        """Say that it lives, registering where the broker does not know it; the seconds until it has to say so again."""
        loop = asyncio.get_running_loop()
        now, news = loop.time(), dict(self._news)
        if self.incarnation is not None:
            try:
                answer = await self.connection.call(
                    "heartbeat", agent=self.id, incarnation=self.incarnation, **news
                )
            except CoorddError as error:
                if error.code != "not_found":
                    raise
                await self._look_for_another()
        if self.incarnation is None:
            now, news = loop.time(), {**self._told, **self._news}
            answer = await self.connection.call("register", agent=self.id, **self._said, **news)
            self.incarnation, self.restored = answer["incarnation"], answer["state"]
            self._tell("registered", answer)
        self._told.update(news)
        for key in [key for key, value in self._news.items() if key in news and news[key] is value]:
            del self._news[key]
        self._expires_at(now + answer["ttl"])
        if self._registered is not None and not self._registered.done():
            self._registered.set_result(None)
        for line in self._lines:
            line.consume()
        interval: float = answer["heartbeat_interval"]
        return interval

    async def _look_for_another(self) -> None:
        """The broker does not know this incarnation: has another one our name, or were we forgotten?"""
        info = await self.connection.call("get_agent", agent=self.id)
        before, self.incarnation = self.incarnation, None
        self._lose_leases()
        if info is not None and before is not None and info["incarnation"] > before:
            for line in self._lines:
                line.end()
            self._tell("superseded", None)
            raise StaleAgent(f"another process has registered as {self}", code="not_found")
        log.warning("%s was forgotten, and registers anew", self)

    def _expires_at(self, when: float) -> None:
        """Unless it beats until then, it must be feared that others were given what it works on."""
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = asyncio.get_running_loop().call_at(when, self._lose_leases)

    def _lose_leases(self) -> None:
        for line in self._lines:
            if line.lease == "heartbeat":
                line.lose(is_over=self.incarnation is None)

    async def _deregister(self, timeout: float) -> None:
        """Unless another has the name."""
        with contextlib.suppress(CoorddError):
            await self.connection.call("heartbeat", agent=self.id, incarnation=self.incarnation, timeout=timeout)
            await self.connection.call("deregister", agent=self.id, timeout=timeout)

    def _start_line(self, line: _Line) -> None:
        line.start()
        self._spawn(line.run())
        if self.incarnation is not None:
            line.consume()

    # --- requests

    async def _take_replies(self) -> None:
        """Consume the queue that the answers come to."""
        if self._replies is None:
            name: str = self.id["instance"]
            if self._shares_name:  # this one's own, among all that are called so
                name = f"{name}.{uuid.uuid4().hex[:16]}"
            name = f"{name}.replies"
            if len(name.encode(errors="replace")) > MAX_ID:
                name = hashlib.sha256(name.encode(errors="replace")).hexdigest() + ".replies"
            self._reply_to = {"type": self.id["type"], "instance": name}
            self._replies = Consumer(self.connection, self._reply_to, REPLY_PREFETCH)
            self._spawn(self._read_replies(self._replies))
        await self._replies.started()

    async def _read_replies(self, replies: Consumer) -> None:
        async for delivery in replies:
            answer = self._asked.get(delivery.message.get("correlation_id", ""))
            if answer is not None and not answer.done():
                answer.set_result(delivery.payload)
            else:
                log.debug("%s: an answer that nobody waits for", self)
            with contextlib.suppress(CoorddError):
                self.connection.notify("ack", agent=delivery.agent, token=delivery.token)

    async def _stop_replies(self, end: float) -> None:
        if self._replies is not None:
            replies, self._replies = self._replies, None
            with contextlib.suppress(CoorddError, TimeoutError):
                async with asyncio.timeout_at(max(end, asyncio.get_running_loop().time() + 0.5)):
                    await replies.cancel()


class _Line:
    """One queue that an agent works on."""

    def __init__(
        self,
        agent: Agent,
        queue: dict[str, Any],
        concurrency: int,
        lease: str,
        visibility_timeout: float,
        handler: Handler,
    ) -> None:
        self.agent, self.queue, self.concurrency, self.handler = agent, queue, concurrency, handler
        self.lease, self.visibility_timeout = lease, visibility_timeout
        self.consumer: Consumer | None = None
        self.working: dict[asyncio.Task[None], Delivery] = {}
        self.is_ending = False
        self._room = asyncio.Event()

    def start(self) -> None:
        self.is_ending, self._room = False, asyncio.Event()
        holder = self.agent.id if self.lease == "heartbeat" else None
        self.consumer = Consumer(
            self.agent.connection, self.queue, self.concurrency, self.lease, self.visibility_timeout, holder, is_renewed=False
        )

    def consume(self) -> None:
        """The agent lives: have messages come, unless they do."""
        if self.consumer is not None and not self.is_ending:
            self.consumer._ask()

    async def run(self) -> None:
        """Begin with a delivery when there is room for one more."""
        assert self.consumer is not None
        loop = asyncio.get_running_loop()
        async for delivery in self.consumer:
            if self.is_ending:
                await loop.create_future()  # held until it is handed back with the consumer
            if self.lease != "heartbeat" and loop.time() >= delivery.came_at + self.visibility_timeout:
                continue  # it waited here for too long
            task = loop.create_task(self._work(delivery))
            self.working[task] = delivery
            task.add_done_callback(self._worked)
            while len(self.working) >= self.concurrency or self.is_ending:
                self._room.clear()
                await self._room.wait()

    def _worked(self, task: asyncio.Task[None]) -> None:
        del self.working[task]
        self._room.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            self.agent._fail(error)

    async def _work(self, delivery: Delivery) -> None:
        """One delivery, from the handler to its settlement."""
        task = asyncio.current_task()
        assert task is not None
        keeper = _Keeper(delivery, self.visibility_timeout) if self.lease != "heartbeat" else None
        try:
            try:
                if delivery.is_lost:
                    return  # before it began
                delivery.on_lost = task.cancel
                value = await self.handler(delivery)
                if value is not None and delivery.message.get("reply_to"):
                    await self.agent.reply(delivery, value)
            except asyncio.CancelledError as error:
                if not task.cancelling():
                    raise RuntimeError("the handler cancelled itself") from error
                task.uncancel()
                if delivery.is_lost:
                    log.warning("%s: %s was lost, its handler is cancelled", self.agent, delivery)
                await self._settle(delivery, "release")
            else:
                await self._settle(delivery, "ack")
        except Release as release:
            await self._settle(delivery, "release", delay=release.delay)
        except Exception as error:
            if isinstance(error, Settle):  # said on purpose, where the handler knows why
                log.info("%s: the handler of %s: %s %s", self.agent, delivery, type(error).__name__, error)
            else:
                log.warning("%s: the handler of %s failed", self.agent, delivery, exc_info=error)
            failure = "permanent" if isinstance(error, Permanent) else "timeout" if isinstance(error, TimeoutError) else "transient"
            delay = error.delay if isinstance(error, Retry) else None
            text = str(error) if isinstance(error, Settle) and str(error) else f"{type(error).__name__}: {error}"
            await self._settle(delivery, "nack", failure=failure, error=text, delay=delay)
        finally:
            if keeper is not None:
                keeper.end()

    async def _settle(self, delivery: Delivery, method: str, **params: Any) -> None:
        delivery.on_lost = None  # from now on nobody cancels it
        if delivery.is_settled:
            return  # by the handler
        try:
            if not await delivery._settle(method, timeout=SETTLE_TIMEOUT, **params) and method != "release":
                log.warning("%s: %s was not ours any more at its %s", self.agent, delivery, method)
        except CoorddError as error:
            log.warning("%s: the %s of %s is not known to be done: %s", self.agent, method, delivery, error)

    # --- the end of leases, and of the line

    def lose(self, is_over: bool) -> None:
        """The leases must be feared to have ended. `is_over`: they have, and what comes is for another incarnation."""
        if self.consumer is not None:
            if is_over:
                self.consumer._begin_anew()
            else:
                self.consumer._drop(True)
        for delivery in list(self.working.values()):
            delivery._lose()

    def end(self) -> None:
        """Begin with nothing new."""
        self.is_ending = True

    def give_up(self) -> None:
        """Cancel the handlers; what they worked on is handed back."""
        for delivery in list(self.working.values()):
            if delivery.on_lost is not None:
                delivery.on_lost()

    async def stop(self, end: float) -> None:
        """Wait for what is under way until `end`, then hand it back. Only now the consumer can be cancelled: the broker hands back
        all that it was given. What comes until then is not begun."""
        self.end()
        if self.working:
            await asyncio.wait(list(self.working), timeout=max(0.0, end - asyncio.get_running_loop().time()))
        self.give_up()
        limit = max(end, asyncio.get_running_loop().time() + 1.0)
        if self.working:
            await asyncio.wait(list(self.working), timeout=limit - asyncio.get_running_loop().time())
        if self.consumer is not None:
            with contextlib.suppress(CoorddError, TimeoutError):
                async with asyncio.timeout_at(limit):
                    await self.consumer.cancel()

    def close(self) -> None:
        self.end()
        if self.consumer is not None:
            self.consumer._finish(None)
            self.consumer = None


class _Keeper:
    """Extends a lease at half of its time while it is there."""

    def __init__(self, delivery: Delivery, visibility_timeout: float) -> None:
        self._delivery, self._timeout = delivery, visibility_timeout
        self._loop = asyncio.get_running_loop()
        self._ends = delivery.came_at + visibility_timeout
        self._task: asyncio.Task[None] | None = None
        self._timer = self._loop.call_at(delivery.came_at + visibility_timeout / 2, self._begin)

    def _begin(self) -> None:
        self._task = self._loop.create_task(self._keep())

    async def _keep(self) -> None:
        asked = self._loop.time()
        try:
            deadline = await self._delivery._connection.call(
                "extend",
                agent=self._delivery.agent,
                token=self._delivery.token,
                visibility_timeout=self._timeout,
                timeout=max(0.001, self._ends - asked),
            )
        except CoorddError as error:
            log.warning("%s cannot be extended: %s", self._delivery, error)
            deadline = None
        if deadline is None:
            self._delivery._lose()
        else:
            self._ends = asked + self._timeout
            self._timer = self._loop.call_at(asked + self._timeout / 2, self._begin)

    def end(self) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
