#!/usr/bin/python3
"""Dead letters: what cannot be done is put aside with its error, and given back when it can.

dead_letters.py work COMMAND     a worker; COMMAND exits with 65 when its input is bad for good
dead_letters.py send TEXT...     one job for each text
dead_letters.py dead             what is dead, and why
dead_letters.py redrive [ID...]  give these back to the workers, or all
dead_letters.py alarm            print each that dies, as it dies
"""
import coordd

JOBS = {"type": "documents"}
BAD_INPUT = 65  # EX_DATAERR


def work(command):
    broker = coordd.connect()
    # Three failures are enough, half a second apart and then a second.
    broker.call("configure", agent=JOBS, retry_attempts=2, backoff_base=0.5)
    while True:
        job = broker.call("receive", agent=JOBS, visibility_timeout=60, wait=60)
        if not job:
            continue
        mine = {"agent": JOBS, "token": job["token"]}
        text = job["queue_message"]["message"]["payload"]["text"]
        answer, status = coordd.run(command, text, 30)
        if status == 0:
            broker.insist("ack", **mine)
        elif status == BAD_INPUT:  # no other try would end better
            broker.insist("nack", **mine, failure="permanent", error="bad input")
        else:
            broker.insist("nack", **mine, error=f"exit status {status}")
        print(f"{text}: {answer or f'exit status {status}'}")


def send(*texts):
    broker = coordd.connect()
    for text in texts:
        broker.send({"type": "me"}, JOBS, {"text": text})


def dead(after=None):
    page = coordd.connect().call("dlq_list", agent=JOBS, after=after)
    for each in page["dead"]:
        queued = each["queue_message"]
        text = queued["message"]["payload"]["text"]
        print(each["id"], text, each["reason"], queued["last_error"])
    if page["after"]:
        dead(page["after"])


def redrive(*ids):
    print(coordd.connect().call("dlq_redrive", agent=JOBS, ids=ids or None), "redriven")


def alarm():
    broker = coordd.connect()
    broker.call("watch", events=["queue"])
    print("watching")
    for _, event in broker.notifications():
        if event["event"] == "message_dead":
            print(event["agent_id"]["type"], event["message_id"], event["reason"])
        elif event["event"] == "lost":
            print("some were missed: look with dead")


if __name__ == "__main__":
    coordd.main(work, send, dead, redrive, alarm)
