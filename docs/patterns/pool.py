#!/usr/bin/python3
"""A pool of LLM workers: they share one queue, and keep a job for as long as they live.

pool.py work NAME COMMAND  a worker; COMMAND is the model: prompt on its stdin, answer on its stdout
pool.py ask PROMPT...      one job for each prompt
pool.py answers N          wait for N answers and print them
"""
import os
import signal
import sys
import threading
import time

import coordd

JOBS, ANSWERS = {"type": "llm"}, {"type": "answers"}
TTL = 10  # seconds without a heartbeat after which a worker is dead
MODEL_LIMIT = 900  # seconds; a model that takes longer hangs


def work(name, command):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    me = {"type": "llm", "instance": name}
    broker = coordd.connect()
    life = broker.call("register", agent=me, ttl=TTL)
    threading.Thread(target=beat, args=(life,), daemon=True).start()
    try:
        while True:
            job = broker.call("receive", agent=JOBS, lease="heartbeat", holder=me, wait=60)
            if job:
                do(broker, job, command)
    finally:  # what we hold goes to others at once, and counts no failure
        coordd.connect().call("deregister", agent=me)


def beat(life):
    """The pulse of this process: it stops when the process does, and the job goes to others."""
    pulse = {"agent": life["agent_id"], "incarnation": life["incarnation"]}
    try:
        heart = coordd.connect()
        while True:
            time.sleep(life["heartbeat_interval"])
            heart.insist("heartbeat", **pulse)
    except (OSError, coordd.CoordError) as problem:
        print(f"this job is somebody else's by now: {problem}", file=sys.stderr)
        os._exit(1)


def do(broker, job, command):
    message = job["queue_message"]["message"]
    prompt = message["payload"]["prompt"]
    answer, status = coordd.run(command, prompt, MODEL_LIMIT)
    if status == 0:
        payload = {"prompt": prompt, "answer": answer}
        broker.send(JOBS, ANSWERS, payload, message_id=message["message_id"] + ".answer")
        broker.insist("ack", agent=JOBS, token=job["token"])
    else:
        broker.insist("nack", agent=JOBS, token=job["token"], error=f"exit status {status}")
    print(f"{prompt}: exit status {status}")


def ask(*prompts):
    broker = coordd.connect()
    for prompt in prompts:
        broker.send(ANSWERS, JOBS, {"prompt": prompt})


def answers(count):
    broker = coordd.connect()
    for _ in range(int(count)):
        while not (got := broker.call("receive", agent=ANSWERS, wait=60)):
            pass
        payload = got["queue_message"]["message"]["payload"]
        print(f"{payload['prompt']}: {payload['answer']}")
        broker.insist("ack", agent=ANSWERS, token=got["token"])


if __name__ == "__main__":
    coordd.main(work, ask, answers)
