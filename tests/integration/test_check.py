"""What `status` tells, and how coordctl shows it to people and to monitoring systems."""

import re
import signal
import socket
import time

import pytest

from harness import QUEUE_STATS, Queue, check_shape, is_count, is_number, is_text, is_time, wait_until
from test_coordctl import Ctl

CHECK = {
    "name": is_text,
    "status": lambda value: value in ("ok", "warn", "fail"),
    "value": (None, is_number),
    "unit": (None, is_text),
    "message": str,
    "worst": (None, is_text),
}
STATUS = {
    "server": lambda value: value == "coordd",
    "name": is_text,
    "version": is_text,
    "instance_id": is_text,
    "pid": is_count,
    "started": is_time,
    "uptime_s": is_number,
    "time": is_time,
    "ready": bool,
    "draining": bool,
    "namespace": is_text,
    "clients": {"tcp": is_count, "unix": is_count},
    "parked": is_count,
    "in_flight": is_count,
    "redis": dict,
    "checks": [CHECK],
    "queues?": {"known": is_count, "counted": is_count, "paused": is_count},
    "messages?": {"ready": is_count, "delayed": is_count, "reserved": is_count, "dead": is_count},
    "worst?": [QUEUE_STATS],
    "agents?": {"known": is_count, "alive": is_count, "late": is_count},
    "breakers?": {"known": is_count, "open": is_count, "half_open": is_count},
    "...": None,
}


def status_of(client):
    return check_shape(client.call("status"), STATUS, "status")


def checks_of(client):
    return {each["name"]: each for each in status_of(client)["checks"]}


@pytest.fixture
def alone(own):
    return own(server={"name": "planner-host"}, registry={"late_after": "300ms"})


@pytest.fixture
def ctl(alone):
    return Ctl(f"unix://{alone.unix_path}")


def instance(client, name):
    return Queue(client, {"type": "planner", "instance": name})


def bury(queue, *ids):
    for each in ids:
        queue.send(each)
        token = queue.receive().token
        queue.client.call("nack", agent=queue.agent, token=token, failure="permanent")


# -- status


def test_status_tells_who_it_is(alone):
    client, other = alone.connect(), alone.connect("unix")
    waiting = other.submit("receive", {"agent": {"type": "t"}, "wait": 30})
    wait_until(lambda: status_of(client)["parked"] == 1)
    status = status_of(client)
    assert (status["name"], status["pid"], status["namespace"]) == ("planner-host", alone.pid, "default")
    assert status["clients"] == {"tcp": 1, "unix": 1}
    assert status["in_flight"] == 1 and not status["draining"] and status["ready"]
    assert 0 < status["uptime_s"] < 60
    assert waiting not in other.answers


def test_the_name_is_that_of_the_host_where_none_is_given(own):
    assert status_of(own().connect())["name"] == socket.gethostname()


def test_status_counts_what_is_in_the_namespace(alone):
    client = alone.connect()
    one, two, three = (instance(client, name) for name in ("1", "2", "3"))
    one.send_all(["a", "b", "c"])
    one.send("d", delay=60)
    assert one.receive(visibility_timeout=60).id == "a"
    bury(two, "e", "f")
    client.call("pause_queue", agent=three.agent)
    instance(alone.in_namespace("other"), "x").send("g")
    status = status_of(client)
    assert status["queues"] == {"known": 3, "counted": 3, "paused": 1}
    assert status["messages"] == {"ready": 2, "delayed": 1, "reserved": 1, "dead": 2}
    assert [each["agent_id"]["instance"] for each in status["worst"]] == ["1", "2"]
    assert (status["worst"][0]["ready"]["5"], status["worst"][1]["dead"]) == (2, 2)


def test_the_worst_queues_come_first(alone):
    client, other = alone.connect(), alone.connect()
    order = ["deserted", "older", "newer", "dead"]
    busy = [instance(client, name) for name in order[1:3]]
    bury(instance(client, "dead"), "x")
    for queue in busy:
        other.submit("receive", {"agent": queue.agent, "wait": 30, "visibility_timeout": 60})
        wait_until(lambda q=queue: q.stats()["consumers"] == 1)
        client.call("pause_queue", agent=queue.agent)
        queue.send("m")
        time.sleep(0.01)  # so that the ages differ
    instance(client, "deserted").send("m")
    for i in range(20):
        instance(client, f"empty{i}").stats()
    assert [each["agent_id"]["instance"] for each in status_of(client)["worst"]] == order


def test_only_so_many_queues_are_told_of(alone):
    client = alone.connect()
    calls = [
        ("send", {"sender": {"type": "s"}, "recipient": {"type": "t", "instance": f"{i:04}"},
                  "message": {"message_id": "m", "message_type": "request"}})
        for i in range(1203)
    ]
    client.results(client.submit_all(calls))
    status = status_of(client)
    assert status["queues"] == {"known": 1203, "counted": 1000, "paused": 0}
    assert status["messages"]["ready"] == 1000 and len(status["worst"]) == 10
    shown = Ctl(f"unix://{alone.unix_path}").out("status")
    assert "1,193 more queues" in shown and "first 1,000 of 1,203" in shown


def test_agents_are_late_before_they_are_dead(alone):
    client = alone.connect()
    client.call("register", agent={"type": "t", "instance": "1"}, ttl=60)
    client.call("register", agent={"type": "t", "instance": "2"}, ttl=0.3)
    assert status_of(client)["agents"]["known"] == 2
    wait_until(lambda: status_of(client)["agents"] == {"known": 2, "alive": 1, "late": 1})
    check = checks_of(client)["agents"]
    assert (check["status"], check["value"]) == ("warn", 1)
    client.call("heartbeat", agent={"type": "t", "instance": "1"})
    assert status_of(client)["agents"]["late"] == 0


def test_checks_judge(alone):
    client = alone.connect()
    assert {name: each["status"] for name, each in checks_of(client).items()} == {
        name: "ok"
        for name in ("ready redis persistence config loop dlq consumers age capacity agents breakers").split()
    }
    queue = instance(client, "w1")
    bury(queue, "a", "b")
    client.call("configure", agent=queue.agent, queue_size=5)
    queue.send_all(["1", "2", "3", "4"])
    client.call("breaker_configure", name="b", config={})
    client.call("breaker_trip", name="b")
    checks = checks_of(client)
    assert (checks["dlq"]["status"], checks["dlq"]["value"], checks["dlq"]["worst"]) == ("warn", 2, "planner:w1 2")
    assert (checks["capacity"]["status"], checks["capacity"]["value"]) == ("warn", 80)
    assert (checks["breakers"]["status"], checks["breakers"]["value"]) == ("warn", 1)
    assert checks["age"]["worst"] == "planner:w1" and checks["age"]["value"] > 0
    queue.send("5")
    assert checks_of(client)["capacity"]["status"] == "fail"


def test_status_answers_while_redis_is_away(make_broker, start_redis):
    redis = start_redis()
    broker = make_broker(redis, expected_errors=["redis."]).start()
    client = broker.connect()
    redis.kill()
    wait_until(lambda: not status_of(client)["ready"])
    status = status_of(client)
    assert "queues" not in status and "agents" not in status and "worst" not in status
    checks = {each["name"]: each for each in status["checks"]}
    assert checks["ready"]["status"] == checks["redis"]["status"] == "fail" and "dlq" not in checks
    ctl = Ctl(f"unix://{broker.unix_path}")
    out = ctl.out("status")
    assert "NOT READY" in out and "FAILED   redis" in out
    code, line, _ = ctl.run("check")
    assert code == 2 and line.startswith("COORDD CRITICAL - ready: Redis is not there, redis: ")
    assert ctl.run("check", "dlq")[:2] == (3, "COORDD UNKNOWN - dlq is not known\n")


def test_a_stopped_process_was_late(alone):
    client = alone.connect()
    wait_until(lambda: status_of(client)["uptime_s"] > 1.5)
    alone.signal(signal.SIGSTOP)
    time.sleep(1.5)  # it is about this time
    alone.signal(signal.SIGCONT)
    loop = wait_until(lambda: (c := checks_of(client)["loop"])["status"] != "ok" and c)
    assert loop["value"] > 100 and loop["unit"] == "ms" and "late" in loop["message"]


# -- coordctl status


def test_coordctl_status_is_one_screen(alone, ctl):
    client = alone.connect()
    bury(instance(client, "w1"), *"abc")
    instance(client, "w2").send("m")
    out = ctl.out("status")
    assert re.match(r"coordd   \S+   planner-host   up \S+   pid \d+   ready   instance b-", out)
    assert re.search(r"^checks   ready ok   redis ok \d+\.\d\d ms ", out, re.M)
    assert "dlq WARN 3" in out and "messages ready 1   delayed 0   reserved 0   dead 3" in out
    assert re.search(r"^clients  2 \(1 tcp, 1 unix\)", out, re.M)
    assert re.search(r"^planner:w2 +1 +0 +0 +0 +\S+ +0  NO CONSUMERS$", out, re.M)
    assert "WARNING  dlq: 3 dead letters (planner:w1 3)" in out
    assert len(out.splitlines()) < 24 and max(map(len, out.splitlines())) <= 120


# -- coordctl check


def test_a_check_is_one_line_and_a_status(alone, ctl):
    client = alone.connect()
    assert ctl.out("check", "ready", "dlq") == "COORDD OK - ready ok, dlq 0 | ready=1;;;0;1 dlq=0;;;0\n"
    bury(instance(client, "w1"), *(f"m{i}" for i in range(17)))
    limits = ("--warn", "dlq=10", "--crit", "dlq=100")
    assert ctl.run("check", "ready", "dlq", *limits) == (
        1,
        "COORDD WARNING - dlq 17 >= 10 (planner:w1 17) | dlq=17;10;100;0 ready=1;;;0;1\n",
        "",
    )
    assert ctl.run("check", "dlq", "--crit", "dlq=17")[:2] == (
        2,
        "COORDD CRITICAL - dlq 17 >= 17 (planner:w1 17) | dlq=17;;17;0\n",
    )
    assert ctl.out("check", "dlq", "--warn", "dlq=18").startswith("COORDD OK - dlq 17 |")
    code, line, _ = ctl.run("check", "dlq")  # as the broker judges
    assert (code, line) == (1, "COORDD WARNING - dlq 17: 17 dead letters (planner:w1 17) | dlq=17;;;0\n")


def test_all_checks_and_several_thresholds(alone, ctl):
    client = alone.connect()
    instance(client, "w1").send("m")
    code, line, _ = ctl.run("check")
    assert code == 0 and line.count("|") == 1 and line.count("\n") == 1
    data = line.split("|")[1].split()
    assert [each.split("=")[0] for each in data] == (
        "ready redis loop dlq consumers age capacity agents breakers".split()
    )
    for each in data:
        assert re.fullmatch(r"[a-z]+=\d+(\.\d+)?(ms|s|%)?;[\d.]*;[\d.]*;0(;\d+)?", each), each
    wait_until(lambda: checks_of(client)["age"]["value"] > 0.01)
    code, line, _ = ctl.run("check", "--warn", "dlq=3,age=10ms", "--warn", "capacity=50%", "--crit", "age=1d")
    assert code == 1 and line.startswith("COORDD WARNING - age ") and "(planner:w1) | age=" in line
    assert ";0.01;86400;0 " in line and "dlq=0;3;;0" in line and ";50;;0;100" in line


def test_a_name_cannot_break_the_line(alone, ctl):
    client = alone.connect()
    bury(Queue(client, {"type": "a|b=1;2", "instance": "x"}), "m")
    code, line, _ = ctl.run("check", "dlq")
    assert code == 1 and line.count("|") == 1 and r"a\x7cb=1;2:x 1" in line


@pytest.mark.parametrize(
    "words",
    [
        ("nosuch",),
        ("dlq", "--warn", "dlq"),
        ("dlq", "--warn", "dlq=x"),
        ("dlq", "--warn", "dlq=-1"),
        ("dlq", "--warn", "dlq=1,"),
        ("dlq", "--crit", "nosuch=1"),
        ("ready", "--warn", "ready=1"),
        ("persistence", "--warn", "persistence=1"),
        ("age", "--warn", "age=5x"),
    ],
)
def test_what_is_asked_wrongly_is_unknown(ctl, words):
    code, line, _ = ctl.run("check", *words)
    assert code == 3 and line.startswith("COORDD UNKNOWN - ") and line.count("\n") == 1


def test_a_broker_that_is_away_is_critical(tmp_path):
    code, line, err = Ctl(f"unix://{tmp_path}/none").run("check")
    assert code == 2 and line.startswith("COORDD CRITICAL - cannot connect") and err == ""
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent"))
        silent.listen()
        code, line, err = Ctl(f"unix://{tmp_path}/silent").run("check", "--timeout", "100ms")
        assert code == 2 and line.startswith("COORDD CRITICAL - ") and err == ""


def test_who_is_no_coordd_is_unknown(tmp_path):
    code, line, _ = Ctl("http://localhost").run("check")
    assert code == 3 and line.startswith("COORDD UNKNOWN - ")


def test_help_names_the_checks(ctl):
    out = ctl.out("help", "check")
    for name in ("ready", "dlq", "capacity"):
        assert re.search(rf"^  {name} +\w", out, re.M)
