"""The programs of docs/examples, run as their readers would: each prints what docs/examples/README.md shows."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness import REPO, within

DIRECTORY = REPO / "docs" / "examples"
PAGE = (DIRECTORY / "README.md").read_text()
SHOWN = dict(re.findall(r"^## (\w+)\n.*?^```console\n(.*?)^```", PAGE, re.M | re.S))
PYTHON = {**os.environ, "PYTHONPATH": str(REPO / "src" / "python")}


def run(*command, **more):
    done = subprocess.run(
        [*map(str, command)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("name", SHOWN)
def test_in_python(own, name):
    url = f"unix://{own().unix_path}"
    program = DIRECTORY / "python" / f"{name}.py"
    for _ in range(2):  # it leaves nothing behind that a second run would find
        printed = run(sys.executable, "-B", program, env={**PYTHON, "COORDCTL_SERVER": url}, timeout=within(60))
        assert printed == SHOWN[name]


def test_the_page_names_every_program():
    programs = sorted(str(path.relative_to(DIRECTORY)) for path in DIRECTORY.glob("*/*.*") if path.parent.name != "__pycache__")
    assert sorted(re.findall(r"\(((?:python|c)/[\w.]+)\)", PAGE)) == programs
    assert sorted({Path(each).stem for each in programs}) == sorted(SHOWN)
