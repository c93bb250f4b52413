"""Bash completes what coordctl's tables and the broker know, and runs nothing that a client has named."""

import os
import subprocess
from pathlib import Path

import pytest

from harness import Queue, fresh, within
from test_coordctl import COORDCTL, Ctl


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "coordctl"
    path.write_text(Ctl("unix:///nowhere").out("completion", "bash"))
    return path


@pytest.fixture
def complete(script, broker, tmp_path):
    def complete(line, server=f"unix://{broker.unix_path}"):
        """What bash offers at the end of `line`."""
        done = subprocess.run(
            [
                *("bash", "--norc", "-c"),
                'source "$1"; COMP_LINE=$2 COMP_POINT=${#2}; _coordctl; printf "%s\\n" "${COMPREPLY[@]}"',
                *("-", str(script), line),
            ],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={
                **os.environ,
                "PATH": f"{Path(COORDCTL).resolve().parent}:{os.environ['PATH']}",
                "COORDCTL_SERVER": server,
            },
            timeout=within(20),
            check=True,
        )
        assert done.stderr == "", done.stderr
        return done.stdout.split("\n")[:-1] if done.stdout != "\n" else []

    return complete


def test_verbs_and_options(complete):
    assert complete("coordctl stat") == ["status"]
    assert {"status", "queue", "msg", "completion", "help"} <= set(complete("coordctl "))
    assert complete("coordctl queue pa") == ["pause"]
    assert {"ls", "show", "purge"} <= set(complete("coordctl queue "))
    assert complete("coordctl -N n --timeout 1s msg se") == ["send"]
    assert complete("coordctl msg send --prio") == ["--priority"]
    assert "--dry-run" in complete("coordctl queue purge -") and "--yes" in complete("coordctl queue purge -")
    assert "--priority" not in complete("coordctl status -")
    assert complete("coordctl nonsense ") == []


def test_values_of_options_and_arguments(complete, tmp_path):
    assert complete("coordctl status -o js") == ["json", "jsonl"]
    assert complete("coordctl msg send q {} --priority ") == ["high", "normal", "low"]
    assert complete("coordctl status --output=cs") == ["csv"]  # bash has --output= already
    assert complete("coordctl status --timeout ") == []
    assert complete("coordctl check redis pers") == ["persistence"]
    assert complete("coordctl loglevel d") == ["debug"]
    (tmp_path / "here it is.json").write_text("{}")
    assert complete("coordctl config check he") == ["here it is.json"]
    assert complete("coordctl doctor --config he") == ["here it is.json"]
    assert complete("coordctl msg send q @he") == ["@here it is.json"]


def test_names_come_from_the_broker(complete, broker):
    namespace = fresh("ns")
    client = broker.in_namespace(namespace)
    for instance in ("w1", "w2"):
        Queue(client, {"type": "planner", "instance": instance}).send()
    line = f"coordctl -N {namespace} queue show "
    assert sorted(complete(line + "pla")) == ["planner:w1", "planner:w2"]
    assert sorted(complete(line + "planner:w")) == ["w1", "w2"]  # bash has planner: already
    assert complete(line + "planner:w1 ") == []
    assert complete(line + "pla", server="unix:///nowhere") == []


def test_a_name_is_never_run(complete, broker, tmp_path):
    namespace = fresh("ns")
    client = broker.in_namespace(namespace)
    for name in ("$(touch run)", "`touch run`", "a b;touch run", "*"):
        client.call("breaker_acquire", name=name)
    offered = complete(f"coordctl -N {namespace} breaker show ")
    assert sorted(offered) == sorted(["\\$\\(touch\\ run\\)", "\\`touch\\ run\\`", "a\\ b\\;touch\\ run", "\\*"])
    assert not list(tmp_path.iterdir())


def test_every_value_that_it_offers_is_one_that_coordctl_knows(complete):
    ctl = Ctl("unix:///nowhere")
    for verb, option in [
        *((("msg", "send"), each) for each in ("priority", "type")),
        *((("msg", "recv"), each) for each in ("lease",)),
        *((("msg", "nack"), each) for each in ("failure",)),
        *((("bench",), each) for each in ("progress", "workload")),
        *((("status",), each) for each in ("output",)),
    ]:
        offered = complete(f"coordctl {' '.join(verb)} --{option} ")
        text = next(line for line in ctl.out("help", *verb).splitlines() if f"--{option} " in line)
        missing = [each for each in offered if each not in text and not each.startswith("W")]
        assert offered and not missing, (option, offered, text)


def test_it_is_a_good_script(script):
    subprocess.run(["bash", "-n", script], check=True)
