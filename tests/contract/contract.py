"""What the contract suite stands on: drivers of the client libraries, and a proxy that breaks what passes through.

A driver is a program that does with a client library what it is told, by lines of JSON on its standard input, and tells what
comes of it on its standard output: driver.c for libcoord, driver.py for the Python package. MessagePack stands in those lines as
hexadecimal digits; seconds are numbers; `at` is CLOCK_MONOTONIC. Names (`as`) are chosen by the test.

	{"id": 1, "do": "connect", "as": "c1", "urls": "tcp://…,unix://…", "options": {"name"?, "token"?, "namespace"?,
	    "connect_timeout"?, "idle_timeout"?, "backoff_min"?, "backoff_max"?}}
	{"id": 2, "do": "call", "on": "c1", "method": "ping", "params": {KEY: HEX}, "timeout"?: 5}
	{"id": 3, "do": "notify", "on": "c1", "method": "ack", "params": {KEY: HEX}}
	{"id": 4, "do": "watch", "on": "c1", "as": "w1", "classes": ["agent"]}
	{"id": 5, "do": "agent", "on": "c1", "as": "a1", "type": "t", "instance": "i", "params": {KEY: HEX}}
	{"id": 6, "do": "status" or "state", "of": "a1", "value": HEX}
	{"id": 7, "do": "consume", "of": "a1" or "on": "c1", "as": "q1", "queue"?: ["t", "i"], "concurrency": 2, "params": {KEY: HEX}, "plan": PLAN}
	{"id": 8, "do": "finish", "job": 12, "plan": PLAN}
	{"id": 9, "do": "request", "of": "a1", "to": ["t", "i"], "payload": HEX, "timeout": 5}
	{"id": 10, "do": "stop", "of": "a1", "timeout": 5}
	{"id": 11, "do": "close", "on": "c1"}
	{"id": 12, "do": "forget", "call": 2}		cancels a call, where the language can

PLAN is what the handler does with a job, `after` seconds (0) when it has begun: {"then": "ack", "nack" ("failure", "error"?, "delay"?),
"raise" (what a program does that did not expect this), "release" ("delay"?), "reply" ("payload": HEX) or "hang" (until told by
`finish`), "after"?}.

Each line is answered once, at any time: {"id": 2, "at": 1.5, "value": HEX} or {"id": 2, "at": 1.5, "error": {"code", "message",
"retryable", "applied"}}; by `close`, what is under way on the connection is answered {"id": 2, "at": 1.5, "dropped": true}. A refused
argument, such as a bad URL, has the code "usage". What happens unasked:

	{"event": "state", "of": "c1", "url": URL, "why": null or TEXT}
	{"event": "event", "of": "w1", "value": HEX}		or "refused" with an "error"
	{"event": "agent", "of": "a1", "what": "registered", "superseded" or "error", "incarnation"?: 3, "state"?: HEX}
	{"event": "job", "of": "q1", "job": 12, "token", "fence", "attempts", "message": HEX}
	{"event": "done", "of": "q1", "job": 12}		the handler is at its end; what it decided is being told to the broker
	{"event": "lost", "of": "q1", "job": 12}		the handler was told that the job is not its own any more

The end of the input ends the driver: everything is freed, and it exits with 0.
"""

import itertools
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import msgpack
from harness import REPO, SLOW, within, wait_until

PACKAGE = os.environ.get("COORD_PACKAGE", str(REPO / "src/python"))
HERE = Path(__file__).resolve().parent
C_DRIVER = os.environ.get("COORD_DRIVER", str(REPO / "build/release/contract/driver"))
# A command before the C driver, such as valgrind with its options. Its exit status counts.
C_WRAP = shlex.split(os.environ.get("COORD_DRIVER_WRAP", ""))
COMMANDS = {
    "c": [*C_WRAP, C_DRIVER],
    "python": [sys.executable, "-B", str(HERE / "driver.py")],
}

_names = itertools.count(1)


def pack(value):
    return msgpack.packb(value, use_bin_type=True).hex()


def unpack(digits):
    return msgpack.unpackb(bytes.fromhex(digits), raw=False, strict_map_key=False)


def packed(params):
    return {key: pack(value) for key, value in params.items()}


class Failure(Exception):
    """An error as the library told it."""

    def __init__(self, error):
        assert error.keys() == {"code", "message", "retryable", "applied"}, error
        self.code, self.message = error["code"], error["message"]
        self.retryable, self.applied = error["retryable"], error["applied"]
        assert self.message and "\n" not in self.message, error
        assert type(self.retryable) is bool, error
        assert self.applied in (None, "no", "unknown"), error
        super().__init__(f"{self.code}: {self.message} (applied: {self.applied})")

    @property
    def shape(self):
        return self.code, self.retryable, self.applied

    @property
    def kind(self):
        """Of what has changed nothing, whether that is said or not."""
        assert self.applied != "unknown", str(self)
        return self.code, self.retryable


class Dropped(Exception):
    """The connection was closed by the program before the answer came."""


class Answer:
    """What the driver will answer to one line."""

    def __init__(self, driver, number, limit):
        self.driver, self.number, self.limit = driver, number, limit
        self.asked = time.monotonic()

    def is_there(self):
        with self.driver.news:
            return self.number in self.driver.answers

    def line(self, limit=None):
        limit = within(self.limit if limit is None else limit)
        with self.driver.news:
            there = self.driver.news.wait_for(
                lambda: self.number in self.driver.answers or self.driver.is_at_end, limit
            )
            line = self.driver.answers.get(self.number)
        assert line, f"no answer from the driver within {limit} s" if not there else self.driver.report()
        return line

    def result(self, limit=None):
        """The value; raises Failure or Dropped."""
        line = self.line(limit)
        if "dropped" in line:
            raise Dropped
        if "error" in line:
            raise Failure(line["error"])
        return unpack(line["value"]) if line.get("value") is not None else None

    def failure(self, limit=None):
        """The Failure that is expected."""
        try:
            value = self.result(limit)
        except Failure as failure:
            return failure
        raise AssertionError(f"it did not fail but answered {value!r}")

    def took(self):
        """Seconds until it was answered."""
        return self.line()["at"] - self.asked


class Driver:
    """One driver process."""

    def __init__(self, language):
        self.language = language
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            COMMANDS[language],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env={**os.environ, "PYTHONPATH": PACKAGE, "PYTHONFAULTHANDLER": "1"},
        )
        self.numbers = itertools.count(1)
        self.news = threading.Condition()
        self.answers, self.events = {}, []
        self.connections = []
        self.is_at_end = False
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for text in self.process.stdout:
            line = json.loads(text)
            with self.news:
                if "event" in line:
                    self.events.append(line)
                else:
                    assert line["id"] not in self.answers, f"answered twice: {line}"
                    self.answers[line["id"]] = line
                self.news.notify_all()
        with self.news:
            self.is_at_end = True
            self.news.notify_all()

    def report(self):
        self.errors.seek(0)
        return f"the {self.language} driver: status {self.process.poll()}\n{self.errors.read()[-8000:].decode(errors='replace')}"

    def is_running(self):
        return self.process.poll() is None

    def tell(self, *lines, limit=10):
        """Write lines in one go; their Answers."""
        answers, text = [], []
        for line in lines:
            number = next(self.numbers)
            text.append(json.dumps({"id": number, **line}) + "\n")
            answers.append(Answer(self, number, limit + line.get("timeout", 0)))
        self.process.stdin.write("".join(text).encode())
        self.process.stdin.flush()
        return answers

    def do(self, do, **fields):
        """One line, and its result."""
        return self.tell({"do": do, **fields})[0].result()

    def events_of(self, name, event=None):
        with self.news:
            return [
                each for each in self.events if each["of"] == name and event in (None, each["event"])
            ]

    def wait_for(self, condition, limit=10, what="the condition"):
        """Wait until `condition()` is true, which is looked at with each line that comes."""
        with self.news:  # a line that comes later must not make it false again
            self.news.wait_for(lambda: condition() or self.is_at_end, within(limit))
            value = condition()
        assert value, f"{what} did not come true within {within(limit)} s: {self.report()}"
        return value

    def connect(self, *urls, **options):
        self.connections.append(Connection(self, urls, options))
        return self.connections[-1]

    def close_connections(self):
        connections, self.connections = self.connections, []
        for each in connections:
            each.close()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def signal(self, number):
        self.process.send_signal(number)

    def end(self, limit=60):
        """Let it free everything, and judge how it ends."""
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(within(limit))
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"it did not end: {self.report()}") from None
        self.reader.join(within(10))
        assert self.process.returncode == 0, self.report()
        self.errors.close()


class Connection:
    """A connection of the library under test, by its name in the driver."""

    def __init__(self, driver, urls, options):
        self.driver, self.name = driver, f"c{next(_names)}"
        self.is_open = True
        self.open = driver.tell(
            {"do": "connect", "as": self.name, "urls": ",".join(urls), "options": options}
        )[0]

    def lines(self, calls, timeout=None):
        for method, params in calls:
            line = {"do": "call", "on": self.name, "method": method, "params": packed(params)}
            yield line if timeout is None else {**line, "timeout": timeout}

    def submit_all(self, calls, timeout=None):
        """Many calls in one go; their Answers. A call has 30 s when nothing is said."""
        return self.driver.tell(*self.lines(calls, timeout), limit=10 if timeout else 40)

    def submit(self, method, params=None, timeout=None):
        return self.submit_all([(method, params or {})], timeout)[0]

    def call(self, method, /, **params):
        return self.submit(method, params).result()

    def call_within(self, timeout, method, /, **params):
        return self.submit(method, params, timeout).result()

    def notify(self, method, /, **params):
        return self.driver.do("notify", on=self.name, method=method, params=packed(params))

    def watch(self, *classes):
        name = f"w{next(_names)}"
        self.driver.do("watch", on=self.name, **{"as": name}, classes=list(classes))
        return Watch(self.driver, name)

    def agent(self, type, instance=None, **registration):
        return Agent(self, type, instance, registration)

    def consume(self, queue, concurrency=1, then="hang", params=None, **plan):
        return Consumer({"on": self.name}, self.driver, queue, concurrency, params, {"then": then, **plan})

    def states(self):
        return self.driver.events_of(self.name, "state")

    def close(self):
        if self.is_open and "error" not in self.open.line():
            self.driver.do("close", on=self.name)
        self.is_open = False


class Watch:
    def __init__(self, driver, name):
        self.driver, self.name = driver, name

    def events(self, kind=None):
        values = [unpack(each["value"]) for each in self.driver.events_of(self.name, "event")]
        return [each for each in values if kind in (None, each["event"])]

    def wait_for(self, condition, limit=10):
        """Wait until `condition(events)` is true."""
        return self.driver.wait_for(lambda: condition(self.events()), limit, "what the watcher is to see")


class Agent:
    """An agent of the library under test."""

    def __init__(self, connection, type, instance, registration):
        self.connection, self.driver = connection, connection.driver
        self.type, self.instance, self.name = type, instance, f"a{next(_names)}"
        self.id = {"type": type, "instance": instance or "default"}
        self.start = self.driver.tell(
            {
                **{"do": "agent", "on": connection.name, "as": self.name},
                **{"type": type, "instance": instance, "params": packed(registration)},
            }
        )[0]

    def told(self, what):
        return [each for each in self.driver.events_of(self.name, "agent") if each["what"] == what]

    def registered(self, times=1, limit=15):
        """Wait until it was registered so many times; what was told the last time."""
        return self.driver.wait_for(
            lambda: len(self.told("registered")) >= times, limit, f"registration {times}"
        ) and self.told("registered")[-1]

    def consume(self, queue=None, concurrency=1, then="hang", params=None, **plan):
        return Consumer({"of": self.name}, self.driver, queue, concurrency, params, {"then": then, **plan})

    def request(self, to, payload, timeout=10):
        return self.driver.tell(
            {
                **{"do": "request", "of": self.name, "to": [to["type"], to["instance"]]},
                **{"payload": pack(payload), "timeout": timeout},
            }
        )[0]

    def set(self, what, value):
        return self.driver.do(what, of=self.name, value=pack(value))

    def stopping(self, timeout=10):
        return self.driver.tell({"do": "stop", "of": self.name, "timeout": timeout})[0]

    def stop(self, timeout=10):
        return self.stopping(timeout).result()


class Consumer:
    """Of an agent, or of a connection alone."""

    def __init__(self, whose, driver, queue, concurrency, params, plan):
        self.driver, self.name = driver, f"q{next(_names)}"
        line = {**whose, "as": self.name, "concurrency": concurrency, "params": packed(params or {}), "plan": plan}
        if queue:
            line["queue"] = [queue["type"], queue["instance"]]
        driver.do("consume", **line)

    def jobs(self):
        return [Job(self.driver, each) for each in self.driver.events_of(self.name, "job")]

    def ids(self):
        return [each.id for each in self.jobs()]

    def wait_for_jobs(self, count=1, limit=15):
        return self.driver.wait_for(
            lambda: len(self.jobs()) >= count and self.jobs(), limit, f"{count} jobs"
        )

    def took(self, count=1, limit=15):
        """The job that came as the `count`th."""
        return self.wait_for_jobs(count, limit)[count - 1]

    def done(self):
        return self.driver.events_of(self.name, "done")

    def most_at_once(self):
        """How many handlers ran at a time."""
        now = most = 0
        for each in self.driver.events_of(self.name):
            now += {"job": 1, "done": -1, "lost": -1}[each["event"]]
            most = max(most, now)
        return most


class Job:
    def __init__(self, driver, line):
        self.driver, self.of, self.number, self.at = driver, line["of"], line["job"], line["at"]
        self.token, self.fence, self.attempts = line["token"], line["fence"], line["attempts"]
        self.message = unpack(line["message"])
        self.id = self.message["message_id"]

    def finish(self, then="ack", **plan):
        self.driver.do("finish", job=self.number, plan={"then": then, **plan})

    def is_lost(self):
        return any(each["job"] == self.number for each in self.driver.events_of(self.of, "lost"))

    def wait_until_lost(self, limit=15):
        self.driver.wait_for(self.is_lost, limit, "the loss of the job")


# ---------------------------------------------------------------------------------------------
# Breaking things


def unix_server(path):
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(1024)
    return server


def url_of(broker, kind="unix"):
    """That of a broker which keeps it when it is started again; `kind`: the other ones."""
    if kind == "unix":
        return f"unix://{broker.unix_path}"
    host, port = broker.address("tcp6" if kind == "tcp6" else "tcp")
    host = {"tcp": host, "tcp6": f"[{host}]", "name": "localhost"}[kind]
    return f"tcp://{host}:{port}"


class Server:
    """A listening Unix socket in a directory of its own. Each connection has a thread, which runs `serve`."""

    def __init__(self):
        self.directory = Path(tempfile.mkdtemp(prefix="coordd-test-server-"))
        self.path = self.directory / "s.sock"
        self.url = f"unix://{self.path}"
        self.connects = []  # when
        self.sockets = []
        self.server = unix_server(self.path)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            self.connects.append(time.monotonic())
            self.sockets.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            self.serve(connection)
        except OSError:
            pass
        finally:
            shut(connection)

    def serve(self, connection):
        """Close it at once."""

    def cut(self):
        """End the connections that there are."""
        sockets, self.sockets = self.sockets, []
        for each in sockets:
            shut(each)

    def close(self):
        shut(self.server)
        self.cut()
        shutil.rmtree(self.directory, ignore_errors=True)


def shut(connection):
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    connection.close()


class Foreign(Server):
    """What answers the first bytes with something else than the protocol."""

    answer = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"

    def serve(self, connection):
        connection.recv(1 << 16)
        connection.sendall(self.answer)


class Silent(Server):
    """What takes connections and never says anything, as a stopped broker does."""

    def serve(self, connection):
        while connection.recv(1 << 16):
            pass


class Proxy(Server):
    """Between a library and a broker, it sees each request and may end the connection at a chosen point."""

    def __init__(self, target):
        self.target = str(target)
        self.requests = []  # (method, params) as they came
        self.lock = threading.Lock()
        self.eating = {}  # method -> how many connections still end when its answer is there
        self.cutting = {}  # method -> how many still end when the request is there, which goes no further
        self.is_shut = False  # ends connections at once
        super().__init__()

    def eat_answers(self, method, times=1):
        """The broker does what `method` asks; instead of handing over the answer, end the connection."""
        self.eating[method] = times

    def cut_requests(self, method, times=1):
        """End the connection when `method` has arrived, before the broker hears of it."""
        self.cutting[method] = times

    def count(self, method):
        with self.lock:
            return sum(1 for name, _ in self.requests if name == method)

    def _takes(self, table, method):
        with self.lock:
            left = table.get(method, 0)
            table[method] = left - 1
            return left > 0

    def serve(self, connection):
        if self.is_shut:
            return
        broker = socket.socket(socket.AF_UNIX)
        try:
            broker.connect(self.target)
        except OSError:
            broker.close()
            raise
        self.sockets.append(broker)
        methods = {}
        down = threading.Thread(target=self._down, args=(broker, connection, methods), daemon=True)
        down.start()
        try:
            for frame, raw in frames_of(connection):
                if frame[0] in (0, 2):
                    method, params = frame[-2], (frame[-1] or [{}])[0]
                    with self.lock:
                        self.requests.append((method, params))
                    if frame[0] == 0:
                        methods[frame[1]] = method
                    if self._takes(self.cutting, method):
                        break
                broker.sendall(raw)
        finally:
            shut(connection)
            shut(broker)
            down.join()

    def _down(self, broker, connection, methods):
        try:
            for frame, raw in frames_of(broker):
                if frame[0] == 1 and self._takes(self.eating, methods.get(frame[1])):
                    break
                connection.sendall(raw)
        except OSError:
            pass
        shut(connection)
        shut(broker)


def frames_of(connection):
    """Each frame with its bytes, until the end."""
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=1 << 28)
    kept, base = bytearray(), 0
    while True:
        try:
            data = connection.recv(1 << 18)
        except OSError:
            return
        if not data:
            return
        kept += data
        unpacker.feed(data)
        while True:
            try:
                frame = unpacker.unpack()
            except msgpack.OutOfData:
                break
            end = unpacker.tell()
            raw = bytes(kept[: end - base])
            del kept[: end - base]
            base = end
            yield frame, raw
