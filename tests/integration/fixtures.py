"""The fixtures of every suite that runs real brokers: conftest.py of each says `from fixtures import *`."""

import os
import shutil
import signal

import pytest

from harness import COORDD, REDIS_SERVER, Broker, Queue, Redis, fresh


def pytest_sessionstart(session):
    # Who starts us in the background may have us ignore it, and what we start would do so, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for program in (COORDD, REDIS_SERVER):
        if not (os.access(program, os.X_OK) or shutil.which(program)):
            pytest.exit(f"{program} is not there", returncode=2)


class Shared:
    """A Redis and a coordd that most tests share; a dead coordd is replaced for the next test."""

    def __init__(self):
        self.redis = Redis()
        self.broker = None

    def ready(self):
        if self.broker is None or not self.broker.is_running():
            self.discard()
            # Several tests write to the disk at once, and Redis waits for it.
            self.broker = Broker(self.redis.url, config={"redis": {"command_timeout": "15s"}})
            self.broker.start()
        return self.broker

    def discard(self):
        if self.broker:
            self.broker.remove()
        self.broker = None


@pytest.fixture(scope="session")
def shared():
    shared = Shared()
    yield shared
    try:
        if shared.broker:
            shared.broker.stop()
    finally:
        shared.discard()
        shared.redis.remove()


@pytest.fixture
def redis(shared):
    return shared.redis


@pytest.fixture
def broker(shared):
    """The shared coordd. A test uses names of its own and leaves no connection behind."""
    broker = shared.ready()
    yield broker
    broker.close_clients()
    alive, report = broker.is_running(), broker.report()
    try:
        broker.check()
        assert alive, f"coordd died: {report}"
    except AssertionError:
        shared.discard()
        raise


@pytest.fixture
def client(broker):
    return broker.connect()


@pytest.fixture
def queue(client):
    return Queue(client, {"type": "worker", "instance": fresh("q")})


@pytest.fixture
def other(queue, broker):
    """The same queue through another connection."""
    return queue.at(broker.connect())


@pytest.fixture
def start_redis():
    """Start a Redis that this test may break."""
    started = []

    def start(**options):
        started.append(Redis(**options))
        return started[-1]

    yield start
    for each in started:
        each.remove()


@pytest.fixture
def make_broker(start_redis):
    """Make a coordd of the test's own; it is stopped and checked when the test ends."""
    made = []

    def make(redis=None, expected_errors=(), **more):
        url = redis if isinstance(redis, str) else (redis or start_redis()).url
        broker = Broker(url, **more)
        broker.expected_errors = list(expected_errors)
        made.append(broker)
        return broker

    yield make
    problems = []
    for each in made:
        try:
            each.stop()
        except Exception as problem:  # all are stopped before one is reported
            problems.append(problem)
        each.remove()
    if problems:
        raise problems[0]


@pytest.fixture
def own(redis, make_broker):
    """Start a coordd with other settings on the shared Redis, apart under a prefix of its own."""

    def start(**config):
        config["redis"] = {"key_prefix": fresh("own"), "command_timeout": "15s", **config.get("redis", {})}
        return make_broker(redis, config=config).start()

    return start
