"""coordctl bench: what it measures is not judged here, but what it says of a broker's promises is."""

import collections
import contextlib
import csv
import io
import json
import os
import re
import signal
import socketserver
import subprocess
import threading

import msgpack
import pytest

from harness import Queue, fresh, wait_until, within
from test_coordctl import COORDCTL, Ctl

TYPE = "coordctl-bench"
STEPS = ["send", "deliver", "ack", "lifecycle"]
TIMES = ["min_ms", "p50_ms", "p95_ms", "p99_ms", "p999_ms", "max_ms"]
BAD = ["lost", "duplicated", "out_of_order", "refused", "unanswered", "not_acked", "unknown", "left_behind"]


@pytest.fixture
def ctl(broker):
    """A namespace of its own, so that what is left in it was left by this test."""
    return Ctl(f"unix://{broker.unix_path}", "--namespace", fresh("bench"))


@pytest.fixture
def client(broker, ctl):
    return broker.in_namespace(ctl.options[1])


def stats(client):
    return client.call("list_queues", type=TYPE)["queues"]


def is_clean(client):
    """Nothing is left in its queues, nor of their settings."""
    for each in stats(client):
        if each["size"] or each["dead"] or each["capacity"] != 10000:
            return False
    return True


def bench(ctl, *words):
    """Its result, which must be without fault."""
    [result] = ctl.json("bench", "-q", *words)
    verified = result["verified"]
    assert verified["ok"] is True
    assert {each: verified[each] for each in BAD} == dict.fromkeys(BAD, 0)
    for step in filter(result.get, STEPS):
        times = [result[step][each] for each in TIMES]
        assert times == sorted(times) and times[0] > 0, times
        assert result[step]["ops_per_s"] > 0
    return result


class Running:
    """A bench under way."""

    def __init__(self, ctl, *words):
        environment = {**os.environ, "COORDCTL_SERVER": ctl.url}
        self.process = subprocess.Popen(
            [COORDCTL, "bench", *words, *ctl.options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def finish(self, limit=30):
        """(status, stdout, stderr)."""
        out, err = self.process.communicate(timeout=within(limit))
        assert "Sanitizer" not in err and "runtime error" not in err, err
        return self.process.returncode, out, err

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()


def wait_for_messages(client, least):
    """The queue of a bench that holds so many; its AgentId."""

    def found():
        for each in stats(client):
            if each["size"] >= least:
                return each["agent_id"]
        return None

    return wait_until(found, 20, f"{least} messages of a bench")


def test_the_table_is_for_people(ctl, client):
    out = ctl.out("bench", "-c", "4", "-n", "500", "-q").splitlines()
    assert out[0].startswith("mode send-recv-ack   4 clients")
    assert out[1].split() == ["ops/s", "min", "p50", "p95", "p99", "p99.9", "max"]
    for line, step in zip(out[2:6], STEPS):
        assert re.fullmatch(rf"{step} +[\d,]+( +[\d.]+ ms){{6}}", line), line
    assert out[6] == "verified:  sent 500  delivered 500  lost 0  duplicated 0  out of order 0"
    assert len(out) == 7
    assert is_clean(client)


@pytest.mark.parametrize(
    "words",
    [
        ["-c", "1"],
        ["-c", "3", "-P", "4", "-r", "7", "-d", "1000"],
        ["-c", "3", "-b", "10", "-P", "2", "--priorities", "1:1:1"],
        ["--mode", "pairs", "-c", "3"],
        ["--mode", "pairs", "-c", "4", "--consumers", "2", "-r", "2", "-P", "8"],
        ["--mode", "pairs", "-c", "2", "-b", "50", "-P", "2", "-d", "48"],
        ["--mode", "backlog", "-c", "2", "-b", "100", "--priorities", "1:1:1"],
        ["--mode", "backlog", "-c", "3", "-r", "3"],
        ["--mode", "pairs", "-c", "2", "--idle", "20"],
        ["--mode", "consume", "-c", "3", "--priorities", "1:1:1"],
        ["--mode", "consume", "-c", "4", "-r", "2", "-b", "20", "-P", "2", "--prefetch", "100"],
        ["--mode", "backlog", "-c", "2", "-b", "7", "--prefetch", "10"],
    ],
    ids=" ".join,
)
def test_every_kind_of_work_ends_with_all_accounted_for(ctl, client, words):
    result = bench(ctl, "-n", "703", *words)
    assert result["verified"]["sent"] == result["verified"]["acked"] == 703
    assert [result[step]["count"] for step in STEPS] == [703] * 4
    assert is_clean(client)


def test_what_is_only_sent_is_counted_in_the_queues_and_purged(ctl, client):
    result = bench(ctl, "--mode", "send", "-n", "1000", "-b", "20", "-r", "3")
    assert (result["verified"]["sent"], result["verified"]["delivered"]) == (1000, 0)
    assert result["deliver"] is None and result["send"]["count"] == 1000
    assert is_clean(client)


def test_a_backlog_larger_than_a_queue_may_be_and_the_setting_is_taken_back(ctl, client):
    with Running(ctl, "--mode", "backlog", "-n", "15000", "-b", "100", "-q") as running:
        wait_for_messages(client, 10001)
        status, out, err = running.finish()
    assert (status, err) == (0, "") and "delivered 15,000  lost 0" in out
    assert is_clean(client)


def test_all_workloads_have_a_line_in_csv(ctl, client):
    out = ctl.out("bench", "--workload", "all", "-n", "200", "-c", "2", "--csv", "--idle", "10", "-q")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(row["workload"], row["step"]) for row in rows] == [
        (f"W{i}", step) for i in range(1, 6) for step in STEPS
    ]
    for row in rows:
        assert row["ok"] == "true" and row["lost"] == row["duplicated"] == row["out_of_order"] == "0"
        assert 0 < float(row["min_ms"]) <= float(row["p50_ms"]) <= float(row["max_ms"])
    assert is_clean(client)


def test_presets_are_defaults_that_options_change(ctl):
    lines = ctl.out("bench", "--workload", "w1,W3", "-n", "300", "-d", "100", "-q", "-o", "jsonl").splitlines()
    first, second = map(json.loads, lines)
    assert (first["workload"], first["mode"], first["clients"]) == ("W1", "send-recv-ack", 1)
    assert (second["workload"], second["batch"], second["pipeline"]) == ("W3", 64, 4)
    assert first["payload"] == second["payload"] == 100


def test_a_rate_is_held(ctl):
    result = bench(ctl, "--rate", "200", "-n", "100", "-c", "4")
    # 99 pauses of 5 ms: it cannot be sooner, and how much later is the machine's.
    assert result["seconds"] >= 0.49
    assert result["rate"] == 200


def test_a_duration_ends_it(ctl, client):
    result = bench(ctl, "--duration", "300ms", "--rate", "100", "-c", "2")
    assert result["verified"]["sent"] == 30
    assert result["seconds"] >= 0.29
    assert is_clean(client)


def test_progress_is_told_on_stderr(ctl):
    status, out, err = ctl.run("bench", "-n", "400", "-c", "2", "--progress", "json")
    assert status == 0 and out
    parts = [json.loads(line)["part"] for line in err.splitlines()]
    assert parts and parts == sorted(parts) and parts[-1] == 1
    status, out, err = ctl.run("bench", "-n", "400", "-c", "2")
    assert status == 0 and re.fullmatch(r"(bench +\d+%  [\d,]+/400  [\d.]+ s\n)+", err), err
    assert "100%  400/400" in err
    status, out, err = ctl.run("bench", "-n", "400", "-c", "2", "--progress", "bar")
    assert err.startswith("\r") and "[############################] 100%  400/400" in err


def test_a_message_that_somebody_took_away_is_lost(ctl, client):
    with Running(ctl, "--mode", "backlog", "-n", "300", "--rate", "600", "-c", "2", "-q", "--timeout", "2s") as running:
        agent = wait_for_messages(client, 20)
        for each in client.call("receive_batch", agent=agent, max=2):
            assert client.call("ack", agent=agent, token=each["token"])
        # What was only held for a while and came back is not lost.
        held = client.call("receive_batch", agent=agent, max=3, lease="connection")
        assert len(held) == 3
        client.close()
        status, out, err = running.finish()
    assert (status, err) == (1, "")
    assert "delivered 298  lost 2  duplicated 0  out of order 0  redelivered 3\n" in out, out


def test_a_message_that_somebody_keeps_is_told(ctl, client):
    with Running(ctl, "--mode", "backlog", "-n", "300", "--rate", "600", "-c", "2", "-q", "--timeout", "1s") as running:
        agent = wait_for_messages(client, 20)
        [held] = client.call("receive_batch", agent=agent, max=1, visibility_timeout=600)
        status, out, err = running.finish()
    assert status == 1 and "lost 1 " in out and "left behind 1\n" in out, out
    assert "may be left in the queues" in err
    assert client.call("ack", agent=agent, token=held["token"]) is True


def test_a_message_that_came_twice_is_a_duplicate(ctl, client):
    with Running(ctl, "--mode", "backlog", "-n", "300", "--rate", "600", "-c", "2", "-q") as running:
        agent = wait_for_messages(client, 20)
        [first] = client.call("peek", agent=agent, limit=1)
        message = {**first["message"], "message_id": "another"}
        sender = message.pop("sender")
        del message["recipient"]
        sent = client.call("send", sender=sender, recipient=agent, message=message)
        assert sent["delivered"]
        status, out, err = running.finish()
    assert status == 1, (out, err)
    assert "delivered 300  lost 0  duplicated 1 " in out, out


def test_a_message_that_nobody_of_it_sent_is_told(ctl, client):
    with Running(ctl, "--mode", "backlog", "-n", "300", "--rate", "600", "-c", "2", "-q") as running:
        agent = wait_for_messages(client, 20)
        message = {"message_id": "stranger", "message_type": "event", "priority": 9}
        assert client.call("send", sender={"type": "t"}, recipient=agent, message=message)["delivered"]
        status, out, err = running.finish()
    assert status == 1, (out, err)
    assert "unknown 1" in out, out


class Liar(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A broker of one queue that breaks a promise: the bench must notice."""

    daemon_threads = True

    def __init__(self, path, fault):
        self.fault, self.lock = fault, threading.Lock()
        self.ready, self.reserved = collections.deque(), {}
        self.fence = 0
        super().__init__(str(path), LiarConnection)

    def send(self, message):
        dropped = self.fault == "drops" and message["payload"]["number"] % 100 == 7
        doubled = self.fault == "doubles" and message["payload"]["number"] % 100 == 7
        self.ready.extend([message] * (0 if dropped else 2 if doubled else 1))
        return {"message_id": message["message_id"], "delivered": True, "error": None}

    def receive(self):
        best = max((each["priority"] for each in self.ready), default=0)
        if self.fault == "last in first out":
            place = max((i for i, each in enumerate(self.ready) if each["priority"] == best), default=0)
        elif self.fault == "no priorities":
            place = 0
        else:
            place = min((i for i, each in enumerate(self.ready) if each["priority"] == best), default=0)
        if not self.ready:
            return None
        message = self.ready[place]
        del self.ready[place]
        self.fence += 1
        token = f"t{self.fence}"
        self.reserved[token] = message
        if self.fault == "changes" and message["payload"]["number"] % 100 == 7:
            message = {**message, "payload": {**message["payload"], "body": "other"}}
        return {
            "token": token,
            "fence": self.fence,
            "queue_message": {"message": message, "delivery_attempts": 0},
        }

    def answer(self, method, params):
        with self.lock:
            if method == "hello":
                return {"server": "coordd", "protocol": 1}
            if method == "queue_stats":
                return {"capacity": 10000, "size": len(self.ready), "reserved": 0, "dead": 0}
            if method == "purge":
                self.ready.clear()
                return 0
            if method == "send":
                return self.send(params["message"])
            if method == "receive":
                return self.receive()
            assert method == "ack", method
            return self.reserved.pop(params["token"], None) is not None and self.fault != "forgets acks"


class LiarConnection(socketserver.BaseRequestHandler):
    def handle(self):
        unpacker = msgpack.Unpacker()
        with contextlib.suppress(ConnectionError):  # it leaves as soon as it has seen enough
            while data := self.request.recv(65536):
                unpacker.feed(data)
                for _, msgid, method, params in unpacker:
                    result = self.server.answer(method, params[0])
                    self.request.sendall(msgpack.packb([1, msgid, None, result]))


@pytest.mark.parametrize(
    "fault, count, least",
    [
        ("none", "ok", 1),
        ("drops", "lost", 5),
        ("doubles", "duplicated", 5),
        ("no priorities", "out_of_order", 100),
        ("last in first out", "out_of_order", 100),
        ("changes", "unknown", 5),
        ("forgets acks", "not_acked", 500),
    ],
)
def test_a_promise_that_is_broken_is_seen(tmp_path, fault, count, least):
    with Liar(tmp_path / "s", fault) as liar:
        serving = threading.Thread(target=liar.serve_forever)
        serving.start()
        try:
            status, out, err = Ctl(f"unix://{tmp_path}/s").run(
                *("bench", "--mode", "backlog", "-c", "2", "-n", "500", "--priorities", "1:2:1"),
                *("-q", "--timeout", "500ms", "-o", "json"),
            )
        finally:
            liar.shutdown()
            serving.join()
    [result] = json.loads(out)
    verified = result["verified"]
    assert status == (0 if fault == "none" else 1), err
    assert verified[count] >= least, verified
    assert verified["ok"] is (fault == "none")
    # Nothing else is blamed; a message that came back changed did not come as it was sent.
    also = {"drops": set(), "changes": {"lost"}}.get(fault, set())
    assert {each for each in BAD if verified[each]} - also == ({count} - {"ok"}), verified


@pytest.mark.parametrize(
    "words",
    [
        ["--mode", "pairs", "-c", "4"],
        ["-c", "3", "-b", "5"],
        ["--mode", "consume", "-c", "2", "-P", "8"],
        ["--mode", "backlog", "-n", "200000", "-b", "50", "-c", "2"],
        ["--rate", "50", "-c", "2"],
    ],
    ids=" ".join,
)
def test_interrupted_it_leaves_nothing_behind(ctl, client, words):
    words = words if "-n" in words else [*words, "--duration", "60s"]
    with Running(ctl, *words, "-q") as running:
        wait_until(lambda: stats(client), 10, "a queue of the bench")
        running.process.send_signal(signal.SIGINT)
        status, out, err = running.finish()
    assert (status, out) == (130, "")
    assert "stopped after" in err
    assert is_clean(client)


@pytest.mark.parametrize("mode", ["send-recv-ack", "pairs", "consume"])
def test_a_broker_that_dies_in_the_middle_ends_it(redis, make_broker, mode):
    broker = make_broker(redis).start()
    ctl = Ctl(f"unix://{broker.unix_path}", "--namespace", fresh("bench"))
    client = broker.in_namespace(ctl.options[1])
    with Running(ctl, "--mode", mode, "--duration", "60s", "-q") as running:
        wait_until(lambda: stats(client), 10, "a queue of the bench")
        client.close()
        broker.kill()
        status, out, err = running.finish()
    assert status in (69, 75) and out == ""
    assert "may be left in the queues" in err and re.search("closed|broke", err), err


def test_a_broker_that_stops_answering_ends_it(redis, make_broker):
    broker = make_broker(redis).start()
    ctl = Ctl(f"unix://{broker.unix_path}", "--namespace", fresh("bench"))
    client = broker.in_namespace(ctl.options[1])
    with Running(ctl, "--duration", "60s", "-q", "--timeout", "500ms") as running:
        wait_until(lambda: stats(client), 10, "a queue of the bench")
        broker.signal(signal.SIGSTOP)
        try:
            status, out, err = running.finish()
        finally:
            broker.signal(signal.SIGCONT)
    assert (status, out) == (75, "")
    assert "answered nothing" in err or "no answer within 500 ms" in err, err


def test_an_answer_that_is_an_error_ends_it(ctl, client):
    """A batch that no frame holds."""
    err = ctl.fails(1, "bench", "-n", "1000", "-b", "1000", "-d", "4000", "-c", "1", "-q")
    assert "too_large" in err
    assert is_clean(client)


def test_without_a_broker_it_says_so():
    assert Ctl("unix:///nowhere").fails(69, "bench")


def test_help_lists_modes_and_workloads(ctl):
    out = ctl.out("help", "bench")
    assert out == ctl.out("bench", "--help")
    for word in ("--workload", "--rate", "-P, --pipeline", "send-recv-ack", "backlog", "W5"):
        assert word in out


@pytest.mark.parametrize(
    "words",
    [
        ["extra"],
        ["--mode", "nonsense"],
        ["--workload", "W6"],
        ["--workload", "W1,nonsense"],
        ["--workload", ""],
        ["-n", "0"],
        ["-b", "1001"],
        ["-d", "47"],
        ["-d", "300000"],
        ["--rate", "0"],
        ["--priorities", "0:0:0"],
        ["--priorities", "1:1"],
        ["--priorities", "1:1:1x"],
        ["--progress", "dance"],
        ["-o", "names"],
        ["--mode", "send", "--duration", "1s"],
        ["--mode", "pairs", "-c", "2", "-r", "3"],
        ["--consumers", "3"],
        ["--prefetch", "3"],
        ["-c", "10000", "-r", "10000"],
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_is_refused_before_anything_is_done(words):
    assert Ctl("unix:///nowhere").fails(64, "bench", *words)
