#!/usr/bin/python3
"""How many messages a program gets through the Python package: client_python.py URL lifecycle|send asyncio|blocking WINDOW SECONDS

WINDOW chains run side by side over one connection, as in client_coord.c. One line of JSON tells what was done.
"""

import asyncio
import itertools
import json
import sys
import time
import uuid

from tta_agent_coordination import Connection
from tta_agent_coordination.blocking import Client

SENDER, QUEUE = {"type": "bench"}, {"type": "bench-queue"}
PAYLOAD = {"body": bytes(256)}
run = uuid.uuid4().hex  # the ids of another run are remembered for a minute
serial = itertools.count(1)


def message():
    return {"message_id": f"{run}-{next(serial)}", "message_type": "request", "payload": PAYLOAD}


async def chain(connection, what, ends):
    messages = 0
    while time.monotonic() < ends:
        sent = await connection.call("send", sender=SENDER, recipient=QUEUE, message=message())
        assert sent["delivered"]
        if what == "lifecycle":
            received = await connection.call("receive", agent=QUEUE, visibility_timeout=60)
            assert await connection.call("ack", agent=QUEUE, token=received["token"])
        messages += 1
    return messages


async def chains(url, what, window, seconds):
    async with Connection(url) as connection:
        await connection.call("ping")
        began, cpu = time.monotonic(), time.process_time()
        counts = await asyncio.gather(*(chain(connection, what, began + seconds) for _ in range(window)))
        return sum(counts), time.monotonic() - began, time.process_time() - cpu


def blocking(client, what, seconds):
    messages, began, cpu = 0, time.monotonic(), time.process_time()
    while time.monotonic() < began + seconds:
        assert client.call("send", sender=SENDER, recipient=QUEUE, message=message())["delivered"]
        if what == "lifecycle":
            received = client.call("receive", agent=QUEUE, visibility_timeout=60)
            assert client.call("ack", agent=QUEUE, token=received["token"])
        messages += 1
    return messages, time.monotonic() - began, time.process_time() - cpu


def main(url, what, style, window, seconds):
    with Client(url) as client:
        client.call("configure", agent=QUEUE, queue_size=1_000_000_000)
        if style == "asyncio":
            result = asyncio.run(chains(url, what, int(window), float(seconds)))
        else:
            result = blocking(client, what, float(seconds))
        left = client.call("queue_stats", agent=QUEUE)["size"]
        client.call("purge", agent=QUEUE)
    print(json.dumps(dict(zip(("messages", "seconds", "cpu"), result), left=left)))


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    main(*sys.argv[1:])
