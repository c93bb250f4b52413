"""What a service manager sees: datagrams to NOTIFY_SOCKET, and sockets that it opened."""

import os
import re
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from harness import COORDD, Broker, Client, Closed, Refused, fresh, to_yaml, wait_until, within

WORKER = {"type": "worker"}


class Manager:
    """A service manager: it listens, and remembers what it was told."""

    def __init__(self, name):
        """`name` as in NOTIFY_SOCKET: a path, or @ and an abstract name."""
        self.name = name
        self.told = []
        self.listen()

    def listen(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(self.name.replace("@", "\0", 1) if self.name[0] == "@" else self.name)
        self.sock.setblocking(False)

    def close(self):
        self.sock.close()
        Path(self.name).unlink(missing_ok=True)

    def hear(self):
        """All that was told so far, each message a dict."""
        while True:
            try:
                text = self.sock.recv(8192).decode()
            except BlockingIOError:
                return self.told
            self.told.append(dict(line.split("=", 1) for line in text.splitlines()))

    def heard(self, key):
        return [message[key] for message in self.hear() if key in message]

    def status(self):
        return (self.heard("STATUS") or [""])[-1]

    def wait_for(self, key, n=1, limit=10):
        wait_until(lambda: len(self.heard(key)) >= n, limit, f"{n} times {key}")


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    yield from managed(tmp_path, request.param)


@pytest.fixture
def listener(tmp_path):
    yield from managed(tmp_path, "path")


def managed(tmp_path, kind):
    made = Manager(str(tmp_path / "notify") if kind == "path" else f"@coordd-test-{os.getpid()}-{fresh('n')}")
    yield made
    made.close()


def told_to(manager, **more):
    return {"NOTIFY_SOCKET": manager.name, **more}


@pytest.fixture
def managed_broker(redis, make_broker, listener):
    """Start a broker whose manager is `listener`."""

    def start(url=None, variables=None, config=None, **more):
        config = {**(config or {}), "redis": {"key_prefix": fresh("own"), **(config or {}).get("redis", {})}}
        return make_broker(url or redis, config=config, environment=told_to(listener, **(variables or {})), **more)

    return start


# -- what is told


def test_it_tells_that_it_is_ready_and_that_it_stops(redis, make_broker, manager):
    broker = make_broker(redis, config={"redis": {"key_prefix": fresh("own")}}, environment=told_to(manager)).start()
    manager.wait_for("READY")
    assert manager.status() == "ready, 0 clients, redis up"
    first = [message for message in manager.hear() if "READY" in message or "STATUS" in message]
    assert all(each["STATUS"].startswith("starting, ") for each in first[:-1]), first
    assert manager.heard("WATCHDOG") == []  # nobody asked for it
    broker.stop()
    assert len(manager.heard("READY")) == 1
    assert manager.heard("STOPPING") and manager.status().startswith("stopping, 0 clients, 0 in flight")


def test_the_status_counts_clients_and_a_crowd_is_told_of_once_a_second(managed_broker, listener):
    broker = managed_broker().start()
    listener.wait_for("READY")
    clients = [broker.connect() for _ in range(3)]
    wait_until(lambda: listener.status() == "ready, 3 clients, redis up", 5, "3 clients")
    before, begun = len(listener.heard("STATUS")), time.monotonic()
    for _ in range(200):
        broker.connect().call("ping")
    broker.close_clients()
    wait_until(lambda: listener.status() == "ready, 0 clients, redis up", 5, "no clients")
    assert len(clients) == 3
    assert len(listener.heard("STATUS")) - before <= time.monotonic() - begun + 2


def test_it_is_ready_without_redis_and_tells_when_that_comes(start_redis, managed_broker, listener):
    redis = start_redis()
    redis.kill()
    broker = managed_broker(redis, config={"redis": {"connect_timeout": "1s"}}, expected_errors=("redis.",)).start()
    listener.wait_for("READY")
    assert "redis down: " in listener.status()
    redis.start()
    wait_until(lambda: listener.status().endswith("redis up"), 20, "redis is up")
    assert len(listener.heard("READY")) == 1 and broker.is_running()


def test_a_start_is_not_held_up_by_a_long_connect_timeout(start_redis, managed_broker, listener):
    redis = start_redis()
    redis.pause()
    managed_broker(redis, config={"redis": {"connect_timeout": "1h"}}).start()
    listener.wait_for("READY")
    redis.resume()


def test_a_drain_asks_for_the_time_that_it_takes(start_redis, managed_broker, listener):
    redis = start_redis()
    config = {"server": {"drain_timeout": "3s"}, "redis": {"command_timeout": "1m"}}
    broker = managed_broker(redis, config=config, expected_errors=("redis.",)).start()
    client = broker.connect()
    redis.pause()
    client.submit("queue_stats", {"agent": WORKER})
    assert client.call("ping") == "pong"  # it has read both
    broker.signal(signal.SIGTERM)
    assert broker.wait(15) == 0
    redis.resume()
    assert len(listener.heard("EXTEND_TIMEOUT_USEC")) >= 3
    assert all(int(each) > 20e6 for each in listener.heard("EXTEND_TIMEOUT_USEC"))
    assert "1 in flight" in " ".join(listener.heard("STATUS"))


def test_a_reload_is_told_from_its_beginning_to_its_end(managed_broker, listener):
    broker = managed_broker().start()
    listener.wait_for("READY")
    before = time.monotonic() * 1e6
    broker.signal(signal.SIGHUP)
    listener.wait_for("READY", 2)
    last = [message for message in listener.hear() if "RELOADING" in message or "READY" in message][-2:]
    assert "RELOADING" in last[0] and "READY" in last[1]
    assert before <= int(last[0]["MONOTONIC_USEC"]) <= time.monotonic() * 1e6


@pytest.mark.parametrize("name", ["", "relative", "@", "/nowhere/at/all", "/" + "x" * 200, "vsock:2:1"])
def test_a_manager_that_is_not_there_is_no_matter(redis, make_broker, name):
    broker = make_broker(redis, config={"redis": {"key_prefix": fresh("own")}}, environment={"NOTIFY_SOCKET": name})
    assert broker.start().connect().call("ping") == "pong"


def test_a_manager_that_goes_and_comes_again_is_told_on(managed_broker, listener):
    broker = managed_broker(variables={"WATCHDOG_USEC": "200000"}).start()
    listener.wait_for("WATCHDOG")
    listener.close()
    assert broker.connect().call("ping") == "pong"
    listener.told.clear()
    listener.listen()
    listener.wait_for("WATCHDOG", 2)
    wait_until(lambda: listener.status().startswith("ready, 1 client,"), 5, "the text that was lost is told")


def test_a_manager_that_does_not_read_holds_nothing_up(managed_broker, listener):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as crowd:
        crowd.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                crowd.sendto(b"STATUS=something else", listener.name)
        broker = managed_broker(variables={"WATCHDOG_USEC": "100000"}).start()
        client = broker.connect()
        for _ in range(20):
            begun = time.monotonic()
            assert client.call("ping") == "pong"
            assert time.monotonic() - begun < within(1)
    assert listener.heard("READY") == []
    listener.wait_for("READY")
    wait_until(lambda: listener.status().startswith("ready, "), 5, "the text is told")


# -- watchdog


def test_the_watchdog_hears_of_it_twice_in_its_time(managed_broker, listener):
    managed_broker(variables={"WATCHDOG_USEC": "400000"}).start()
    listener.wait_for("READY")
    before, begun = len(listener.heard("WATCHDOG")), time.monotonic()
    listener.wait_for("WATCHDOG", before + 10)
    took = time.monotonic() - begun
    assert 1.5 < took < within(4), took


@pytest.mark.parametrize(
    "variables",
    [
        {"WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-1"},
        {"WATCHDOG_USEC": "often"},
        {"WATCHDOG_USEC": "99999999999999999999"},
        {"WATCHDOG_USEC": "100000", "WATCHDOG_PID": "me"},
    ],
)
def test_a_watchdog_that_is_not_for_it_hears_nothing(managed_broker, listener, variables):
    broker = managed_broker(variables=variables).start()
    listener.wait_for("READY")
    broker.connect()
    wait_until(lambda: "1 client" in listener.status(), 5, "a second has passed")
    assert listener.heard("WATCHDOG") == []


def test_a_hung_one_is_silent_and_one_that_goes_on_is_not(managed_broker, listener):
    broker = managed_broker(variables={"WATCHDOG_USEC": "200000"}).start()
    listener.wait_for("WATCHDOG", 2)
    broker.signal(signal.SIGSTOP)
    wait_until(lambda: Path(f"/proc/{broker.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", 5, "it is stopped")
    before = len(listener.heard("WATCHDOG"))
    time.sleep(0.5)  # five times as long as between two of them
    assert len(listener.heard("WATCHDOG")) == before
    broker.signal(signal.SIGCONT)
    listener.wait_for("WATCHDOG", before + 2)


def test_a_redis_that_is_silent_or_away_is_not_its_fault(start_redis, managed_broker, listener):
    redis = start_redis()
    timeouts = {"command_timeout": "300ms", "connect_timeout": "300ms", "reconnect_max": "500ms"}
    broker = managed_broker(
        redis, variables={"WATCHDOG_USEC": "200000"}, config={"redis": timeouts}, expected_errors=("redis.",)
    ).start()

    def gap_during(seconds):
        """The longest time between two WATCHDOG=1."""
        end, last, longest, n = time.monotonic() + seconds, time.monotonic(), 0, len(listener.heard("WATCHDOG"))
        while time.monotonic() < end:
            now_n = len(listener.heard("WATCHDOG"))
            if now_n > n:
                longest, last, n = max(longest, time.monotonic() - last), time.monotonic(), now_n
            time.sleep(0.005)
        return max(longest, time.monotonic() - last)

    listener.wait_for("WATCHDOG")
    redis.pause()
    assert gap_during(2) < within(1)
    assert "redis down: " in listener.status()
    redis.resume()
    redis.kill()
    assert gap_during(2) < within(1)
    redis.start()
    wait_until(lambda: listener.status().endswith("redis up"), 20, "Redis is back")
    assert broker.logged("server.stalled") == []


# -- sockets from it


ADOPT = """
import fcntl, os, sys
count, program = int(sys.argv[1]), sys.argv[2:]
passed = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in map(int, os.environ.pop("PASSED").split())]
for i, fd in enumerate(passed):
    os.dup2(fd, 3 + i)
for fd in range(3 + len(passed), 256):
    try:
        os.close(fd)
    except OSError:
        pass
os.environ.setdefault("LISTEN_PID", str(os.getpid()))
os.environ.setdefault("LISTEN_FDS", str(count))
os.execv(program[0], program)
"""


class Activated(Broker):
    """A coordd that is given sockets, as systemd does it."""

    sockets = ()

    def launch(self):
        self.config_path.write_text(to_yaml(self.config) + "\n")
        fds = [each.fileno() for each in self.sockets]
        self.spawn(
            [sys.executable, "-c", ADOPT, len(fds), COORDD, "--config", self.config_path, *self.arguments],
            env={**self.environment, "PASSED": " ".join(map(str, fds))},
            pass_fds=fds,
        )


@pytest.fixture
def activated(redis):
    """Make one with these sockets and LISTEN_* variables."""
    made = []

    def make(sockets, names=None, listen=None, variables=None, url=None, arguments=()):
        environment = {**({"LISTEN_FDNAMES": names} if names is not None else {}), **(variables or {})}
        config = {} if url == "" else {"redis": {"key_prefix": fresh("own")}}
        if listen:
            config["server"] = {"listen": listen}
        broker = Activated(redis.url if url is None else url, config=config, arguments=arguments, environment=environment)
        broker.sockets = sockets
        made.append(broker)
        return broker

    yield make
    for each in made:
        each.stop()
        each.remove()


@pytest.fixture
def tcp():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def url_of(listening):
    return "tcp://{}:{}".format(*listening.getsockname())


def ping(address):
    with socket.create_connection(address, timeout=within(10)) as connection:
        return Client(connection).call("ping")


@pytest.mark.parametrize("names", ["rpc", "coordd.socket", "unknown", None])
def test_a_socket_that_was_passed_stands_in_for_tcp(activated, tcp, names):
    broker = activated([tcp], names)
    broker.config["server"]["listen"] = ["tcp://127.0.0.1:0", f"unix://{broker.unix_path}"]
    broker.start()
    assert sorted(broker.listen) == sorted([url_of(tcp), f"unix://{broker.unix_path}"])
    assert [each["listen"] for each in broker.logged("listener.replaced")] == ["tcp://127.0.0.1:0"]
    assert ping(tcp.getsockname()) == "pong" and broker.connect("unix").call("ping") == "pong"


def test_several_sockets_may_have_one_name(activated, tcp):
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as second:
        broker = activated([tcp, second], "rpc:rpc", ["fd://rpc"]).start()
        assert ping(tcp.getsockname()) == ping(second.getsockname()[:2]) == "pong"
        assert broker.listen == [url_of(tcp), "tcp://[::1]:{}".format(second.getsockname()[1])]


def test_a_configuration_may_name_what_is_passed_beside_its_own(activated, tcp):
    broker = activated([tcp], "front", ["tcp://127.0.0.1:0", "fd://front"]).start()
    assert len(broker.listen) == 2 and broker.listen[1] == url_of(tcp)
    assert ping(tcp.getsockname()) == broker.connect().call("ping") == "pong"


def test_a_unix_socket_that_was_passed_is_not_bound_again_and_not_removed(activated, tmp_path):
    path = tmp_path / "passed.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        broker = activated([listening], "rpc", [f"unix://{path}", "tcp://127.0.0.1:0"]).start()
        assert broker.listen == [f"unix://{path}"]
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            assert Client(connection).call("ping") == "pong"
        broker.stop()
        assert path.exists()


def test_what_nobody_serves_is_closed_with_a_warning(activated, tcp):
    broker = activated([tcp], "other", ["tcp://127.0.0.1:0"]).start()
    assert [each["name"] for each in broker.logged("listener.unused")] == ["other"]
    assert broker.connect().call("ping") == "pong" and broker.listen != [url_of(tcp)]


def test_what_was_passed_to_another_process_is_left_alone(activated, tcp):
    broker = activated([tcp], "rpc", ["tcp://127.0.0.1:0"], variables={"LISTEN_PID": "1"}).start()
    assert broker.connect().call("ping") == "pong"
    assert broker.listen != [url_of(tcp)] and broker.logged("listener.unused") == []


def refused(broker, status, *words):
    assert broker.run_to_end() == status, broker.report()
    for word in words:
        assert word in broker.errors(), broker.errors()
    broker.expected_errors = [""]


def test_a_name_that_was_not_passed_is_refused(activated, tcp):
    refused(activated([tcp], "other", ["fd://rpc"]), 69, "fd://rpc", "no socket of this name was passed")
    refused(activated([], None, ["fd://rpc"]), 69, "fd://rpc")


@pytest.mark.parametrize("name", ["", "a:b", "x" * 256, "\\x7f"])
def test_a_name_that_is_none_is_refused(activated, name):
    broker = activated([], None, [f"fd://{name}"])
    refused(broker, 78, "server.listen")


@pytest.mark.parametrize("kind", ["datagram", "not listening", "connected"])
def test_a_socket_that_cannot_be_served_is_refused(activated, tcp, kind):
    one, other = socket.socketpair()
    bad = {
        "datagram": socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        "not listening": socket.socket(),
        "connected": one,
    }
    try:
        refused(activated([bad[kind]], "rpc"), 69, "fd://rpc")
    finally:
        for each in (*bad.values(), other):
            each.close()


def test_a_socket_that_is_open_to_other_machines_is_refused(activated):
    with socket.create_server(("0.0.0.0", 0)) as open_to_all:
        refused(activated([open_to_all], "rpc"), 78, "authentication")


@pytest.mark.parametrize("count", ["5", "banana", "-1", "33", ""])
def test_descriptors_that_are_not_there_are_refused(activated, tcp, count):
    refused(activated([tcp], "rpc", variables={"LISTEN_FDS": count}), 69, "LISTEN_FDS")


def test_a_restart_behind_a_socket_refuses_nobody(activated, tcp):
    tcp.listen(1024)
    broker = activated([tcp], "rpc").start()
    answered, refusals, cut = [], [], []

    def ask():
        while True:
            try:
                answered.append(ping(tcp.getsockname()))
                return
            except ConnectionRefusedError as error:
                refusals.append(error)
                return
            except (Closed, Refused, ConnectionError) as error:
                cut.append(error)  # it was closed by the stop, before it had asked

    asking = [threading.Thread(target=ask) for _ in range(200)]
    for i, each in enumerate(asking):
        each.start()
        if i in (50, 120):
            broker.stop()
            broker.start()
    for each in asking:
        each.join()
    assert (len(answered), refusals) == (200, []), cut


def test_children_get_neither_sockets_nor_variables(activated, tcp, listener, tmp_path):
    broker = activated(
        [tcp],
        "rpc",
        variables=told_to(listener, WATCHDOG_USEC="1000000"),
        url="",
        arguments=["--embedded-redis", str(tmp_path / "redis")],
    )
    broker.expected_errors = ["redis."]
    broker.start()
    listener.wait_for("READY")
    [child] = Path(f"/proc/{broker.pid}/task/{broker.pid}/children").read_text().split()
    wait_until(lambda: b"redis-server" in Path(f"/proc/{child}/cmdline").read_bytes(), 5, "redis-server runs")
    environment = Path(f"/proc/{child}/environ").read_bytes()
    assert not re.search(rb"NOTIFY_|WATCHDOG_|LISTEN_", environment)
    ours = f"socket:[{os.fstat(tcp.fileno()).st_ino}]"
    assert ours in [os.readlink(each) for each in Path(f"/proc/{broker.pid}/fd").iterdir()]
    assert ours not in [os.readlink(each) for each in Path(f"/proc/{child}/fd").iterdir()]


def test_a_distant_redis_that_does_not_answer_may_be_kept_away_by_the_unit(make_broker, listener):
    """192.0.2.0/24 is nobody's."""
    config = {"redis": {"connect_timeout": "200ms"}}
    broker = make_broker("redis://192.0.2.1:6379", config=config, environment=told_to(listener)).start()
    [line] = broker.logged("redis.filtered")
    assert "IPAddressDeny" in line["perhaps"] and "IPAddressAllow" in line["fix"]
