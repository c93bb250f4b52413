"""The clients of docs/clients, run as their readers would, and docs/CLIENTS.md, which shows them."""

import fcntl
import os
import re
import shutil
import subprocess
import sys

import pytest

from harness import REPO, Queue, within

DIRECTORY = REPO / "docs" / "clients"
PAGE = (REPO / "docs" / "CLIENTS.md").read_text()
PROGRAMS = sorted(path.name for path in DIRECTORY.iterdir())


def run(*command, **more):
    done = subprocess.run(
        [*map(str, command)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=within(30), **more,
    )
    return done.returncode, done.stdout.replace("\r", "").splitlines()


def python(port):
    return run(sys.executable, "-B", DIRECTORY / "python.py", port)


def neovim(port):
    nvim = shutil.which("nvim") or pytest.skip("needs neovim")
    script = DIRECTORY / "neovim.lua"
    return run(nvim, "--clean", "--headless", "-c", f"luafile {script}", "-c", "qa!", env={**os.environ, "PORT": str(port)})


def node(port):
    """In a directory of its own, where npm puts what the client imports; kept for the next time."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("needs node and npm")
    directory = REPO / "build" / "clients"
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "node_modules" / "@msgpack" / "msgpack").exists():
            (directory / "package.json").write_text("{}")
            status, lines = run("npm", "install", "--no-audit", "--no-fund", "@msgpack/msgpack@3", cwd=directory)
            if status:
                pytest.skip(f"npm cannot install here: {' '.join(lines)[-300:]}")
        shutil.copy(DIRECTORY / "node.mjs", directory)
    return run("node", directory / "node.mjs", port)


CLIENTS = [node, neovim, python]


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_it_registers_sends_receives_acks_and_shows_an_error(broker, client):
    status, lines = client(broker.address("tcp")[1])
    assert status == 0, lines
    assert [line.lower() for line in lines] == [
        "delivered: true",
        "received: hello",
        "acknowledged: true",
        "bad_request: agent is missing",
    ]
    look = broker.connect()
    name = client.__name__
    assert Queue(look, {"type": "jobs", "instance": name}).counts() == (0, 0, 0, 0)
    assert look.call("get_agent", agent={"type": "worker", "instance": name}) is None  # it has deregistered


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_without_a_broker_it_says_so(client):
    _, lines = client(1)  # of this port nobody is a listener; Neovim tells, and goes on to its `qa!`
    assert re.search("(?i)refused", "\n".join(lines))


def test_the_page_shows_exactly_these_programs():
    shown = dict(re.findall(r"\(clients/([\w.]+)\).*?^```\w+\n(.*?)^```", PAGE, re.M | re.S))
    assert sorted(shown) == PROGRAMS
    for name, text in shown.items():
        assert text == (DIRECTORY / name).read_text(), f"docs/CLIENTS.md shows another {name}"
