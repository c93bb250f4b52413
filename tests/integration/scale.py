"""Many messages, many queues, many connections: what they cost. test_scale.py does it small, tests/soak large."""

import os
import re
import resource
import time

from harness import QUEUE_STATS, Queue, check_shape, is_text, pack, within

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_of(*processes):
    """Seconds of processor time that they have taken."""
    total = 0
    for each in processes:
        with open(f"/proc/{each.pid}/stat", encoding="ascii") as stat:
            fields = stat.read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def resident(process):
    """Resident bytes."""
    with open(f"/proc/{process.pid}/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def held_by(redis):
    """Bytes that Redis has allocated for what it holds."""
    return int(re.search(r"^used_memory_dataset:(\d+)", redis.command("INFO", "memory"), re.M)[1])


# -- memory


def growth(samples):
    """Of the samples' last third over their middle third: (mean then, mean now, whether it is too much)."""
    third = len(samples) // 3
    assert third >= 3, "too few samples"
    middle, last = samples[third : 2 * third], samples[2 * third :]
    then, now = sum(middle) / len(middle), sum(last) / len(last)
    return then, now, now > then * 1.05 + (1 << 20)


def flow(queue, count, on_block, block=500):
    """`count` messages through a queue, a block at a time; each comes once and in its order."""
    client, sent = queue.client, 0
    ask = {"agent": queue.agent, "max": block, "visibility_timeout": 60}
    tokens = []
    while sent < count:
        names = [f"m{i}" for i in range(sent, sent + block)]
        messages = [
            {
                "recipient": queue.agent,
                "message": {"message_id": each, "message_type": "event", "payload": {"body": "x" * 200}},
            }
            for each in names
        ]
        calls = [("ack_batch", {"agent": queue.agent, "tokens": tokens})] if tokens else []
        calls += [("send_batch", {"sender": queue.sender, "messages": messages}), ("receive_batch", ask)]
        *acked, results, batch = client.results(client.submit_all(calls))
        assert all(map(all, acked)) and all(each["delivered"] for each in results)
        assert [each["queue_message"]["message"]["message_id"] for each in batch] == names
        tokens = [each["token"] for each in batch]
        sent += block
        on_block()
    assert all(client.call("ack_batch", agent=queue.agent, tokens=tokens))


# -- queues


def lifecycles(queues, together=1):
    """One message through each, closed loop, so many at once."""
    client = queues[0].client
    for at in range(0, len(queues), together):
        some = queues[at : at + together]
        sent = client.submit_all([("send", each.sending()) for each in some])
        assert all(each["delivered"] for each in client.results(sent))
        asked = client.submit_all([("receive", {"agent": each.agent}) for each in some])
        received = client.results(asked)
        tokens = [
            ("ack", {"agent": each.agent, "token": got["token"]})
            for each, got in zip(some, received)
        ]
        assert all(client.results(client.submit_all(tokens)))


def list_all(client, limit):
    """The instances of all queues that list_queues pages through."""
    names, after = [], None
    while True:
        page = client.call("list_queues", limit=limit, after=after)
        check_shape(page, {"queues": [QUEUE_STATS], "after": (None, is_text)})
        assert len(page["queues"]) <= limit
        names += [each["agent_id"]["instance"] for each in page["queues"]]
        after = page["after"]
        if after is None:
            return names


class ManyQueues:
    """Queues of a namespace of their own, and what a lifecycle costs in them."""

    def __init__(self, broker, redis, count):
        self.processes = (broker, redis)
        self.client = broker.connect(timeout=60)
        self.queues = [Queue(self.client, {"type": "many", "instance": f"q{i:06}"}) for i in range(count)]
        self.one = [Queue(self.client, {"type": "one"})] * count

    def cost(self, queues, together):
        """Microseconds of broker and Redis for each lifecycle."""
        before = cpu_of(*self.processes)
        lifecycles(queues, together)
        return (cpu_of(*self.processes) - before) / len(queues) * 1e6

    def check_list(self, limit=700):
        names = [each for each in list_all(self.client, limit) if each != "default"]
        assert names == [each.agent["instance"] for each in self.queues], "list_queues misses some"

    def are_forgotten(self, redis):
        return not list_all(self.client, 1000) and int(redis.command("DBSIZE")) < 10


# -- connections


def idle_connections(broker, count):
    """Open them; the clients, and bytes of the broker for each."""
    probe = broker.connect()
    assert probe.call("ping") == "pong"
    before = resident(broker)
    clients = [broker.connect() for _ in range(count)]
    assert clients[-1].call("ping") == "pong"  # by then all others were accepted
    return clients, (resident(broker) - before) / count


def all_answer(clients):
    begun = time.monotonic()
    for each in clients:
        each.send_bytes(pack([0, 7, "ping", []]))
    for each in clients:
        assert each.read_frame() == [1, 7, None, "pong"]
    assert time.monotonic() - begun < within(5 + len(clients) / 1000)


# -- agents


class ManyAgents:
    """Registered agents, each with a connection of its own, that beat."""

    def __init__(self, broker, count, ttl):
        self.agents = [{"type": "beating", "instance": f"a{i:06}"} for i in range(count)]
        self.clients, self.asked = [], []
        for agent in self.agents:
            self.clients.append(broker.connect())
            self.asked.append(self.clients[-1].submit("register", {"agent": agent, "ttl": ttl}))

    def beat(self, seconds, every):
        """Each beats once in `every`, evenly spread; how many heartbeats were answered."""
        count = len(self.clients)
        begun, beats = time.monotonic(), 0
        while True:
            due = min(int((time.monotonic() - begun) * count / every), int(seconds * count / every))
            for i in range(beats, due):
                client = self.clients[i % count]
                if self.asked[i % count] is not None:
                    assert client.result(self.asked[i % count])["ttl"]  # of the one before
                self.asked[i % count] = client.submit("heartbeat", {"agent": self.agents[i % count]})
            beats = due
            if time.monotonic() > begun + seconds:
                break
            time.sleep(0.002)
        for i, client in enumerate(self.clients):
            if self.asked[i] is not None:
                client.result(self.asked[i])
                self.asked[i] = None
        return beats
