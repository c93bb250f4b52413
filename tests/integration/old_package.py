"""What the Python package tta_agent_coordination leaves in Redis, made as it makes it.

Keys and formats are those that docs/MIGRATION.md lists; the order of the writes is the package's own, so that a crash between two of
them can be made, too.
"""

import json
import time
import uuid

from harness import fresh

PRIORITIES = (9, 5, 1)


def now_us():
    return int(time.time() * 1_000_000)


def agent(type, instance=None):
    return {"type": type, "instance": instance}


class OldPackage:
    """The queues of one key_prefix."""

    def __init__(self, redis, prefix=None):
        self.redis, self.prefix = redis, prefix or fresh("ao")

    def key(self, kind, to, priority=None):
        name = f"{self.prefix}:{kind}:{to['type']}:{to['instance'] or 'default'}"
        return name if priority is None else f"{name}:prio:{priority}"

    def message(self, to, message_id=None, sender=None, priority=5, **more):
        """An AgentMessage as model_dump() gives it."""
        return {
            "message_id": message_id or fresh("old"),
            "sender": sender or agent("producer", "one"),
            "recipient": to,
            "message_type": more.pop("message_type", "request"),
            "payload": more.pop("payload", {"n": 1}),
            "priority": priority,
            "timestamp": more.pop("timestamp", "2025-10-28T10:00:00.123456+00:00"),
            **more,
        }

    def queued(self, message, **over):
        """The JSON of a QueueMessage."""
        return json.dumps(
            {
                "message": message,
                "priority": message.get("priority", 5),
                "enqueued_at": "2025-10-28T10:00:01.000001+00:00",
                "delivery_attempts": 0,
                "last_error": None,
                **over,
            }
        )

    # -- what it does

    def send(self, to, at=None, message=None, **more):
        """The JSON that was stored."""
        text = self.queued(message or self.message(to, **more))
        self.redis.command("RPUSH", self.key("queue", to), text)
        self.put(to, text, at)
        return text

    def put(self, to, text, at=None, priority=None):
        """Into the sorted set alone."""
        priority = json.loads(text)["priority"] if priority is None else priority
        score = now_us() if at is None else at
        self.redis.command("ZADD", self.key("sched", to, priority), score, text)

    def reserve(self, to, text, deadline=None, token=None):
        """As receive() leaves it; `deadline` in microseconds, 0 for none."""
        token = token or f"res_{uuid.uuid4().hex[:16]}"
        for priority in PRIORITIES:
            self.redis.command("ZREM", self.key("sched", to, priority), text)
        self.redis.command("HSET", self.key("reserved", to), token, text)
        if deadline != 0:
            at = now_us() - 1_000_000 if deadline is None else deadline
            self.redis.command("ZADD", self.key("reserved_deadlines", to), at, token)
        return token

    def bury(self, to, message=None, attempts=4, error="it failed", **more):
        text = self.queued(
            message or self.message(to, **more), delivery_attempts=attempts, last_error=error
        )
        self.redis.command("RPUSH", self.key("dlq", to), text)
        return text

    def subscribe(self, to, *types):
        self.redis.command("SADD", self.key("subs", to), *types)

    def register(self, who, name="w"):
        info = {"name": name, "agent_id": who, "status": "idle", "last_heartbeat": time.time()}
        self.redis.command("SET", self.key("agents", who), json.dumps(info))
        self.redis.command("SADD", f"{self.prefix}:agents:index", self.key("agents", who))

    def breaker(self, name, state="open", since=None):
        value = {
            "state": state,
            "failure_count": 5,
            "half_open_calls": 0,
            "half_open_successes": 0,
            "last_failure_time": time.time(),
            "state_changed_at": time.time() if since is None else since,
            "updated_at": time.time(),
        }
        self.redis.command("SET", f"{self.prefix}:cb:state:{name}", json.dumps(value))
        self.redis.command("SADD", f"{self.prefix}:cb:registry", name)

    # -- what is there

    def keys(self):
        found, cursor = [], "0"
        while True:
            cursor, page = self.redis.command("SCAN", cursor, "MATCH", f"{self.prefix}:*", "COUNT", 1000)
            found += page
            if cursor == "0":
                return sorted(found)
