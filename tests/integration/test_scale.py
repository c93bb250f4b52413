"""The small form of tests/soak: nothing grows with what is over."""

from pathlib import Path

import pytest

import scale
from harness import COORDD, Queue, wait_until, within

SANITIZED = b"__asan_init" in Path(COORDD).resolve().read_bytes()
unsanitized = pytest.mark.skipif(SANITIZED, reason="a sanitizer keeps what was freed")


@unsanitized
def test_memory_is_flat_over_many_messages(start_redis, make_broker):
    redis = start_redis()
    defaults = {"dedup_window": "200ms"}
    broker = make_broker(redis, config={"queues": {"defaults": defaults}}).start()
    samples = {broker: [], redis: []}

    def sample():
        for process, seen in samples.items():
            seen.append(scale.resident(process))

    scale.flow(Queue(broker.connect(), {"type": "flow"}), 200_000, sample)
    for process, name in ((broker, "coordd"), (redis, "redis-server")):
        then, now, grew = scale.growth(samples[process])
        assert not grew, f"{name} grew from {then / 1e6:.1f} to {now / 1e6:.1f} MB"


def test_a_thousand_queues_are_listed_cheap_and_forgotten(start_redis, make_broker):
    redis = start_redis()
    queues = {"forget_after": "2s", "defaults": {"dedup_window": "200ms"}}
    broker = make_broker(redis, config={"queues": queues}).start()
    many = scale.ManyQueues(broker, redis, 1000)
    one = many.cost(many.one, 8)
    each = many.cost(many.queues, 8)
    many.check_list()
    assert each < 10 * one, (each, one)  # 8 of one queue travel together
    wait_until(lambda: many.are_forgotten(redis), 10, "all are forgotten")


@unsanitized
def test_a_thousand_idle_connections_cost_little(own):
    broker = own()
    clients, size = scale.idle_connections(broker, 1000)
    assert size < 1500, size
    scale.all_answer(clients)
    broker.close_clients()
    wait_until(lambda: broker.open_files() < 60, within(5), "they are gone")


def test_hundreds_of_agents_beat_and_live(own):
    broker = own(server={"max_connections": 1000})
    many = scale.ManyAgents(broker, 300, ttl=within(2))
    assert many.beat(within(3), every=within(1)) == 900
    assert broker.connect().call("status")["agents"] == {"known": 300, "alive": 300, "late": 0}
