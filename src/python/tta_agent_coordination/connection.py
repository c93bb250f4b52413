"""A connection to coordd that is made again when it breaks, and the requests on it.

    async with Connection("tcp://127.0.0.1:7420, tcp://127.0.0.1:7421") as coordd:
        await coordd.call("send", sender={"type": "me"}, recipient={"type": "worker"}, message={...})

The life of a request:

    call()          it is packed once, gets a deadline, and is written when there is a connection
    _on_answer()    the result; or an error, after which it is asked again where that does no harm
    _on_end()       the connection broke: what had not left waits for the next one, what had left too if asking twice does
                    no harm (AGAIN), in the order in which it was first asked; the rest fails, its outcome unknown
    _sweep()        its time is over
    _finish()       the only exit

All servers share one Redis, so any of them will do. One that goes is followed by the next in the list, at once while there are
some not tried yet, and then after a pause that doubles each time.
"""
from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import os
import random
import socket
import urllib.parse
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgpack

from .errors import CoorddError, RequestTimeout, refusal
from .wire import Frame, Wire

if TYPE_CHECKING:
    from .consumer import Consumer
    from .events import Stream, Watch

log = logging.getLogger("tta_agent_coordination")

DEFAULT_SERVER = "tcp://127.0.0.1:7420"
DEFAULT_PORT = 7420

# Asking again does no harm, also when it was done the first time (docs/PROTOCOL.md; `AGAIN` in src/api/methods.def).
AGAIN = frozenset(
    "ping status send send_batch broadcast publish subscribe unsubscribe receive receive_batch ack ack_batch nack release extend"
    " recover_pending configure queue_stats list_queues peek pause_queue resume_queue dlq_list register heartbeat deregister"
    " list_registered get_agent breaker_report breaker_get breaker_list breaker_configure list_namespaces list_connections audit"
    " config_get".split()
)
# ... while the broker knows that it has seen the message: for `dedup_window`, which is 60 s.
SENDS = frozenset(("send", "send_batch", "broadcast", "publish"))
DEDUP_SAFE = 50.0
RECEIVES = frozenset(("receive", "receive_batch"))
SENDS = frozenset(("send", "send_batch", "broadcast", "publish"))
SETTLES = frozenset(("ack", "ack_batch", "nack", "release"))

# Bounds of what waits here for an answer.
MAX_PENDING = 65536
MAX_PENDING_BYTES = 64 << 20
# Deadlines are looked at no more often than this, so they can be that much late.
SWEEP_PAUSE = 0.02
# A connection that lasted so long was a good one: the next is tried without a pause.
GOOD_AFTER = 1.0
# How long answers are awaited on a connection that is left because its broker stops.
LEAVE_AFTER = 5.0


class Request(Frame):
    """A request on its way, or a notification that waits for a connection (`then` and `future` are None)."""

    __slots__ = (
        "method",
        "msgid",
        "order",
        "deadline",
        "future",
        "then",
        "is_bound",
        "params",
        "wait_until",
        "tokens",
        "sent_at",
        "is_uncertain",
        "attempts",
        "last",
    )

    def __init__(self, data: bytes, method: str, msgid: int, order: int, deadline: float) -> None:
        super().__init__(data)
        self.method = method
        self.msgid = msgid
        self.order = order
        self.deadline = deadline
        self.future: asyncio.Future[Any] | None = None
        self.then: Callable[[CoorddError | None, Any], None] | None = None
        self.is_bound = False  # it ends with the connection that it was asked on
        self.params: dict[str, Any] | None = None  # of a receive, which is shortened when it is asked again
        self.wait_until = 0.0
        self.tokens: Sequence[str] = ()  # what it settles
        self.sent_at: float | None = None  # for the first time, on whatever connection
        self.is_uncertain = False  # an attempt may have been applied
        self.attempts = 0
        self.last: CoorddError | None = None  # what the last attempt met


def parse_servers(servers: str | Sequence[str] | None) -> list[str]:
    """The URLs in a text, separated by commas or spaces, or in a list; each checked."""
    if servers is None:
        servers = os.environ.get("COORDCTL_SERVER") or DEFAULT_SERVER
    text = servers if isinstance(servers, str) else " ".join(servers)
    urls = text.replace(",", " ").split()
    for url in urls:
        address_of(url)
    if not urls:
        raise ValueError("no server is named")
    return urls


def address_of(url: str) -> str | tuple[str, int]:
    """The path of a Unix socket, or host and port."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "unix" and parts.path and not parts.netloc:
        return parts.path
    try:
        if parts.scheme == "tcp" and parts.hostname and not parts.path:
            return parts.hostname, parts.port or DEFAULT_PORT
    except ValueError:
        pass  # a port that is none
    raise ValueError(f"{url!r} is no address of coordd: tcp://HOST:PORT or unix:///PATH")


class Connection:
    """One connection to whichever of `servers` is there.

    It connects when it is first used, within a running event loop, and belongs to that loop; when that loop was closed, the next
    one that uses it makes a new connection. Times are in seconds.

    servers          URLs, "tcp://HOST:PORT" or "unix:///PATH", separated by commas or spaces, or a list of them;
                     by default $COORDCTL_SERVER, or tcp://127.0.0.1:7420
    namespace        the world in which everything named here lives (by default "default")
    name             what `coordctl conn list` shows
    request_timeout  what a request may take with all its repetitions, on top of its `wait`
    connect_timeout  what one attempt to connect may take
    idle_timeout     a broker that owes something and says nothing for so long is gone
    backoff_min, backoff_max   the pause between attempts: doubled each time, times a random factor below 1
    """

    def __init__(
        self,
        servers: str | Sequence[str] | None = None,
        *,
        namespace: str | None = None,
        token: str | None = None,
        name: str | None = None,
        request_timeout: float = 30.0,
        connect_timeout: float = 2.0,
        idle_timeout: float = 10.0,
        backoff_min: float = 0.05,
        backoff_max: float = 5.0,
    ) -> None:
        self.servers = parse_servers(servers)
        self.namespace = namespace
        self.token = token
        self.name = name
        self.request_timeout = request_timeout
        self.connect_timeout = connect_timeout
        self.idle_timeout = idle_timeout
        self.backoff_min = backoff_min
        self.backoff_max = backoff_max
        self._relatives: dict[str | None, Connection] = {namespace: self}
        self._is_first = True  # closing it closes its relatives
        self._pack = msgpack.Packer(use_bin_type=True, unicode_errors="surrogateescape").pack
        self._orders = itertools.count(1)
        self._on_connect: list[Callable[[], None]] = []
        self._is_closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reset()

    def _reset(self) -> None:
        """As before the first use."""
        self._wire: Wire | None = None
        self._socket: socket.socket | None = None
        self._is_open = False  # requests are written as they come
        self._session: dict[str, Any] = {}
        self._max_frame = 0
        self._since = 0.0
        self._at = 0  # the server that is used, or tried next
        self._tried = 0  # servers without success since the last good connection
        self._failures = 0
        self._problem: CoorddError | None = None  # why there is no connection
        self._connector: asyncio.Task[None] | None = None
        self._pending: dict[int, Request] = {}  # in the order asked; a notification has a negative id
        self._pending_bytes = 0
        self._sweep_at = math.inf
        self._sweeper: asyncio.TimerHandle | None = None
        self._again: list[Request] = []  # refused, and asked again when _repeater runs
        self._repeater: asyncio.TimerHandle | None = None
        self._checker: asyncio.TimerHandle | None = None
        self._is_pinged = False
        self._suspects: deque[Request] | None = None
        self._suspect: Request | None = None
        self._is_careful = False
        self._is_leaving = False
        self._held: set[str] = set()  # tokens that end with this connection
        self._streams: dict[Stream[Any], None] = {}
        self._receivers: dict[str, Stream[Any]] = {}

    # --- what people call

    async def call(self, method: str, /, *, timeout: float | None = None, **params: Any) -> Any:
        """The result of a request; docs/PROTOCOL.md has the methods, their parameters and results.

        It is repeated, over new connections too, where that does no harm, until `timeout`. Raises CoorddError; after `applied`
        "unknown" look whether it was done before you ask again. A call that is cancelled is forgotten: if it had left, it may
        still be done, but what it receives is handed back.
        """
        request = self._submit(method, params, timeout)
        try:
            return await request.future  # type: ignore[misc]
        except asyncio.CancelledError:
            self._abandon(request)
            raise

    def notify(self, method: str, /, **params: Any) -> None:
        """Have it done without an answer, and without a promise: it is lost with the connection."""
        loop = self._enter()
        self._check_room()
        data = self._encode(method, [2, method, [params]])
        order = next(self._orders)
        note = Request(data, method, -order, order, loop.time() + self.request_timeout)
        if method in SETTLES:
            self._settled(tokens_of(params))
        if self._is_open:
            self._write(note)
        else:
            self._keep(note)
            self._want()

    async def consume(
        self,
        agent: Any,
        prefetch: int,
        *,
        lease: str = "connection",
        visibility_timeout: float = 60.0,
        holder: Any = None,
    ) -> Consumer:
        """Take messages of a queue as they come, never more than `prefetch` unsettled; renewed on each connection.

            async with await coordd.consume({"type": "worker"}, 10) as consumer:
                async for delivery in consumer:
                    await delivery.ack()
        """
        from .consumer import Consumer

        consumer = Consumer(self, agent, prefetch, lease, visibility_timeout, holder)
        await consumer.started()
        return consumer

    def watch(self, *classes: str) -> Watch:
        """The events of these classes ("agent", "breaker", "queue"; all when none is named) from now on, as dicts.

        It goes on over new connections; what happened in between is told as {"event": "lost", "count": None}.
        """
        from .events import Watch

        return Watch(self, classes)

    def on_connect(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback()` run after each new connection was greeted; the returned function ends that."""
        self._on_connect.append(callback)
        if self._loop is not None and self._is_open:
            self._loop.call_soon(callback)

        def end() -> None:
            if callback in self._on_connect:
                self._on_connect.remove(callback)

        return end

    def in_namespace(self, namespace: str | None) -> Connection:
        """A connection with the same settings to another namespace; the same one each time. It is closed with this one."""
        there = self._relatives.get(namespace)
        if there is None:
            there = Connection(
                self.servers,
                namespace=namespace,
                token=self.token,
                name=self.name,
                request_timeout=self.request_timeout,
                connect_timeout=self.connect_timeout,
                idle_timeout=self.idle_timeout,
                backoff_min=self.backoff_min,
                backoff_max=self.backoff_max,
            )
            there._is_first = False
            there._relatives = self._relatives
            self._relatives[namespace] = there
        return there

    @property
    def is_connected(self) -> bool:
        """Whether a broker is there, as far as we know."""
        return self._wire is not None

    @property
    def server(self) -> str | None:
        """The URL of the broker that is connected."""
        return self.servers[self._at] if self._wire is not None else None

    @property
    def session(self) -> dict[str, Any]:
        """What the broker answered to the last `hello`."""
        return self._session

    async def close(self) -> None:
        """End it; what waits for an answer fails. Closing it twice is harmless."""
        relatives = list(self._relatives.values()) if self._is_first else [self]
        for each in relatives:
            self._relatives.pop(each.namespace, None)
            each._close()
        await asyncio.sleep(0)  # for who was told to see it

    def _close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._drop_foreign_loop()
        if self._connector is not None:
            self._connector.cancel()
        wire, self._wire, self._is_open = self._wire, None, False
        if wire is not None:
            wire.close()
        for request in list(self._pending.values()):
            self._fail(request, CoorddError("the connection was closed", code="closed"))
        for stream in list(self._streams):
            stream._finish(None)
        for timer in (self._sweeper, self._repeater, self._checker):
            if timer is not None:
                timer.cancel()

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # --- the life of a request

    def _enter(self) -> asyncio.AbstractEventLoop:
        """The loop that runs; it must be the one that this belongs to."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._drop_foreign_loop()
            if self._loop is not None:
                raise RuntimeError("this Connection belongs to another event loop; make one for each loop")
            self._loop = loop
        if self._is_closed:
            raise CoorddError("the connection was closed", code="closed", applied="no")
        return loop

    def _drop_foreign_loop(self) -> None:
        """Forget everything of a loop that was closed: nothing in it can be told any more."""
        if self._loop is not None and self._loop.is_closed():
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)  # the broker sees it; what is left is collected with the loop
            self._loop = None
            self._reset()

    def _check_room(self) -> None:
        if len(self._pending) >= MAX_PENDING or self._pending_bytes >= MAX_PENDING_BYTES:
            raise CoorddError(
                f"{len(self._pending)} requests with {self._pending_bytes} bytes wait for answers here",
                code="overloaded",
                retryable=True,
                applied="no",
            )

    def _encode(self, method: str, frame: list[Any]) -> bytes:
        try:
            data: bytes = self._pack(frame)
        except (TypeError, ValueError, OverflowError) as problem:
            raise CoorddError(f"{method}: {problem}", code="bad_request", applied="no") from problem
        return data

    def _submit(
        self,
        method: str,
        params: dict[str, Any],
        timeout: float | None = None,
        then: Callable[[CoorddError | None, Any], None] | None = None,
    ) -> Request:
        """A new request, written or waiting. Its future has the result; with `then`, that runs at once when the answer is
        read, and not at all when the connection ends before."""
        loop = self._enter()
        self._check_room()
        order = next(self._orders)
        msgid = order & 0xFFFFFFFF
        while msgid == 0 or msgid in self._pending:
            order = next(self._orders)
            msgid = order & 0xFFFFFFFF
        data = self._encode(method, [0, msgid, method, [params]])
        now = loop.time()
        wait: float = 0
        if method in RECEIVES and isinstance(params.get("wait"), (int, float)):
            wait = params["wait"]
        if then is not None:
            deadline = math.inf
        else:
            deadline = now + (self.request_timeout + wait if timeout is None else timeout)
        request = Request(data, method, msgid, order, deadline)
        if then is not None:
            request.then, request.is_bound = then, True
        else:
            request.future = loop.create_future()
        if method in RECEIVES:
            request.params, request.wait_until = params, now + wait if wait else 0.0
        elif self._held and method in SETTLES:
            request.tokens = tokens_of(params)
        self._keep(request)
        if not self._is_open:
            self._want()
        elif self._again and method in SENDS:
            self._again.append(request)  # behind those that were refused for now
        else:
            self._write(request)
        return request

    def _keep(self, request: Request) -> None:
        self._pending[request.msgid] = request
        self._pending_bytes += len(request.data)
        if request.deadline < self._sweep_at:
            self._sweep_when(request.deadline)

    def _write(self, request: Request) -> None:
        """Have it leave over the connection that is there."""
        assert self._wire is not None and self._loop is not None
        now = self._loop.time()
        if request.sent_at is None:
            request.sent_at = now
        elif request.params is not None and request.wait_until > 0:
            params = {**request.params, "wait": max(0.0, request.wait_until - now)}
            self._pending_bytes -= len(request.data)
            request.data = self._encode(request.method, [0, request.msgid, request.method, [params]])
            self._pending_bytes += len(request.data)
        elif request.is_uncertain and request.method in SENDS and now - request.sent_at > DEDUP_SAFE:
            self._fail(request, request.last or self._late(request, None))
            return
        if len(request.data) > self._max_frame:
            text = f"{request.method}: a frame of {len(request.data)} bytes; the broker takes {self._max_frame}"
            self._fail(request, CoorddError(text, code="too_large"))
            return
        if request.msgid < 0:
            self._forget(request)
        self._wire.write(request, len(self._pending) == 1)

    def _on_frame(self, frame: Any) -> None:
        kind = frame[0]
        if kind == 1:
            _, msgid, error, result = frame
            request = self._pending.get(msgid)
            if request is not None and request.has_left:
                if error is None:
                    self._finish(request, None, result)
                else:
                    self._refused(request, refusal(error))
            elif msgid == 0 and error is not None:
                self._condemned(refusal(error))
            # else it was given up
        elif kind == 2:
            self._on_notice(frame[1], frame[2])
        else:
            raise ValueError(f"a frame that begins with {kind!r}"[:80])

    def _refused(self, request: Request, error: CoorddError) -> None:
        """Ask again where that does no harm and can help."""
        if error.code == "shutting_down":
            self._leave()
        if error.applied == "unknown":
            request.is_uncertain = True
            may_help = request.method in AGAIN
        else:
            may_help = error.applied == "no" or error.code in ("overloaded", "shutting_down")
        if not may_help:
            self._fail(request, error)
            return
        request.has_left = False
        request.attempts += 1
        request.last = error
        self._again.append(request)
        if self._repeater is None and self._loop is not None:
            self._repeater = self._loop.call_later(self._pause(request.attempts), self._repeat)

    def _pause(self, attempts: int) -> float:
        return random.random() * min(self.backoff_max, self.backoff_min * 2.0 ** min(attempts - 1, 32))

    def _repeat(self) -> None:
        """Ask again what was refused, in the order in which it was asked first."""
        self._repeater = None
        again, self._again = self._again, []
        if self._is_open:  # else it goes with the others once there is a connection
            for request in sorted(again, key=lambda each: each.order):
                if not request.is_dropped:
                    self._write(request)

    def _fail(self, request: Request, error: CoorddError) -> None:
        """End it with an error, which tells if an attempt may have been applied all the same."""
        if request.is_uncertain:
            error.applied = "unknown"
        self._finish(request, error, None)

    def _forget(self, request: Request) -> None:
        if self._pending.pop(request.msgid, None) is not None:
            self._pending_bytes -= len(request.data)

    def _finish(self, request: Request, error: CoorddError | None, result: Any) -> None:
        """The only exit of a request that was not cancelled."""
        if self._pending.pop(request.msgid, None) is None:
            return
        self._pending_bytes -= len(request.data)
        request.is_dropped = True
        if request.tokens:
            self._settled(request.tokens)
        elif request.params is not None and result and request.params.get("lease") == "connection":
            self._hold(each["token"] for each in (result if isinstance(result, list) else (result,)))
        if request.then is not None:
            request.then(error, result)
        elif request.future is not None and not request.future.done():
            if error is None:
                request.future.set_result(result)
            else:
                request.future.set_exception(error)
        if self._is_leaving:
            self._leave_when_idle()

    def _abandon(self, request: Request) -> None:
        """Nobody waits for it any more. What it receives is handed back."""
        future = request.future
        assert future is not None
        if request.params is None:
            self._forget(request)
            request.is_dropped = True
        elif future.done() and not future.cancelled() and future.exception() is None:
            self._hand_back(request.params, future.result())
        elif request.msgid in self._pending:
            if request.has_left:
                params, request.is_bound = request.params, True
                request.then = lambda error, result: self._hand_back(params, result)
            else:
                self._forget(request)
                request.is_dropped = True

    def _hand_back(self, params: dict[str, Any], result: Any) -> None:
        for each in result if isinstance(result, list) else [result] if result else []:
            self._give_back(params["agent"], each["token"])

    def _give_back(self, agent: Any, token: str) -> None:
        """Release it, without waiting for that. If this fails its time ends by itself."""
        with contextlib.suppress(CoorddError):
            self.notify("release", agent=agent, token=token)

    # --- deadlines

    def _sweep_when(self, deadline: float) -> None:
        assert self._loop is not None
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._sweep_at = max(deadline, self._loop.time() + SWEEP_PAUSE / 4)
        self._sweeper = self._loop.call_at(self._sweep_at, self._sweep)

    def _sweep(self) -> None:
        """End what is over its deadline. Most are answered long before, so a timer for each would be a waste."""
        assert self._loop is not None
        self._sweeper, self._sweep_at = None, math.inf
        now = self._loop.time()
        for request in [each for each in self._pending.values() if each.deadline <= now]:
            self._expire(request)
        deadline = min((each.deadline for each in self._pending.values()), default=math.inf)
        if deadline < self._sweep_at:
            self._sweep_when(max(deadline, now + SWEEP_PAUSE))

    def _expire(self, request: Request) -> None:
        last = request.last or (None if request.sent_at is not None else self._problem)
        if request.has_left:
            request.is_uncertain = True
            if request.params is not None:  # its answer can still come, with messages
                params, future = request.params, request.future
                request.then, request.future = lambda error, result: self._hand_back(params, result), None
                request.is_bound, request.deadline = True, math.inf
                if future is not None and not future.done():
                    future.set_exception(self._late(request, last))
                return
        self._fail(request, self._late(request, last))

    @staticmethod
    def _late(request: Request, last: CoorddError | None) -> CoorddError:
        applied = "unknown" if request.is_uncertain else "no"
        if last is not None and last.code != "closed":
            text = f"{request.method} was given up: {last.message}"
            return CoorddError(text, code=last.code, retryable=True, applied=applied)
        return RequestTimeout(f"{request.method}: no answer in time", code="timeout", retryable=True, applied=applied)

    # --- connecting

    def _is_wanted(self) -> bool:
        return not self._is_closed and bool(self._pending or self._streams or self._on_connect)

    def _want(self) -> None:
        """See that a connection is made, unless one is there or being made."""
        if self._wire is None and self._connector is None and self._loop is not None:
            self._connector = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        """Try the servers one after the other until one greets us."""
        try:
            while self._is_wanted():
                if self._tried >= len(self.servers):
                    self._failures += 1
                    await asyncio.sleep(self._pause(self._failures))
                try:
                    wire = await self._open(self.servers[self._at])
                except CoorddError as problem:
                    log.info("%s", problem.message)
                    self._problem = problem
                    self._try_next()
                    if not problem.retryable:  # a token or a namespace: trying on does not help
                        self._refuse_all(problem)
                        return
                else:
                    self._connector = None
                    self._begin(wire)
                    return
        finally:
            if self._connector is asyncio.current_task():
                self._connector = None

    def _try_next(self) -> None:
        self._at = (self._at + 1) % len(self.servers)
        self._tried += 1

    def _refuse_all(self, problem: CoorddError) -> None:
        for request in list(self._pending.values()):
            self._fail(request, CoorddError(problem.message, code=problem.code, applied="no"))
        for stream in list(self._streams):
            stream._finish(problem)

    async def _open(self, url: str) -> Wire:
        """A connection that was greeted. Raises CoorddError, retryable unless the greeting was refused for good."""
        assert self._loop is not None
        greeted: asyncio.Future[dict[str, Any]] = self._loop.create_future()

        def on_frame(frame: Any) -> None:
            kind, _, error, result = frame
            if kind == 1 and not greeted.done():
                if error is not None:
                    greeted.set_exception(refusal(error))
                else:
                    greeted.set_result(result)

        def on_end(wire: Wire, why: str) -> None:
            if not greeted.done():
                greeted.set_exception(CoorddError(why, code="unavailable", retryable=True, applied="no"))

        hello = {"client": self.name, "token": self.token, "namespace": self.namespace}
        hello = {key: value for key, value in hello.items() if value is not None}
        wire = Wire(self._loop, on_frame, on_end)
        address = address_of(url)
        try:
            async with asyncio.timeout(self.connect_timeout):
                if isinstance(address, str):
                    await self._loop.create_unix_connection(lambda: wire, address)
                else:
                    await self._loop.create_connection(lambda: wire, *address)
                wire.write(Frame(self._encode("hello", [0, 0, "hello", [hello]])), at_once=True)
                session = await greeted
            self._max_frame = int(session["limits"]["max_frame"])
            self._session = session
        except BaseException as problem:
            wire.close()
            if greeted.done() and not greeted.cancelled():
                greeted.exception()
            if isinstance(problem, CoorddError):
                problem.message = f"{url}: {problem.message}"
                raise
            if isinstance(problem, TimeoutError):
                text = f"{url}: no answer within {self.connect_timeout} s"
            elif isinstance(problem, OSError):
                text = f"{url}: {os.strerror(problem.errno) if problem.errno and problem.errno > 0 else problem}"
            elif isinstance(problem, (TypeError, LookupError, ValueError)):
                text = f"{url}: this is no coordd"
            else:
                raise
            raise CoorddError(text, code="unavailable", retryable=True, applied="no") from problem
        wire.on_frame = self._on_frame
        return wire

    def _begin(self, wire: Wire) -> None:
        """A connection was greeted: ask on it what waits, in the order in which it was asked first."""
        assert self._loop is not None
        log.debug("connected to %s", self.servers[self._at])
        wire.on_end = self._on_end
        self._wire, self._since, self._problem = wire, self._loop.time(), None
        self._socket = wire.socket
        self._again.clear()
        for callback in list(self._on_connect):
            self._loop.call_soon(callback)
        if self._is_careful:
            self._is_careful = False
            self._suspects = deque(self._pending.values())
            self._ask_suspect()
        else:
            self._open_gate()
        self._is_pinged = False
        self._check_later()

    def _open_gate(self) -> None:
        self._is_open = True
        for request in [each for each in self._pending.values() if not each.has_left]:
            self._write(request)
        for stream in list(self._streams):
            stream._connected()

    def _on_end(self, wire: Wire, why: str) -> None:
        """The connection broke."""
        assert self._loop is not None
        log.info("%s: %s", self.servers[self._at], why)
        if self._loop.time() - self._since >= GOOD_AFTER:
            self._tried = self._failures = 0
        self._disconnected(f"{self.servers[self._at]}: {why}")

    def _disconnected(self, why: str) -> None:
        self._try_next()
        self._wire = self._socket = self._suspects = self._suspect = None
        self._is_open = self._is_leaving = False
        self._held.clear()
        self._receivers.clear()
        if self._checker is not None:
            self._checker.cancel()
        for request in list(self._pending.values()):
            if request.is_bound:
                request.then = None
                self._forget(request)
                request.is_dropped = True
            elif request.has_left:
                request.has_left = False
                request.attempts += 1
                request.is_uncertain = True
                request.last = CoorddError(why, code="unavailable", retryable=True, applied="unknown")
                if request.method not in AGAIN:
                    self._fail(request, request.last)
        for stream in list(self._streams):
            stream._disconnected()
        if self._is_wanted():
            self._want()

    # --- a broker that is silent, one that stops, and one that takes offence

    def _check_later(self) -> None:
        assert self._loop is not None
        self._checker = self._loop.call_later(self.idle_timeout / 8, self._check)

    def _check(self) -> None:
        """A broker that stopped without its machine telling is noticed by its silence."""
        assert self._loop is not None and self._wire is not None
        silence = self._loop.time() - self._wire.heard
        if silence < self.idle_timeout / 2:
            self._is_pinged = False
        elif not (self._pending or self._streams or self._on_connect):
            pass  # it owes nothing
        elif not self._is_pinged:
            self._is_pinged = True
            self._wire.write(Frame(self._encode("ping", [0, 0, "ping", []])))
        elif silence >= self.idle_timeout:
            self._wire.abort(f"nothing was heard for {silence:.1f} s")
            return
        self._check_later()

    def _leave(self) -> None:
        """This broker stops. Go to another one, once what ends with this connection is settled; with no other, stay until it
        ends the connection."""
        if len(self.servers) > 1 and not self._is_leaving and self._wire is not None:
            self._is_leaving = True
            assert self._loop is not None
            self._loop.call_soon(self._leave_when_idle)

    def _leave_when_idle(self) -> None:
        if not self._is_leaving or self._held or self._wire is None:
            return
        if self._is_open:
            self._is_open = False
            assert self._loop is not None
            self._loop.call_later(LEAVE_AFTER, self._leave_now, self._wire)
        if not any(each.has_left and not each.is_bound for each in self._pending.values()):
            self._leave_now(self._wire)

    def _leave_now(self, wire: Wire) -> None:
        if wire is self._wire:
            wire.close()
            self._disconnected(f"{self.servers[self._at]}: the broker stops")

    def _condemned(self, error: CoorddError) -> None:
        """The broker ends the connection. If that is for what a request had in it, find out for which: the next connection
        asks them one at a time, each followed by a ping."""
        assert self._wire is not None
        if error.code in ("protocol_error", "too_large"):
            if self._suspect is not None:
                suspects = [self._suspect]
            else:
                suspects = [each for each in self._pending.values() if each.has_left]
            if len(suspects) == 1:
                self._fail(suspects[0], error)
            self._is_careful = bool(self._pending)
        self._wire.abort(error.message)

    def _ask_suspect(self) -> None:
        while self._suspects:
            self._suspect = self._suspects.popleft()
            if not self._suspect.is_dropped:
                self._write(self._suspect)
                self._write(self._submit("ping", {}, then=lambda error, result: self._ask_suspect()))
                return
        self._suspects = self._suspect = None
        self._open_gate()

    # --- what comes unasked

    def _on_notice(self, method: str, params: list[dict[str, Any]]) -> None:
        if method == "message":
            receiver = self._receivers.get(params[0]["consumer_id"])
        elif method == "event":
            receiver = self._receivers.get(params[0]["watch_id"])
        else:
            if method == "shutting_down":
                self._leave()
            return
        if receiver is not None:
            receiver._came(params[0])

    def _hold(self, tokens: Any) -> None:
        self._held.update(tokens)

    def _settled(self, tokens: Sequence[str]) -> None:
        if self._held:
            self._held.difference_update(tokens)
            if self._is_leaving and self._loop is not None:
                self._loop.call_soon(self._leave_when_idle)


def tokens_of(params: dict[str, Any]) -> Sequence[str]:
    tokens = params.get("tokens")
    return tokens if isinstance(tokens, (list, tuple)) else (params.get("token", ""),)
