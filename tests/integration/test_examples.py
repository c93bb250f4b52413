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


def test_what_the_readme_shows(own, tmp_path):
    """A worker answers who asks it; the one in C is compiled."""
    section = (REPO / "README.md").read_text().split("\n## Use it from your program\n")[1].split("\n## ")[0]
    url = f"unix://{own().unix_path}"
    worker, asker = (
        block.replace("tcp://127.0.0.1:7420", url) for block in re.findall(r"^```python\n(.*?)^```", section, re.M | re.S)
    )
    with subprocess.Popen([sys.executable, "-B", "-c", worker], stdin=subprocess.DEVNULL, env=PYTHON) as process:
        try:
            assert run(sys.executable, "-B", "-c", asker, env=PYTHON, timeout=within(60)) == "{'text': 'HELLO'}\n"
        finally:
            process.terminate()
    assert process.returncode == 0

    source = tmp_path / "worker.c"
    source.write_text(re.search(r"^```c\n(.*?)^```", section, re.M | re.S)[1])
    run("cc", "-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{REPO}/src/client", "-fsyntax-only", source)


def test_the_worker_of_the_page_of_libcoord_compiles(tmp_path):
    page = (REPO / "docs" / "LIBCOORD.md").read_text()
    programs = re.findall(r"^```c\n(#include.*?)^```", page, re.M | re.S)
    assert programs
    for program in programs:
        source = tmp_path / "worker.c"
        source.write_text(program)
        run("cc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", f"-I{REPO}/src/client", "-fsyntax-only", source)
