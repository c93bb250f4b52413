"""Fixtures of the integration suite, and what the tests of the Python package share: a broker's URL, and loops."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
PACKAGE = str(TESTS.parent / "src" / "python")
sys.path[:0] = [PACKAGE, str(TESTS / "integration")]
# For the programs that tests start.
os.environ["PYTHONPATH"] = os.pathsep.join([PACKAGE, *filter(None, [os.environ.get("PYTHONPATH")])])

from fixtures import *  # noqa: E402, F403
from harness import within  # noqa: E402


def url_of(broker):
    return "tcp://%s:%d" % broker.address("tcp")


@pytest.fixture
def url(broker):
    """The shared broker's."""
    return url_of(broker)


@pytest.fixture
def run():
    """Run a coroutine in a loop of its own; one that hangs, and one that leaves a task or an unheard error, fails."""

    def run(coroutine, limit=60):
        problems = []

        async def main():
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
            async with asyncio.timeout(within(limit)):
                result = await coroutine
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"tasks are left: {left}"
            return result

        result = asyncio.run(main())
        assert not problems, problems
        return result

    return run


@pytest.fixture
def coordd(url):
    """A Connection to the shared broker, not used yet; close it within the test's loop."""
    from tta_agent_coordination import Connection

    return Connection(url, name="test")
