"""Fixtures of the integration suite, and the drivers of both libraries: a test that asks for `driver` runs once with each."""

import os
import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "integration"), str(Path(__file__).resolve().parent)]

from contract import Driver, Proxy  # noqa: E402
from fixtures import *  # noqa: E402, F403
from harness import fresh  # noqa: E402

LANGUAGES = os.environ.get("COORD_DRIVERS", "c python").split()
PAIRS = [(one, other) for one in LANGUAGES for other in LANGUAGES if one != other or len(LANGUAGES) == 1]


class Drivers:
    """A driver of each language for all tests of a process; one that died is replaced for the next test."""

    def __init__(self):
        self.running = {}

    def of(self, language):
        if language not in self.running or not self.running[language].is_running():
            self.running[language] = Driver(language)
        return self.running[language]


@pytest.fixture(scope="session")
def drivers():
    drivers = Drivers()
    yield drivers
    for each in drivers.running.values():
        each.end()


def lend(drivers, languages):
    """The shared drivers of these languages, without what a test left in them."""
    lent = [drivers.of(each) for each in languages]
    yield lent
    for each in lent:
        if not each.is_running():
            del drivers.running[each.language]
            each.end()
        each.close_connections()


@pytest.fixture(params=LANGUAGES)
def driver(request, drivers):
    """The driver of either library."""
    for lent in lend(drivers, [request.param]):
        yield lent[0]


@pytest.fixture(params=PAIRS, ids="-".join)
def pair(request, drivers):
    """Drivers of two libraries that have to understand each other."""
    yield from lend(drivers, request.param)


@pytest.fixture
def start_driver(request):
    """Start a driver that this test may kill."""
    started = []

    def start(language):
        started.append(Driver(language))
        return started[-1]

    yield start
    for each in started:
        each.kill()


@pytest.fixture
def make_proxy():
    made = []

    def make(broker):
        made.append(Proxy(broker.unix_path))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def client(broker):
    """It has said something: a broker closes who is silent while a driver takes its time to start."""
    client = broker.connect()
    client.call("ping")
    return client


@pytest.fixture
def name():
    """The name of a queue or agent that nobody used before."""
    return fresh("a")


@pytest.fixture
def two_brokers(redis, make_broker):
    """Two brokers of the test's own on one Redis."""
    config = {"redis": {"key_prefix": fresh("two"), "command_timeout": "15s"}}
    return [make_broker(redis, config=config).start() for _ in range(2)]
