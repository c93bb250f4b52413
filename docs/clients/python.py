#!/usr/bin/python3
import itertools, socket, sys, uuid
import msgpack

class CoordError(Exception):
    pass

connection = socket.create_connection(("127.0.0.1", int(sys.argv[1] if sys.argv[1:] else 7420)))
unpacker, ids = msgpack.Unpacker(), itertools.count(1)
def call(method, **params):
    msgid = next(ids) % 2**32
    connection.sendall(msgpack.packb([0, msgid, method, [params]]))
    while True:
        for kind, number, *answer in unpacker:  # what is no answer to this is passed over
            if kind == 1 and number in (msgid, 0):  # 0: why the connection is about to be closed
                error, result = answer
                if error:
                    raise CoordError(f"{error['code']}: {error['message']}")
                return result
        unpacker.feed(connection.recv(65536) or sys.exit("the broker closed the connection"))
def notify(method, **params):
    connection.sendall(msgpack.packb([2, method, [params]]))

agent, queue = {"type": "worker", "instance": "python"}, {"type": "jobs", "instance": "python"}
call("register", agent=agent)
message = {"message_id": uuid.uuid4().hex, "message_type": "request", "payload": {"text": "hello"}}
print("delivered:", call("send", sender=agent, recipient=queue, message=message)["delivered"])
got = call("receive", agent=queue, wait=5, visibility_timeout=30)
print("received:", got["queue_message"]["message"]["payload"]["text"])
notify("heartbeat", agent=agent)  # between two pieces of work, every `heartbeat_interval` of the answer to `register`
print("acknowledged:", call("ack", agent=queue, token=got["token"]))
try:
    call("receive")
except CoordError as error:
    print(error)
call("deregister", agent=agent)
