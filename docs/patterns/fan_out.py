#!/usr/bin/python3
"""Fan-out: one message to everybody who subscribed to its type, or to all live agents of a type.

fan_out.py listen NAME     print what comes, until SIGTERM
fan_out.py publish TEXT    to all who subscribed to events
fan_out.py broadcast TEXT  to all listeners that are alive
"""
import signal
import sys
import uuid

import coordd

TTL = 10  # seconds without a heartbeat after which a listener is dead


def listen(name):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    me = {"type": "listener", "instance": name}
    broker = coordd.connect()
    life = broker.call("register", agent=me, ttl=TTL)
    broker.call("subscribe", agent=me, message_types=["event"])
    print(f"{name} listens")
    try:
        while True:
            got = broker.call("receive", agent=me, wait=life["heartbeat_interval"])
            broker.call("heartbeat", agent=me, incarnation=life["incarnation"])
            if got:
                print(f"{name}: {got['queue_message']['message']['payload']['text']}")
                broker.insist("ack", agent=me, token=got["token"])
    finally:  # this ends the subscription, too
        coordd.connect().call("deregister", agent=me)


def publish(text):
    show(coordd.connect().insist("publish", sender={"type": "me"}, message=event(text)))


def broadcast(text):
    sending = {"sender": {"type": "me"}, "message": event(text), "type": "listener"}
    show(coordd.connect().insist("broadcast", **sending))


def event(text):
    return {"message_id": uuid.uuid4().hex, "message_type": "event", "payload": {"text": text}}


def show(results):
    for each in results:
        print(each["recipient"]["instance"], each["error"] or "has it")


if __name__ == "__main__":
    coordd.main(listen, publish, broadcast)
