"""A peer that says what a test wants: for what no real broker does on demand."""

import asyncio

import msgpack

SESSION = {"server": "coordd", "limits": {"max_frame": 1 << 20}, "namespace": "default"}


class Peer:
    """async with Peer(answer) as peer: peer.url. `answer(line, msgid, method, params)` runs for each request or notification
    (msgid None) but `hello`, which is answered by `greeting(line, msgid)`."""

    def __init__(self, answer, greeting=None):
        self.answer = answer
        self.greeting = greeting or (lambda line, msgid: line.reply(msgid, SESSION))
        self.lines = []  # connections, in the order they came
        self.asked = []  # (number of the connection, method, params)
        self.tasks = set()

    def __enter__(self):
        raise TypeError("use async with")

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = "tcp://127.0.0.1:%d" % self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error):
        self.server.close()
        for line in self.lines:
            line.end()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _serve(self, reader, writer):
        line = Line(reader, writer, len(self.lines))
        self.lines.append(line)
        self.tasks.add(asyncio.current_task())
        unpacker = msgpack.Unpacker(unicode_errors="surrogateescape")
        while data := await reader.read(65536):
            unpacker.feed(data)
            for frame in unpacker:
                if frame[0] == 0 and frame[2] == "hello":
                    self.greeting(line, frame[1])
                    continue
                msgid, method, params = frame[1:] if frame[0] == 0 else (None, *frame[1:])
                params = params[0] if params else {}
                self.asked.append((line.number, method, params))
                self.answer(line, msgid, method, params)
        writer.close()

    def methods(self, number=None):
        return [method for line, method, _ in self.asked if number in (None, line)]


class Line:
    """One connection."""

    def __init__(self, reader, writer, number):
        self.reader, self.writer, self.number = reader, writer, number

    def say(self, frame):
        self.writer.write(msgpack.packb(frame, unicode_errors="surrogateescape"))

    def reply(self, msgid, result):
        self.say([1, msgid, None, result])

    def refuse(self, msgid, code, retryable=False, applied=None, message="so it is"):
        error = {"code": code, "message": message, "retryable": retryable}
        self.say([1, msgid, {**error, **({"applied": applied} if applied else {})}, None])

    def end(self):
        self.writer.transport.abort()
