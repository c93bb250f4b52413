"""Real redis-server and coordd processes, and a client that trusts nothing it reads.

Everything a test needs to talk to the daemon from outside is here. The client checks each answer
against docs/PROTOCOL.md as it comes in, so the tests need only say what is special about them.
"""

import concurrent.futures
import ctypes
import datetime
import itertools
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import msgpack

REPO = Path(__file__).resolve().parents[2]
COORDD = os.environ.get("COORDD", str(REPO / "build" / "coordd"))
REDIS_SERVER = os.environ.get("REDIS_SERVER", "redis-server")
# Upper bounds are for a release build on an idle machine; a sanitizer or a busy one needs more.
SLOW = float(os.environ.get("TEST_SLOW", "1"))

MAX_FRAME = 1 << 20
RETRYABLE = {
    "protocol_error": False,
    "bad_request": False,
    "unknown_method": False,
    "too_large": False,
    "unauthenticated": False,
    "forbidden": False,
    "not_found": False,
    "unavailable": True,
    "overloaded": True,
    "shutting_down": True,
    "internal": False,
}

_counter = itertools.count(1)


def fresh(prefix):
    """A name that nobody used before."""
    return f"{prefix}-{next(_counter)}"


def within(seconds):
    """An upper bound in seconds, stretched for slow builds."""
    return seconds * SLOW


def wait_until(condition, limit=5.0, what="the condition"):
    """Poll until `condition()` is true; its value."""
    deadline = time.monotonic() + within(limit)
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come true within {within(limit)} s"
        time.sleep(0.005)


def wait_for_time(instant):
    """Wait until time.monotonic() reaches `instant`: for promises about time itself."""
    while (left := instant - time.monotonic()) > 0:
        time.sleep(min(left, 0.05))


def seconds_of(iso):
    """ISO 8601 text to seconds since 1970."""
    return datetime.datetime.fromisoformat(iso).timestamp()


# ---------------------------------------------------------------------------------------------
# Shapes


def is_time(value):
    return isinstance(value, str) and re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|\+00:00)", value
    )


def is_text(value):
    return isinstance(value, str) and value != ""


def is_count(value):
    return type(value) is int and value >= 0


def is_number(value):
    return type(value) in (int, float)


def check_shape(value, shape, where="the answer"):
    """`shape`: a dict of keys (`name?` may be absent, `...` allows others), a list of one element
    shape, a tuple of alternatives, a type, None, or a predicate."""
    if isinstance(shape, dict):
        assert isinstance(value, dict), f"{where} is no map: {value!r}"
        for key, inner in shape.items():
            name = key.rstrip("?")
            if key == "..." or (key.endswith("?") and name not in value):
                continue
            assert name in value, f"{where} lacks {name}: {value!r}"
            check_shape(value[name], inner, f"{where}.{name}")
        extra = value.keys() - {key.rstrip("?") for key in shape}
        assert not extra or "..." in shape, f"{where} has {extra}: {value!r}"
    elif isinstance(shape, list):
        assert isinstance(value, list), f"{where} is no array: {value!r}"
        for i, element in enumerate(value):
            check_shape(element, shape[0], f"{where}[{i}]")
    elif isinstance(shape, tuple):
        for alternative in shape:
            try:
                return check_shape(value, alternative, where)
            except AssertionError as error:
                last = error
        raise last
    elif isinstance(shape, type):
        assert type(value) is shape, f"{where} is no {shape.__name__}: {value!r}"
    elif shape is None:
        assert value is None, f"{where} is not nil: {value!r}"
    else:
        assert shape(value), f"{where} fails {shape.__name__}: {value!r}"
    return value


AGENT_ID = {"type": is_text, "instance": is_text}
MESSAGE_RESULT = {
    "message_id": is_text,
    "recipient": AGENT_ID,
    "delivered": bool,
    "error": (None, is_text),
    "duplicate?": lambda value: value is True,
}
QUEUE_MESSAGE = {
    "message": {
        "message_id": is_text,
        "message_type": lambda value: value in ("request", "response", "event"),
        "payload": (dict, list),
        "priority": lambda value: value in (1, 5, 9),
        "timestamp": is_text,
        "sender": AGENT_ID,
        "recipient": AGENT_ID,
        "...": None,
    },
    "priority": lambda value: value in (1, 5, 9),
    "enqueued_at": is_time,
    "delivery_attempts": is_count,
    "last_error": (None, str),
}
RECEIVED_MESSAGE = {
    "token": is_text,
    "queue_message": QUEUE_MESSAGE,
    "visibility_deadline": (None, is_time),
    "fence": is_count,
}
QUEUE_STATS = {
    "agent_id": AGENT_ID,
    "ready": {"9": is_count, "5": is_count, "1": is_count},
    "delayed": is_count,
    "reserved": is_count,
    "dead": is_count,
    "size": is_count,
    "capacity": is_count,
    "bytes": is_count,
    "oldest_age": (None, is_number),
    "consumers": is_count,
    "paused": bool,
}
DEAD_LETTERS = {
    "dead": [
        {
            "id": is_text,
            "queue_message": QUEUE_MESSAGE,
            "reason": lambda value: value in ("permanent", "attempts", "expired"),
            "dead_at": is_time,
        }
    ],
    "after": (None, is_text),
}
SETTINGS = {
    "queue_size": is_count,
    "retry_attempts": is_count,
    "backoff_base": is_number,
    "backoff_factor": is_number,
    "backoff_max": is_number,
    "backoff_jitter": is_number,
}


def check_queue_message(value):
    check_shape(value, QUEUE_MESSAGE, "queue_message")
    assert value["message"]["priority"] == value["priority"]


# ---------------------------------------------------------------------------------------------
# Client


class Closed(Exception):
    """The daemon closed the connection."""


class Refused(Exception):
    """An error answer, already checked against section 7 of the protocol."""

    def __init__(self, error):
        if isinstance(error, list):
            assert len(error) == 2 and error[0] == 0, error
            self.code, separator, self.message = error[1].partition(": ")
            assert separator, error
            self.applied = None
        else:
            check_shape(
                error,
                {
                    "code": is_text,
                    "message": is_text,
                    "retryable": bool,
                    "applied?": lambda value: value in ("no", "unknown"),
                    "...": None,
                },
                "error",
            )
            self.code, self.message = error["code"], error["message"]
            self.applied = error.get("applied")
            assert error["retryable"] is RETRYABLE[self.code], error
            assert (self.applied is not None) == (self.code == "unavailable"), error
        assert self.code in RETRYABLE, error
        assert "\n" not in self.message, error
        self.error = error
        super().__init__(f"{self.code}: {self.message}")


def pack(value):
    return msgpack.packb(value, use_bin_type=True)


def request(msgid, method, params):
    return pack([0, msgid, method, [params]])


class Client:
    """One connection. Every request gets exactly one answer, or the test fails."""

    def __init__(self, connection, timeout=10.0, relaxed=False):
        self.sock = connection
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.timeout = timeout
        self.ids = itertools.count(1)
        self.pending = set()
        self.answers = {}
        self.notifications = []
        self.raw = b""  # the bytes of the frame read last
        self._bytes = bytearray()
        self._base = 0
        self._readable = select.poll()
        self._readable.register(connection, select.POLLIN)
        # By default as strict as the strictest receiver: string keys, valid UTF-8.
        self._unpacker = msgpack.Unpacker(
            raw=False,
            strict_map_key=not relaxed,
            unicode_errors="surrogateescape" if relaxed else "strict",
            max_buffer_size=1 << 28,
        )

    # -- frames

    def send_bytes(self, data):
        self.sock.settimeout(within(self.timeout))
        self.sock.sendall(data)

    def read_frame(self, timeout=None):
        """The next frame, whatever it is. Closed when the daemon has closed the connection."""
        timeout = within(self.timeout) if timeout is None else timeout
        deadline = time.monotonic() + timeout
        while True:
            start = self._unpacker.tell()
            try:
                frame = self._unpacker.unpack()
            except msgpack.OutOfData:
                pass
            else:
                end = self._unpacker.tell()
                self.raw = bytes(self._bytes[start - self._base : end - self._base])
                del self._bytes[: end - self._base]
                self._base = end
                return frame
            left = max(0.0, deadline - time.monotonic())
            if not self._readable.poll(left * 1000):
                raise TimeoutError(f"no answer within {timeout} s")
            try:
                data = self.sock.recv(1 << 18)
            except ConnectionError as error:
                raise Closed(str(error)) from None
            if not data:
                raise Closed("end of file")
            self._bytes += data
            self._unpacker.feed(data)

    def expect_closed(self, timeout=5.0):
        """Read to the end of the connection; the frames that came before it."""
        frames = []
        deadline = time.monotonic() + within(timeout)
        while True:
            try:
                frames.append(self.read_frame(max(0.0, deadline - time.monotonic())))
            except Closed:
                return frames

    def expect_silence(self):
        """Nothing came that nobody asked for: the next frame is the answer to a ping."""
        assert self.call("ping") == "pong"
        assert self.notifications == []

    # -- requests

    def submit(self, method, params=None):
        """Send a request without waiting; its id."""
        return self.submit_all([(method, params)])[0]

    def submit_all(self, calls):
        """Send many requests in one write; their ids."""
        ids, data = [], bytearray()
        for method, params in calls:
            msgid = next(self.ids)
            ids.append(msgid)
            data += request(msgid, method, params or {})
        self.pending.update(ids)
        self.send_bytes(data)
        return ids

    def result(self, msgid, timeout=None):
        """The result of a submitted request; raises Refused."""
        deadline = time.monotonic() + (within(self.timeout) if timeout is None else timeout)
        while msgid not in self.answers:
            self._take(self.read_frame(max(0.0, deadline - time.monotonic())))
        error, value = self.answers.pop(msgid)
        if error is not None:
            assert value is None
            raise Refused(error)
        return value

    def results(self, ids):
        return [self.result(msgid) for msgid in ids]

    def has_answer(self, msgid):
        """Whether the answer is there by now, without waiting."""
        try:
            while msgid not in self.answers:
                self._take(self.read_frame(0))
        except TimeoutError:
            return False
        return True

    def _take(self, frame):
        assert isinstance(frame, list) and frame, frame
        if frame[0] == 1:
            _, msgid, error, value = frame
            assert msgid in self.pending, f"an answer nobody asked for: {frame!r}"
            self.pending.remove(msgid)
            self.answers[msgid] = (error, value)
        else:
            kind, method, params = frame
            assert kind == 2 and isinstance(params, list) and len(params) == 1, frame
            self.notifications.append((method, params[0]))

    def call(self, method, /, **params):
        return self.result(self.submit(method, params))

    def refused(self, method, params=None):
        """Call it and expect an error."""
        try:
            value = self.result(self.submit(method, params))
        except Refused as refusal:
            return refusal
        raise AssertionError(f"{method} {params!r} was not refused but answered {value!r}")

    def notify(self, method, params=None):
        self.send_bytes(pack([2, method, [params or {}]]))

    def close(self):
        self.sock.close()

    def reset(self):
        """Close with a TCP reset, as a killed machine's peer sees it."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


# ---------------------------------------------------------------------------------------------
# Queues


class Received:
    """A ReceivedMessage."""

    def __init__(self, value):
        check_shape(value, RECEIVED_MESSAGE, "received")
        check_queue_message(value["queue_message"])
        self.token, self.fence = value["token"], value["fence"]
        deadline = value["visibility_deadline"]
        self.deadline = None if deadline is None else seconds_of(deadline)
        queued = value["queue_message"]
        self.message = queued["message"]
        self.id = self.message["message_id"]
        self.attempts = queued["delivery_attempts"]
        self.last_error = queued["last_error"]
        self.enqueued_at = seconds_of(queued["enqueued_at"])


def ids_of(received):
    return [each.id for each in received]


def token_of(received):
    return received.token if isinstance(received, Received) else received


class Parked:
    """A receive that waits."""

    def __init__(self, client, msgid, read):
        self.client, self.msgid, self._read = client, msgid, read

    def result(self, timeout=None):
        return self._read(self.client.result(self.msgid, timeout))

    def is_answered(self):
        return self.client.has_answer(self.msgid)


def read_one(value):
    return None if value is None else Received(value)


def read_many(value):
    return [Received(each) for each in check_shape(value, [dict])]


class Queue:
    """One agent's queue as one client sees it."""

    sender = {"type": "tester", "instance": "one"}

    def __init__(self, client, agent):
        self.client, self.agent = client, agent

    def at(self, client):
        """The same queue through another connection."""
        return Queue(client, self.agent)

    def sending(self, message_id=None, sender=None, delay=None, ttl=None, **message):
        """The params of a send; unknown names become keys of the message."""
        message = {
            "message_id": message_id or fresh("m"),
            "message_type": message.pop("message_type", "request"),
            **message,
        }
        params = {"sender": sender or self.sender, "recipient": self.agent, "message": message}
        if delay is not None:
            params["delay"] = delay
        if ttl is not None:
            params["ttl"] = ttl
        return params

    def try_send(self, message_id=None, **more):
        """Send; the MessageResult."""
        params = self.sending(message_id, **more)
        return self.checked(self.client.call("send", **params), params["message"]["message_id"])

    def checked(self, result, message_id):
        check_shape(result, MESSAGE_RESULT, "result")
        assert result["message_id"] == message_id
        assert result["recipient"] == spelled_out(self.agent)
        assert result["delivered"] is (result["error"] is None)
        return result

    def send(self, message_id=None, **more):
        """Send what is to be stored; its id."""
        result = self.try_send(message_id, **more)
        assert result["delivered"] and "duplicate" not in result, result
        return result["message_id"]

    def send_all(self, ids, **more):
        """Send many in one write, all to be stored."""
        calls = [("send", self.sending(each, **more)) for each in ids]
        for result in self.client.results(self.client.submit_all(calls)):
            assert result["delivered"] and "duplicate" not in result, result
        return list(ids)

    def receive(self, **params):
        return read_one(self.client.call("receive", agent=self.agent, **params))

    def take(self, most=1000, **params):
        return read_many(self.client.call("receive_batch", agent=self.agent, max=most, **params))

    def take_one(self, wait=5, **params):
        """Receive what must be there, or come."""
        received = self.receive(wait=wait, **params)
        assert received is not None, "nothing came"
        return received

    def park(self, method="receive", wait=20, **params):
        """A waiting receive; when this returns the daemon has taken the request."""
        msgid = self.client.submit(method, {"agent": self.agent, "wait": wait, **params})
        assert self.client.call("ping") == "pong"
        return Parked(self.client, msgid, read_one if method == "receive" else read_many)

    def settle(self, method, received, **params):
        return self.client.call(method, agent=self.agent, token=token_of(received), **params)

    def ack(self, received):
        return check_shape(self.settle("ack", received), bool)

    def nack(self, received, **params):
        return check_shape(self.settle("nack", received, **params), bool)

    def release(self, received, **params):
        return check_shape(self.settle("release", received, **params), bool)

    def extend(self, received, seconds):
        """The deadline in force, in seconds since 1970, or None."""
        value = self.settle("extend", received, visibility_timeout=seconds)
        return None if value is None else seconds_of(check_shape(value, is_time))

    def ack_all(self, received):
        tokens = [token_of(each) for each in received]
        return check_shape(
            self.client.call("ack_batch", agent=self.agent, tokens=tokens), [bool]
        )

    def kill(self, message_id=None, **more):
        """Send a message and make it a dead letter; its id."""
        message_id = self.send(message_id, **more)
        received = self.take_one()
        assert received.id == message_id
        assert self.nack(received, failure="permanent")
        return message_id

    def configure(self, **settings):
        return check_shape(
            self.client.call("configure", agent=self.agent, **settings), SETTINGS
        )

    def stats(self):
        stats = check_shape(self.client.call("queue_stats", agent=self.agent), QUEUE_STATS)
        assert stats["agent_id"] == spelled_out(self.agent)
        assert stats["size"] == sum(stats["ready"].values()) + stats["delayed"] + stats["reserved"]
        return stats

    def counts(self):
        """(ready, delayed, reserved, dead)."""
        stats = self.stats()
        ready = sum(stats["ready"].values())
        return ready, stats["delayed"], stats["reserved"], stats["dead"]

    def peek(self, **params):
        messages = self.client.call("peek", agent=self.agent, **params)
        for each in check_shape(messages, [dict]):
            check_queue_message(each)
        return [each["message"]["message_id"] for each in messages]

    def dead_page(self, **params):
        return check_shape(self.client.call("dlq_list", agent=self.agent, **params), DEAD_LETTERS)

    def dead(self, **params):
        """All dead letters, page by page."""
        letters, after = [], None
        while True:
            page = self.dead_page(after=after, **params)
            letters += page["dead"]
            after = page["after"]
            if after is None or not page["dead"]:
                return letters

    def drain(self, wait=0):
        """Receive and ack all that is due; what came, in order."""
        everything = []
        while batch := self.take(wait=wait, visibility_timeout=60):
            everything += batch
            assert all(self.ack_all(batch))
        return everything


def spelled_out(agent):
    return {"type": agent["type"], "instance": agent.get("instance") or "default"}


# ---------------------------------------------------------------------------------------------
# Processes


def _die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


# Who starts the children: to the kernel the parent is a thread, and one of asyncio's ends before the test does.
_starter = concurrent.futures.ThreadPoolExecutor(1)


class Process:
    """A child in a directory of its own."""

    def __init__(self, prefix):
        self.directory = Path(tempfile.mkdtemp(prefix=f"coordd-test-{prefix}-"))
        self.process = None

    def spawn(self, arguments, **more):
        with open(self.directory / "stderr", "ab") as errors:
            self.process = _starter.submit(
                subprocess.Popen,
                [str(each) for each in arguments],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                preexec_fn=_die_with_parent,
                cwd=self.directory,
                **more,
            ).result()

    @property
    def pid(self):
        return self.process.pid

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        """kill -9, and wait until it is gone."""
        if self.is_running():
            self.process.kill()
        if self.process:
            self.process.wait()

    def wait(self, limit):
        """Its exit status."""
        return self.process.wait(within(limit))

    def errors(self):
        return (self.directory / "stderr").read_text(errors="replace")

    def remove(self):
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


class Redis(Process):
    """A private redis-server on a Unix socket."""

    def __init__(self, fsync="everysec", appendonly="yes", options=()):
        super().__init__("redis")
        self.socket = self.directory / "r.sock"
        self.url = f"unix://{self.socket}"
        self.password = None
        self.arguments = [
            REDIS_SERVER,
            *("--port", "0", "--unixsocket", self.socket, "--dir", self.directory),
            *("--save", "", "--appendonly", appendonly, "--appendfsync", fsync),
            *("--logfile", self.directory / "log", "--daemonize", "no"),
            *options,
        ]
        self.start()

    def start(self):
        self.spawn(self.arguments)
        wait_until(self.answers, 10, "redis-server answers")

    def answers(self):
        assert self.is_running(), (self.directory / "log").read_text() + self.errors()
        try:
            return self.command("PING") == "PONG"
        except (OSError, RuntimeError):
            return False

    def command(self, *words):
        """Run one command; raises RuntimeError on an error reply."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(within(30))
            connection.connect(str(self.socket))
            with connection.makefile("rwb") as stream:
                calls = [words] if self.password is None else [("AUTH", self.password), words]
                for call in calls:
                    parts = [str(each).encode() for each in call]
                    stream.write(b"*%d\r\n" % len(parts))
                    for part in parts:
                        stream.write(b"$%d\r\n%s\r\n" % (len(part), part))
                    stream.flush()
                    value = _read_reply(stream)
                return value

    def time(self):
        seconds, micros = self.command("TIME")
        return int(seconds) + int(micros) / 1e6

    def pause(self):
        self.signal(signal.SIGSTOP)

    def resume(self):
        self.signal(signal.SIGCONT)


def _read_reply(stream):
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        raise ConnectionError("cut off")
    kind, rest = line[:1], line[1:-2].decode()
    if kind == b"-":
        raise RuntimeError(rest)
    if kind == b"+":
        return rest
    if kind == b":":
        return int(rest)
    if kind == b"$":
        return None if rest == "-1" else stream.read(int(rest) + 2)[:-2].decode(errors="replace")
    assert kind == b"*", line
    return [_read_reply(stream) for _ in range(int(rest))]


def to_yaml(value, indent=""):
    """Block-style YAML of nested dicts, lists and scalars."""
    lines = []
    for key, inner in value.items():
        if isinstance(inner, dict):
            lines += [f"{indent}{key}:", to_yaml(inner, indent + "  ")]
        elif isinstance(inner, list):
            lines.append(f"{indent}{key}:")
            lines += [f"{indent}  - {_scalar(each)}" for each in inner]
        else:
            lines.append(f"{indent}{key}: {_scalar(inner)}")
    return "\n".join(lines)


def _scalar(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_scalar(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, str) and not re.fullmatch(r"[0-9]*[A-Za-z_][A-Za-z0-9_.]*", value):
        return f'"{value}"'
    return str(value)


def merge(base, over):
    out = dict(base)
    for key, value in over.items():
        inner = out.get(key)
        both = isinstance(inner, dict) and isinstance(value, dict)
        out[key] = merge(inner, value) if both else value
    return out


LOG_FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)')


class Broker(Process):
    """A coordd with a configuration of its own."""

    def __init__(self, redis_url, config=None, arguments=(), environment=None):
        super().__init__("broker")
        self.log_path = self.directory / "log"
        self.unix_path = self.directory / "c.sock"
        self.admin_path = self.directory / "a.sock"
        self.config_path = self.directory / "coordd.yaml"
        self.arguments = list(arguments)
        self.wrapper = []  # what coordd is started with
        self.environment = {**os.environ, **(environment or {})}
        self.clients = []
        self.expected_errors = []  # beginnings of event names
        self.config = merge(
            {
                "server": {
                    "listen": ["tcp://127.0.0.1:0", "tcp://[::1]:0", f"unix://{self.unix_path}"]
                },
                "admin": {"listen": ["tcp://127.0.0.1:0", f"unix://{self.admin_path}"]},
                "redis": {"url": redis_url} if redis_url else {},
                "log": {"level": "debug", "format": "logfmt", "file": str(self.log_path)},
            },
            config or {},
        )
        self.config = {key: value for key, value in self.config.items() if value != {}}
        self.listen = []
        self.admin = []
        self._checked = 0  # log lines looked at by check()

    def start(self):
        """Start it and wait until it is ready."""
        seen = len(self.log())
        self.launch()

        def ready():
            assert self.is_running(), f"coordd left with {self.process.returncode}: {self.report()}"
            for line in self.log()[seen:]:
                if line.get("event") == "server.ready":
                    return line

        line = wait_until(ready, 10, "coordd is ready")
        self.listen = line["listen"].split()
        self.admin = line["admin"].split()
        return self

    def launch(self):
        self.config_path.write_text(to_yaml(self.config) + "\n")
        self.spawn(
            [*self.wrapper, COORDD, "--config", self.config_path, *self.arguments], env=self.environment
        )

    def run_to_end(self, limit=10):
        """Start it and wait for its exit; the status."""
        self.launch()
        return self.wait(limit)

    def log(self):
        """Each line of the log as a dict."""
        if not self.log_path.exists():
            return []
        lines = []
        text = self.log_path.read_text(errors="replace")
        for line in text[: text.rfind("\n") + 1].splitlines():
            pairs = LOG_FIELD.findall(line)
            fields = {key: value.strip('"') for key, value in pairs}
            fields["line"] = line
            lines.append(fields)
        return lines

    def logged(self, event):
        return [line for line in self.log() if line.get("event") == event]

    def report(self):
        tail = "\n".join(line["line"] for line in self.log()[-30:])
        return f"\n--- log\n{tail}\n--- stderr\n{self.errors()[-8000:]}"

    def check(self):
        """Fail on a sanitizer's report and on errors in the log that the test did not expect."""
        text = self.errors()
        bad = re.search(r"Sanitizer|runtime error:|[Aa]ssertion", text)
        assert not bad, f"coordd complained:\n{text[-8000:]}"
        lines = self.log()
        fresh_lines, self._checked = lines[self._checked :], len(lines)
        for line in fresh_lines:
            assert line.get("level") in ("debug", "info", "notice", "warning", "error"), line["line"]
            if line["level"] == "error":
                event = line.get("event", "")
                assert any(event.startswith(each) for each in self.expected_errors), line["line"]

    def stop(self, limit=25):
        """SIGTERM; it drains and leaves with 0."""
        self.close_clients()
        if self.is_running():
            self.signal(signal.SIGTERM)
            status = self.wait(limit)
            assert status == 0, f"coordd left with {status} on SIGTERM: {self.report()}"
        self.check()

    def resident(self):
        """Resident memory in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024

    def open_files(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    # -- clients

    def address(self, kind):
        """("127.0.0.1", port), ("::1", port) or the path of the Unix socket."""
        if kind == "unix":
            return str(self.unix_path)
        prefix = {"tcp": "tcp://127.0.0.1:", "tcp6": "tcp://[::1]:"}[kind]
        for url in self.listen:
            if url.startswith(prefix):
                return ("127.0.0.1" if kind == "tcp" else "::1", int(url[len(prefix) :]))
        raise AssertionError(f"no {kind} listener among {self.listen}")

    def connect(self, kind="tcp", **more):
        family = {"tcp": socket.AF_INET, "tcp6": socket.AF_INET6, "unix": socket.AF_UNIX}[kind]
        connection = socket.socket(family)
        connection.settimeout(within(10))
        try:
            connection.connect(self.address(kind))
        except OSError:
            connection.close()
            raise
        client = Client(connection, **more)
        self.clients.append(client)
        return client

    def in_namespace(self, namespace):
        client = self.connect()
        client.call("hello", namespace=namespace)
        return client

    def close_clients(self):
        for client in self.clients:
            client.close()
        self.clients.clear()


# ---------------------------------------------------------------------------------------------
# Load


class Worker(threading.Thread):
    """A thread whose failure is the test's failure."""

    def __init__(self, work):
        super().__init__(daemon=True)
        self.work, self.error = work, None
        self.start()

    def run(self):
        try:
            self.work()
        except BaseException as error:  # told by finish()
            self.error = error

    def finish(self, limit=60):
        self.join(within(limit))
        assert not self.is_alive(), "a worker did not finish"
        if self.error:
            raise self.error
