"""The log, its file, the journal; what a signal does to it; and what coordd leaves with."""

import json
import os
import re
import resource
import signal
import socket
import subprocess
import time

import pytest

from harness import COORDD, LOG_FIELD, Broker, Queue, fresh, wait_until, within

AGENT = {"type": "worker", "instance": "one"}


def run(*arguments, **more):
    """Run coordd to its end."""
    return subprocess.run(
        [COORDD, *map(str, arguments)],
        input="",
        capture_output=True,
        text=True,
        timeout=within(15),
        check=False,
        **more,
    )


def lines_of(path):
    """The whole lines of a file."""
    text = path.read_text() if path.exists() else ""
    return text[: text.rfind("\n") + 1].splitlines()


# -- formats


def json_events(path):
    return [json.loads(line) for line in lines_of(path)]


@pytest.mark.parametrize("where", ["file", "standard error"])
def test_json_is_one_object_a_line(redis, make_broker, where):
    broker = make_broker(redis, config={"redis": {"key_prefix": fresh("own")}})
    path = broker.directory / ("stderr" if where == "standard error" else "lines")
    broker.config["log"]["format"] = "json"
    broker.config["log"]["file"] = "" if where == "standard error" else str(path)
    broker.launch()
    ready = wait_until(
        lambda: [each for each in json_events(path) if each["event"] == "server.ready"]
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", ready[0]["ts"])
    assert ready[0]["level"] == "info" and "unix://" in ready[0]["listen"]
    broker.signal(signal.SIGTERM)
    assert broker.wait(5) == 0
    assert json_events(path)[-1]["event"] == "server.stopped"


def test_text_has_no_colour_in_a_file(redis, make_broker):
    broker = make_broker(redis, config={"redis": {"key_prefix": fresh("own")}})
    path = broker.directory / "lines"
    broker.config["log"] = {"format": "text", "file": str(path)}
    broker.launch()
    wait_until(lambda: any("server ready" in line for line in lines_of(path)))
    for line in lines_of(path):
        assert re.match(r"\d\d:\d\d:\d\d\.\d{3} (DEBUG|INFO |NOTE |WARN |ERROR) [a-z ]+  ", line)
    broker.signal(signal.SIGTERM)
    assert broker.wait(5) == 0


# -- the journal


def read_entry(datagram):
    """The fields of one entry in the journal's native protocol."""
    fields = {}
    while datagram:
        head, datagram = datagram.split(b"\n", 1)
        name, sign, value = head.partition(b"=")
        if not sign:
            size = int.from_bytes(datagram[:8], "little")
            value, datagram = datagram[8 : 8 + size], datagram[8 + size + 1 :]
        assert name.decode() not in fields, fields
        fields[name.decode()] = value
    return fields


@pytest.fixture
def journal(tmp_path):
    """A directory with the journal's socket, and the command that puts it where coordd looks."""
    directory = tmp_path / "journal"
    directory.mkdir()
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "-r"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace to be had")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(within(10))
        sock.bind(str(directory / "socket"))
        script = (
            "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal && "
            f"mount --bind {directory} /run/systemd/journal && exec \"$@\""
        )
        yield sock, [*unshare, "sh", "-c", script, "sh"]


def test_under_systemd_each_event_is_an_entry_with_fields(redis, make_broker, journal):
    sock, command = journal
    broker = make_broker(
        redis, config={"redis": {"key_prefix": fresh("own")}, "log": {"format": "auto", "file": ""}}
    )
    errors = broker.directory / "stderr"
    errors.touch()
    broker.environment["JOURNAL_STREAM"] = f"{errors.stat().st_dev}:{errors.stat().st_ino}"
    broker.spawn = lambda arguments, **more: Broker.spawn(broker, [*command, *arguments], **more)
    broker.launch()

    def wait_for(event):
        while True:
            entry = read_entry(sock.recv(1 << 16))
            if entry["COORDD_EVENT"] == event:
                return entry

    ready = wait_for(b"server.ready")
    assert ready["PRIORITY"] == b"6" and ready["SYSLOG_IDENTIFIER"] == b"coordd"
    assert len(ready["MESSAGE_ID"]) == 32
    assert ready["MESSAGE"].startswith(b"server ready  listen=")
    broker.listen = ready["COORDD_LISTEN"].decode().split()
    broker.connect().call("ping")
    assert wait_for(b"conn.opened")["COORDD_CONN"] == b"1"
    broker.close_clients()
    broker.signal(signal.SIGTERM)
    wait_for(b"server.stopped")
    assert broker.wait(5) == 0
    assert broker.errors() == ""


def test_without_the_journals_socket_lines_have_their_level_before_them(redis, make_broker):
    broker = make_broker(
        redis,
        config={"redis": {"key_prefix": fresh("own")}, "log": {"format": "journal", "file": ""}},
    )
    if os.path.exists("/run/systemd/journal/socket"):
        pytest.skip("there is a journal here")
    broker.launch()
    wait_until(lambda: "<6>level=info event=server.ready " in broker.errors())
    broker.signal(signal.SIGTERM)
    assert broker.wait(5) == 0


# -- the file


def events_of(path):
    return [re.search(r" event=(\S+)", line)[1] for line in lines_of(path)]


def test_usr1_opens_the_file_anew_as_logrotate_wants_it(own):
    broker = own()
    rotated = broker.log_path.with_suffix(".1")
    broker.log_path.rename(rotated)
    client = broker.connect()
    client.call("ping")
    wait_until(lambda: "conn.opened" in events_of(rotated))
    assert not broker.log_path.exists()
    broker.signal(signal.SIGUSR1)
    wait_until(lambda: "log.reopened" in events_of(broker.log_path))
    assert events_of(broker.log_path)[0] == "log.reopened"
    assert broker.log_path.stat().st_mode & 0o777 == 0o640
    before = events_of(rotated)
    broker.connect().call("ping")
    wait_until(lambda: "conn.opened" in events_of(broker.log_path))
    assert events_of(rotated) == before


def test_a_file_that_cannot_be_opened_anew_is_written_to_as_before(own):
    broker = own()
    broker.expected_errors = ["log.reopen_failed"]
    rotated = broker.log_path.with_suffix(".1")
    broker.log_path.rename(rotated)
    broker.log_path.mkdir()
    broker.signal(signal.SIGUSR1)
    wait_until(lambda: "log.reopen_failed" in events_of(rotated))
    assert "Is a directory" in rotated.read_text()
    broker.connect().call("ping")
    wait_until(lambda: "conn.opened" in events_of(rotated))
    broker.log_path.rmdir()
    broker.signal(signal.SIGUSR1)
    wait_until(lambda: events_of(broker.log_path)[:1] == ["log.reopened"])


def test_usr1_without_a_file_does_nothing(redis, make_broker):
    config = {"redis": {"key_prefix": fresh("own")}, "log": {"file": ""}}
    broker = make_broker(redis, config=config)
    broker.launch()
    wait_until(lambda: "event=server.ready " in broker.errors())
    broker.signal(signal.SIGUSR1)
    broker.signal(signal.SIGTERM)
    assert broker.wait(5) == 0
    assert "log.reopen" not in broker.errors()


def is_served(path):
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(path)) == 0


def test_a_log_that_nobody_reads_stops_no_request(redis, tmp_path):
    """Standard error is a pipe, and its reader sleeps."""
    path = tmp_path / "c.sock"
    arguments = [
        *("--set", f"server.listen=unix://{path}", "--set", f"redis.url={redis.url}"),
        *("--set", f"redis.key_prefix={fresh('own')}", "--set", "log.level=debug"),
        *("--set", "log.rate_limit=0"),
    ]
    with subprocess.Popen([COORDD, *arguments], stderr=subprocess.PIPE) as process:
        try:
            wait_until(lambda: is_served(path))
            for _ in range(700):  # two lines each: more than a pipe takes
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.settimeout(within(5))
                    sock.connect(str(path))
                    sock.sendall(b"\x94\x00\x01\xa4ping\x90")
                    assert sock.recv(100) == b"\x94\x01\x01\xc0\xa4pong"
            # Now it is read, and tells how much was lost.
            os.set_blocking(process.stderr.fileno(), False)
            text = b""

            def told():
                nonlocal text
                text += process.stderr.read() or b""
                return re.search(rb"event=log.dropped lines=[0-9]+ error=\"its reader is too slow\"", text)

            wait_until(told)
        finally:
            process.terminate()
        assert process.wait(within(5)) == 0


def test_a_full_disk_stops_no_request(redis, make_broker):
    config = {"redis": {"key_prefix": fresh("own")}, "log": {"file": "/dev/full"}}
    broker = make_broker(redis, config=config)
    broker.launch()
    wait_until(lambda: is_served(broker.unix_path))
    queue = Queue(broker.connect("unix"), AGENT)
    wait_until(lambda: queue.client.call("status")["redis"]["up"])
    queue.send("m1")
    broker.close_clients()
    broker.signal(signal.SIGTERM)
    assert broker.wait(5) == 0


# -- what an operator is told


def test_a_slow_request_is_told_and_a_parked_one_is_not(start_redis, make_broker):
    redis = start_redis()
    broker = make_broker(redis, config={"log": {"slow_request": "150ms"}}).start()
    queue = Queue(broker.connect(), AGENT)
    other = Queue(broker.connect(), {"type": "worker", "instance": "two"})
    parked = other.park(wait=60)
    redis.pause()
    msgid = queue.client.submit("send", queue.sending("m1"))
    begun = time.monotonic()
    wait_until(lambda: time.monotonic() - begun > 0.3, 5)
    redis.resume()
    assert queue.client.result(msgid)["delivered"]
    other.at(broker.connect()).send("m2")
    assert parked.result().id == "m2"
    (line,) = broker.logged("request.slow")
    assert line["method"] == "send" and line["code"] == "ok" and line["level"] == "notice"
    assert 250 < float(line["redis_ms"]) <= float(line["took_ms"])
    assert int(line["conn"]) == 1 and line["peer"]
    assert other.receive(wait=0.2) is None
    assert len(broker.logged("request.slow")) == 1


def test_slow_requests_can_be_left_out(start_redis, make_broker):
    redis = start_redis()
    broker = make_broker(redis, config={"log": {"slow_request": "0s"}}).start()
    queue = Queue(broker.connect(), AGENT)
    redis.pause()
    msgid = queue.client.submit("send", queue.sending("m1"))
    begun = time.monotonic()
    wait_until(lambda: time.monotonic() - begun > 0.3, 5)
    redis.resume()
    assert queue.client.result(msgid)["delivered"]
    assert not broker.logged("request.slow")


def test_a_redis_that_goes_and_comes_back_is_told_once_each(start_redis, make_broker):
    redis = start_redis()
    broker = make_broker(redis, expected_errors=["redis.down"]).start()
    redis.kill()
    down = wait_until(lambda: broker.logged("redis.down"))
    wait_until(lambda: broker.logged("redis.unreachable"))
    redis.start()
    wait_until(lambda: len(broker.logged("redis.ready")) == 2, 10)
    assert len(broker.logged("redis.down")) == 1
    assert down[0]["level"] == "error" and int(down[0]["retry_in_ms"]) >= 0


# A name has no control characters; other text of a client may.
EVIL_NAME = 'x" level=error event=forged \\ \u2028\u202e<script>:%'
EVIL_TEXT = "x\nts=2026 level=error event=forged\r\x1b[2J\x00\"\\\u0085\u009b\u2028\u202e<script>"


@pytest.mark.parametrize("form", ["text", "logfmt", "json"])
def test_what_a_client_chose_is_on_one_line(redis, make_broker, form):
    broker = make_broker(redis, config={"redis": {"key_prefix": fresh("own")}})
    path = broker.directory / "lines"
    broker.config["log"] = {"format": form, "file": str(path)}
    broker.launch()
    wait_until(lambda: path.exists() and re.search("server.ready", path.read_text()))
    client = broker.connect("unix")
    client.call("register", agent={"type": EVIL_NAME, "instance": "one"}, ttl=0.05)
    once = {"failure_threshold": 1}
    permit = client.call("breaker_acquire", name=EVIL_NAME, config=once)["permit"]
    client.call(
        "breaker_report", name=EVIL_NAME, permit=permit, outcome="failure", error=EVIL_TEXT
    )
    wait_until(lambda: re.search("agent.lost", path.read_text()), 10)
    broker.close_clients()
    broker.signal(signal.SIGTERM)
    assert broker.wait(5) == 0
    # Whatever takes a line's end for one: there is an event on each line.
    lines = path.read_text().splitlines()
    for line in lines:
        if form == "json":
            assert isinstance(json.loads(line), dict)
        else:
            assert re.match(
                r"ts=\S+ level=\w+ event=[a-z_.]+( [a-z_]+=(\S+|\"([^\"\\]|\\.)*\"))*$"
                if form == "logfmt"
                else r"[\d:.]+ [A-Z]+ +[a-z ]+(  [a-z_]+=.*)?$",
                line,
            ), line
        assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u202e]", line)
    if form == "json":
        events = {each["event"]: each for each in map(json.loads, lines)}
        encoded = EVIL_NAME.replace("%", "%25").replace(":", "%3A")
        assert events["agent.lost"]["agent"] == f"default:{encoded}:one"
        assert events["breaker.opened"]["breaker"] == f"default:{encoded}"
        assert events["breaker.opened"]["reason"] == f"1 failures in a row: {EVIL_TEXT}"


def test_a_breaker_is_told_of_when_it_changes(own):
    broker = own()
    client = broker.connect()
    config = {"failure_threshold": 1, "success_threshold": 1, "timeout_seconds": 0.05}
    permit = client.call("breaker_acquire", name="llm", config=config)["permit"]
    client.call("breaker_report", name="llm", permit=permit, outcome="failure", error="no\nroute")
    (line,) = wait_until(lambda: broker.logged("breaker.opened"))
    assert line["breaker"] == "default:llm" and line["level"] == "warning"
    assert "in a row" in line["reason"] and "no\\x0aroute" in line["reason"]
    permit = wait_until(lambda: client.call("breaker_acquire", name="llm").get("permit"))
    assert len(broker.logged("breaker.half_opened")) == 1
    client.call("breaker_report", name="llm", permit=permit, outcome="success")
    assert len(broker.logged("breaker.closed")) == 1
    assert len(broker.logged("breaker.opened")) == 1


def test_a_lost_permit_and_an_outage_are_told(start_redis, make_broker):
    redis = start_redis()
    broker = make_broker(redis).start()
    client = broker.connect()
    config = {
        "failure_threshold": 1,
        "timeout_seconds": 0.05,
        "recovery_timeout_seconds": 0.05,
    }
    permit = client.call("breaker_acquire", name="llm", config=config)["permit"]
    client.call("breaker_report", name="llm", permit=permit, outcome="failure")
    wait_until(lambda: client.call("breaker_acquire", name="llm").get("permit"))
    wait_until(lambda: len(broker.logged("breaker.opened")) == 2, 10, "the sweep opens it")
    assert not broker.logged("sweep.outage")
    redis.pause()
    begun = time.monotonic()
    wait_until(lambda: time.monotonic() - begun > 1.3, 5)
    redis.resume()
    line = wait_until(lambda: broker.logged("sweep.outage"), 10)[0]
    assert line["grace_ms"] == "5000" and line["level"] == "warning"


def test_a_client_that_does_not_read_is_told(own):
    broker = own(limits={"output_high_water": "4KiB", "output_limit": "1MiB", "output_stall_timeout": "100ms"})
    queue = Queue(broker.connect(), AGENT)
    queue.send_all([fresh("big") for _ in range(20)], payload={"x": "y" * 200000})
    lazy = broker.connect("unix")
    lazy.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for _ in range(20):
        lazy.submit("peek", {"agent": AGENT, "limit": 4})
    line = wait_until(lambda: broker.logged("conn.slow_reader"), 10)[0]
    assert line["level"] == "warning" and int(line["unsent"]) > 0 and line["peer"].startswith("unix:")


def test_a_connection_too_many_is_told(own):
    broker = own(server={"max_connections": 1})
    broker.connect().call("ping")
    second = broker.connect()
    second.expect_closed()
    assert wait_until(lambda: broker.logged("conn.refused"))[0]["level"] == "warning"


def test_a_flood_of_one_event_is_cut_and_told(own):
    broker = own(log={"rate_limit": 5})
    for _ in range(100):
        stranger = broker.connect()
        stranger.send_bytes(b"GET / HTTP/1.1\r\n\r\n")
        stranger.expect_closed()

    def told():
        left_out = [
            int(line["lines"])
            for line in broker.logged("log.suppressed")
            if line["like"] == "conn.refused_frame"
        ]
        return sum(left_out) + len(broker.logged("conn.refused_frame")) == 100 and left_out

    wait_until(told, 10, "all are written or counted")
    seconds = [line["ts"][:19] for line in broker.logged("conn.refused_frame")]
    assert max(seconds.count(each) for each in seconds) <= 5


def test_what_clients_can_cause_again_and_again_is_cut(own):
    broker = own(log={"rate_limit": 5})
    client = broker.connect()
    for _ in range(50):
        client.call("drain")
        client.call("undrain")
    for event in ("server.drain", "server.undrain"):
        seconds = [line["ts"][:19] for line in broker.logged(event)]
        assert max(seconds.count(each) for each in seconds) <= 5, event


# -- the last words


@pytest.mark.parametrize("name", ["QUIT", "ABRT"])
@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_a_signal_that_ends_it_leaves_a_page(redis, make_broker, name, form):
    broker = make_broker(redis, config={"redis": {"key_prefix": fresh("own")}})
    path = broker.directory / "lines"
    broker.config["log"] = {"format": form, "file": str(path)}
    broker.launch()
    wait_until(lambda: "server.ready" in (path.read_text() if path.exists() else ""))
    broker.connect("unix").call("ping")
    number = getattr(signal, f"SIG{name}")
    broker.signal(number)
    assert broker.wait(10) == -number
    lines = lines_of(path)[-5:]
    if form == "json":
        events = [json.loads(line) for line in lines]
    else:
        events = [
            {key: value.strip('"') for key, value in LOG_FIELD.findall(line)} for line in lines
        ]
    assert [each["event"] for each in events] == [
        "server.died",
        "state.server",
        "state.clients",
        "state.requests",
        "state.redis",
    ]
    assert events[0]["signal"] == name and abs(int(events[0]["unix_time"]) - time.time()) < 60
    assert events[1]["state"] == "ready" and int(events[1]["pid"]) == broker.pid
    assert events[4]["up"] in ("yes", True)


# -- exit status


def fails_with(redis, make_broker, config, *arguments):
    """Its exit status; the reason is on standard error and in the log."""
    broker = make_broker(redis, config=config, expected_errors=("",), arguments=arguments)
    status = broker.run_to_end()
    failed = broker.logged("server.failed")
    if failed:
        assert failed[0]["level"] == "error" and int(failed[0]["status"]) == status
        assert "coordd: " in broker.errors()
    return status


def test_64_a_wrong_flag():
    result = run("--no-such-flag")
    assert result.returncode == 64 and result.stderr


@pytest.mark.parametrize("ask", ["flag", "option"])
def test_69_redis_is_not_there_and_is_required(make_broker, tmp_path, ask):
    config = {"redis": {"connect_timeout": "300ms"}}
    if ask == "option":
        config["redis"]["require_at_start"] = True
    broker = make_broker(
        f"unix://{tmp_path}/none.sock",
        config=config,
        arguments=["--require-redis"] if ask == "flag" else [],
        expected_errors=("",),
    )
    assert broker.run_to_end() == 69
    assert "Redis is not there" in broker.errors()
    assert broker.logged("server.failed")[0]["status"] == "69"
    assert not broker.logged("server.ready")


def test_redis_may_come_later_when_it_is_not_required(make_broker, tmp_path):
    broker = make_broker(
        f"unix://{tmp_path}/none.sock", config={"redis": {"connect_timeout": "100ms"}}
    ).start()
    assert broker.logged("server.ready")[0]["redis"] == "down"


def test_69_an_address_in_use(own, redis, make_broker):
    host, port = own().address("tcp")
    config = {"server": {"listen": [f"tcp://{host}:{port}"]}}
    assert fails_with(redis, make_broker, config) == 69


def test_69_a_unix_socket_that_is_served(own, redis, make_broker):
    config = {"server": {"listen": [f"unix://{own().unix_path}"]}}
    assert fails_with(redis, make_broker, config) == 69


@pytest.mark.parametrize("path", ["none/c.sock", "file"])
def test_73_a_unix_socket_that_cannot_be_made(redis, make_broker, tmp_path, path):
    (tmp_path / "file").write_text("")
    config = {"server": {"listen": [f"unix://{tmp_path}/{path}"]}}
    assert fails_with(redis, make_broker, config) == 73
    assert (tmp_path / "file").exists()


def test_73_a_log_file_that_cannot_be_opened(redis, make_broker, tmp_path):
    for path in (tmp_path / "none" / "log", tmp_path):
        config = {"log": {"file": str(path)}}
        broker = make_broker(redis, config=config)
        assert broker.run_to_end() == 73
        assert f"cannot open {path}" in broker.errors()


def test_73_a_pipe_without_a_reader_is_no_log_file(redis, make_broker, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    broker = make_broker(redis, config={"log": {"file": str(tmp_path / "pipe")}})
    assert broker.run_to_end() == 73


def test_73_no_directory_for_the_embedded_redis(make_broker, tmp_path):
    broker = make_broker(
        "", arguments=["--embedded-redis", str(tmp_path / "a" / "b")], expected_errors=("",)
    )
    assert broker.run_to_end() == 73


def test_69_the_embedded_redis_of_another(make_broker, tmp_path):
    arguments = ["--embedded-redis", str(tmp_path / "redis")]
    make_broker("", arguments=arguments, expected_errors=("redis.",)).start()
    rival = make_broker("", arguments=arguments, expected_errors=("",))
    assert rival.run_to_end() == 69


def test_71_too_few_descriptors_for_the_embedded_redis(tmp_path):
    """Whichever of them is the one too many, it says so and leaves."""
    statuses = []
    for most in range(6, 24):
        directory = tmp_path / str(most)
        directory.mkdir()
        arguments = ["--embedded-redis", directory, "--set", f"server.listen=unix://{directory}/c"]
        with subprocess.Popen(
            [COORDD, *arguments],
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most)),
        ) as process:
            served = wait_until(
                lambda: process.poll() is not None or is_served(directory / "c"), 10
            )
            if process.poll() is None and served:
                process.kill()
                break
            statuses.append(process.returncode)
            assert "Too many open files" in process.stderr.read()
    assert 71 in statuses and set(statuses) <= {69, 71, 73}, statuses


def test_74_output_that_cannot_be_written():
    with open("/dev/full", "w", encoding="ascii") as full:
        result = subprocess.run([COORDD, "--print-defaults"], stdout=full, check=False)
    assert result.returncode == 74


def test_77_a_password_that_others_may_read(redis, make_broker, tmp_path):
    path = tmp_path / "password"
    path.write_text("secret\n")
    path.chmod(0o644)
    config = {"redis": {"password_file": str(path)}}
    broker = make_broker(redis, config=config)
    assert broker.run_to_end() == 77
    assert "mode 0600" in broker.errors() and "secret" not in broker.errors()
    broker.config["sweep"] = {"grace": "soon"}
    assert broker.run_to_end() == 78  # that is not all


def test_78_a_wrong_configuration_and_a_redis_that_will_not_do(start_redis, make_broker):
    assert run("--config", "/no/such/file").returncode == 78
    evicts = start_redis(options=("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"))
    assert fails_with(evicts, make_broker, {}) == 78


def test_a_broken_pipe_ends_nothing(own):
    broker = own()
    broker.signal(signal.SIGPIPE)
    assert broker.connect().call("ping") == "pong"
