"""A host name in redis.url: looked up outside of the loop, at each attempt, within bounds.

Each test has a DNS server of its own, which a broker sees in a mount namespace of its own.
"""

import os
import shutil
import socket
import struct
import subprocess
import threading
import time

import pytest

from harness import Queue, fresh, wait_until, within

NAME = "redis.coordd.test"


class Resolver(threading.Thread):
    """A DNS server that knows one name, or is silent."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.address = address
        self.known = None  # the addresses of NAME; None: silence
        self.asked = 0
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((address, 53))
        self.start()

    def run(self):
        while True:
            query, peer = self.sock.recvfrom(2048)
            if not query:
                return
            self.asked += 1
            if self.known is not None:
                self.sock.sendto(self.answer(query), peer)

    def answer(self, query):
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += 1 + query[at]
        (kind,) = struct.unpack("!H", query[at + 1 : at + 3])
        is_known = ".".join(labels) == NAME
        found = self.known if is_known and kind == 1 else []
        head = query[:2] + struct.pack("!HHHHH", 0x8180 if is_known else 0x8183, 1, len(found), 0, 0)
        records = b"".join(
            struct.pack("!HHHIH", 0xC00C, 1, 1, 0, 4) + socket.inet_aton(each) for each in found
        )
        return head + query[12 : at + 5] + records

    def stop(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", (self.address, 53))
        self.join()
        self.sock.close()


@pytest.fixture
def resolver():
    if os.geteuid() or not shutil.which("unshare") or subprocess.run(["unshare", "--mount", "true"]).returncode:
        pytest.skip("needs the right to mount")
    address = f"127.53.{os.getpid() >> 8 & 255}.{os.getpid() & 255 or 1}"
    resolver = Resolver(address)
    yield resolver
    resolver.stop()


@pytest.fixture
def named(resolver, make_broker):
    """Make a coordd whose resolver is ours, for Redis at NAME."""

    def make(port, **more):
        redis = {"connect_timeout": "300ms", "reconnect_max": "200ms", "command_timeout": "1s"}
        broker = make_broker(f"redis://{NAME}:{port}", config={"redis": redis}, **more)
        (broker.directory / "resolv.conf").write_text(f"nameserver {resolver.address}\n")
        (broker.directory / "nsswitch.conf").write_text("hosts: files dns\n")
        mount = (
            "mount --bind resolv.conf /etc/resolv.conf && mount --bind nsswitch.conf /etc/nsswitch.conf"
            ' && exec "$0" "$@"'
        )
        broker.wrapper = ["unshare", "--mount", "sh", "-c", mount]
        return broker

    return make


def free_port(*addresses):
    """A port that is free at all of them."""
    while True:
        held = [socket.socket() for _ in addresses]
        try:
            held[0].bind((addresses[0], 0))
            port = held[0].getsockname()[1]
            for sock, address in zip(held[1:], addresses[1:]):
                sock.bind((address, port))
            return port
        except OSError:
            continue
        finally:
            for sock in held:
                sock.close()


@pytest.fixture
def redis_at(start_redis):
    return lambda address, port: start_redis(options=("--bind", address, "--port", str(port)))


def test_a_silent_resolver_holds_up_nobody(resolver, named, redis_at):
    port = free_port("127.0.0.1")
    redis_at("127.0.0.1", port)
    broker = named(port).start()
    client = broker.connect()
    slowest, ends = 0.0, time.monotonic() + 2
    while time.monotonic() < ends:
        began = time.monotonic()
        assert client.call("ping") == "pong"
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.002)
    assert resolver.asked
    assert slowest < within(0.25), slowest
    lost = wait_until(lambda: broker.logged("redis.unreachable"), 5)
    assert lost[0]["error"] == f"no address of {NAME} in time"
    assert len(os.listdir(f"/proc/{broker.pid}/task")) <= 2  # however often it was tried

    resolver.known = ["127.0.0.1"]
    ready = wait_until(lambda: broker.logged("redis.ready"), 20)
    assert ready[0]["address"] == "127.0.0.1"
    Queue(client, {"type": fresh("named")}).send()


def test_it_ends_at_once_while_a_resolver_is_silent(resolver, named):
    broker = named(1).start()
    wait_until(lambda: resolver.asked, 5)
    began = time.monotonic()
    broker.stop()
    assert time.monotonic() - began < within(3)


def test_an_unknown_name_is_told_and_asked_for_again(resolver, named, redis_at):
    port = free_port("127.0.0.1")
    redis_at("127.0.0.1", port)
    resolver.known = []
    broker = named(port).start()
    lost = wait_until(lambda: broker.logged("redis.unreachable"), 5)
    assert lost[0]["error"].startswith(f"no address of {NAME}: ")
    resolver.known = ["127.0.0.1"]
    wait_until(lambda: broker.logged("redis.ready"), 10)


def test_a_failover_by_dns_is_followed(resolver, named, redis_at):
    port = free_port("127.0.0.2", "127.0.0.3")
    first, second = redis_at("127.0.0.2", port), redis_at("127.0.0.3", port)
    resolver.known = ["127.0.0.2"]
    broker = named(port, expected_errors=["redis."]).start()
    client = broker.connect()
    queue = Queue(client, {"type": fresh("named")})
    wait_until(lambda: broker.logged("redis.ready"), 5)
    queue.send()

    resolver.known = ["127.0.0.3"]
    first.pause()  # it takes connections, and answers nobody
    wait_until(lambda: len(broker.logged("redis.ready")) == 2, 15)
    assert [line["address"] for line in broker.logged("redis.ready")] == ["127.0.0.2", "127.0.0.3"]
    queue.send("after")
    assert second.command("EXISTS", "coordd:version") == 1
    wait_until(lambda: second.command("PUBSUB", "CHANNELS", "coordd:bell"), 5, "the bell is heard there")
    first.resume()


def test_each_attempt_takes_another_of_its_addresses(resolver, named, redis_at):
    port = free_port("127.0.0.2", "127.0.0.3")
    redis_at("127.0.0.3", port)
    resolver.known = ["127.0.0.2", "127.0.0.3"]  # at the first one nobody listens
    broker = named(port).start()
    ready = wait_until(lambda: broker.logged("redis.ready"), 5)
    assert ready[0]["address"] == "127.0.0.3"
