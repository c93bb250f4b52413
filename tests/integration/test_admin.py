"""The admin port, over real sockets: its fences, its routes, its streams."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time

import pytest

from harness import REPO, Queue, fresh, to_yaml, wait_until, within
from test_scale import SANITIZED

MIB = (1 << 20) * (16 if SANITIZED else 1)  # a sanitizer's memory is not the broker's
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
    assert [check["name"] for check in long["checks"]] == ["ready", "redis", "persistence", "config", "loop"]
    assert all(check["status"] != "ok" for check in short["checks"])
    names = [[check["name"] for check in each["checks"]] for each in (short, admin.get("/readyz?verbose=0"), admin.get("/readyz?verbose=false"))]
    assert names[0] == names[1] == names[2]
    assert [check["name"] for check in admin.get("/healthz?verbose")["checks"]] == ["ready", "redis", "persistence", "config", "loop"]


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
        assert [check["name"] for check in failed][:2] == ["ready", "redis"] and failed[0]["message"]
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


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_one_kind_of_connections_leaves_the_other_its_own(own_admin, kind):
    admin = own_admin(max_connections=3)
    idle = [admin.connection(unix=kind == "unix") for _ in range(4)]
    for each in idle:
        each.connect()
    assert status_of(read_to_end(idle[3].sock)) == 503
    for _ in range(20):
        assert admin.ask("GET", "/livez", unix=kind == "tcp").status == 200
    for each in idle:
        each.close()


def test_who_never_says_anything_makes_room_for_others(own_admin):
    admin = own_admin(max_connections=3, header_timeout="300ms")
    idle = [admin.open() for _ in range(3)]
    assert wait_until(lambda: admin.ask("GET", "/livez").status == 200, 5, "a place is free")
    assert all(read_to_end(each) == b"" for each in idle)
    for each in idle:
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


@pytest.mark.parametrize(
    ("method", "header"),
    [
        ("HEAD", "Content-Length: {}"),
        ("TRACE", "Content-Length: {}"),
        ("BREW", "Content-Length: {}"),
        ("HEAD", "Transfer-Encoding: chunked"),
        ("POST", "Transfer-Encoding: xchunked"),
        ("POST", "Transfer-Encoding: identity"),
    ],
)
def test_no_body_is_taken_for_a_request(admin, method, header):
    """What was said to be a body is never answered, whether it was read as one or not."""
    body = request("/livez")
    lines = [f"{method} /livez HTTP/1.1", "Host: localhost", header.format(len(body)), "", ""]
    answer = admin.raw("\r\n".join(lines).encode() + body)
    assert status_of(answer) == 400 and answer.count(b"HTTP/1.1") == 1


def test_paths(admin):
    nothing = ("/nope", "//livez", "/livez/", "/../livez", "/./livez", "/livez%2f", "/api/v1/queues/", "/api/v1/queues/a:b/c")
    for path in nothing:
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
        if path not in ("/readyz", "/api/v1/queues"):  # these have measured numbers
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
            b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2
            + b"GET /api/v1/queues HTTP/1.1\r\nHost: localhost\r\n\r\n"
            + request("/nope")
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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize(
    "operators, status",
    [(["root"], 403), (["nobody"], 200), (["65534"], 200), (["no-such-user", "65534"], 200)],
)
def test_who_is_an_operator_is_known_by_the_kernel(own, operators, status):
    admin = Admin(own(server={"unix_mode": "0666"}, admin={"operators": operators}))
    admin.broker.directory.chmod(0o755)
    program = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
    program += "s.sendall(sys.argv[2].encode()); print(s.recv(4096).decode())"
    asked = request("/api/v1/queues/a:b/pause", "POST", headers=["X-Coordd-Request: 1"]).decode()
    done = subprocess.run(
        ["/usr/bin/python3", "-c", program, admin.broker.admin_path, asked],
        user=65534,
        group=65534,
        cwd="/",
        capture_output=True,
        timeout=within(20),
        check=True,
    )
    assert status_of(done.stdout) == status, done.stdout
    assert bool(admin.broker.logged("admin.no_such_operator")) == ("no-such-user" in operators)


# -- routes


def test_the_openapi_file_has_the_routes_of_the_table(admin):
    table = (REPO / "src/admin/routes.def").read_text()
    pairs = re.findall(
        r'^QUERY(?:_AS)?\((\w+), (?:"(\w+)", )?\w+, "', (REPO / "src/admin/queries.def").read_text(), re.M
    )
    queries = {member: name or member for member, name in pairs}
    rows = re.findall(r'^ROUTE\((\w+), "([^"]+)", (\w+), "(\w*)", (\w+), ([^,]+), ', table, re.M)
    assert len(rows) == len(re.findall(r"^ROUTE\(", table, re.M)) > 20
    document = admin.get("/api/v1/openapi.json")
    seen = [(verb.upper(), path) for path, verbs in document["paths"].items() for verb in verbs]
    assert sorted(seen) == sorted((verb, path) for verb, path, *_ in rows)
    index = admin.get("/")["routes"]
    assert [(each["method"], each["path"]) for each in index] == [(verb, path) for verb, path, *_ in rows]
    for verb, path, handler, _, access, names in rows:
        operation = document["paths"][path][verb.lower()]
        parameters = operation.get("parameters", [])
        query = {each["name"] for each in parameters if each.get("in") == "query"}
        wanted = {queries[name] for name in re.findall(r"Q\((\w+)\)", names)}
        assert query - {"namespace"} == wanted, path
        assert ("namespace" in query) == (handler in ("ask", "messages", "events")), path
        assert {each["name"] for each in parameters if each.get("in") == "path"} == set(re.findall(r"{(\w+)}", path))
        assert ({"$ref": "#/components/parameters/mark"} in parameters) == (access == "WRITE"), path
    ids = [verbs[verb]["operationId"] for verbs in document["paths"].values() for verb in verbs]
    assert len(set(ids)) == len(ids)


def test_every_route_answers(admin):
    """Nothing that the index lists is a dead end: it answers, or says what is missing."""
    values = {"{queue}": "a:b", "{type}": "t", "{instance}": "i", "{name}": "n", "{dead}": "d", "{connection}": "999999"}
    for route in admin.get("/")["routes"]:
        path = re.sub(r"{\w+}", lambda found: values[found[0]], route["path"])
        if path in ("/api/v1/events", "/api/v1/drain", "/metrics"):
            continue
        headers = {"X-Coordd-Request": "1"} if route["method"] != "GET" else {}
        answer = admin.ask(route["method"], path, headers=headers, unix=True)
        assert answer.status in (200, 400, 404), (path, answer.body)
        if answer.status == 404:
            assert "of that name" in answer.json()["detail"] or "breaker" in answer.json()["detail"], answer.body


def test_queues(admin, broker, queue):
    agent = queue.agent
    path = f"/api/v1/queues/{agent['type']}:{agent['instance']}"
    ids = [queue.send(payload={"n": n}) for n in range(3)]
    stats = admin.get(path)
    assert stats["agent_id"] == agent and stats["ready"] == {"9": 0, "5": 3, "1": 0} and not stats["paused"]
    rows = admin.get("/api/v1/queues?limit=1000&type=worker")["items"]
    assert stats["oldest_age"] >= 0
    assert {**stats, "oldest_age": None} in [{**row, "oldest_age": None} for row in rows]
    assert admin.write("POST", path + "/pause") == {"changed": True}
    assert admin.write("POST", path + "/pause") == {"changed": False}
    assert admin.get(path)["paused"] is True
    assert admin.write("POST", path + "/resume") == {"changed": True}
    messages = admin.get(path + "/messages?state=ready&limit=2")
    assert messages["next"] is None
    assert [each["message"]["message_id"] for each in messages["items"]] == ids[:2]
    assert all("payload" not in each["message"] and each["message"]["payload_bytes"] == 4 for each in messages["items"])
    shown = admin.get(path + "/messages?payload=1")["items"]
    assert [each["message"]["payload"] for each in shown] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert admin.write("POST", path + "/purge") == {"purged": 3}
    assert queue.counts() == (0, 0, 0, 0)


def test_dead_letters(admin, queue):
    path = f"/api/v1/queues/{queue.agent['type']}:{queue.agent['instance']}"
    ids = [queue.kill() for _ in range(5)]
    page = admin.get(path + "/messages?state=dead&limit=2")
    rest = admin.get(path + f"/messages?state=dead&limit=9&cursor={page['next']}")
    dead = page["items"] + rest["items"]
    assert [each["queue_message"]["message"]["message_id"] for each in dead] == ids and rest["next"] is None
    assert all("payload" not in each["queue_message"]["message"] for each in dead)
    one, two = dead[0]["id"], dead[1]["id"]
    assert admin.write("POST", f"{path}/dead/{one}/redrive") == {"redriven": 1}
    assert admin.write("POST", f"{path}/dead/{one}/redrive", status=404)["code"] == "not_found"
    assert admin.write("DELETE", f"{path}/dead/{two}") == {"dropped": 1}
    assert admin.write("DELETE", f"{path}/dead/{two}", status=404)["code"] == "not_found"
    assert admin.write("POST", path + "/redrive", limit=2) == {"redriven": 2}
    assert queue.counts() == (3, 0, 0, 1)
    assert admin.write("POST", path + "/redrive") == {"redriven": 1}


def test_bodies(admin):
    def post(body):
        answer = admin.ask("POST", "/api/v1/queues/a:b/redrive", body=body, headers={"X-Coordd-Request": "1"}, unix=True)
        return answer.status, answer.json().get("detail")

    assert post('{"limit": 1, "ids": []}')[0] == 200
    assert post("{}")[0] == 200 and post("")[0] == 200
    for bad, said in (
        ("[]", "JSON object"),
        ('{"limit": 1,}', "body:1:"),
        ('{"limit": 1, "limit": 2}', "body:1:"),
        ('{"limit": "1"}', "limit"),
        ('{"limit": 1.5}', "limit"),
        ('{"ids": [1]}', "ids[0]"),
        ('{"rate": 5}', "rate"),
        ('{"agent": {"type": "x", "instance": "y"}}', "agent"),
        ("[" * 1000 + "]" * 1000, "body"),
        ('{"ids": ' + "[" * 20 + "]" * 20 + "}", "nested"),
        ('{"ids": ["\\ud800"]}', "body"),
        (b'{"ids": ["\xff"]}', "body"),
    ):
        status, detail = post(bad)
        assert status == 400 and said in detail, (bad, detail)


def test_show_payloads_is_off(own_admin):
    admin = own_admin(show_payloads=False)
    queue = Queue(admin.broker.connect(), {"type": "worker", "instance": "q"})
    queue.send(payload={"secret": "s3cret"})
    path = "/api/v1/queues/worker:q/messages"
    assert admin.ask("GET", path + "?payload=1").status == 403
    assert b"s3cret" not in admin.ask("GET", path).body


def test_names_of_all_kinds(admin, broker):
    """What is special to paths, queries, the text of a queue, or JSON comes back as it was."""
    client = broker.connect()
    names = ["a:b", "a%3Ab", "a/b", "..x", "ä ö", '"<script>\\', "a+b", "a&b=c", "\u2028", "#?"]
    for instance in names:
        queue = Queue(client, {"type": "t:%/", "instance": instance})
        queue.send()
        text = "t%3A%25/:" + instance.replace("%", "%25").replace(":", "%3A")
        path = "/api/v1/queues/" + "".join(f"%{byte:02X}" for byte in text.encode())
        assert admin.get(path)["agent_id"] == queue.agent
        body = admin.ask("GET", path).body
        assert b"<" not in body and "\u2028".encode() not in body
        assert admin.write("POST", path + "/purge") == {"purged": 1}


def test_agents(admin, broker):
    namespace = fresh("agents")
    client = broker.in_namespace(namespace)
    agents = [{"type": f"t:{n % 2}", "instance": f"i%{n}"} for n in range(7)]
    for agent in agents:
        client.call("register", agent=agent, capabilities=["plan"] if agent["instance"] == "i%3" else [])
    rows, cursor = [], ""
    while cursor is not None:
        page = admin.get(f"/api/v1/agents?namespace={namespace}&limit=3{cursor and '&cursor=' + cursor.replace('%', '%25')}")
        rows += page["items"]
        cursor = page["next"]
    assert sorted(row["agent_id"]["instance"] for row in rows) == sorted(agent["instance"] for agent in agents)
    planners = admin.get(f"/api/v1/agents?namespace={namespace}&capability=plan")["items"]
    assert [row["agent_id"] for row in planners] == [agents[3]]
    assert len(admin.get(f"/api/v1/agents?namespace={namespace}&alive=true&type=t:1")["items"]) == 3
    path = f"/api/v1/agents/t:1/i%253?namespace={namespace}"
    assert admin.get(path)["capabilities"] == ["plan"]
    assert admin.write("DELETE", path) == {"removed": True}
    assert admin.write("DELETE", path, status=404)["code"] == "not_found"
    assert admin.get(path, 404)["code"] == "not_found"


def test_breakers(admin, broker):
    namespace = fresh("breakers")
    client = broker.in_namespace(namespace)
    for name in ("llm:api", "b", "c"):
        client.call("breaker_acquire", name=name)
    where = f"?namespace={namespace}"
    first = admin.get(f"/api/v1/breakers{where}&limit=2")
    second = admin.get(f"/api/v1/breakers{where}&limit=2&cursor={first['next']}")
    assert [row["name"] for row in first["items"] + second["items"]] == ["b", "c", "llm:api"]
    assert admin.get(f"/api/v1/breakers/llm:api{where}")["state"] == "closed"
    assert admin.write("POST", f"/api/v1/breakers/llm:api/trip{where}", **{"for": 60})["state"] == "open"
    assert client.call("breaker_get", name="llm:api")["state"] == "open"
    assert admin.write("POST", f"/api/v1/breakers/llm:api/reset{where}")["state"] == "closed"
    assert admin.write("POST", f"/api/v1/breakers/none/reset{where}", status=404)["code"] == "not_found"


def test_namespaces_are_apart(admin, broker):
    namespace = fresh("ns")
    queue = Queue(broker.in_namespace(namespace), {"type": "worker", "instance": "q"})
    queue.send()
    assert admin.get(f"/api/v1/queues/worker:q?namespace={namespace}")["size"] == 1
    assert admin.get(f"/api/v1/queues/worker:q?namespace={namespace}x")["size"] == 0
    assert admin.write("POST", f"/api/v1/queues/worker:q/purge?namespace={namespace}x") == {"purged": 0}
    assert namespace in [row["namespace"] for row in admin.get("/api/v1/namespaces?limit=1000")["items"]]
    for bad in ("", "x" * 200, "%0a", "%ff"):
        path = f"/api/v1/queues/worker:q/purge?namespace={bad}"
        assert admin.write("POST", path, status=400)["code"] == "bad_request"
        assert admin.get(f"/api/v1/events?namespace={bad}", 400)["code"] == "bad_request"


def test_connections_and_the_audit(admin, broker):
    client = broker.connect()
    client.call("hello", client=(name := fresh("me")))
    rows = admin.get("/api/v1/connections?limit=1000")["items"]
    mine = [row for row in rows if row["client"] == name]
    assert len(mine) == 1 and not [row for row in rows if row["client"] == "http"]
    first = admin.get("/api/v1/connections?limit=1")
    assert first["next"] == first["items"][0]["id"]
    assert all(row["id"] > first["next"] for row in admin.get(f"/api/v1/connections?cursor={first['next']}")["items"])
    assert admin.write("DELETE", f"/api/v1/connections/{mine[0]['id']}") == {"closed": True}
    client.expect_closed()
    assert admin.write("DELETE", f"/api/v1/connections/{mine[0]['id']}", status=404)["code"] == "not_found"
    assert admin.write("DELETE", "/api/v1/connections/x", status=400)["code"] == "bad_request"

    def kept():
        return [row for row in admin.get("/api/v1/audit?limit=20")["items"] if row["target"] == str(mine[0]["id"])]

    entry = wait_until(kept, 5, "it is in the audit")[0]
    assert entry["method"] == "close_connection" and entry["client"] == "http" and entry["uid"] == 0
    assert entry["peer"].startswith("unix:pid=")


def test_drain_and_the_level_of_the_log(own_admin):
    admin = own_admin()
    assert admin.write("POST", "/api/v1/log-level", level="debug")["level"] == "debug"
    assert admin.write("POST", "/api/v1/drain")["draining"] is True
    assert admin.get("/livez") and admin.get("/readyz", 503)["status"] == "fail"
    assert admin.get("/api/v1/status")["draining"] is True
    assert admin.write("POST", "/api/v1/undrain")["draining"] is False
    assert admin.get("/readyz")


def test_a_reload_by_way_of_the_port_that_it_changes(own_admin):
    admin = own_admin(header_timeout="5s")
    broker = admin.broker

    def rewrite(**settings):
        config = {**broker.config, "admin": {**broker.config["admin"], **settings}}
        broker.config_path.write_text(to_yaml(config) + "\n")

    values = {row["key"]: row for row in admin.get("/api/v1/config")["values"]}
    assert values["admin.header_timeout"]["value"] == "5s" and values["admin.idle_timeout"]["origin"] == "default"
    rewrite(allow_hosts=["other.example"], header_timeout="400ms", write="never")
    changed = admin.write("POST", "/api/v1/config/reload", dry_run=True)["changed"]
    assert {row["key"] for row in changed} == {"admin.allow_hosts", "admin.header_timeout", "admin.write"}
    assert admin.get("/livez")
    admin.write("POST", "/api/v1/config/reload")
    assert status_of(admin.raw(request())) == 421
    assert status_of(admin.raw(request(host="other.example"))) == 200
    assert admin.write("POST", "/api/v1/config/reload", status=403)["code"] == "forbidden"
    with admin.open() as sock:
        began = time.monotonic()
        assert read_to_end(sock) == b"" and time.monotonic() - began < within(4)
    rewrite(header_timeout="5 lightyears")
    assert status_of(admin.raw(request(host="other.example"))) == 200


def test_a_reload_that_is_refused_says_where(own_admin):
    admin = own_admin()
    admin.broker.expected_errors = ["config.rejected"]
    admin.broker.config_path.write_text("admin:\n  max_connections: none\n")
    refused = admin.write("POST", "/api/v1/config/reload", status=400)
    assert "coordd.yaml:2:20" in refused["detail"]
    assert admin.get("/livez")


def test_ten_thousand_queues_page_by_page(own):
    admin = Admin(own(queues={"forget_after": "1h"}), limit=60)
    client = admin.broker.connect()
    sender, message = Queue.sender, {"message_type": "event"}
    for start in range(0, 10000, 1000):
        sends = [
            {"recipient": {"type": "t", "instance": f"{start + n:05}"}, "message": {"message_id": f"m{start + n}", **message}}
            for n in range(1000)
        ]
        client.call("send_batch", sender=sender, messages=sends)
    names, cursor = [], ""
    connection = admin.connection()
    while cursor is not None:
        connection.request("GET", f"/api/v1/queues?limit=1000{cursor and '&cursor=' + cursor}")
        answer = Answer(connection.getresponse())
        page = answer.json()
        assert answer.status == 200 and len(page["items"]) <= 1000
        names += [row["agent_id"]["instance"] for row in page["items"]]
        cursor = page["next"]
    connection.close()
    assert names == sorted(set(names)) and len(names) == 10000
    before = admin.broker.resident()
    for _ in range(30):
        assert len(admin.get("/api/v1/queues?limit=1000")["items"]) == 1000
    assert admin.broker.resident() - before < 30 * MIB


# -- streams


class Stream:
    """A stream of events, read as a browser does."""

    def __init__(self, admin, query="", **headers):
        self.connection = admin.connection()
        self.connection.request("GET", "/api/v1/events" + query, headers=headers)
        self.response = self.connection.getresponse()
        assert self.response.status == 200, self.response.read()
        assert self.response.headers["Content-Type"] == "text/event-stream"
        self.comments = []
        self.retry = None

    def line(self):
        line = self.response.readline()
        assert line, "the stream has ended"
        return line.decode().rstrip("\n")

    def event(self):
        """The next one: (id, class, data)."""
        fields = {}
        while True:
            line = self.line()
            if line.startswith(":"):
                self.comments.append(line[1:].strip())
            elif line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "data" in fields:
                return int(fields["id"]), fields["event"], json.loads(fields["data"])
            elif "retry" in fields:
                self.retry = int(fields.pop("retry"))

    def begun(self):
        while "watching" not in self.comments:
            line = self.line()
            if line.startswith(":"):
                self.comments.append(line[1:].strip())
        return self

    def close(self):
        self.connection.close()
        self.response.close()


def test_events_come_through_every_broker(redis, make_broker):
    prefix = {"redis": {"key_prefix": fresh("two")}}
    one, two = (make_broker(redis, config=prefix).start() for _ in range(2))
    streams = [Stream(Admin(each)).begun() for each in (one, two)]
    only = Stream(Admin(one), "?kinds=breakers,agents").begun()
    client = two.connect()
    queue = Queue(client, {"type": "worker", "instance": "q"})
    client.call("pause_queue", agent=queue.agent)
    client.call("register", agent={"type": "a", "instance": "<b>"})
    client.call("breaker_acquire", name="llm")
    client.call("breaker_trip", name="llm")
    seen = [[stream.event() for _ in range(3)] for stream in streams]
    for each in seen:
        assert [kind for _, kind, _ in each] == ["queue", "agent", "breaker"]
        assert [data["event"] for _, _, data in each] == ["queue_paused", "agent_registered", "breaker_opened"]
        assert each[0][2]["agent_id"] == queue.agent and each[1][2]["agent_id"]["instance"] == "<b>"
        ids = [number for number, _, _ in each]
        assert ids == sorted(set(ids))
    assert [data for _, _, data in seen[0]] == [data for _, _, data in seen[1]]
    assert [only.event()[1] for _ in range(2)] == ["agent", "breaker"]
    other = Stream(Admin(one), "?namespace=elsewhere", **{"Last-Event-ID": "7"})
    assert other.event()[1:] == ("resync", {"lost": None})
    for each in (*streams, only, other):
        each.close()
    for bad in ("", "ops", "queues,", "queue"):
        assert Admin(one).get(f"/api/v1/events?kinds={bad}", 400)["code"] == "bad_request"


def test_a_stream_lives_through_an_outage_and_says_so(start_redis, make_broker):
    redis = start_redis()
    broker = make_broker(redis, expected_errors=["redis."], config={"redis": {"command_timeout": "300ms"}}).start()
    admin = Admin(broker, limit=30)
    early = Stream(admin).begun()
    redis.signal(signal.SIGSTOP)
    try:
        wait_until(lambda: admin.ask("GET", "/readyz").status == 503, 10, "it is not ready")
        late = Stream(admin)
    finally:
        redis.signal(signal.SIGCONT)
    assert late.event()[1] == "resync"
    queue = Queue(broker.connect(), {"type": "worker", "instance": "q"})
    wait_until(lambda: admin.ask("GET", "/readyz").status == 200, 10, "it is ready again")
    queue.client.call("pause_queue", agent=queue.agent)
    for stream in (early, late.begun()):
        kinds = [stream.event()[1]]
        while kinds[-1] == "resync":
            kinds.append(stream.event()[1])
        assert kinds[-1] == "queue"
        stream.close()


def test_a_comment_comes_while_nothing_happens(own_admin):
    stream = Stream(own_admin(limit=40, idle_timeout="3s", header_timeout="1s"))
    began = time.monotonic()
    while "keep-alive" not in stream.comments:
        line = stream.line()
        if line.startswith(":"):
            stream.comments.append(line[1:].strip())
    assert 10 < time.monotonic() - began < within(25)
    stream.close()


def test_as_many_streams_as_may_be(own_admin):
    admin = own_admin(max_streams=2)
    kept = [Stream(admin) for _ in range(2)]
    assert admin.get("/api/v1/events", 503)["code"] == "overloaded"
    assert admin.get("/livez")
    kept.pop().close()
    wait_until(lambda: admin.ask("HEAD", "/api/v1/events").status == 200, 5)

    def again():
        connection = admin.connection()
        connection.request("GET", "/api/v1/events")
        status = connection.getresponse().status
        connection.close()
        return status == 200

    wait_until(again, 10, "a place is free")
    kept.pop().close()


def test_who_does_not_read_a_stream_is_dropped(own):
    """It misses what it does not take, and costs no more than a bound; the broker serves all others."""
    admin = Admin(own(admin={"idle_timeout": "1s"}), limit=30)
    client = admin.broker.connect()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(within(30))
        sock.connect(("127.0.0.1", admin.port))
        sock.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        data = sock.recv(2048)
        while b"watching" not in data:
            data += sock.recv(2048)
        before = admin.broker.resident()
        agents = [{"type": "t" * 100, "instance": f"{n}" + "i" * 100} for n in range(50)]

        def is_dropped():
            both = [(method, {"agent": each}) for each in agents for method in ("pause_queue", "resume_queue")]
            client.results(client.submit_all(both * 10))
            return connected(admin) == 0

        wait_until(is_dropped, 30, "it is dropped")
        assert admin.broker.resident() - before < 40 * MIB
        assert admin.get("/livez")


def test_who_does_not_read_an_answer_is_dropped(own):
    admin = Admin(own(admin={"idle_timeout": "1s"}), limit=30)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(within(30))
        sock.connect(("127.0.0.1", admin.port))
        try:
            sock.sendall(b"GET /api/v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)
        except OSError:
            pass
        before = admin.broker.resident()
        wait_until(lambda: connected(admin) == 0, 20, "it is dropped")
        assert admin.broker.resident() - before < 16 * MIB


def connected(admin):
    """How many connections to the port are established at its end."""
    found = 0
    for line in open(f"/proc/{admin.broker.pid}/net/tcp", encoding="ascii").readlines()[1:]:
        fields = line.split()
        found += fields[1].endswith(f":{admin.port:04X}") and fields[3] == "01"
    return found


def test_who_says_much_on_a_stream_is_not_listened_to(admin):
    with admin.open() as sock:
        sock.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        sock.recv(4096)
        before = admin.broker.resident()
        sock.settimeout(0.5)
        try:
            for _ in range(400):
                sock.sendall(b"x" * (1 << 17))
        except OSError:
            pass
        assert admin.broker.resident() - before < 16 * MIB
        assert admin.get("/livez")


def test_streams_and_open_requests_do_not_hold_up_a_stop(own_admin):
    admin = own_admin()
    stream, idle = Stream(admin).begun(), admin.open()
    idle.sendall(b"GET /livez HTTP/1.1\r\n")
    began = time.monotonic()
    admin.broker.stop()
    assert time.monotonic() - began < within(5)
    stream.close()
    idle.close()


# -- start


def test_an_address_that_cannot_be_had(own_admin, redis, make_broker):
    admin = own_admin()
    for listen in (f"tcp://127.0.0.1:{admin.port}", f"unix://{admin.broker.admin_path}"):
        second = make_broker(redis, config={"admin": {"listen": [listen]}}, expected_errors=("",))
        assert second.run_to_end() == 69
        assert listen in second.errors() or str(admin.port) in second.errors()
    open_to_all = make_broker(redis, config={"admin": {"listen": ["tcp://0.0.0.0:0"]}}, expected_errors=("",))
    assert open_to_all.run_to_end() == 78
    assert "admin.listen" in open_to_all.errors()


def test_it_can_be_off(own):
    broker = own(admin={"enabled": False})
    assert broker.admin == [] and not broker.admin_path.exists()


def test_many_clients_that_come_and_go_leave_nothing(own_admin):
    admin = own_admin()
    admin.get("/livez")
    files = admin.broker.open_files()
    stream = b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
    said = (request("/api/v1/queues"), b"\xff\r\n\r\n", stream, b"GET /livez HT", b"")
    for n in range(300):
        with admin.open() as sock:
            sock.sendall(said[n % 5])
            if n % 2 and n % 5 < 3:
                sock.recv(100)
    wait_until(lambda: admin.broker.open_files() <= files, 10, "all are closed")
    assert admin.get("/livez")
