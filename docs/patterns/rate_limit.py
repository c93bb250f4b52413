#!/usr/bin/python3
"""A rate limit that all workers share: permits are messages, and come back some time after use.

rate_limit.py permits N SECONDS  from now on at most N calls in SECONDS
rate_limit.py work COMMAND       a worker; the model COMMAND exits with 75 for "too many requests"
rate_limit.py ask PROMPT...      one job for each prompt
"""
import coordd

JOBS, PERMITS = {"type": "limited"}, {"type": "permits", "instance": "limited"}
TOO_MANY = 75  # EX_TEMPFAIL, in the place of HTTP's 429 ...
RETRY_AFTER = 2  # ... and of its Retry-After
MODEL_LIMIT = 60


def permits(count, seconds):
    broker = coordd.connect()
    # Workers that die with one in hand are failures of that permit; it never becomes a dead letter.
    broker.call("configure", agent=PERMITS, retry_attempts=1000)
    broker.call("purge", agent=PERMITS)
    for _ in range(int(count)):
        broker.send({"type": "me"}, PERMITS, {"seconds": float(seconds)})


def take_permit(broker):
    """Wait for one, up to a minute, and let it come back when its time is over."""
    permit = broker.call("receive", agent=PERMITS, wait=60)
    if permit:
        seconds = permit["queue_message"]["message"]["payload"]["seconds"]
        broker.call("release", agent=PERMITS, token=permit["token"], delay=seconds)
    return permit


def work(command):
    broker = coordd.connect()
    while True:
        job = broker.call("receive", agent=JOBS, visibility_timeout=150, wait=60)
        if not job:
            continue
        mine = {"agent": JOBS, "token": job["token"]}
        if not take_permit(broker):
            broker.insist("release", **mine)  # to the head of the queue
            continue
        prompt = job["queue_message"]["message"]["payload"]["prompt"]
        answer, status = coordd.run(command, prompt, MODEL_LIMIT)
        if status == 0:
            broker.insist("ack", **mine)
        elif status == TOO_MANY:  # not the job's fault: no failure is counted
            broker.insist("release", **mine, delay=RETRY_AFTER)
        else:
            broker.insist("nack", **mine, error=f"exit status {status}")
        print(f"{prompt}: {answer or f'exit status {status}'}")


def ask(*prompts):
    broker = coordd.connect()
    for prompt in prompts:
        broker.send({"type": "me"}, JOBS, {"prompt": prompt})


if __name__ == "__main__":
    coordd.main(permits, work, ask)
