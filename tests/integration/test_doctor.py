"""coordctl doctor: what it finds, and that a fix stands beside each finding."""

import json
import os
import resource
import subprocess

import pytest

from harness import to_yaml, wait_until, within
from test_coordctl import COORDCTL

OVERCOMMIT = open("/proc/sys/vm/overcommit_memory").read().strip()  # the host's, and not ours to change


class Doctor:
    """Runs it on the configuration of one broker."""

    def __init__(self, directory):
        self.directory = directory
        self.bin = directory / "bin"
        self.bin.mkdir()

    def fake(self, name, script):
        """A command that the doctor asks, as it is on another host."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def run(self, *arguments, server=None):
        environment = {**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}"}
        environment.pop("COORDCTL_SERVER", None)
        if server:
            environment["COORDCTL_SERVER"] = server
        done = subprocess.run(
            [COORDCTL, "doctor", *map(str, arguments)],
            capture_output=True,
            env=environment,
            timeout=within(30),
            check=False,
        )
        assert b"Sanitizer" not in done.stderr and b"runtime error" not in done.stderr, done.stderr
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def rows(self, *arguments, **more):
        """Every row; what depends on the host these tests run on is left out."""
        code, out, _ = self.run(*arguments, "-o", "json", **more)
        rows = json.loads(out)
        assert code == (1 if any(not each["ok"] for each in rows) else 0)
        for each in rows:
            assert (each["fix"] is None) == each["ok"] and each["text"], each
        return [each for each in rows if "overcommit" not in each["text"] and "libevent" not in each["text"]]

    def findings(self, *arguments, **more):
        return {each["area"]: each for each in self.rows(*arguments, **more) if not each["ok"]}


@pytest.fixture
def doctor(tmp_path):
    return Doctor(tmp_path)


@pytest.fixture
def sick(start_redis, make_broker, doctor):
    """Start a broker, and look at it with its own configuration."""

    def start(config=None, redis=None, **options):
        redis = redis or start_redis(**options)
        broker = make_broker(redis, config={"server": {"max_connections": 100}, **(config or {})})
        broker.start()
        return broker, redis

    return start


def write(path, config):
    path.write_text(to_yaml(config) + "\n")
    return path


def test_a_healthy_broker_has_no_findings(sick, doctor):
    broker, _ = sick(fsync="always")
    rows = doctor.rows("--config", broker.config_path)
    assert [each for each in rows if not each["ok"]] == []
    texts = {each["area"]: each["text"] for each in rows}
    assert "is valid" in texts["config"] and f"pid {broker.pid}" in texts["broker"]
    assert f"{broker.unix_path}, mode 0660" in texts["sockets"]
    assert "asked directly" in texts["redis"] and "appendfsync always" in texts["persistence"]
    assert "noeviction" in texts["eviction"] and "differ by" in texts["clock"]
    assert "enough for 100 connections" in texts["descriptors"]


def test_the_screen_says_it_in_lines(sick, doctor):
    broker, _ = sick(appendonly="no")
    code, out, err = doctor.run("--config", broker.config_path)
    assert code == 1 and err == ""
    lines = out.splitlines()
    assert lines[0] == f"ok       config       {broker.config_path} is valid"
    at = next(i for i, line in enumerate(lines) if line.startswith("PROBLEM  persistence"))
    assert lines[at + 1].strip().startswith("fix: redis-cli config set appendonly yes")
    findings = 1 if OVERCOMMIT == "1" else 2
    assert lines[-1] == f"{findings} finding{'s' if findings > 1 else ''}"
    code, quiet, _ = doctor.run("--config", broker.config_path, "-q")
    assert code == 1 and "ok  " not in quiet and "PROBLEM  persistence" in quiet


def test_without_a_file_the_broker_tells_of_redis(sick, doctor):
    broker, _ = sick(appendonly="no")
    found = doctor.rows(server=f"unix://{broker.unix_path}")
    by_area = {each["area"]: each for each in found}
    assert "as the broker knows it" in by_area["redis"]["text"]
    assert not by_area["persistence"]["ok"] and by_area["clock"]["ok"]


def test_a_broken_configuration_is_told_with_its_place(sick, doctor, tmp_path):
    broker, _ = sick()
    bad = tmp_path / "bad.yaml"
    bad.write_text("server:\n  max_conections: 5\nredis:\n  url: 17\n")
    findings = [each for each in doctor.rows("--config", bad, server=f"unix://{broker.unix_path}") if not each["ok"]]
    assert [each["area"] for each in findings] == ["config", "config"]
    assert f"{bad}:2:3: unknown key" in findings[0]["text"] and f"{bad}:4:" in findings[1]["text"]
    assert "coordd --test" in findings[0]["fix"]
    assert "No such file" in doctor.findings("--config", tmp_path / "none.yaml")["config"]["text"]


def test_who_may_read_and_write_the_configuration(sick, doctor, tmp_path):
    broker, redis = sick()
    path = write(tmp_path / "c.yaml", {**broker.config, "redis": {"url": redis.url, "password": "secret"}})
    path.chmod(0o644)
    finding = doctor.findings("--config", path)["config"]
    assert "everybody can read the password" in finding["text"] and "secret" not in json.dumps(finding)
    path.chmod(0o640)
    assert "config" not in doctor.findings("--config", path)
    path.chmod(0o642)
    assert "everybody can change" in doctor.findings("--config", path)["config"]["text"]


def test_a_password_in_the_url_counts_too(sick, doctor, tmp_path):
    broker, _ = sick()
    path = write(tmp_path / "c.yaml", {**broker.config, "redis": {"url": "redis://:secret@127.0.0.1:1/0"}})
    path.chmod(0o644)
    finding = doctor.findings("--config", path)["config"]
    assert "everybody can read the password" in finding["text"] and "secret" not in json.dumps(finding)
    path.chmod(0o640)
    assert "config" not in doctor.findings("--config", path)


def test_eviction_and_a_full_memory(sick, doctor, start_redis):
    redis = start_redis()
    broker, _ = sick(redis=redis, config={"redis": {"require_noeviction": False}})
    redis.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    redis.command("CONFIG", "SET", "maxmemory", "100kb")
    findings = doctor.findings("--config", broker.config_path)
    assert "allkeys-lru" in findings["eviction"]["text"] and "noeviction" in findings["eviction"]["fix"]
    assert "% of its maxmemory" in findings["memory"]["text"]


def test_a_password_is_used(sick, doctor, start_redis):
    redis = start_redis()
    redis.command("CONFIG", "SET", "requirepass", "pa ss")
    broker, _ = sick(redis=redis.url, config={"redis": {"password": "pa ss"}})
    broker.config_path.chmod(0o600)
    rows = {each["area"]: each for each in doctor.rows("--config", broker.config_path)}
    assert rows["redis"]["ok"] and "asked directly" in rows["redis"]["text"]
    assert "pa ss" not in json.dumps(rows)


def test_a_redis_that_is_away(sick, doctor):
    broker, redis = sick()
    broker.expected_errors.append("redis.")
    redis.kill()
    wait_until(lambda: not broker.connect().call("status")["ready"])
    finding = doctor.findings("--config", broker.config_path)["redis"]
    assert "cannot be asked" in finding["text"] and "systemctl status redis-server" in finding["fix"]


def test_a_broker_that_is_down_is_looked_at_all_the_same(sick, doctor):
    broker, _ = sick(fsync="always")
    broker.stop()
    findings = doctor.findings("--config", broker.config_path)
    assert "systemctl status coordd" in findings["broker"]["fix"]
    assert "No such file" in findings["sockets"]["text"]
    rows = {each["area"]: each for each in doctor.rows("--config", broker.config_path)}
    assert rows["persistence"]["ok"] and rows["clock"]["ok"]
    broker.start()
    broker.kill()
    assert "nobody listens" in doctor.findings("--config", broker.config_path)["sockets"]["text"]


def test_a_socket_that_is_open_to_everybody(sick, doctor):
    broker, _ = sick(config={"server": {"unix_mode": "0666"}})
    finding = doctor.findings("--config", broker.config_path)["sockets"]
    assert "mode 0666: every user" in finding["text"] and "0660" in finding["fix"]
    os.chmod(broker.unix_path, 0o660)
    broker.directory.chmod(0o777)
    assert "everybody can replace" in doctor.findings("--config", broker.config_path)["sockets"]["text"]
    broker.directory.chmod(0o700)
    assert "sockets" not in doctor.findings("--config", broker.config_path)


def test_too_few_descriptors(sick, doctor):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard > 900000:
        pytest.skip("no configuration asks for more")
    broker, _ = sick(config={"server": {"max_connections": 1000000}})
    finding = doctor.findings("--config", broker.config_path)["descriptors"]
    assert f"may open {hard} files" in finding["text"] and "LimitNOFILE" in finding["fix"]


def test_what_the_broker_complains_of_is_told(sick, doctor):
    broker, _ = sick(fsync="always")
    client = broker.connect()
    client.call("breaker_configure", name="b", config={})
    client.call("breaker_trip", name="b")
    finding = doctor.findings("--config", broker.config_path)["broker"]
    assert finding["text"].startswith("breakers: 1 ") and "breaker reset" in finding["fix"]
    client.call("breaker_reset", name="b")
    client.call("drain")
    assert "undrain" in doctor.findings("--config", broker.config_path)["broker"]["fix"]


@pytest.mark.parametrize(
    "host, allow, is_open",
    [
        ("192.0.2.10", "127.0.0.0/8 ::1/128", False),
        ("192.0.2.10", "127.0.0.0/8 192.0.2.0/28 ::1/128", True),
        ("192.0.2.10", "192.0.2.0/29", False),
        ("192.0.2.10", "192.0.2.10", True),
        ("[2001:db8::7]", "2001:db8::/32", True),
        ("[2001:db8::7]", "2001:db9::/32", False),
    ],
)
def test_the_unit_must_let_it_reach_a_distant_redis(doctor, tmp_path, host, allow, is_open):
    doctor.fake("systemctl", f'case "$*" in *IPAddressDeny*) echo "::/0 0.0.0.0/0";; *) echo "{allow}";; esac')
    listen = {"listen": [f"unix://{tmp_path}/c.sock"]}
    path = write(tmp_path / "c.yaml", {"server": listen, "redis": {"url": f"redis://{host}:1"}})
    row = next(each for each in doctor.rows("--config", path) if each["area"] == "unit")
    assert row["ok"] is is_open
    if not is_open:
        assert "IPAddressDeny=any" in row["text"] and "systemctl edit coordd" in row["fix"]


def test_a_near_redis_needs_no_unit(sick, doctor):
    doctor.fake("systemctl", 'echo "::/0 0.0.0.0/0"')
    broker, _ = sick(fsync="always")
    assert "unit" not in doctor.findings("--config", broker.config_path)


def test_an_old_libevent_is_told(sick, doctor):
    doctor.fake("dpkg-query", "echo 2.1.12-stable-8")
    broker, _ = sick()
    code, out, _ = doctor.run("--config", broker.config_path)
    assert code == 1 and "PROBLEM  versions     libevent 2.1.12-stable-8 lacks" in out
