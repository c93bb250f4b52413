#!/usr/bin/python3
"""Request and reply: a question names the queue that its answer goes to.

request_reply.py serve COMMAND      answer; COMMAND has the question on its stdin, prints the answer
request_reply.py ask NAME QUESTION  ask, and wait; NAME is the asker's, for one at a time
"""
import time

import coordd

SERVICE = {"type": "oracle"}
PATIENCE = 30  # seconds that an answer is waited for; no work is begun for an older question
# An asker waits for every second of it: when the server dies, the next one takes over at once.
LEASE = {"lease": "connection", "visibility_timeout": 60}


def ask(name, question):
    me = {"type": "asker", "instance": name}
    broker, end = coordd.connect(), time.monotonic() + PATIENCE
    asked = broker.send(me, SERVICE, {"text": question}, reply_to=me, ttl=PATIENCE)
    while (left := end - time.monotonic()) > 0:
        if got := broker.call("receive", agent=me, wait=left):
            broker.insist("ack", agent=me, token=got["token"])
            reply = got["queue_message"]["message"]
            if reply.get("correlation_id") == asked["message_id"]:
                print(reply["payload"]["text"])
                return
            # else it answers an earlier question, whose asker had given up
    raise TimeoutError("no answer")


def serve(command):
    broker = coordd.connect()
    while True:
        got = broker.call("receive", agent=SERVICE, **LEASE, wait=60)
        if not got:
            continue
        question = got["queue_message"]["message"]
        if not question.get("reply_to"):
            broker.insist("nack", agent=SERVICE, token=got["token"], failure="permanent")
            continue
        text, status = coordd.run(command, question["payload"]["text"], PATIENCE)
        if status:
            text = f"no answer, exit status {status}"
        reply = {"message_id": question["message_id"] + ".reply", "message_type": "response"}
        reply["correlation_id"] = question["message_id"]
        broker.send(SERVICE, question["reply_to"], {"text": text}, ttl=PATIENCE, **reply)
        broker.insist("ack", agent=SERVICE, token=got["token"])


if __name__ == "__main__":
    coordd.main(ask, serve)
