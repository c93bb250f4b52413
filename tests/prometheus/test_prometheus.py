"""promtool on what coordd ships and tells, and a real Prometheus that scrapes a broker."""

import json
import socket
import subprocess
import urllib.parse
import urllib.request

import pytest

from conftest import make_broker, own, redis, shared, start_redis  # fixtures
from harness import REPO, Process, Queue, wait_until
from test_admin import Admin

RULES = REPO / "conf/prometheus/coordd.rules.yml"


def promtool(*arguments, text=None):
    done = subprocess.run(
        ["promtool", *map(str, arguments)], input=text, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_rules_are_good():
    assert "11 rules found" in promtool("check", "rules", RULES)


def test_the_rules_do_what_they_say():
    promtool("test", "rules", REPO / "tests/prometheus/rules.test.yml")


def test_the_example_is_good(tmp_path):
    for name in ("scrape.example.yml", "coordd.rules.yml"):
        (tmp_path / name).write_text((REPO / "conf/prometheus" / name).read_text())
    promtool("check", "config", tmp_path / "scrape.example.yml")


@pytest.fixture
def busy(own):
    """A broker of which every family has something to tell."""
    broker = own()
    client = broker.connect()
    queue = Queue(client, {"type": "worker", "instance": 'x"\\:é'})
    queue.send_all([f"m{i}" for i in range(5)])
    queue.ack(queue.take(1)[0])
    Queue(client, {"type": "worker", "instance": "dead"}).kill("d")
    client.call("register", agent=queue.agent)
    client.call("breaker_trip", name=client.call("breaker_acquire", name="b") and "b")
    return broker


def test_the_page_is_good(busy):
    admin = Admin(busy)

    def has_sample():
        return b"\ncoordd_breaker_state{" in admin.ask("GET", "/metrics").body

    wait_until(has_sample, 15, "a sample")
    text = admin.ask("GET", "/metrics").body.decode()
    assert promtool("check", "metrics", text=text) == ""


class Prometheus(Process):
    def __init__(self, target):
        super().__init__("prometheus")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        example = (REPO / "conf/prometheus/scrape.example.yml").read_text()
        example = example.replace("127.0.0.1:7421", target).replace("15s", "1s")
        (self.directory / "prometheus.yml").write_text(example)
        (self.directory / "coordd.rules.yml").write_text(RULES.read_text())
        self.spawn(
            [
                "prometheus",
                f"--config.file={self.directory}/prometheus.yml",
                f"--storage.tsdb.path={self.directory}/data",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ]
        )

    def ask(self, path, **query):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return json.load(answer)["data"]
        except OSError:
            return None

    def value(self, query):
        """The one value of a query, None while it has none."""
        data = self.ask("query", query=query)
        if not data or not data["result"]:
            return None
        assert len(data["result"]) == 1, data
        return float(data["result"][0]["value"][1])


def test_a_real_prometheus_scrapes_it(busy):
    prometheus = Prometheus(f"127.0.0.1:{Admin(busy).port}")
    mine = '{namespace="default",queue="worker:x\\"\\\\%3Aé"}'
    try:
        def expect(query, value):
            wait_until(lambda: prometheus.value(query) == value, 30, f"{query} is {value}")

        expect('up{job="coordd"}', 1)
        expect(f"sum(coordd_messages_sent_total{mine})", 5)
        expect(f"coordd_messages_acked_total{mine}", 1)
        expect(f'sum by (state) (coordd_queue_messages{mine[:-1]},state="ready"}})', 4)
        expect('coordd_messages_dead_lettered_total{queue="worker:dead",reason="permanent"}', 1)
        expect('coordd_breaker_state{breaker="b",state="open"}', 1)
        expect('coordd_agents{type="worker",state="alive"}', 1)
        expect(f"histogram_quantile(0.99, coordd_message_wait_duration_seconds_bucket{mine}) < bool 60", 1)
        expect("coordd_ready", 1)
        [target] = prometheus.ask("targets")["activeTargets"]
        assert target["lastError"] == "" and target["health"] == "up", target
        rules = prometheus.ask("rules")["groups"][0]["rules"]
        assert len(rules) == 11 and all(rule["health"] != "err" for rule in rules), rules
    finally:
        prometheus.kill()
        prometheus.remove()
