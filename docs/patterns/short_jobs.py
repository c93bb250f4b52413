#!/usr/bin/python3
"""Push for short jobs: the broker sends them as they come, ahead of need, so nobody waits for one.

short_jobs.py work [SECONDS]  a worker, whose jobs take SECONDS (0)
short_jobs.py send N          N jobs
"""
import hashlib
import signal
import threading
import time
import uuid

import coordd

JOBS = {"type": "digests"}
PREFETCH = 50  # the most jobs that one worker has; it does them one after the other ...
TIMEOUT = 30  # ... and the last of them has to be done in this many seconds


def work(seconds="0"):
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    broker = coordd.connect()
    consumer = broker.call("consume", agent=JOBS, prefetch=PREFETCH, visibility_timeout=TIMEOUT)
    while not stop.is_set():
        for _, job in broker.notifications(wait=0.5):
            text = job["queue_message"]["message"]["payload"]["text"]
            time.sleep(float(seconds))
            print(text, hashlib.sha256(text.encode()).hexdigest())
            broker.notify("ack", agent=JOBS, token=job["token"])
            if stop.is_set():
                break
    # What was not begun goes back to where it was, and counts no failure.
    broker.call("cancel", consumer_id=consumer["consumer_id"])


def send(count):
    broker, texts = coordd.connect(), [f"text {n}" for n in range(int(count))]
    while texts:
        batch, texts = [message(text) for text in texts[:1000]], texts[1000:]
        results = broker.insist("send_batch", sender={"type": "me"}, messages=batch)
        print(sum(each["delivered"] for each in results), "sent")


def message(text):
    content = {"message_id": uuid.uuid4().hex, "message_type": "request", "payload": {"text": text}}
    return {"recipient": JOBS, "message": content}


if __name__ == "__main__":
    coordd.main(work, send)
