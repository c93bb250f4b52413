"""The page for Prometheus: what it tells, and that it stays within its bounds."""

import re
import time

import pytest

from harness import Queue, Refused, fresh, wait_until
from test_admin import Admin
from test_reload import reload, write

SERIES = re.compile(r'^([a-z_]+)(?:\{(.*)\})? (\d+(?:\.\d+)?)$')
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')


def unescape(text):
    return re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], text)


@pytest.fixture
def broker(own):
    """One of its own: how many queues have series is limited, and the shared one has seen many."""
    return own()


class Page:
    """A page, every line of which is what the format allows, and no series twice."""

    def __init__(self, text):
        self.text, self.values, self.types = text, {}, {}
        family = None
        assert text.endswith("\n")
        for line in text[:-1].split("\n"):
            if line.startswith("# HELP "):
                family = line.split(" ")[2]
                assert family not in self.types, f"{family} twice"
                continue
            if line.startswith("# TYPE "):
                assert line.split(" ")[2] == family
                self.types[family] = line.split(" ")[3]
                continue
            found = SERIES.match(line)
            assert found, line
            labels = LABEL.findall(found[2] or "")
            assert "".join(f'{name}="{value}",' for name, value in labels).rstrip(",") == (found[2] or ""), line
            name = found[1]
            if self.types[family] == "histogram":
                assert name in (f"{family}_bucket", f"{family}_sum", f"{family}_count"), line
            else:
                assert name == family, line
            key = name, frozenset((label, unescape(value)) for label, value in labels)
            assert len(dict(key[1])) == len(labels), line
            assert key not in self.values, f"twice: {line}"
            self.values[key] = float(found[3])

    def get(self, name, **labels):
        """The sum of all series that have these labels; None when there is none."""
        found = [v for (each, have), v in self.values.items() if each == name and have >= labels.items()]
        return sum(found) if found else None

    def labels_of(self, name, label):
        return {dict(have).get(label) for each, have in self.values if each == name}


def scrape(broker, query=""):
    answer = Admin(broker).ask("GET", "/metrics" + query)
    assert answer.status == 200
    assert answer.type == "text/plain; version=0.0.4; charset=utf-8"
    return Page(answer.body.decode())


def sampled(broker):
    """A page with what Redis said after now."""
    now = time.time()

    def newer():
        page = scrape(broker)
        return (page.get("coordd_sample_timestamp_seconds") or 0) > now and page

    return wait_until(newer, 15, "a sample")


def test_what_happens_to_messages(broker, queue):
    mine = {"namespace": "default", "queue": f"worker:{queue.agent['instance']}"}
    queue.configure(queue_size=5, retry_attempts=1, backoff_base=0)
    queue.send("a", priority=9)
    queue.try_send("a", priority=9)
    queue.send_all(["b", "c", "d", "e"])
    queue.try_send("f")
    first = queue.take(2, visibility_timeout=60)
    queue.ack(first[0])
    queue.nack(first[1])
    second = queue.take(4, visibility_timeout=60)
    queue.nack(second[-1])
    queue.nack(second[0], failure="permanent")
    queue.release(second[1])
    page = scrape(broker)

    def count(name, **labels):
        return page.get(f"coordd_messages_{name}_total", **mine, **labels)

    assert count("sent", priority="high") == 1 and count("sent", priority="normal") == 4
    assert count("deduplicated") == 1 and count("rejected", reason="queue_full") == 1
    assert count("delivered") == 6
    assert count("acked") == 1 and count("released") == 1
    assert count("nacked", failure="transient") == 2 and count("nacked", failure="permanent") == 1
    assert count("dead_lettered", reason="attempts") == 1 and count("dead_lettered", reason="permanent") == 1
    assert count("retried") == 1
    assert page.get("coordd_message_wait_duration_seconds_count", **mine) == 5
    assert page.get("coordd_message_process_duration_seconds_count", **mine) == 4
    assert page.get("coordd_message_process_duration_seconds_sum", **mine) < 5

    page = sampled(broker)
    states = {state: page.get("coordd_queue_messages", state=state, **mine) for state in ("ready", "delayed", "reserved", "dead")}
    assert states == {"ready": 1, "delayed": 0, "reserved": 1, "dead": 2}
    assert page.get("coordd_queue_capacity_messages", **mine) == 5
    assert page.get("coordd_queue_paused", **mine) == 0
    assert page.get("coordd_queue_oldest_message_age_seconds", **mine) > 0

    queue.client.call("dlq_redrive", agent=queue.agent, limit=1)
    queue.client.call("dlq_purge", agent=queue.agent)
    queue.client.call("purge", agent=queue.agent)
    page = scrape(broker)
    assert count("redriven") == 1
    assert count("purged", by="dlq_purge") == 1 and count("purged", by="purge") == 2


def test_what_the_sweep_takes_back_is_counted(broker, queue):
    mine = {"namespace": "default", "queue": f"worker:{queue.agent['instance']}"}
    queue.configure(retry_attempts=1)
    queue.send("a")
    for _ in range(2):
        assert queue.take_one(visibility_timeout=0.05)

    def swept():
        page = scrape(broker)
        return page.get("coordd_messages_dead_lettered_total", reason="attempts", **mine) and page

    page = wait_until(swept, 10, "a dead letter")
    assert page.get("coordd_messages_visibility_expired_total", **mine) == 2
    assert page.get("coordd_messages_retried_total", **mine) == 1


def test_requests_by_method_and_code(broker, client):
    before = scrape(broker)
    client.call("ping")
    client.refused("nonsense")
    client.refused("send")
    client.notify("heartbeat", {"agent": {"type": "nobody", "instance": "x"}})
    client.call("receive", agent={"type": fresh("w"), "instance": "x"}, wait=0.01)
    page = scrape(broker)

    def grown(**labels):
        return page.get("coordd_rpc_requests_total", **labels) - (before.get("coordd_rpc_requests_total", **labels) or 0)

    assert grown(method="ping", code="ok") == 1
    assert grown(method="_unknown", code="unknown_method") == 1
    assert grown(method="send", code="bad_request") == 1
    assert grown(method="receive", code="ok") == 1
    assert grown(method="heartbeat", code="not_found") == 1
    assert page.get("coordd_rpc_request_duration_seconds_count", method="receive") == before.get(
        "coordd_rpc_request_duration_seconds_count", method="receive"
    ), "one that waited"
    assert page.get("coordd_redis_commands_total", command="tick", result="ok") > 0
    assert page.get("coordd_redis_command_duration_seconds_count") > 0
    assert page.get("coordd_event_loop_lag_seconds_count") > 0
    assert page.get("coordd_network_receive_bytes_total") > before.get("coordd_network_receive_bytes_total")
    assert page.get("coordd_admin_requests_total", route="/metrics", code="200") > 0
    assert page.get("process_open_fds") == pytest.approx(broker.open_files(), abs=3)
    assert page.get("process_resident_memory_bytes") == pytest.approx(broker.resident(), rel=0.3)
    assert abs(page.get("process_start_time_seconds") - time.time()) < 3600


def test_connections(own):
    broker = own(server={"max_connections": 2})
    one, two = broker.connect(), broker.connect("unix")
    one.call("ping"), two.call("ping")
    refused = broker.connect()
    refused.read_frame()
    page = scrape(broker)
    assert page.get("coordd_connections", listener="tcp") == 1
    assert page.get("coordd_connections", listener="unix") == 1
    assert page.get("coordd_connections_rejected_total", reason="limit") == 1
    one.send_bytes(b"\xc1")
    two.close()
    wait_until(lambda: scrape(broker).get("coordd_connections") == 0, 5, "they are gone")
    page = scrape(broker)
    assert page.get("coordd_connections_closed_total", reason="client") == 1
    assert page.get("coordd_connections_closed_total", reason="protocol") == 1
    assert page.get("coordd_frames_rejected_total", reason="malformed") == 1


def test_names_are_escaped(own):
    broker = own()
    client = broker.in_namespace('ns"\\:%<é')
    name = {"type": 'a"b\\c', "instance": "x:y%é<script>"}
    Queue(client, name).send("m")
    client.call("register", agent=name)
    client.call("breaker_acquire", name='b"\\:')
    page = sampled(broker)
    where = {"namespace": 'ns"\\:%<é', "queue": 'a"b\\c:x%3Ay%25é<script>'}
    assert page.get("coordd_messages_sent_total", **where) == 1
    assert page.get("coordd_queue_messages", state="ready", **where) == 1
    assert page.get("coordd_agents", namespace='ns"\\:%<é', type='a"b\\c', state="alive") == 1
    states = {state: page.get("coordd_breaker_state", breaker='b"\\:', state=state) for state in ("closed", "open", "half_open")}
    assert states == {"closed": 1, "open": 0, "half_open": 0}


def test_the_number_of_names_is_bounded(own):
    broker = own(metrics={"max_label_values": 3})
    client = broker.connect()
    queues = [Queue(client, {"type": "w", "instance": str(i)}) for i in range(10)]
    for queue in queues:
        queue.send("m")
    for i in range(6):
        client.call("register", agent={"type": f"t{i}", "instance": "x"})
        client.call("breaker_acquire", name=f"b{i}")
    page = sampled(broker)
    for name, label in (
        ("coordd_messages_sent_total", "queue"),
        ("coordd_queue_messages", "queue"),
        ("coordd_agents", "type"),
        ("coordd_breaker_state", "breaker"),
    ):
        labels = page.labels_of(name, label)
        assert len(labels) == 4 and "_other" in labels, (name, labels)
    assert page.get("coordd_messages_sent_total") == 10
    assert page.get("coordd_messages_sent_total", queue="_other", namespace="_other") == 7
    assert page.get("coordd_queue_messages", queue="_other", state="ready") == 7
    assert page.get("coordd_agents", type="_other", state="alive") == 3
    assert page.get("coordd_breaker_state", breaker="_other", state="closed") == 3
    assert page.get("coordd_queues") == 10


def test_queues_without_labels_of_their_own(own):
    broker = own(metrics={"per_queue": False})
    client = broker.connect()
    for i in range(3):
        Queue(client, {"type": "w", "instance": str(i)}).send("m")
    page = sampled(broker)
    assert page.labels_of("coordd_messages_sent_total", "queue") == {"_other"}
    assert page.get("coordd_queue_messages", state="ready") == 3


def test_series_of_some_queues_only(own):
    broker = own()
    for kind in ("planner", "writer"):
        for instance in ("w1", "w2"):
            Queue(broker.connect(), {"type": kind, "instance": instance}).send()
    sampled(broker)
    everything = {"planner:w1", "planner:w2", "writer:w1", "writer:w2"}
    for pattern, expected in (
        ("planner:*", {"planner:w1", "planner:w2"}),
        ("*%3Aw1", {"planner:w1", "writer:w1"}),
        ("nobody:*", set()),
        ("", everything),
    ):
        page = scrape(broker, f"?queues={pattern}")
        for family in ("coordd_messages_sent_total", "coordd_queue_messages"):
            assert page.labels_of(family, "queue") == expected, (pattern, family)
        assert page.get("coordd_ready") == 1


def test_other_limits_of_names_count_for_queues_that_are_there(own):
    broker = own(metrics={"max_label_values": 1})
    client = broker.connect()
    queues = [Queue(client, {"type": "w", "instance": str(i)}) for i in range(3)]

    def sent():
        for queue in queues:
            queue.send()
        page = scrape(broker)
        labels = page.labels_of("coordd_messages_sent_total", "queue")
        return {label: page.get("coordd_messages_sent_total", queue=label) for label in labels}

    assert sent() == {"w:0": 1, "_other": 2}
    write(broker, metrics={"max_label_values": 10})
    reload(client)
    assert sent() == {"w:0": 2, "w:1": 1, "w:2": 1, "_other": 2}
    write(broker, metrics={"per_queue": False})
    reload(client)
    assert sent() == {"_other": 5}


def test_a_thousand_queues_are_not_a_thousand_times_as_much(own):
    broker = own()
    client = broker.connect()
    for i in range(1000):
        client.submit("send", Queue(client, {"type": "w", "instance": str(i)}).sending("m"))
    wait_until(lambda: scrape(broker).get("coordd_messages_sent_total") == 1000, 20, "all are sent")
    page = sampled(broker)
    assert len(page.labels_of("coordd_queue_messages", "queue")) == 201
    assert page.get("coordd_queue_messages", state="ready") == 1000
    assert len(page.text) < 2_000_000


def test_a_lost_agent_is_counted(own):
    broker = own()
    client = broker.connect()
    client.call("register", agent={"type": "w", "instance": "x"}, ttl=2)
    wait_until(lambda: scrape(broker).get("coordd_agents_lost_total", type="w") == 1, 10, "it is lost")
    page = sampled(broker)
    assert page.get("coordd_agents", type="w", state="dead") == 1
    assert page.get("coordd_agents_registered_total", type="w") == 1


def test_it_never_waits_for_redis(start_redis, make_broker):
    redis = start_redis()
    broker = make_broker(redis, expected_errors=["redis.", "request.failed"]).start()
    assert scrape(broker).get("coordd_ready") == 1
    redis.pause()
    for _ in range(3):
        began = time.monotonic()
        scrape(broker)
        assert time.monotonic() - began < 1
    wait_until(lambda: scrape(broker).get("coordd_redis_up") == 0, 10, "it notices")
    page = scrape(broker)
    assert page.get("coordd_ready") == 0
    redis.resume()
    wait_until(lambda: scrape(broker).get("coordd_redis_up") == 1, 10, "it is back")
    wait_until(lambda: (scrape(broker).get("coordd_redis_reconnects_total") or 0) >= 1, 5, "it is counted")


def test_several_brokers_tell_alike_what_is_in_redis(redis, make_broker):
    prefix = {"redis": {"key_prefix": fresh("own")}}
    one, two = (make_broker(redis, config=prefix).start() for _ in range(2))
    queue = Queue(one.connect(), {"type": "w", "instance": "x"})
    waiting = Queue(two.connect(), {"type": "v", "instance": "x"})
    parked = waiting.park()
    queue.send("m")
    for broker in one, two:
        page = sampled(broker)
        assert page.get("coordd_queue_messages", queue="w:x", state="ready") == 1
    assert scrape(one).get("coordd_messages_sent_total", queue="w:x") == 1
    assert not scrape(two).get("coordd_messages_sent_total", queue="w:x")
    queue.at(one.connect())
    Queue(one.connect(), waiting.agent).send("n")
    assert parked.result()
