"""The programs in docs/PYTHON.md do what it says."""

import re
import signal
import subprocess
import sys

import pytest

from conftest import TESTS
from harness import fresh, within

TEXT = (TESTS.parent / "docs" / "PYTHON.md").read_text()
PROGRAMS = [each for each in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if "127.0.0.1:7420" in each]


def program(part, url, names=()):
    """The one that has this in it, for a broker of ours and names of its own."""
    (source,) = [each for each in PROGRAMS if part in each]
    source = source.replace("tcp://127.0.0.1:7420", url)
    for name in names:
        source = source.replace(f'"{name}"', f'"{names[name]}"')
    command = [sys.executable, "-c", source]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def outcome(started):
    try:
        out, err = started.communicate(timeout=within(30))
    finally:
        started.kill()
        started.wait()
    assert started.returncode == 0, err
    return out


def test_a_worker_in_ten_lines(url):
    names = {"summarizer": fresh("summarizer"), "asker": fresh("asker")}
    worker = program("# worker.py", url, names)
    try:
        assert outcome(program("# ask.py", url, names)) == "Once upon \n"
    finally:
        worker.send_signal(signal.SIGTERM)
    assert outcome(worker) == ""


@pytest.mark.parametrize(
    "part, printed", [('name="example"', "{'n': 1}\nbad_request\n"), ("blocking import Client", "pong\n{'n': 1}\n")]
)
def test_a_program(url, part, printed):
    assert outcome(program(part, url, {"worker": fresh("worker"), "m-1": fresh("m")})) == printed
