"""What coordd's service promises, tried in a machine of its own that tests/systemd/run booted."""

import json
import os
import pathlib
import pwd
import re
import signal
import socket
import stat
import subprocess
import threading
import time

import pytest

from harness import Client, Closed, Refused, wait_until

UNIT = "coordd.service"
CONFIG = pathlib.Path("/etc/coordd/coordd.yaml")
DEFAULTS = pathlib.Path("/etc/default/coordd")
DROP_INS = pathlib.Path("/run/systemd/system/coordd.service.d")
SOCKET = "/run/coordd/coordd.sock"
ADMIN_SOCKET = "/run/coordd/admin.sock"
PORT = ("127.0.0.1", 7420)
WATCHDOG = 3  # seconds, so that the hang need not be waited for so long
SHORT_WATCHDOG = f"[Service]\nWatchdogSec={WATCHDOG}s\n"


def systemctl(*arguments, ok=True):
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False, timeout=120)
    if ok:
        assert done.returncode == 0, f"systemctl {arguments}: {done.stderr}{journal()}"
    return done


def show(name):
    return systemctl("show", "--value", "-p", name, UNIT).stdout.strip()


def main_pid():
    return int(show("MainPID"))


def journal(*arguments):
    done = subprocess.run(
        ["journalctl", "-q", "--no-pager", "-u", UNIT, *arguments], capture_output=True, text=True, check=False
    )
    return done.stdout


def is_active():
    return show("ActiveState") == "active"


def status_text():
    return show("StatusText")


def connect(address=PORT):
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    connection = socket.socket(family)
    connection.settimeout(20)
    connection.connect(address)
    return Client(connection)


def drop_in(text):
    path = DROP_INS / "check.conf"
    if not path.exists() or path.read_text() != text:  # it takes seconds
        DROP_INS.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        systemctl("daemon-reload")


def started_again(before, since):
    """Wait until it serves in another process than `before`; how long that took."""
    wait_until(lambda: main_pid() not in (0, before) and is_active(), 40, "it is started again")
    assert connect().call("ping") == "pong"
    return time.monotonic() - since


def send(client, message_id):
    message = {"message_id": message_id, "message_type": "request", "payload": {}}
    agent = {"type": "worker"}
    return client.call("send", sender=agent, recipient=agent, message=message)["delivered"]


@pytest.fixture(scope="session", autouse=True)
def kept():
    """The files as installed."""
    return CONFIG.read_text(), DEFAULTS.read_text()


@pytest.fixture(autouse=True)
def service(kept):
    """Each check begins with the service freshly started as it is installed."""
    systemctl("stop", "coordd.socket", UNIT)
    systemctl("reset-failed", UNIT, ok=False)  # also forgets how often it was started
    CONFIG.write_text(kept[0])
    DEFAULTS.write_text(kept[1])
    drop_in(SHORT_WATCHDOG)
    systemctl("start", "redis-server")
    systemctl("start", UNIT)
    yield
    assert journal("--grep", "Sanitizer|runtime error:|server.stalled") == ""


def configure(old, new):
    text = CONFIG.read_text()
    assert text.count(old) == 1, old
    CONFIG.write_text(text.replace(old, new))


# -- start


def test_systemd_finds_nothing_wrong_with_what_was_installed():
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=one", "coordd.service", "coordd.socket"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    security = subprocess.run(
        ["systemd-analyze", "security", "--no-pager", "--threshold=11", UNIT], capture_output=True, text=True, check=False
    )
    print(security.stdout.splitlines()[-1])
    assert security.returncode == 0, security.stdout


def test_it_is_up_once_systemctl_start_returns():
    assert is_active() and show("NRestarts") == "0"
    assert connect().call("ping") == "pong"
    assert connect(SOCKET).call("ping") == "pong"
    assert status_text().startswith("ready, ") and status_text().endswith(", redis up")


def test_it_runs_as_its_own_user_with_nothing_to_spare():
    status = pathlib.Path(f"/proc/{main_pid()}/status").read_text()
    field = dict(re.findall(r"^(\w+):\s*(.*)$", status, re.MULTILINE))
    assert field["NoNewPrivs"] == "1" and field["Seccomp"] == "2"
    assert int(field["CapEff"], 16) == int(field["CapBnd"], 16) == 0
    assert int(field["Uid"].split()[0]) == pwd.getpwnam("coordd").pw_uid
    for path, mode in (("/run/coordd", 0o750), ("/var/lib/coordd", 0o750), (SOCKET, 0o660), (ADMIN_SOCKET, 0o660)):
        found = os.stat(path)
        assert stat.S_IMODE(found.st_mode) == mode, path
        assert found.st_uid == pwd.getpwnam("coordd").pw_uid, path


def test_of_others_it_knows_only_who_is_root_or_itself():
    """PrivateUsers=: whoever else is in the group comes as nobody."""
    coordd = pwd.getpwnam("coordd")
    seen = []
    for uid in (0, coordd.pw_uid, 12345):
        child = os.fork()
        if not child:
            os.setgroups([])
            os.setgid(coordd.pw_gid)
            os.setuid(uid)
            client = connect(SOCKET)
            client.call("ping")
            time.sleep(60)
            os._exit(0)
        try:
            [found] = wait_until(
                lambda pid=child: [
                    each for each in connect(SOCKET).call("list_connections") if each["peer"].startswith(f"unix:pid={pid},")
                ],
                5,
                "its connection",
            )
            seen.append(found["uid"])
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    assert seen == [0, coordd.pw_uid, 65534]


# -- status


def test_the_status_text_follows_clients_and_redis():
    before = int(re.search(r"(\d+) client", status_text())[1])
    clients = [connect() for _ in range(3)]
    wait_until(lambda: status_text() == f"ready, {before + 3} clients, redis up", 5, "it counts clients")
    for each in clients:
        each.close()
    wait_until(lambda: f" {before} client" in status_text(), 5, "it counts them out")
    systemctl("stop", "redis-server")
    wait_until(lambda: "redis down: " in status_text(), 5, "it tells that Redis is down")
    systemctl("start", "redis-server")
    wait_until(lambda: status_text().endswith("redis up"), 20, "it tells that Redis is up")


def test_it_comes_up_without_redis():
    systemctl("stop", UNIT)
    systemctl("mask", "--runtime", "--now", "redis-server")
    try:
        systemctl("start", UNIT)
        assert is_active() and "redis down: " in status_text()
        assert connect().call("ping") == "pong"
    finally:
        systemctl("unmask", "--runtime", "redis-server")


# -- ends that nobody wanted


def test_a_killed_one_is_started_again():
    before, since = main_pid(), time.monotonic()
    os.kill(before, signal.SIGKILL)
    took = started_again(before, since)
    print(f"served again {took:.2f} s after kill -9")
    assert show("NRestarts") == "1"


def test_a_hung_one_is_killed_by_the_watchdog_and_started_again():
    before, since = main_pid(), time.monotonic()
    os.kill(before, signal.SIGSTOP)
    took = started_again(before, since)
    print(f"served again {took:.2f} s after it hung, with WatchdogSec={WATCHDOG}s")
    assert WATCHDOG / 2 < took
    assert "Watchdog timeout" in journal() and show("NRestarts") == "1"


def test_the_watchdog_does_not_bark_at_redis():
    """Redis silent, then gone, each for longer than WatchdogSec: not coordd's fault."""
    before = main_pid()
    redis = int(systemctl("show", "--value", "-p", "MainPID", "redis-server").stdout)
    os.kill(redis, signal.SIGSTOP)
    time.sleep(WATCHDOG + 2)
    os.kill(redis, signal.SIGCONT)
    systemctl("stop", "redis-server")
    time.sleep(WATCHDOG + 1)
    assert main_pid() == before and show("NRestarts") == "0" and is_active()
    systemctl("start", "redis-server")
    wait_until(lambda: status_text().endswith("redis up"), 20, "it is back")
    assert main_pid() == before


def test_a_resolver_that_is_silent_is_no_hang():
    """As one is that IPAddressDeny= keeps away: it takes the question and never answers."""
    resolver = pathlib.Path("/etc/resolv.conf")
    before = resolver.read_text() if resolver.exists() else ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 53))
        resolver.write_text("nameserver 127.0.0.1\nnameserver 127.0.0.2\n")
        configure("url: redis://127.0.0.1:6379/0", "url: redis://redis.example.invalid/0")
        drop_in("[Service]\nWatchdogSec=10s\n")
        systemctl("restart", UNIT)
        since, before_pid = time.monotonic(), main_pid()
        while time.monotonic() < since + 12:
            assert (main_pid(), show("NRestarts")) == (before_pid, "0")
            time.sleep(0.5)
        assert "redis down: " in status_text()
    resolver.write_text(before)


# -- configuration


def test_a_bad_configuration_stays_stopped():
    configure("backlog: 1024", "backlog: many")
    assert systemctl("restart", UNIT, ok=False).returncode != 0
    time.sleep(2)  # RestartSec=500ms
    assert show("ActiveState") == "failed" and show("NRestarts") == "0"
    assert show("ExecMainStatus") == "78"
    assert re.search(r"coordd\.yaml:\d+:\d+: server\.backlog", journal())


def test_a_wrong_flag_stays_stopped():
    DEFAULTS.write_text("COORDD_OPTS=--surprise\n")
    assert systemctl("restart", UNIT, ok=False).returncode != 0
    time.sleep(2)
    assert show("ActiveState") == "failed" and show("NRestarts") == "0"
    assert show("ExecMainStatus") == "64"


def test_a_reload_of_a_bad_configuration_fails_and_changes_nothing():
    before = main_pid()
    configure("backlog: 1024", "backlog: many")
    assert systemctl("reload", UNIT, ok=False).returncode != 0
    assert is_active() and main_pid() == before and connect().call("ping") == "pong"
    assert re.search(r"coordd\.yaml:\d+:\d+: server\.backlog", journal())
    assert status_text().startswith("ready, ")


def test_a_reload_of_a_good_configuration_succeeds():
    before = main_pid()
    configure("drain_timeout: 20s", "drain_timeout: 21s")
    systemctl("reload", UNIT)
    command = ["coordctl", "config", "show", "server.drain_timeout"]
    assert "21s" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert is_active() and main_pid() == before
    assert status_text().startswith("ready, ")


def test_the_password_of_redis_may_be_a_credential():
    """As docs/OPERATIONS.md tells: a file of root's, which systemd shows to coordd alone."""
    secret = pathlib.Path("/etc/coordd/redis-password")
    secret.write_text("s3cret\n")
    secret.chmod(0o600)
    configure('password_file: ""', "password_file: /run/credentials/coordd.service/redis-password")
    drop_in(SHORT_WATCHDOG + "LoadCredential=redis-password:/etc/coordd/redis-password\n")
    subprocess.run(["redis-cli", "CONFIG", "SET", "requirepass", "s3cret"], check=True, stdout=subprocess.DEVNULL)
    systemctl("restart", UNIT)
    assert status_text().endswith("redis up")
    systemctl("restart", "redis-server")  # without a password


# -- stop


def test_a_stop_may_take_longer_than_systemd_allows_by_itself():
    """Redis holds an answer back, drain_timeout waits for it: coordd asks for the time."""
    configure("drain_timeout: 20s", "drain_timeout: 5s")
    configure("command_timeout: 2s", "command_timeout: 60s")
    drop_in(SHORT_WATCHDOG + "TimeoutStopSec=2s\n")
    systemctl("restart", UNIT)
    client = connect()
    redis = int(systemctl("show", "--value", "-p", "MainPID", "redis-server").stdout)
    os.kill(redis, signal.SIGSTOP)
    try:
        client.submit("queue_stats", {"agent": {"type": "worker"}})
        wait_until(lambda: status_text(), 1, "a status")
        begun = time.monotonic()
        stopping = threading.Thread(target=systemctl, args=("stop", UNIT))
        stopping.start()
        wait_until(lambda: "stopping, " in status_text(), 4, "it tells that it stops")
        stopping.join()
        took = time.monotonic() - begun
    finally:
        os.kill(redis, signal.SIGCONT)
    assert show("Result") == "success" and show("ExecMainStatus") == "0", journal("-n", "20")
    assert 4 < took < 20, took


# -- socket activation


def test_with_the_socket_unit_a_restart_refuses_no_connection():
    """200 connects while it restarts twice. One that was accepted just before the end is closed, and asks again."""
    systemctl("stop", UNIT)
    systemctl("start", "coordd.socket")
    systemctl("start", UNIT)
    refused, cut, answered = [], [], []
    is_over = threading.Event()

    def ask():
        while True:
            try:
                client = connect()
            except OSError as error:
                refused.append(error)
                return
            try:
                assert client.call("ping") == "pong"
                answered.append(1)
                return
            except (Closed, Refused, OSError) as error:
                cut.append(error)
            finally:
                client.close()

    def restart():
        for _ in range(2):
            systemctl("restart", UNIT)
        is_over.set()

    before = main_pid()
    restarting = threading.Thread(target=restart)
    asking = [threading.Thread(target=ask) for _ in range(200)]
    restarting.start()
    for i, each in enumerate(asking):
        each.start()
        if i % 4 == 0:
            time.sleep(0.01)
    for each in (*asking, restarting):
        each.join()
    print(f"{len(answered)} of 200 answered, {len(refused)} refused, {len(cut)} closed by a stop and asked again")
    assert is_over.is_set() and main_pid() != before
    assert refused == [] and len(answered) == 200
    assert show("NRestarts") == "0"
    systemctl("stop", UNIT)
    assert connect().call("ping") == "pong"  # the connection starts it
    assert is_active()


# -- a Redis of its own


def test_a_redis_of_its_own_lives_in_the_sandbox():
    DEFAULTS.write_text("COORDD_OPTS=--embedded-redis\n")
    systemctl("stop", UNIT, "redis-server")
    systemctl("start", "coordd.socket")
    systemctl("restart", UNIT)
    wait_until(lambda: status_text().endswith("redis up"), 10, "Redis is up")
    children = pathlib.Path(f"/proc/{main_pid()}/task/{main_pid()}/children").read_text().split()
    assert len(children) == 1
    listening = [os.readlink(f"/proc/{main_pid()}/fd/3")]
    inherited = [os.readlink(each) for each in pathlib.Path(f"/proc/{children[0]}/fd").iterdir()]
    assert listening[0].startswith("socket:") and listening[0] not in inherited
    environment = pathlib.Path(f"/proc/{children[0]}/environ").read_bytes()
    for name in (b"NOTIFY_SOCKET", b"LISTEN_", b"WATCHDOG_"):
        assert name not in environment
    assert send(connect(), "m1")
    systemctl("restart", UNIT)
    wait_until(lambda: status_text().endswith("redis up"), 10, "Redis is up")
    got = connect().call("receive", agent={"type": "worker"}, wait=5)
    assert got["queue_message"]["message"]["message_id"] == "m1"
    os.kill(main_pid(), signal.SIGKILL)
    wait_until(lambda: is_active() and status_text().endswith("redis up"), 20, "both are back")


# -- the journal


def test_events_are_fields_of_the_journal():
    found = [json.loads(line) for line in journal("-o", "json", "COORDD_EVENT=server.ready").splitlines()]
    assert found and found[-1]["_PID"] == str(main_pid()), journal("-n", "5", "-o", "verbose")
    assert found[-1]["SYSLOG_IDENTIFIER"] == "coordd" and found[-1]["PRIORITY"] == "6"
