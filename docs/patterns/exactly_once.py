#!/usr/bin/python3
"""An effect exactly once: a second delivery, a late worker and a repeated send change nothing.

exactly_once.py pay NAME CENTS     send one payment; sent again it is still one
exactly_once.py work BOOK COMMAND  a worker; COMMAND does the slow part, BOOK is an SQLite file
exactly_once.py balance BOOK       what was paid
"""
import sqlite3

import coordd

JOBS = {"type": "payments"}
TIMEOUT = 3  # seconds for one payment

TABLES = """
create table if not exists payment (id text primary key, fence int, done int default 0);
create table if not exists account (balance int);
insert into account select 0 where not exists (select * from account);
"""
# Whoever begins with a higher fence takes the payment over, unless it is done.
BEGIN = """
insert into payment (id, fence) values (:id, :fence)
on conflict do update set fence = :fence where fence < :fence and not done
"""
FINISH = "update payment set done = 1 where id = :id and fence = :fence and not done"
PAY = "update account set balance = balance + :cents"


def pay(name, cents):
    # The name is the message's id, so whoever is not sure that it was sent can send it again.
    sent = coordd.connect().send({"type": "shop"}, JOBS, {"cents": int(cents)}, message_id=name)
    print("it was there already" if sent.get("duplicate") else "sent")


def work(path, command):
    broker, book = coordd.connect(), open_book(path)
    while True:
        job = broker.call("receive", agent=JOBS, visibility_timeout=TIMEOUT, wait=60)
        if job:
            message = job["queue_message"]["message"]
            print(message["message_id"], do(book, message, job["fence"], command))
            broker.insist("ack", agent=JOBS, token=job["token"])


def do(book, message, fence, command):
    this = {"id": message["message_id"], "fence": fence}
    with book:
        if not book.execute(BEGIN, this).rowcount:
            return "was done before"
    coordd.run(command, message["message_id"], 60)
    with book:  # one transaction: all of it or nothing
        if not book.execute(FINISH, this).rowcount:
            return "was taken over by another worker"
        book.execute(PAY, message["payload"])
    return "is paid"


def open_book(path):
    book = sqlite3.connect(path)
    book.executescript(TABLES)
    return book


def balance(path):
    print(*open_book(path).execute("select balance from account").fetchone())


if __name__ == "__main__":
    coordd.main(pay, work, balance)
