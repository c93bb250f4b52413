"""The program: start, refusals at start, stop, command line, log, listeners, its own Redis."""

import os
import re
import signal
import socket
import subprocess
import time

import pytest

from harness import (
    COORDD,
    Broker,
    Closed,
    Queue,
    Refused,
    fresh,
    ids_of,
    pack,
    wait_until,
    within,
)

AGENT = {"type": "worker", "instance": "one"}


def run(*arguments, text=""):
    """Run coordd to its end."""
    return subprocess.run(
        [COORDD, *map(str, arguments)],
        input=text,
        capture_output=True,
        text=True,
        timeout=within(15),
        check=False,
    )


# -- stop


def test_sigterm_answers_parked_receivers_and_leaves_with_0(own):
    broker = own()
    queue = Queue(broker.connect(), AGENT)
    parked = [queue.at(broker.connect()).park(wait=60) for _ in range(5)]
    parked.append(queue.at(broker.connect()).park("receive_batch", max=5, wait=60))
    queue.send("m1", delay=60)
    broker.signal(signal.SIGTERM)
    for each in parked:
        with pytest.raises(Refused) as refused:
            each.result()
        assert refused.value.code == "shutting_down"
    assert broker.wait(5) == 0
    assert not broker.unix_path.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_broker_stops_at_once(own, number):
    broker = own()
    client = broker.connect()
    client.call("ping")
    begun = time.monotonic()
    broker.signal(number)
    assert broker.wait(5) == 0
    assert time.monotonic() - begun < within(2)
    with pytest.raises((Closed, OSError)):
        client.call("ping")


def test_sigterm_lets_work_in_flight_finish(own, redis, make_broker):
    config = {"redis": {"key_prefix": fresh("own")}}
    broker = make_broker(redis, config=config).start()
    queue = Queue(broker.connect(), AGENT)
    ids = queue.client.submit_all([("send", queue.sending(f"m{i}")) for i in range(500)])
    queue.client.result(ids[0])
    broker.signal(signal.SIGTERM)
    delivered = []
    for i, msgid in enumerate(ids):
        try:
            if i == 0 or queue.client.result(msgid)["delivered"]:
                delivered.append(f"m{i}")
        except Refused as refusal:
            assert refusal.code == "shutting_down"
        except Closed:
            break
    assert broker.wait(5) == 0
    broker.start()
    # What was answered is there; what was not may have been stored.
    stored = ids_of(queue.at(broker.connect()).drain())
    assert stored[: len(delivered)] == delivered or set(delivered) <= set(stored)
    assert len(stored) == len(set(stored))


def test_what_was_handed_out_before_a_stop_is_settled_after_it(own):
    broker = own()
    queue = Queue(broker.connect(), AGENT)
    queue.send_all(["m1", "m2"])
    received = queue.take_one(visibility_timeout=60)
    broker.stop()
    broker.start()
    queue = queue.at(broker.connect())
    assert queue.ack(received) is True
    assert queue.take_one().id == "m2"


def test_a_stop_gives_connection_leases_back(own):
    broker = own(server={"drain_timeout": "1s"})
    queue = Queue(broker.connect(), AGENT)
    queue.send("m1")
    queue.take_one(visibility_timeout=600, lease="connection")
    broker.signal(signal.SIGTERM)
    assert broker.wait(5) == 0
    broker.start()
    assert queue.at(broker.connect()).take_one(wait=2).id == "m1"


def test_a_stop_with_redis_away_ends_in_time(start_redis, make_broker):
    redis = start_redis()
    broker = make_broker(redis, expected_errors=("redis.", "request.")).start()
    queue = Queue(broker.connect(), AGENT)
    redis.pause()
    queue.client.submit_all([("send", queue.sending()) for _ in range(10)])
    broker.signal(signal.SIGTERM)
    assert broker.wait(10) == 0
    redis.resume()


def test_a_stop_before_the_broker_was_ready_ends_well(make_broker):
    broker = make_broker(
        "redis://127.0.0.1:1/0",
        config={"redis": {"connect_timeout": "1s"}},
        expected_errors=("redis.",),
    )
    broker.launch()
    client = socket.socket(socket.AF_UNIX)
    wait_until(lambda: client.connect_ex(str(broker.unix_path)) == 0, 5, "it listens")
    client.sendall(pack([0, 1, "ping", []]))  # whose answer is not read: the stop waits for that
    broker.signal(signal.SIGTERM)
    assert broker.wait(10) == 0
    client.close()
    assert not broker.logged("server.ready")


def test_a_second_sigterm_leaves_at_once(start_redis, make_broker):
    redis = start_redis()
    broker = make_broker(
        redis, config={"redis": {"command_timeout": "15s"}}, expected_errors=("redis.", "request.")
    ).start()
    queue = Queue(broker.connect(), AGENT)
    redis.pause()
    queue.client.submit_all([("send", queue.sending()) for _ in range(10)])
    queue.client.call("ping")
    broker.signal(signal.SIGTERM)
    wait_until(lambda: broker.log()[-1].get("event", "") != "server.ready", 3, "it drains")
    refused = wait_until(lambda: not accepts(broker), 3, "it accepts nobody")
    assert refused and broker.is_running()
    begun = time.monotonic()
    broker.signal(signal.SIGTERM)
    broker.wait(2)
    assert time.monotonic() - begun < within(1)
    redis.resume()


def accepts(broker):
    try:
        broker.connect().call("ping")
    except (OSError, Closed, Refused):
        return False
    return True


# -- start


def refuses_to_serve(broker):
    """Either it leaves with an error, or it stays and answers `unavailable`."""
    broker.launch()

    def settled():
        if not broker.is_running():
            assert broker.process.returncode not in (0, -signal.SIGSEGV, -signal.SIGABRT)
            return True
        try:
            client = broker.connect("unix")
            refusal = client.refused("send", Queue(client, AGENT).sending())
        except (OSError, Closed):
            return False  # not yet there, or on its way out
        assert (refusal.code, refusal.applied) == ("unavailable", "no")
        return broker.logged("redis.refused") or any(
            line.get("level") in ("error", "warning") for line in broker.log()
        )

    wait_until(settled, 8, "it refuses")
    return " ".join(line["line"] for line in broker.log()) + broker.errors()


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_redis_that_evicts_keys_is_refused(start_redis, make_broker, policy):
    redis = start_redis(options=("--maxmemory", "100mb", "--maxmemory-policy", policy))
    broker = make_broker(redis, expected_errors=("",))
    said = refuses_to_serve(broker)
    assert "maxmemory" in said or "evict" in said
    broker.kill()
    assert redis.command("KEYS", "*:q*") == []


def test_eviction_may_be_allowed_on_purpose(start_redis, make_broker):
    redis = start_redis(options=("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"))
    broker = make_broker(redis, config={"redis": {"require_noeviction": False}}).start()
    Queue(broker.connect(), AGENT).send("m1")


def test_a_redis_without_persistence_is_served_and_reported(start_redis, make_broker):
    broker = make_broker(start_redis(appendonly="no")).start()
    Queue(broker.connect(), AGENT).send("m1")
    checks = broker.connect().call("status")["checks"]
    assert any("persist" in each["name"] and each["status"] != "ok" for each in checks), checks
    assert any(
        "persist" in line["line"] and line["level"] == "warning" for line in broker.log()
    ), "the log does not warn"


def test_a_newer_layout_is_refused_and_left_alone(start_redis, make_broker):
    redis = start_redis()
    make_broker(redis).start().stop()
    assert redis.command("GET", "coordd:version") is not None
    redis.command("SET", "coordd:version", "999")
    broker = make_broker(redis, expected_errors=("",))
    assert "version" in refuses_to_serve(broker)
    broker.kill()
    assert redis.command("GET", "coordd:version") == "999"


def test_a_layout_key_with_nonsense_is_refused(start_redis, make_broker):
    redis = start_redis()
    redis.command("SET", "coordd:version", "nonsense")
    broker = make_broker(redis, expected_errors=("",))
    refuses_to_serve(broker)
    broker.kill()
    assert redis.command("GET", "coordd:version") == "nonsense"


def test_every_key_begins_with_the_prefix(start_redis, make_broker):
    redis = start_redis()
    broker = make_broker(redis, config={"redis": {"key_prefix": "mine"}}).start()
    queue = Queue(broker.connect(), AGENT)
    queue.kill()
    queue.send_all([f"m{i}" for i in range(5)])
    queue.take_one()
    queue.send(delay=60)
    queue.configure(queue_size=10)
    keys = redis.command("KEYS", "*")
    assert keys and all(key.startswith("mine") for key in keys), keys


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_redis_over_tcp_with_a_password_and_a_database(start_redis, make_broker):
    port = free_port()
    redis = start_redis(options=("--port", str(port), "--bind", "127.0.0.1"))
    redis.command("CONFIG", "SET", "requirepass", "s3cret")
    redis.password = "s3cret"
    wrong = make_broker(f"redis://:wrong@127.0.0.1:{port}/3", expected_errors=("",))
    refuses_to_serve(wrong)
    wrong.kill()
    assert "wrong@" not in wrong.log_path.read_text()
    broker = make_broker(f"redis://:s3cret@127.0.0.1:{port}/3").start()
    queue = Queue(broker.connect(), AGENT)
    queue.send("m1")
    assert queue.take_one().id == "m1"
    assert redis.command("KEYS", "*") == []
    assert "s3cret" not in broker.log_path.read_text() + broker.errors()


def test_the_password_may_stand_beside_the_url(start_redis, make_broker):
    redis = start_redis()
    redis.command("CONFIG", "SET", "requirepass", "s3cret")
    redis.password = "s3cret"
    config = {"redis": {"password": "s3cret"}}
    broker = make_broker(f"{redis.url}?db=2", config=config).start()
    Queue(broker.connect(), AGENT).send("m1")
    assert redis.command("KEYS", "*") == []


# -- listeners


def test_a_port_in_use_is_refused(own, redis, make_broker):
    host, port = own().address("tcp")
    broker = make_broker(
        redis, config={"server": {"listen": [f"tcp://{host}:{port}"]}}, expected_errors=("",)
    )
    assert broker.run_to_end() == 69
    assert str(port) in broker.errors() + " ".join(line["line"] for line in broker.log())


def test_a_stale_socket_file_is_replaced_and_a_live_one_is_not(redis, make_broker):
    config = {"redis": {"key_prefix": fresh("own")}}
    first = make_broker(redis, config=config).start()
    rival = make_broker(
        redis,
        config={"server": {"listen": [f"unix://{first.unix_path}"]}},
        expected_errors=("",),
    )
    assert rival.run_to_end() == 69
    assert first.connect("unix").call("ping") == "pong"
    first.kill()
    assert first.unix_path.exists()
    first.start()
    assert first.connect("unix").call("ping") == "pong"


def test_the_unix_socket_has_the_mode_asked_for(own):
    broker = own(server={"unix_mode": "0600"})
    assert os.stat(broker.unix_path).st_mode & 0o777 == 0o600


def test_without_authentication_only_loopback_is_served(redis, make_broker):
    broker = make_broker(
        redis, config={"server": {"listen": ["tcp://0.0.0.0:0"]}}, expected_errors=("",)
    )
    assert broker.run_to_end() == 78


# -- command line and configuration


def test_version_and_help_tell_and_leave_with_0(client):
    version = run("--version")
    assert version.returncode == 0
    assert client.call("hello")["version"] in version.stdout
    made_of = run("--version", "-v")
    assert made_of.stdout.startswith(version.stdout)
    rows = dict(line.split(None, 1) for line in made_of.stdout.splitlines() if not line.startswith("library"))
    assert {"built", "compiler", "mode", "flags", "libevent"} <= rows.keys()
    assert "-std=c11" in rows["flags"] and "hiredis 0." in rows["built"] and "msgpack" in rows["built"]
    assert "libhiredis" in made_of.stdout  # which ones were loaded
    text = run("--help")
    assert text.returncode == 0 and "--config" in text.stdout


@pytest.mark.parametrize("arguments", [["--surprise"], ["surprise"], ["--config"], ["-v"]])
def test_a_bad_command_line_is_refused(arguments):
    result = run(*arguments)
    assert result.returncode == 64 and result.stderr


@pytest.mark.parametrize(
    ("arguments", "level"),
    [("-q", "warning"), ("-q -l debug", "debug"), ("-l debug -q", "warning"), ("-q -l debug -q -l info", "info")],
)
def test_of_several_levels_the_last_one_counts(arguments, level):
    assert re.search(rf"^  level: {level} +# flag$", run("-T", *arguments.split()).stdout, re.M)


def test_the_defaults_printed_are_a_configuration(tmp_path):
    printed = run("--print-defaults")
    assert printed.returncode == 0
    path = tmp_path / "coordd.yaml"
    path.write_text(printed.stdout)
    result = run("--test", "--config", path)
    assert result.returncode == 0, result.stderr


BAD_CONFIG = {
    "unknown key": ("server:\n  max_conections: 5\n", "2:3", "max_connections"),
    "unknown section": ("sever:\n  backlog: 5\n", "1:1", "server"),
    "twice": ("log:\n  level: info\n  level: debug\n", "3:3", "level"),
    "no size": ("limits:\n  max_frame: 1MB\n", "2:14", "MiB"),
    "no duration": ("sweep:\n  grace: 5 s\n", "2:10", "grace"),
    "no bool": ("limits:\n  portable_payloads: yes\n", "2:22", "true"),
    "out of range": ("server:\n  max_connections: -1\n", "2:20", "max_connections"),
    "no map": ("server: 5\n", "1:9", "server"),
    "an alias": ("log: &a\n  level: info\nserver: *a\n", "", ""),
    "a tag": ("log:\n  level: !!str info\n", "2:", ""),
    "two documents": ("log:\n  level: info\n---\nlog:\n  level: info\n", "", ""),
    "no yaml": ("log: [\n", "", ""),
    "a tab": ("log:\n\tlevel: info\n", "2:", ""),
    "nesting": ("[" * 5000, "", ""),
}


@pytest.mark.parametrize("name", BAD_CONFIG)
def test_a_bad_configuration_is_refused_by_place(tmp_path, name):
    text, place, hint = BAD_CONFIG[name]
    path = tmp_path / "coordd.yaml"
    path.write_text(text)
    for arguments in (["--test", "--config", path], ["--config", path]):
        begun = time.monotonic()
        result = run(*arguments)
        assert result.returncode == 78, result
        assert f"coordd.yaml:{place}" in result.stderr and hint in result.stderr, result.stderr
        assert time.monotonic() - begun < within(2)


def test_all_errors_of_a_configuration_are_told_at_once(tmp_path):
    path = tmp_path / "coordd.yaml"
    path.write_text("log:\n  lvel: info\nlimits:\n  max_frame: big\nsweep:\n  grace: soon\n")
    result = run("--test", "--config", path)
    assert result.returncode == 78
    for place in ("2:3", "4:14", "6:10"):
        assert f"coordd.yaml:{place}" in result.stderr, result.stderr


def test_a_missing_configuration_is_refused(tmp_path):
    assert run("--config", tmp_path / "none.yaml").returncode != 0
    assert run("--config", tmp_path).returncode != 0


def test_an_empty_configuration_is_valid(tmp_path):
    for text in ("", "# nothing\n", "---\n"):
        path = tmp_path / "coordd.yaml"
        path.write_text(text)
        result = run("--test", "--config", path)
        assert result.returncode == 0, result.stderr


# -- log


def test_a_client_cannot_forge_log_lines(own):
    broker = own()
    client = broker.connect()
    evil = "x\nts=2026-01-01T00:00:00Z level=error event=forged\r\n\x1b[2J\0"
    client.refused(evil)
    client.refused("queue_stats", {"agent": {"type": evil}})
    client.refused("queue_stats", {evil: 1})
    client.refused("hello", {"client": 5, "namespace": evil})
    stranger = broker.connect()
    stranger.send_bytes(evil.encode())
    stranger.expect_closed()
    text = broker.log_path.read_bytes()
    assert b"\nts=2026-01-01" not in text and b"\nlevel=error event=forged" not in text
    assert not re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", text)


def test_no_payload_and_no_token_reaches_the_log(own):
    broker = own()
    queue = Queue(broker.connect(), AGENT)
    queue.send("m1", payload={"secret": "swordfish"}, note="swordfish")
    received = queue.take_one()
    assert queue.nack(received, error="broken", delay=0)
    received = queue.take_one()
    assert queue.ack(received)
    queue.client.refused("send", queue.sending(payload=["swordfish"]))
    text = broker.log_path.read_text()
    assert "swordfish" not in text and received.token not in text


def test_every_line_of_the_log_has_a_time_a_level_and_an_event(own):
    broker = own()
    broker.connect().call("ping")
    for line in broker.log():
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["ts"]), line["line"]
        assert line["level"] in ("debug", "info", "notice", "warning", "error")
        assert re.fullmatch(r"[a-z_]+\.[a-z_.]+", line["event"]), line["line"]


# -- a Redis of its own


def child_of(broker):
    """The pid of its redis-server."""
    task = f"/proc/{broker.pid}/task/{broker.pid}/children"
    with open(task, encoding="ascii") as children:
        pids = children.read().split()
    return int(pids[0]) if pids else None


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def embedded(make_broker, tmp_path):
    directory = tmp_path / "redis"
    return make_broker(
        "", arguments=["--embedded-redis", str(directory)], expected_errors=("redis.", "request.")
    )


def test_an_embedded_redis_keeps_what_it_was_given(embedded):
    embedded.start()
    child = child_of(embedded)
    Queue(embedded.connect(), AGENT).send("m1")
    embedded.stop()
    assert not is_alive(child)
    embedded.start()
    queue = Queue(embedded.connect(), AGENT)
    assert queue.take_one().id == "m1"
    assert all(each["status"] == "ok" for each in queue.client.call("status")["checks"])


def test_an_embedded_redis_dies_with_its_broker(embedded):
    embedded.start()
    child = child_of(embedded)
    Queue(embedded.connect(), AGENT).send("m1")
    embedded.kill()
    wait_until(lambda: not is_alive(child), 5, "redis-server is gone")
    embedded.start()
    assert Queue(embedded.connect(), AGENT).take_one().id == "m1"


def test_a_broker_restarted_at_once_after_a_kill_finds_its_embedded_redis(embedded):
    """The old redis-server is still ending when the new coordd starts."""
    embedded.start()
    sent = []
    for _ in range(5):
        queue = Queue(embedded.connect(), AGENT)
        sent.append(queue.send())
        embedded.kill()
        embedded.start()
    assert ids_of(Queue(embedded.connect(), AGENT).drain()) == sent


def test_an_embedded_redis_that_dies_is_started_again(embedded):
    embedded.start()
    queue = Queue(embedded.connect(), AGENT)
    queue.send("m1")
    os.kill(child_of(embedded), signal.SIGKILL)

    def back():
        try:
            return queue.take_one(wait=0).id == "m1"
        except (Refused, AssertionError):
            return False

    wait_until(back, 10, "the service is back")


def test_two_brokers_do_not_share_an_embedded_redis(embedded, make_broker):
    embedded.start()
    rival = make_broker("", arguments=embedded.arguments, expected_errors=("",))
    assert rival.run_to_end() != 0
    assert embedded.connect().call("ping") == "pong"


def test_the_harness_sees_what_a_broken_daemon_leaves():
    """Broker.check() looks for what a broken daemon leaves; make sure that it would see it."""
    broker = Broker("unix:///nowhere")
    try:
        (broker.directory / "stderr").write_text("==1==ERROR: AddressSanitizer: heap-use-after-free")
        with pytest.raises(AssertionError):
            broker.check()
        (broker.directory / "stderr").write_text("")
        broker.log_path.write_text("ts=x level=error event=request.internal\n")
        with pytest.raises(AssertionError):
            broker.check()
        broker.check()
    finally:
        broker.remove()
