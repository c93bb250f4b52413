"""Many producers and consumers of one queue over two brokers: nothing lost, nothing doubled, fences rise."""

import bisect
import collections
import itertools
import random
import threading
import time

import pytest

from harness import Closed, Queue, Refused, Worker, fresh, wait_until

AGENT = {"type": "worker", "instance": "contended"}
SENDER = {"type": "producer"}
VISIBILITY = 1.5
BATCH = 250


class Crowd:
    """Producers and consumers, each on connections to brokers picked at random; consumers die at times."""

    def __init__(self, brokers, count, producers=3, consumers=4, deaths=0.02):
        self.brokers, self.deaths = brokers, deaths
        self.stop, self.lock = threading.Event(), threading.Lock()
        self.chance = random.Random(5)
        self.confirmed, self.acked, self.died = set(), {}, 0
        self.doubted = set()  # acks whose answer never came
        self.deliveries = []  # (asked, got, id, attempts, fence)
        self.count = count
        each = count // producers
        self.producers = [
            Worker(lambda i=i: self.produce(f"{i}.", each)) for i in range(producers)
        ]
        self.consumers = [Worker(self.consume) for _ in range(consumers)]

    def connect(self):
        while True:
            try:
                return self.chance.choice(self.brokers).connect("unix", timeout=20)
            except OSError:
                time.sleep(0.01)

    def produce(self, prefix, count):
        client = self.connect()
        left = collections.deque(
            [f"{prefix}{n}" for n in range(at, min(at + BATCH, count))] for at in range(0, count, BATCH)
        )
        under_way = collections.deque()
        while left or under_way:
            try:
                while left and len(under_way) < 3:
                    block = left.popleft()
                    under_way.append((None, block))
                    messages = [
                        {"recipient": AGENT, "message": {"message_id": each, "message_type": "event"}}
                        for each in block
                    ]
                    msgid = client.submit("send_batch", {"sender": SENDER, "messages": messages})
                    under_way[-1] = (msgid, block)
                msgid, block = under_way[0]
                results = client.result(msgid)
                under_way.popleft()
                missed = [
                    each["message_id"] for each in results if each["error"] == "queue full"
                ]
                with self.lock:
                    self.confirmed.update(each["message_id"] for each in results if each["delivered"])
                if missed:
                    left.appendleft(missed)
                    time.sleep(0.005)
            except Refused as refusal:
                assert refusal.error["retryable"], refusal
                left.appendleft(under_way.popleft()[1])
            except (Closed, OSError):
                left.extendleft(block for _, block in under_way)
                under_way.clear()
                client.close()
                client = self.connect()

    def consume(self):
        client, ask = self.connect(), {"agent": AGENT, "visibility_timeout": VISIBILITY}
        while not self.stop.is_set():
            batch, acked = [], []
            try:
                asked = time.monotonic()
                batch = client.call("receive_batch", max=BATCH, wait=0.2, **ask)
                got = time.monotonic()
                seen = [
                    (
                        asked,
                        got,
                        each["queue_message"]["message"]["message_id"],
                        each["queue_message"]["delivery_attempts"],
                        each["fence"],
                    )
                    for each in batch
                ]
                self.deliveries.extend(seen)  # one step, as far as other threads see
                if not batch:
                    continue
                if self.chance.random() < self.deaths:
                    self.died += 1
                    raise Closed("died holding them")
                tokens = [each["token"] for each in batch]
                acked = client.call("ack_batch", agent=AGENT, tokens=tokens)
                now = time.monotonic()
                with self.lock:
                    for each, settled in zip(seen, acked):
                        if settled:
                            assert each[2] not in self.acked, "acked twice"
                            self.acked[each[2]] = now
            except Refused as refusal:
                assert refusal.error["retryable"], refusal
            except (Closed, OSError):
                client.reset()
                client = self.connect()
            if batch and not acked:
                self.doubted.update(
                    each["queue_message"]["message"]["message_id"] for each in batch
                )

    def finish(self, limit=40):
        for each in self.producers:
            each.finish(limit)
        queue = Queue(self.connect(), AGENT)
        wait_until(lambda: queue.counts() == (0, 0, 0, 0), limit, "all is drained")
        self.stop.set()
        for each in self.consumers:
            each.finish()

    def check(self):
        assert len(self.confirmed) == self.count
        gone = self.acked.keys() | self.doubted
        assert self.confirmed <= gone, f"lost: {sorted(self.confirmed - gone)[:10]}"
        assert self.confirmed == {each[2] for each in self.deliveries}
        # A delivery that failed counts, so no two deliveries of a message have the same number.
        numbers = collections.Counter((each[2], each[3]) for each in self.deliveries)
        doubled = [each for each, times in numbers.items() if times > 1]
        assert not doubled, f"delivered again though nothing failed: {doubled[:10]}"
        for asked, _, name, _, _ in self.deliveries:
            assert name not in self.acked or asked < self.acked[name], f"{name} came after its ack"
        self.check_fences()

    def check_fences(self):
        """Unique, and higher than every one that was known before this one was asked for."""
        fences = [each[4] for each in self.deliveries]
        assert len(set(fences)) == len(fences)
        by_answer = sorted((each[1], each[4]) for each in self.deliveries)
        highest = list(itertools.accumulate((fence for _, fence in by_answer), max))
        answered = [each[0] for each in by_answer]
        for asked, _, name, _, fence in self.deliveries:
            before = bisect.bisect_left(answered, asked)
            assert not before or fence > highest[before - 1], f"the fence of {name} fell"


@pytest.fixture
def pair(redis, make_broker):
    config = {
        "redis": {"key_prefix": fresh("crowd")},
        "log": {"level": "info"},
        "queues": {"defaults": {"retry_attempts": 1000}},
    }
    trouble = ("redis.", "request.")
    return [make_broker(redis, config=config, expected_errors=trouble).start() for _ in range(2)]


def test_a_hundred_thousand_messages_contended_for_over_two_brokers(pair):
    crowd = Crowd(pair, 99_000)
    crowd.finish()
    crowd.check()
    assert crowd.died > 0, "no consumer died"


def test_a_broker_killed_and_restarted_in_the_middle_of_it(pair):
    crowd = Crowd(pair, 30_000)
    for i, dying in enumerate(pair):
        reached = 9_000 * (i + 1)
        wait_until(lambda: len(crowd.acked) >= reached, 20, "load flows")
        dying.kill()
        dying.start()
    crowd.finish()
    crowd.check()
