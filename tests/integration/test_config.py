"""Keys of the configuration that no other file tests, and where a value comes from."""

import os
import re
import signal
import subprocess

import pytest

from harness import COORDD, Queue, fresh, ids_of, seconds_of, to_yaml, wait_until, within


def run(*arguments, text="", **environment):
    """Run coordd to its end."""
    return subprocess.run(
        [COORDD, *map(str, arguments)],
        input=text,
        capture_output=True,
        text=True,
        timeout=within(15),
        check=False,
        env={**os.environ, **environment},
    )


def printed(*arguments, **more):
    """--print-config as {key: (value, origin)}."""
    result = run("--print-config", *arguments, **more)
    assert result.returncode == 0, result.stderr
    keys, path, above = {}, [], None
    for line in result.stdout.splitlines()[1:]:
        if comment := re.fullmatch(r" *# (\S+)", line):
            above = comment[1]
        elif found := re.fullmatch(r"( *)(\w+):(?: (.*?))?(?: +# (\S+))?", line):
            indent, key, value, origin = found.groups()
            path = path[: len(indent) // 2] + [key]
            keys[".".join(path)] = (value, origin or above)
            above = None
    return keys


# -- where a value comes from


def test_a_flag_wins_over_the_environment_and_that_over_files(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("server:\n  backlog: 1\n  max_connections: 1\nlog:\n  level: error\n")
    second.write_text("server:\n  backlog: 2\n")
    files = ["--config", first, "--config", second]
    keys = printed(*files, "--set", "log.rate_limit=3", COORDD_LOG__LEVEL="debug")
    assert keys["server.backlog"] == ("2", f"{second}:2")
    assert keys["server.max_connections"] == ("1", f"{first}:3")
    assert keys["log.level"] == ("debug", "env")
    assert keys["log.rate_limit"] == ("3", "flag")
    assert keys["sweep.grace"] == ("5s", "default")
    keys = printed(*files, "-l", "notice", COORDD_LOG__LEVEL="debug")
    assert keys["log.level"] == ("notice", "flag")
    keys = printed("--config", "-", text="server: {backlog: 9}\n")
    assert keys["server.backlog"] == ("9", "<stdin>:1")


def test_no_password_is_printed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    secret.chmod(0o600)
    for arguments in (
        ["--set", "redis.password=s3cret"],
        ["--set", "redis.url=redis://coordd:s3cret@127.0.0.1:1/0"],
        ["--set", f"redis.password_file={secret}"],
    ):
        result = run("--print-config", *arguments)
        assert result.returncode == 0, result.stderr
        assert "s3cret" not in result.stdout + result.stderr
        assert "***" in result.stdout


def test_a_variable_that_is_no_key_is_refused():
    for arguments in (["--test"], []):
        result = run(*arguments, COORDD_LOG_LEVEL="debug")
        assert result.returncode == 78
        assert "COORDD_LOG_LEVEL: no key is called so; did you mean COORDD_LOG__LEVEL?" in result.stderr


def test_a_broker_is_configured_by_its_environment(redis, make_broker):
    broker = make_broker(
        redis,
        environment={
            "COORDD_REDIS__KEY_PREFIX": fresh("own"),
            "COORDD_QUEUES__DEFAULTS__QUEUE_SIZE": "1",
        },
    ).start()
    queue = Queue(broker.connect(), {"type": "worker", "instance": "one"})
    queue.send("m1")
    assert not queue.try_send("m2")["delivered"]


@pytest.mark.parametrize("flag", ["-t", "--test"])
def test_quiet_says_nothing_when_all_is_well(tmp_path, flag):
    path = tmp_path / "coordd.yaml"
    path.write_text("log: {level: debug}\n")
    assert run(flag, "-c", path).stdout == "the configuration is valid\n"
    result = run(flag, "-q", "-c", path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    path.write_text("log: {level: loud}\n")
    assert run(flag, "-q", "-c", path).returncode == 78


# -- queues that differ


OVERRIDES = [
    {"match": "planner:*", "queue_size": 2, "visibility_timeout": "60s"},
    {"match": "*:nightly", "message_ttl": "1s", "retry_attempts": 0},
    {"match": "capped:*", "max_visibility_timeout": "10s", "max_inflight_per_consumer": 3},
    {"match": "planner:late", "queue_size": 9},
    {"match": "odd%3Aname:*", "queue_size": 1},
]


@pytest.fixture
def differing(own):
    return own(queues={"overrides": OVERRIDES})


def capacity(queue):
    return queue.stats()["capacity"]


def test_the_first_override_that_matches_counts(differing):
    client = differing.connect()
    agents = {
        ("planner", "one"): 2,
        ("planner", "late"): 2,
        ("planners", "one"): 10000,
        ("worker", "one"): 10000,
        ("odd:name", "one"): 1,
    }
    for (kind, instance), size in agents.items():
        queue = Queue(client, {"type": kind, "instance": instance})
        queue.send()
        assert capacity(queue) == size, (kind, instance)
        assert queue.configure()["queue_size"] == size
    listed = {
        (each["agent_id"]["type"], each["agent_id"]["instance"]): each["capacity"]
        for each in client.call("list_queues")["queues"]
    }
    assert listed == agents
    elsewhere = differing.in_namespace("another")
    assert capacity(Queue(elsewhere, {"type": "planner", "instance": "one"})) == 2


def test_an_override_holds_what_is_sent_and_received(differing, redis):
    client = differing.connect()
    planner = Queue(client, {"type": "planner", "instance": "one"})
    assert planner.try_send()["delivered"] and planner.try_send()["delivered"]
    assert not planner.try_send()["delivered"]
    assert 59 < planner.receive().deadline - redis.time() < 60.5
    nightly = Queue(client, {"type": "worker", "instance": "nightly"})
    nightly.send("retried")
    nightly.nack(nightly.receive())
    wait_until(lambda: nightly.counts() == (0, 0, 0, 1), what="it had its only attempt")


def test_what_configure_sets_wins_over_an_override(differing):
    client = differing.in_namespace("set")
    queue = Queue(client, {"type": "planner", "instance": "one"})
    assert capacity(queue) == 2
    client.call("configure", queue_size=5)
    assert capacity(queue) == 5
    queue.configure(queue_size=7)
    assert capacity(queue) == 7
    queue.configure(queue_size=None)
    client.call("configure", queue_size=None)
    assert capacity(queue) == 2


def test_the_sweep_knows_overrides(differing):
    """What is not settled has no second attempt where the override says so."""
    queue = Queue(differing.connect(), {"type": "worker", "instance": "nightly"})
    queue.send("m1", ttl=1000)
    assert queue.take_one(visibility_timeout=0.05)
    wait_until(lambda: queue.counts() == (0, 0, 0, 1), what="it is dead")
    assert queue.dead()[0]["reason"] == "attempts"


# -- keys of queues


def test_more_than_max_visibility_timeout_is_refused(differing, redis):
    queue = Queue(differing.connect(), {"type": "capped", "instance": "one"})
    queue.send("m1")
    for method, more in (("receive", {}), ("receive_batch", {"max": 5}), ("consume", {"prefetch": 1})):
        refusal = queue.client.refused(
            method, {"agent": queue.agent, "visibility_timeout": 10.1, **more}
        )
        assert refusal.code == "bad_request" and "max_visibility_timeout" in refusal.message
    received = queue.receive(visibility_timeout=10)
    refusal = queue.client.refused(
        "extend", {"agent": queue.agent, "token": received.token, "visibility_timeout": 11}
    )
    assert refusal.code == "bad_request"
    assert queue.extend(received, 10)


def test_the_minute_of_a_consumer_is_capped_too(differing, redis):
    queue = Queue(differing.connect(), {"type": "capped", "instance": "one"})
    queue.send("m1")
    queue.client.call("consume", agent=queue.agent, prefetch=1)
    wait_until(lambda: queue.client.call("ping") and queue.client.notifications, what="it came")
    deadline = seconds_of(queue.client.notifications[0][1]["visibility_deadline"])
    assert 9 < deadline - redis.time() < 10.5


def test_a_prefetch_above_max_inflight_per_consumer_is_lowered(differing):
    queue = Queue(differing.connect(), {"type": "capped", "instance": "one"})
    queue.send_all([f"m{i}" for i in range(10)])
    queue.client.call("consume", agent=queue.agent, prefetch=100)
    wait_until(lambda: queue.counts() == (7, 0, 3, 0), what="it holds three")
    first = queue.client.notifications[0][1]
    queue.client.call("ack", agent=queue.agent, token=first["token"])
    wait_until(lambda: queue.counts() == (6, 0, 3, 0), what="it holds three again")


def test_a_message_without_a_ttl_gets_that_of_the_queue(own, redis):
    broker = own(queues={"defaults": {"message_ttl": "100ms"}})
    queue = Queue(broker.connect(), {"type": "worker", "instance": "one"})
    queue.send("m1")
    queue.send("m2", ttl=1000)
    queue.send("m3", delay=0.2)
    gone = redis.time() + 0.4
    wait_until(lambda: redis.time() > gone, what="two have expired")
    assert ids_of(queue.take()) == ["m2"]
    assert queue.counts() == (0, 0, 1, 2)
    assert {each["reason"] for each in queue.dead()} == {"expired"}


# -- breakers that differ


def test_a_breaker_is_made_with_the_override_that_matches_its_name(own):
    broker = own(
        breakers={
            "defaults": {"failure_threshold": 4},
            "overrides": [{"match": "pay*", "failure_threshold": 1, "timeout": "7s"}],
        }
    )
    client = broker.connect()
    for name, threshold, timeout in (("payments", 1, 7), ("mail", 4, 60)):
        assert client.call("breaker_acquire", name=name)["permitted"]
        config = client.call("breaker_get", name=name)["config"]
        assert (config["failure_threshold"], config["timeout_seconds"]) == (threshold, timeout)
    client.call("breaker_acquire", name="payroll", config={"failure_threshold": 8})
    config = client.call("breaker_get", name="payroll")["config"]
    assert (config["failure_threshold"], config["timeout_seconds"]) == (8, 7)


# -- how many there may be, and a reload


def test_more_agents_and_breakers_than_allowed_are_refused(own):
    broker = own(registry={"max_agents": 2}, breakers={"max_breakers": 2})
    client = broker.connect()
    for instance in ("a", "b", "a"):
        client.call("register", agent={"type": "worker", "instance": instance})
        client.call("breaker_acquire", name=instance)
    for method, params, key in (
        ("register", {"agent": {"type": "worker", "instance": "c"}}, "registry.max_agents"),
        ("breaker_acquire", {"name": "c"}, "breakers.max_breakers"),
        ("breaker_configure", {"name": "c", "config": {}}, "breakers.max_breakers"),
    ):
        refusal = client.refused(method, params)
        assert refusal.code == "overloaded" and key in refusal.message
    client.call("deregister", agent={"type": "worker", "instance": "a"})
    client.call("breaker_remove", name="a")
    client.call("register", agent={"type": "worker", "instance": "c"})
    client.call("breaker_acquire", name="c")


def test_a_reload_changes_the_overrides(differing):
    queue = Queue(differing.connect(), {"type": "planner", "instance": "one"})
    assert capacity(queue) == 2
    differing.config["queues"]["overrides"] = [{"match": "planner:*", "queue_size": 3}]
    differing.config_path.write_text(to_yaml(differing.config) + "\n")
    differing.signal(signal.SIGHUP)
    wait_until(lambda: capacity(queue) == 3, what="the new size is in force")
    assert queue.configure()["queue_size"] == 3
