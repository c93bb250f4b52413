"""Connection: requests, their repetition, deadlines, streams; against real brokers that come and go."""

import asyncio
import re
import time
from pathlib import Path

import pytest

from conftest import url_of
from harness import fresh, within
from tta_agent_coordination import Connection, CoorddError, RequestTimeout
from tta_agent_coordination import connection as module

ME = {"type": "tester"}


def message(**more):
    return {"message_id": fresh("m"), "message_type": "request", "payload": {}, **more}


def test_a_request_and_its_answer(run, coordd):
    async def main():
        async with coordd:
            assert not coordd.is_connected and coordd.server is None
            assert await coordd.call("ping") == "pong"
            assert coordd.is_connected and coordd.server == coordd.servers[0]
            assert coordd.session["namespace"] == "default"
            with pytest.raises(CoorddError) as refused:
                await coordd.call("send", sender=ME)
            assert refused.value.code == "bad_request" and not refused.value.retryable
            assert str(refused.value).startswith("bad_request: ")

    run(main())


def test_what_may_be_repeated_is_what_the_broker_says():
    table = (Path(module.__file__).parents[2] / ".." / "src" / "api" / "methods.def").resolve().read_text()
    rows = dict(re.findall(r"^METHOD\((\w+), \w+, ([^,]+),", table, re.MULTILINE))
    assert module.AGAIN == {name for name, flags in rows.items() if "AGAIN" in flags.split(" | ")}
    assert module.SENDS == {name for name, flags in rows.items() if "DEDUP" in flags.split(" | ")}
