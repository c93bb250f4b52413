"""What the programs here share: a small client with plain blocking sockets, for one thread.

broker = coordd.connect()                          # $COORDCTL_SERVER, or tcp://127.0.0.1:7420
broker.call("receive", agent=worker, wait=9)       # the result; an error is raised as CoordError
broker.insist("ack", agent=worker, token=token)    # the same, asked again until it is answered
broker.send(me, worker, {"text": "hello"})         # one message, stored once
broker.notify("ack", agent=worker, token=token)    # executed, and never answered
for name, params in broker.notifications(wait=1):  # what comes; ends after a second of silence
"""
import collections
import inspect
import itertools
import os
import select
import socket
import subprocess
import sys
import time
import urllib.parse
import uuid

import msgpack


class CoordError(Exception):
    """What the broker answered instead of a result; docs/PROTOCOL.md, section 7, has the codes."""

    def __init__(self, code, message, retryable=False, **more):
        super().__init__(f"{code}: {message}")
        self.code, self.retryable = code, retryable


class Broker:
    def __init__(self, url):
        self.url, self.ids, self.socket = urllib.parse.urlsplit(url), itertools.count(1), None

    def call(self, method, /, **params):
        msgid = next(self.ids) % 2**32
        self._write([0, msgid, method, [params]])
        while frame := self._frame(90):  # no call waits for more than 60 s
            if frame[0] == 2:
                self.unread.append(frame)
            elif frame[1] in (msgid, 0) and frame[2]:
                raise CoordError(**frame[2])
            elif frame[1] == msgid:
                return frame[3]
        raise TimeoutError("the broker does not answer")

    def insist(self, method, /, patience=50, **params):
        """For what may be asked twice. It gives up before a message's id is forgotten (60 s)."""
        end = time.monotonic() + patience
        while True:
            try:
                return self.call(method, **params)
            except (OSError, CoordError) as problem:
                if not getattr(problem, "retryable", True) or time.monotonic() > end:
                    raise
                if getattr(problem, "code", "shutting_down") == "shutting_down":
                    self.socket = None
            time.sleep(0.5)

    def send(self, sender, recipient, payload, delay=0, ttl=None, **message):
        message = {"message_id": uuid.uuid4().hex, "message_type": "request", **message}
        sending = {"message": {**message, "payload": payload}, "delay": delay, "ttl": ttl}
        result = self.insist("send", sender=sender, recipient=recipient, **sending)
        if not result["delivered"]:
            raise CoordError("refused", result["error"])
        return result

    def notify(self, method, /, **params):
        self._write([2, method, [params]])

    def notifications(self, wait=None):
        while frame := self.unread.popleft() if self.unread else self._frame(wait):
            yield frame[1], frame[2][0]

    def _write(self, frame):
        if self.socket is None:
            if self.url.scheme == "unix":
                connection = socket.socket(socket.AF_UNIX)
                connection.connect(self.url.path)
            else:
                address = (self.url.hostname, self.url.port or 7420)
                connection = socket.create_connection(address)
            self.socket = connection
            self.unpacker, self.unread = msgpack.Unpacker(), collections.deque()
        self.socket.sendall(msgpack.packb(frame))

    def _frame(self, wait):
        """The next frame; None when nothing comes for `wait` seconds."""
        while (frame := next(self.unpacker, None)) is None:
            if not select.select([self.socket], [], [], wait)[0]:
                return None
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError("the broker closed the connection")
            self.unpacker.feed(data)
        return frame


def connect():
    return Broker(os.environ.get("COORDCTL_SERVER", "tcp://127.0.0.1:7420"))


def run(command, text, limit):
    """(output, exit status) of a shell command that reads `text`; one too slow has 124."""
    try:
        done = subprocess.run(
            command, shell=True, input=text, stdout=subprocess.PIPE, text=True, timeout=limit
        )
    except subprocess.TimeoutExpired:
        return "", 124
    return done.stdout.strip(), done.returncode


def main(*commands):
    """Run the command that the arguments name. Trouble ends it: let it be started again."""
    try:
        command = {each.__name__: each for each in commands}[sys.argv[1]]
        inspect.signature(command).bind(*sys.argv[2:])
    except (LookupError, TypeError):
        sys.exit(sys.modules["__main__"].__doc__.strip())
    try:
        sys.stdout.reconfigure(line_buffering=True)
        command(*sys.argv[2:])
    except (OSError, CoordError) as problem:
        sys.exit(f"{sys.argv[0]}: {problem}")
