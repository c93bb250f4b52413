"""Random lives of messages, compared step by step with a model of section 4 of the protocol."""

import random

import pytest

from harness import ids_of

PRIORITIES = (9, 5, 1)


class Model:
    """What a queue holds, when nothing depends on time."""

    def __init__(self, size, retries):
        self.size, self.retries = size, retries
        self.ready = {9: [], 5: [], 1: []}
        self.later, self.dead = [], []
        self.held = {}  # token: message

    def total(self):
        return sum(map(len, self.ready.values())) + len(self.later) + len(self.held)

    def in_order(self):
        return [each for priority in PRIORITIES for each in self.ready[priority]]

    def take(self, most):
        taken = self.in_order()[:most]
        for each in taken:
            self.ready[each["priority"]].remove(each)
        return taken

    def to_tail(self, each):
        self.ready[each["priority"]].append(each)

    def fail(self, each, failure):
        each["attempts"] += 1
        if failure == "permanent" or each["attempts"] > self.retries:
            self.dead.append(each)
        else:
            self.to_tail(each)

    def counts(self):
        ready = sum(map(len, self.ready.values()))
        return ready, len(self.later), len(self.held), len(self.dead)


class Walk:
    """One random walk over daemon and model at once."""

    def __init__(self, queue, others, seed):
        self.random = random.Random(seed)
        self.views = [queue, *others]
        self.model = Model(size=30, retries=2)
        queue.configure(queue_size=30, retry_attempts=2)
        self.sent = 0
        self.settled = []

    def view(self):
        return self.random.choice(self.views)

    def some_token(self):
        return self.random.choice(list(self.model.held))

    def send(self):
        priority = self.random.choice(PRIORITIES)
        later = self.random.random() < 0.1
        self.sent += 1
        message = {"id": f"m{self.sent}", "priority": priority, "attempts": 0}
        result = self.view().try_send(
            message["id"], priority=priority, delay=3600 if later else None, payload={"n": self.sent}
        )
        fits = self.model.total() < self.model.size
        assert result["delivered"] is fits
        if fits:
            self.model.later.append(message) if later else self.model.to_tail(message)

    def receive(self):
        most = self.random.randint(1, 4)
        received = self.view().take(most, visibility_timeout=3600)
        expected = self.model.take(most)
        assert ids_of(received) == [each["id"] for each in expected]
        for got, each in zip(received, expected):
            assert got.attempts == each["attempts"]
            self.model.held[got.token] = each

    def settle(self, how):
        if not self.model.held:
            return
        token = self.some_token()
        each = self.model.held.pop(token)
        self.settled.append(token)
        assert how(self.view(), token) is True
        return each

    def ack(self):
        self.settle(lambda queue, token: queue.ack(token))

    def nack(self):
        failure = self.random.choice(["transient", "timeout", "permanent"])
        each = self.settle(lambda queue, token: queue.nack(token, failure=failure, delay=0))
        if each:
            self.model.fail(each, failure)

    def release(self):
        each = self.settle(lambda queue, token: queue.release(token))
        if each:
            self.model.ready[each["priority"]].insert(0, each)

    def extend(self):
        if self.model.held:
            assert self.view().extend(self.some_token(), 7200) is not None

    def settle_again(self):
        if self.settled:
            token = self.random.choice(self.settled)
            assert self.view().ack(token) is False
            assert self.view().nack(token) is False

    def redrive(self):
        view, limit = self.view(), self.random.choice([None, 1, 3])
        room = max(0, self.model.size - self.model.total())
        expected = min(len(self.model.dead), room, limit or 1000)
        assert view.client.call("dlq_redrive", agent=view.agent, limit=limit) == expected
        for each in self.model.dead[:expected]:
            each["attempts"] = 0
            self.model.to_tail(each)
        del self.model.dead[:expected]

    def purge(self):
        view = self.view()
        ready, later, _, _ = self.model.counts()
        assert view.client.call("purge", agent=view.agent) == ready + later
        self.model.ready = {9: [], 5: [], 1: []}
        self.model.later = []

    def look(self):
        view = self.view()
        assert view.counts() == self.model.counts()
        assert view.peek(limit=1000) == [each["id"] for each in self.model.in_order()]
        dead = [each["queue_message"]["message"]["message_id"] for each in view.dead(limit=7)]
        assert dead == [each["id"] for each in self.model.dead]

    def go(self, steps):
        weights = {
            self.send: 30,
            self.receive: 16,
            self.ack: 10,
            self.nack: 10,
            self.release: 8,
            self.extend: 4,
            self.settle_again: 3,
            self.redrive: 3,
            self.purge: 1,
            self.look: 12,
        }
        choices = self.random.choices(list(weights), list(weights.values()), k=steps)
        for i, step in enumerate(choices):
            try:
                step()
            except AssertionError as error:
                raise AssertionError(f"step {i}, {step.__name__}: {error}") from error
        self.look()


@pytest.mark.parametrize("seed", range(8))
def test_a_random_life_goes_as_the_model_says(queue, other, seed):
    Walk(queue, [other], seed).go(800)


def test_a_random_life_goes_the_same_through_two_brokers(queue, redis, make_broker):
    second = make_broker(redis).start()
    Walk(queue, [queue.at(second.connect())], 99).go(800)
