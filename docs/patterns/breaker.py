#!/usr/bin/python3
"""A breaker around the model: while that is down, few calls try it, and the jobs wait unharmed.

breaker.py work COMMAND   a worker; COMMAND is the model: prompt on its stdin, answer on its stdout
breaker.py ask PROMPT...  one job for each prompt
"""
import time

import coordd

JOBS = {"type": "prompts"}
BREAKER = "model"  # one for all workers: what one of them finds, all of them know
CONFIG = {"failure_threshold": 3, "timeout_seconds": 30, "half_open_max_calls": 1}
MODEL_LIMIT = 60  # seconds; less than the job's visibility timeout


def work(command):
    broker = coordd.connect()
    while True:
        job = broker.call("receive", agent=JOBS, visibility_timeout=90, wait=60)
        if not job:
            continue
        asked = broker.call("breaker_acquire", name=BREAKER, config=CONFIG)
        if asked["permitted"]:
            do(broker, job, command, asked["permit"])
        else:  # back to the head of the queue, and no failure is counted
            broker.insist("release", agent=JOBS, token=job["token"])
            pause = min(asked["retry_after"] or 1, 10)
            print(f"the breaker is {asked['state']}, waiting {pause:.1f} s")
            time.sleep(pause)


def do(broker, job, command, permit):
    prompt = job["queue_message"]["message"]["payload"]["prompt"]
    answer, status = coordd.run(command, prompt, MODEL_LIMIT)
    outcome = "failure" if status else "success"
    broker.insist("breaker_report", name=BREAKER, permit=permit, outcome=outcome)
    if status:
        broker.insist("nack", agent=JOBS, token=job["token"], error=f"exit status {status}")
    else:
        broker.insist("ack", agent=JOBS, token=job["token"])
    print(f"{prompt}: {answer or outcome}")


def ask(*prompts):
    broker = coordd.connect()
    for prompt in prompts:
        broker.send({"type": "me"}, JOBS, {"prompt": prompt})


if __name__ == "__main__":
    coordd.main(work, ask)
