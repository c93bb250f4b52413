"""coordctl as a shell sees it: what it prints and how it exits."""

import csv
import io
import json
import os
import re
import socket
import subprocess
import threading

import pytest

from harness import REPO, Queue, fresh, within

COORDCTL = os.environ.get("COORDCTL", str(REPO / "build" / "coordctl"))
EVIL = "\x1b]0;owned\x07\x1b[31m\x9b31m\r\n\u202fend"


class Ctl:
    """Runs coordctl against one broker."""

    def __init__(self, url, *options):
        self.url = url
        self.options = options

    def run(self, *arguments, stdin=""):
        environment = {**os.environ, "COORDCTL_SERVER": self.url}
        done = subprocess.run(
            [COORDCTL, *arguments, *self.options],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            env=environment,
            timeout=within(30),
            check=False,
        )
        assert b"Sanitizer" not in done.stderr and b"runtime error" not in done.stderr, done.stderr
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def out(self, *arguments, **more):
        """What it prints when it succeeds."""
        status, out, err = self.run(*arguments, **more)
        assert status == 0, (arguments, status, err)
        return out

    def json(self, *arguments, **more):
        return json.loads(self.out(*arguments, "-o", "json", **more))

    def fails(self, status, *arguments, **more):
        """What it says on stderr when it exits with `status`."""
        got, out, err = self.run(*arguments, **more)
        assert got == status, (arguments, got, out, err)
        return err


@pytest.fixture
def ctl(broker):
    return Ctl(f"unix://{broker.unix_path}")


@pytest.fixture
def name(queue):
    return f"{queue.agent['type']}:{queue.agent['instance']}"


def test_ping_and_status_answer(ctl):
    assert "pong" in ctl.out("ping")
    assert ctl.json("ping", "-n", "3", "-i", "1ms")["count"] == 3
    assert "through to Redis" not in ctl.out("ping", "-n", "2", "-i", "1ms")
    assert re.fullmatch(r"(pong from \S+: [\d.]+ ms, through to Redis [\d.]+ ms\n){2}2 pings: .*through to Redis .*\n",
                        ctl.out("ping", "--redis", "-n", "2", "-i", "1ms"))
    assert ctl.json("ping", "--redis", "-n", "2", "-i", "1ms")["redis"]["count"] == 2
    assert "redis" in ctl.out("status")
    assert ctl.json("status")["ready"] is True


def test_ping_through_to_a_redis_that_is_away_fails(start_redis, make_broker):
    redis = start_redis()
    broker = make_broker(redis, expected_errors=["redis."]).start()
    ctl = Ctl(f"unix://{broker.unix_path}")
    redis.kill()
    assert "unavailable" in ctl.fails(75, "ping", "--redis")
    assert "pong" in ctl.out("ping")
    ctl.fails(64, "ping", "--redis", "redis://elsewhere")
    ctl.fails(64, "ping", "--redis=elsewhere")


def test_its_version_needs_no_broker():
    ctl = Ctl("unix:///nowhere")
    version = ctl.out("version")
    assert re.fullmatch(r"coordctl \d+\.\d+\.\d+\S*\n", version)
    assert ctl.out("--version") == version
    assert ctl.json("--version") == ctl.json("version")


def test_a_message_is_sent_received_and_acknowledged(ctl, name):
    payload = {"a": 1, "b": [True, None, 0.1, "\u6f22"], "n": 2**53 + 1}
    sent = ctl.json("msg", "send", name, json.dumps(payload), "--id", "m1", "--priority", "high")
    assert sent["delivered"] is True
    got = ctl.json("msg", "recv", name, "--visibility", "60s")
    message = got["queue_message"]["message"]
    assert message["payload"] == payload
    assert message["sender"] == {"type": "coordctl", "instance": "default"}
    assert got["queue_message"]["priority"] == 9
    assert "acknowledged" in ctl.out("msg", "ack", name, got["token"])
    assert "not live" in ctl.fails(1, "msg", "ack", name, got["token"])
    assert "nothing is due" in ctl.fails(3, "msg", "recv", name)


def test_recv_with_ack_leaves_nothing(ctl, name, queue):
    queue.send_all(["m1", "m2", "m3"])
    got = ctl.json("msg", "recv", name, "--max", "10", "--ack")
    assert [each["queue_message"]["message"]["message_id"] for each in got] == ["m1", "m2", "m3"]
    assert ctl.json("queue", "show", name)["size"] == 0


def test_a_payload_comes_from_a_file_or_standard_input(ctl, name, tmp_path):
    (tmp_path / "p.json").write_text('{"from": "file"}')
    ctl.out("msg", "send", name, f"@{tmp_path}/p.json")
    ctl.out("msg", "send", name, "-", stdin='{"from": "stdin"}')
    lines = ctl.out("msg", "peek", name, "-o", "jsonl").splitlines()
    assert [json.loads(line)["message"]["payload"]["from"] for line in lines] == ["file", "stdin"]


def test_failures_release_and_extend(ctl, name):
    ctl.out("msg", "send", name, "{}", "--id", "m1")
    token = ctl.out("msg", "recv", name, "-o", "names").strip()
    assert "until" in ctl.out("msg", "extend", name, token, "--visibility", "1m")
    ctl.out("msg", "release", name, token)
    token = ctl.out("msg", "recv", name, "--wait", "5s", "-o", "names").strip()
    ctl.out("msg", "nack", name, token, "--failure", "permanent", "--error", "boom")
    [dead] = ctl.json("dlq", "ls", name)
    assert (dead["reason"], dead["queue_message"]["last_error"]) == ("permanent", "boom")
    assert "boom" in ctl.out("dlq", "show", name, "m1")
    assert "no dead letter" in ctl.fails(3, "dlq", "show", name, "m2")


def test_dead_letters_are_redriven_and_purged(ctl, name, queue):
    for each in ("m1", "m2", "m3"):
        queue.kill(each)
    ids = [dead["id"] for dead in ctl.json("dlq", "ls", name)]
    assert ctl.json("dlq", "redrive", name, "--dry-run")["redriven"] == 3
    assert ctl.json("dlq", "redrive", name, ids[0], "--yes")["redriven"] == 1
    assert ctl.json("dlq", "purge", name, "--limit", "1", "--yes")["deleted"] == 1
    assert [dead["id"] for dead in ctl.json("dlq", "ls", name)] == [ids[2]]
    ctl.fails(1, "dlq", "redrive", name, ids[1], "--yes")
    assert queue.stats()["dead"] == 1


def test_what_destroys_asks_first(ctl, name, queue):
    queue.send_all(["m1", "m2"])
    assert "--yes" in ctl.fails(2, "queue", "purge", name)
    assert "--yes" in ctl.fails(2, "dlq", "purge", name)
    assert "would remove 2" in ctl.out("queue", "purge", name, "--dry-run")
    assert queue.stats()["size"] == 2
    assert ctl.json("queue", "purge", name, "-y")["removed"] == 2


def test_a_queue_is_paused_and_resumed(ctl, name, queue):
    assert "would pause" in ctl.out("queue", "pause", name, "--dry-run")
    assert queue.stats()["paused"] is False
    assert "not paused" in ctl.out("queue", "resume", name)
    assert ctl.out("queue", "pause", name) == f"paused {name}\n"
    assert ctl.json("queue", "pause", name) == {"queue": name, "paused": True, "changed": False}
    assert "would resume" in ctl.out("queue", "resume", name, "--dry-run")
    assert queue.stats()["paused"] is True
    assert ctl.json("queue", "resume", name) == {"queue": name, "paused": False, "changed": True}
    assert queue.stats()["paused"] is False


def test_all_queues_are_listed_page_by_page(ctl, client):
    kind = fresh("many")
    names = [f"{kind}:q{i:04}" for i in range(1200)]
    for i in range(0, 1200, 600):
        messages = [
            {
                "recipient": {"type": kind, "instance": f"q{n:04}"},
                "message": {"message_id": "m", "message_type": "event"},
            }
            for n in range(i, i + 600)
        ]
        client.call("send_batch", sender={"type": "t"}, messages=messages)
    assert sorted(ctl.out("queue", "ls", kind, "-o", "names").split()) == names
    assert len(ctl.out("queue", "ls", kind, "--limit", "7", "--no-header").splitlines()) == 7


def test_names_are_percent_encoded_both_ways(ctl, broker):
    kind = fresh("a:b%")
    queue = Queue(broker.connect(), {"type": kind, "instance": "x:y"})
    text = kind.replace("%", "%25").replace(":", "%3A") + ":x%3Ay"
    ctl.out("msg", "send", text, "{}")
    assert queue.stats()["size"] == 1
    listed = ctl.out("queue", "ls", kind, "-o", "names").strip()
    assert listed == text
    ctl.fails(64, "queue", "show", f"{kind}:x:y")


def test_settings_are_set_and_taken_back(ctl, name):
    out = ctl.json("queue", "set", name, "retry_attempts=7", "backoff_base=500ms")
    assert (out["retry_attempts"], out["backoff_base"]) == (7, 0.5)
    assert ctl.json("queue", "set", name, "retry_attempts=")["retry_attempts"] == 3
    ctl.fails(64, "queue", "set", name, "nonsense=1")
    ctl.fails(1, "queue", "set", name, "queue_size=0")


def test_nothing_a_client_sent_steers_the_terminal(ctl, name, queue):
    queue.send("m1", payload={"text": EVIL}, sender={"type": "s"})
    for words in (["msg", "peek", name], ["msg", "recv", name], ["queue", "ls"], ["status"]):
        out = ctl.out(*words)
        assert not [c for c in out if c != "\n" and (ord(c) < 32 or 127 <= ord(c) < 160)], out
    queue.send("m2", payload={"text": EVIL})
    for form in ("json", "jsonl"):
        out = ctl.out("msg", "peek", name, "-o", form)
        assert not [c for c in out if c != "\n" and (ord(c) < 32 or 127 <= ord(c) < 160)], out
    assert ctl.json("msg", "peek", name)[0]["message"]["payload"]["text"] == EVIL


def test_csv_is_read_back_by_a_csv_reader(ctl, name, queue):
    queue.send("m1", payload={"text": 'a, "b"\nc'})
    [row] = csv.DictReader(io.StringIO(ctl.out("msg", "peek", name, "-o", "csv")))
    assert row["id"] == "m1" and json.loads(row["payload"]) == {"text": 'a, "b"\nc'}


def test_a_namespace_is_a_world_of_its_own(ctl, name):
    ctl.out("msg", "send", name, "{}", "--namespace", fresh("ns"))
    assert ctl.json("queue", "show", name)["size"] == 0


@pytest.mark.parametrize(
    "status, words",
    [
        (64, []),
        (64, ["nonsense"]),
        (64, ["msg"]),
        (64, ["msg", "send", "q"]),
        (64, ["ping", "--bogus"]),
        (64, ["ping", "--delay", "1s"]),
        (64, ["ping", "-o", "xml"]),
        (64, ["msg", "send", "q", "{}", "--delay", "5 s"]),
        (64, ["msg", "send", "q", "{}", "--priority", "2"]),
        (64, ["msg", "send", "a:b:c", "{}"]),
        (65, ["msg", "send", "q", "{"]),
        (65, ["msg", "send", "q", "[1]"]),
        (65, ["msg", "send", "q", '{"a": 1, "a": 2}']),
        (65, ["msg", "send", "q", "@/nowhere"]),
        (1, ["msg", "recv", "q", "--wait", "61s"]),
        (64, ["--server", "nonsense", "ping"]),
        (69, ["--server", "unix:///nowhere", "ping"]),
        (69, ["--server", "tcp://127.0.0.1:1", "ping"]),
    ],
)
def test_each_failure_has_its_exit_status(ctl, status, words):
    assert ctl.fails(status, *words)


def test_a_full_queue_is_a_refusal(ctl, name, queue):
    queue.configure(queue_size=1)
    ctl.out("msg", "send", name, "{}")
    assert "queue full" in ctl.fails(1, "msg", "send", name, "{}")


def test_a_peer_that_is_no_coordd_is_told_apart(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        listener.settimeout(within(10))

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        peer = threading.Thread(target=answer)
        peer.start()
        try:
            Ctl(f"unix://{tmp_path}/s").fails(76, "ping")
        finally:
            peer.join()
