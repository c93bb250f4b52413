"""The admin port, over real sockets: its fences, its routes, its streams."""

import http.client
import json
import re
import signal
import socket
import time

import pytest

from harness import REPO, Queue, fresh, wait_until, within

JSON = "application/json"
PROBLEM = "application/problem+json"


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Answer:
    def __init__(self, response):
        self.status, self.headers, self.body = response.status, response.headers, response.read()
        self.type = response.headers.get("Content-Type")

    def json(self):
        value = json.loads(self.body)
        if self.type == PROBLEM:
            assert value.keys() == {"type", "title", "status", "code", "detail"}
            assert value["status"] == self.status and value["title"] and value["detail"]
        else:
            assert self.type == JSON
        return value


class Admin:
    """The admin port of a broker."""

    def __init__(self, broker, limit=10):
        self.broker, self.limit = broker, within(limit)
        self.port = next(int(url.rpartition(":")[2]) for url in broker.admin if url.startswith("tcp"))

    def connection(self, unix=False):
        if unix:
            return UnixConnection(str(self.broker.admin_path), self.limit)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.limit)

    def ask(self, method, path, body=None, headers=None, unix=False):
        connection = self.connection(unix)
        connection.request(method, path, body=body, headers=headers or {})
        answer = Answer(connection.getresponse())
        connection.close()
        return answer

    def get(self, path, status=200, **more):
        answer = self.ask("GET", path, **more)
        assert answer.status == status, (path, answer.status, answer.body)
        return answer.json()

    def write(self, method, path, status=200, unix=True, **body):
        """A change, as an operator makes it."""
        answer = self.ask(
            method,
            path,
            body=json.dumps(body) if body else None,
            headers={"X-Coordd-Request": "1"},
            unix=unix,
        )
        assert answer.status == status, (path, answer.status, answer.body)
        return answer.json()

    def open(self):
        """A bare socket."""
        sock = socket.create_connection(("127.0.0.1", self.port), self.limit)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def raw(self, data):
        """Send bytes and read to the end of the connection."""
        with self.open() as sock:
            sock.sendall(data)
            return read_to_end(sock)


def read_to_end(sock):
    data = b""
    while True:
        try:
            chunk = sock.recv(1 << 16)
        except ConnectionError:
            return data
        if not chunk:
            return data
        data += chunk


def request(target="/livez", method="GET", host="localhost", headers=(), version="1.1"):
    lines = [f"{method} {target} HTTP/{version}"]
    if host is not None:
        lines.append(f"Host: {host}")
    return "\r\n".join([*lines, *headers, "Connection: close", "", ""]).encode("latin-1")


def status_of(data):
    found = re.match(rb"HTTP/1\.[01] (\d{3}) ", data)
    assert found, data[:200]
    return int(found[1])


@pytest.fixture
def admin(broker):
    return Admin(broker)


@pytest.fixture
def own_admin(own):
    """The port of a broker with other settings of `admin`."""
    return lambda limit=10, **settings: Admin(own(admin=settings), limit)


# -- health


def test_it_lives(admin):
    assert admin.get("/livez") == {"status": "ok"}


def test_it_is_ready_and_says_why(admin):
    short, long = admin.get("/readyz"), admin.get("/readyz?verbose")
    assert short["status"] == long["status"]
    names = [check["name"] for check in long["checks"]]
    assert names == ["server", "redis", "persistence"]
    assert all(check["status"] != "ok" for check in short["checks"])
    assert admin.get("/healthz?verbose")["status"] == long["status"]


def test_while_redis_does_not_answer_it_lives_and_is_not_ready(start_redis, make_broker):
    redis = start_redis()
    broker = make_broker(redis, expected_errors=["redis."], config={"redis": {"command_timeout": "300ms"}}).start()
    admin = Admin(broker)
    admin.get("/readyz")
    redis.signal(signal.SIGSTOP)
    try:

        def is_down():
            for path in ("/livez", "/readyz", "/"):
                began = time.monotonic()
                answer = admin.ask("GET", path)
                assert time.monotonic() - began < within(1), path
                assert path == "/readyz" or answer.status == 200
                if path == "/readyz":
                    status = answer.status
            return status == 503

        wait_until(is_down, 10, "it is not ready")
        began = time.monotonic()
        for path in ("/api/v1/queues", "/api/v1/agents", "/api/v1/breakers/x", "/api/v1/queues/a:b/messages"):
            assert admin.get(path, 503)["code"] == "unavailable"
        assert time.monotonic() - began < within(4)
        assert admin.get("/api/v1/status")["ready"] is False
        failed = [check for check in admin.get("/readyz", 503)["checks"] if check["status"] == "fail"]
        assert [check["name"] for check in failed] == ["redis"] and failed[0]["message"]
    finally:
        redis.signal(signal.SIGCONT)
    wait_until(lambda: admin.ask("GET", "/readyz").status == 200, 10, "it is ready again")


# -- fences


def test_a_slow_request_is_ended_at_an_absolute_deadline(own_admin):
    admin = own_admin(header_timeout="500ms")
    for first in (b"GET /livez HTTP/1.1\r\n", b"G", b""):
        with admin.open() as sock:
            sock.settimeout(within(10))
            began = time.monotonic()
            sock.sendall(first)
            try:
                while time.monotonic() - began < within(8):
                    if first:
                        sock.sendall(b"X: y\r\n" if first.endswith(b"\n") else b"E")
                    sock.settimeout(0.05)
                    try:
                        assert sock.recv(1) == b""
                        break
                    except TimeoutError:
                        continue
            except ConnectionError:
                pass
            assert 0.4 < time.monotonic() - began < within(4)
    assert admin.get("/livez")


def test_a_slow_body_is_ended_too(own_admin):
    admin = own_admin(header_timeout="500ms", write="always")
    with admin.open() as sock:
        sock.sendall(request("/api/v1/queues/a:b/pause", "POST", headers=["X-Coordd-Request: 1", "Content-Length: 90000"]))
        began = time.monotonic()
        sock.settimeout(0.05)
        while time.monotonic() - began < within(8):
            try:
                sock.sendall(b" ")
                if sock.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        assert 0.4 < time.monotonic() - began < within(4)


def test_an_idle_connection_is_closed_and_a_busy_one_kept(own_admin):
    admin = own_admin(idle_timeout="600ms", header_timeout="5s")
    connection = admin.connection()
    for _ in range(5):
        connection.request("GET", "/livez")
        assert connection.getresponse().read()
    began = time.monotonic()
    assert connection.sock.recv(1) == b""
    assert 0.4 < time.monotonic() - began < within(4)
    connection.close()


def test_limits_of_header_and_body(own_admin):
    admin = own_admin(max_header="2KiB", max_body="2KiB", write="always")
    assert status_of(admin.raw(request(headers=["X: " + "x" * 1000]))) == 200
    for long in (request(headers=["X: " + "x" * 4000]), request("/" + "x" * 4000), request(headers=["X: y"] * 500)):
        assert status_of(admin.raw(long)) in (400, 413, 414, 431)
    mark = {"X-Coordd-Request": "1"}
    path = "/api/v1/queues/a:b/pause"
    assert admin.ask("POST", path, body=b" " * 2000 + b"{}", headers=mark).status == 200
    assert admin.ask("POST", path, body=b" " * 3000 + b"{}", headers=mark).status == 413
    chunked = b"".join(b"400\r\n" + b" " * 1024 + b"\r\n" for _ in range(4)) + b"0\r\n\r\n"
    head = request(path, "POST", headers=["X-Coordd-Request: 1", "Transfer-Encoding: chunked"])
    assert status_of(admin.raw(head + chunked)) == 413


def test_one_connection_too_many_is_told(own_admin):
    admin = own_admin(max_connections=3)
    kept = [admin.connection() for _ in range(3)]
    for each in kept:
        each.request("GET", "/livez")
        assert each.getresponse().read()
    for _ in range(20):
        answer = admin.ask("GET", "/livez")
        assert answer.status == 503 and answer.json()["code"] == "overloaded"
    assert admin.broker.open_files() < 60
    kept.pop().close()
    assert wait_until(lambda: admin.ask("GET", "/livez").status == 200, 5, "a place is free")
    for each in kept:
        each.close()


def test_whose_name_a_host_header_may_be(own_admin):
    admin = own_admin(allow_hosts=["localhost", "127.0.0.1", "::1", "coordd.example"])
    for host in ("localhost", "LOCALHOST:7421", "127.0.0.1:1", "[::1]:7421", "[::1]", "coordd.example"):
        assert status_of(admin.raw(request(host=host))) == 200, host
    for host in ("evil.example", "evil.example:7421", "localhost.evil.example", "127.0.0.1.evil.example", "[::1]x", "::2"):
        answer = admin.raw(request(host=host))
        assert status_of(answer) == 421 and b'"forbidden"' in answer, host
    assert status_of(admin.raw(request(host=None))) == 400
    assert status_of(admin.raw(request(host=None, version="1.0"))) == 400
    assert status_of(admin.raw(request(host=""))) == 400
    assert status_of(admin.raw(request(headers=["Host: localhost"]))) == 400
    assert status_of(admin.raw(request(host=None, headers=["Host : localhost"]))) == 400


def test_origins(admin):
    def ask(origin):
        return status_of(admin.raw(request(headers=[f"Origin: {origin}"])))

    assert ask("http://localhost") == 200
    for foreign in ("http://evil.example", "null", "http://localhost:1", "", "http://localhost.evil.example"):
        assert ask(foreign) == 403, foreign


@pytest.mark.parametrize(
    "data",
    [
        b"GET /livez\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x00\x01\x02\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"\x94\x00\x01\xa4ping\x90\r\n\r\n",
        request("http://localhost/livez"),
        request("localhost:80", "CONNECT"),
        request("*", "OPTIONS"),
        request("livez"),
        request(method="get"),
        request(headers=["Content-Length: 1", "Content-Length: 2"]),
        request(headers=["Content-Length: -1"]),
        request(headers=["Content-Length: 1x"]),
        request(headers=["Content-Length: 99999999999999999999"]),
        request(headers=["Content-Length: 5", "Transfer-Encoding: chunked"]) + b"0\r\n\r\n",
        request(method="POST", headers=["Transfer-Encoding: chunked"]) + b"-1\r\n",
        request(method="POST", headers=["Transfer-Encoding: chunked"]) + b"ffffffffffffffff\r\n",
    ],
)
def test_what_is_no_good_request_is_refused(admin, data):
    with admin.open() as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        answer = read_to_end(sock)
    assert answer == b"" or 400 <= status_of(answer) < 600
    assert admin.get("/livez")


def test_paths(admin):
    for path in ("/nope", "//livez", "/livez/", "/../livez", "/./livez", "/livez%2f", "/api/v1/queues/", "/api/v1/queues/a:b/c"):
        assert status_of(admin.raw(request(path))) == 404, path
    for path in ("/api/v1/queues/%00", "/api/v1/queues/%", "/api/v1/queues/%zz", "/api/v1/queues/..", "/api/v1/queues/a:b:c"):
        assert status_of(admin.raw(request(path))) == 400, path
    assert admin.get("/%6civez", 404)["code"] == "not_found"
    for path in ("/livez?x=1", "/api/v1/queues?limit=1&limit=2", "/api/v1/queues?limit=-1", "/api/v1/queues?limit=%zz"):
        assert admin.get(path, 400)["code"] == "bad_request"


def test_methods(admin):
    for method in ("POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"):
        answer = admin.ask(method, "/livez")
        assert answer.status in (405, 501), method
        if method != "BREW":
            assert answer.headers["Allow"] == "GET, HEAD, OPTIONS"
    assert admin.ask("GET", "/api/v1/queues/a:b/pause").headers["Allow"] == "POST, OPTIONS"
    assert admin.ask("OPTIONS", "/livez").status == 204
    assert "Access-Control-Allow-Origin" not in admin.ask("OPTIONS", "/livez").headers


def test_head_is_get_without_a_body(admin):
    for path in ("/livez", "/readyz", "/api/v1/queues", "/nope", "/"):
        head, get = admin.ask("HEAD", path), admin.ask("GET", path)
        assert head.status == get.status and head.body == b""
        assert head.type == get.type
        if path != "/readyz":  # it has a measured number
            assert head.headers["Content-Length"] == get.headers["Content-Length"]
    assert admin.ask("HEAD", "/api/v1/events").status == 200


def test_headers_of_every_answer(admin):
    for path in ("/livez", "/nope", "/api/v1/queues", "/api/v1/queues?limit=x"):
        headers = admin.ask("GET", path).headers
        assert headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_requests_in_a_row_are_answered_in_order(admin):
    with admin.open() as sock:
        sock.sendall(
            b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2 + b"GET /api/v1/queues HTTP/1.1\r\nHost: localhost\r\n\r\n" + request("/nope")
        )
        data = read_to_end(sock)
    assert re.findall(rb"HTTP/1\.1 (\d+) ", data) == [b"200", b"200", b"200", b"404"]


# -- who may write


def test_a_change_needs_a_header_and_a_unix_socket(admin):
    path = f"/api/v1/queues/a:{fresh('q')}/pause"
    assert admin.ask("POST", path, unix=True).json()["code"] == "forbidden"
    assert admin.ask("POST", path, headers={"X-Coordd-Request": "0"}, unix=True).status == 403
    form = {"Content-Type": "application/x-www-form-urlencoded", "Origin": "http://evil.example"}
    assert admin.ask("POST", path, body="a=b", headers=form, unix=True).status == 403
    assert admin.write("POST", path, status=403, unix=False)["code"] == "forbidden"
    assert admin.write("POST", path) == {"changed": True}


def test_nobody_may_write(own_admin):
    admin = own_admin(write="never")
    assert "never" in admin.write("POST", "/api/v1/queues/a:b/pause", status=403)["detail"]
    assert admin.get("/api/v1/queues/a:b")["paused"] is False


def test_everybody_may_write(own_admin):
    admin = own_admin(write="always")
    assert admin.write("POST", "/api/v1/queues/a:b/pause", unix=False) == {"changed": True}
