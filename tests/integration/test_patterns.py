"""The programs of docs/patterns, run from a shell as their readers would, and what docs/PATTERNS.md quotes of them."""

import hashlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from harness import REPO, Queue, wait_for_time, wait_until, within

DIRECTORY = REPO / "docs" / "patterns"
PAGE = REPO / "docs" / "PATTERNS.md"
PROGRAMS = sorted(path.name for path in DIRECTORY.glob("*.py") if path.name != "coordd.py")


class Program:
    """One of the programs, in a process group of its own: its model is a child."""

    def __init__(self, url, log, name, *arguments):
        self.log = log
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-B", str(DIRECTORY / name), *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "COORDCTL_SERVER": url},
                start_new_session=True,
            )

    def text(self):
        return self.log.read_text()

    def lines(self):
        return self.text().splitlines()

    def says(self, line, limit=10):
        """Wait until it has printed that line."""
        try:
            wait_until(lambda: line in self.lines(), limit, f"the line {line!r}")
        except AssertionError as late:
            raise AssertionError(f"{late}; it printed:\n{self.text()}") from None

    def kill(self):
        """kill -9 of the program alone; the model that it runs does not notice."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        """SIGTERM, and its exit status."""
        self.process.terminate()
        return self.process.wait(within(10))

    def ended(self):
        return self.process.wait(within(10))

    def clear(self):
        self.kill()
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


class Shell:
    """Starts programs, and knows one broker."""

    def __init__(self, broker, directory):
        self.broker, self.directory = broker, directory
        self.url = f"unix://{broker.unix_path}"
        self.client = broker.connect()
        self.programs = []

    def start(self, name, *arguments):
        log = self.directory / f"{len(self.programs)}.log"
        self.programs.append(Program(self.url, log, name, *arguments))
        return self.programs[-1]

    def run(self, name, *arguments):
        """Run it to its end; the lines that it printed."""
        program = self.start(name, *arguments)
        assert program.ended() == 0, program.text()
        return program.lines()

    def queue(self, kind, instance="default"):
        return Queue(self.client, {"type": kind, "instance": instance})

    def file(self, name):
        return self.directory / name

    def upper_unless(self, obstacle, then):
        """A model that shouts; while the file `obstacle` is there it does `then` instead."""
        return f"while test -e '{self.file(obstacle)}'; do {then}; done; tr a-z A-Z"


@pytest.fixture
def shell(own, tmp_path):
    shell = Shell(own(), tmp_path)
    yield shell
    for program in shell.programs:
        program.clear()


def empties(queue, limit=10):
    wait_until(lambda: queue.stats()["size"] == 0, limit, "the queue is empty")
    assert queue.stats()["dead"] == 0


# ---------------------------------------------------------------------------------------------
# The page


def test_what_the_page_quotes_is_in_the_programs():
    program, quotes = None, 0
    page = PAGE.read_text()
    for link, block in re.findall(r"\(patterns/(\w+\.py)\)|^```python\n(.*?)^```", page, re.M | re.S):
        if link:
            program = (DIRECTORY / link).read_text()
            continue
        quotes += 1
        # What is quoted may stand further left than in the program.
        indents = [textwrap.indent(block, " " * n, lambda line: line.strip()) for n in range(0, 17, 4)]
        assert any(f"\n{each}" in program for each in indents), f"no longer so:\n{block}"
    assert quotes >= len(PROGRAMS)


def test_the_page_names_every_program_and_the_readme_the_page():
    page = PAGE.read_text()
    for name in [*PROGRAMS, "coordd.py"]:
        assert f"(patterns/{name})" in page, name
    assert "(docs/PATTERNS.md)" in (REPO / "README.md").read_text()


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_program_says_how_it_is_used(shell, name):
    program = shell.start(name)
    assert program.ended() == 1
    first, empty, *usage = program.lines()
    assert first.endswith(".") and empty == "" and all(each.startswith(name) for each in usage)
    assert len(usage) >= 2
    program = shell.start(name, "no-such-command")
    assert program.ended() == 1 and program.lines()[0] == first


def test_without_a_broker_a_program_ends_and_says_so(shell):
    shell.url = "unix:///nowhere/coordd.sock"
    program = shell.start("short_jobs.py", "work")
    assert program.ended() == 1
    assert re.fullmatch(r"\S*short_jobs.py: \[Errno 2\] No such file or directory\n", program.text())


# ---------------------------------------------------------------------------------------------
# pool


def test_a_pool_answers_and_a_killed_workers_job_is_anothers_within_seconds(shell):
    jobs = shell.queue("llm")
    shell.file("hold").touch()
    first = shell.start("pool.py", "work", "w1", shell.upper_unless("hold", "sleep 0.05"))
    shell.run("pool.py", "ask", "a heron")
    wait_until(lambda: jobs.stats()["reserved"] == 1, 5, "the job is taken")
    second = shell.start("pool.py", "work", "w2", "tr a-z A-Z")
    shell.run("pool.py", "ask", "a crane")
    second.says("a crane: exit status 0")
    # Longer than its ttl: the first one still works, and keeps its job.
    wait_for_time(time.monotonic() + 12)
    assert jobs.counts() == (0, 0, 1, 0)

    killed = time.monotonic()
    first.kill()
    second.says("a heron: exit status 0", 20)
    assert time.monotonic() - killed < 10 + within(2)  # its ttl, and a sweep
    empties(jobs)
    assert sorted(shell.run("pool.py", "answers", 2)) == ["a crane: A CRANE", "a heron: A HERON"]
    empties(shell.queue("answers"))


def test_a_worker_that_is_stopped_hands_its_job_back_unharmed(shell):
    jobs = shell.queue("llm")
    jobs.configure(retry_attempts=0)  # one failure and it is dead
    shell.file("hold").touch()
    worker = shell.start("pool.py", "work", "w1", shell.upper_unless("hold", "sleep 0.05"))
    shell.run("pool.py", "ask", "a heron")
    wait_until(lambda: jobs.stats()["reserved"] == 1, 5, "the job is taken")
    assert worker.stop() == 0
    wait_until(lambda: jobs.counts() == (1, 0, 0, 0), 3, "it is back")
    assert jobs.take_one().attempts == 0


def test_a_worker_started_again_ends_the_leases_of_its_predecessor(shell):
    jobs = shell.queue("llm")
    shell.file("hold").touch()
    slow = shell.upper_unless("hold", "sleep 0.05")
    first = shell.start("pool.py", "work", "w1", slow)
    shell.run("pool.py", "ask", "a heron")
    wait_until(lambda: jobs.stats()["reserved"] == 1, 5, "the job is taken")
    first.kill()
    shell.file("hold").unlink()
    began = time.monotonic()
    shell.start("pool.py", "work", "w1", slow).says("a heron: exit status 0", 5)
    assert time.monotonic() - began < within(5)  # and not its ttl
    empties(jobs)


def test_a_model_that_fails_is_tried_again(shell):
    jobs = shell.queue("llm")
    jobs.configure(backoff_base=0.1)
    shell.file("broken").touch()
    worker = shell.start("pool.py", "work", "w1", shell.upper_unless("broken", "exit 3"))
    shell.run("pool.py", "ask", "a heron")
    worker.says("a heron: exit status 3")
    shell.file("broken").unlink()
    worker.says("a heron: exit status 0")
    empties(jobs)


# ---------------------------------------------------------------------------------------------
# short jobs


def texts_of(program):
    return [line.rpartition(" ")[0] for line in program.lines()]


def test_short_jobs_are_all_done_though_a_worker_is_killed(shell):
    jobs = shell.queue("digests")
    first, second = (shell.start("short_jobs.py", "work", "0.002") for _ in range(2))
    wait_until(lambda: jobs.stats()["consumers"] == 2, 5, "both are there")
    assert shell.run("short_jobs.py", "send", 1020) == ["1000 sent", "20 sent"]
    wait_until(lambda: len(first.lines()) > 50 and len(second.lines()) > 50, 10, "both work")
    first.kill()
    empties(jobs, 30)
    done, wanted = texts_of(first) + texts_of(second), {f"text {n}" for n in range(1020)}
    assert set(done) == wanted
    assert len(done) - len(wanted) <= 50  # at most what the killed one had ahead was done twice
    for line in second.lines():
        text, _, digest = line.rpartition(" ")
        assert hashlib.sha256(text.encode()).hexdigest() == digest


def test_a_consumer_that_is_stopped_gives_back_what_it_had_not_begun(shell):
    jobs = shell.queue("digests")
    jobs.configure(retry_attempts=0)
    worker = shell.start("short_jobs.py", "work", "0.02")
    shell.run("short_jobs.py", "send", 200)
    wait_until(lambda: len(worker.lines()) > 5, 10, "it works")
    assert worker.stop() == 0
    ready, delayed, reserved, dead = jobs.counts()
    assert (ready, delayed, reserved, dead) == (200 - len(worker.lines()), 0, 0, 0)
    rest = jobs.drain()
    assert {each.attempts for each in rest} == {0}
    payloads = [each.message["payload"]["text"] for each in rest]
    assert texts_of(worker) + payloads == [f"text {n}" for n in range(200)]


# ---------------------------------------------------------------------------------------------
# breaker


def test_a_breaker_that_one_worker_opens_holds_back_the_other(shell):
    jobs = shell.queue("prompts")
    jobs.configure(backoff_base=0.1)
    config = {"failure_threshold": 3, "timeout_seconds": 2, "half_open_max_calls": 1}
    shell.client.call("breaker_configure", name="model", config=config)
    shell.file("down").touch()
    calls = shell.file("calls")
    command = f"echo >>'{calls}'; {shell.upper_unless('down', 'exit 1')}"
    workers = [shell.start("breaker.py", "work", command) for _ in range(2)]
    shell.run("breaker.py", "ask", "one", "two", "three", "four")

    def is_open():
        info = shell.client.call("breaker_get", name="model")
        return info and info["state"] == "open"

    wait_until(is_open, 10, "the breaker opens")
    made = len(calls.read_text())
    assert 3 <= made <= 4  # the one that was under way when the third failed
    for worker in workers:
        wait_until(lambda: "the breaker is open" in worker.text(), 5, "it waits")
    shell.file("down").unlink()
    empties(jobs)
    answers = [line for worker in workers for line in worker.lines() if "breaker" not in line]
    good = sorted(line for line in answers if not line.endswith("failure"))
    assert good == ["four: FOUR", "one: ONE", "three: THREE", "two: TWO"]
    wait_until(lambda: not is_open(), 5, "the breaker closes")


def test_a_probe_that_is_killed_does_not_hold_the_breaker_for_ever(shell):
    jobs = shell.queue("prompts")
    jobs.configure(backoff_base=0.1)
    config = {"failure_threshold": 1, "timeout_seconds": 1, "half_open_max_calls": 1}
    config |= {"recovery_timeout_seconds": 2, "success_threshold": 1}
    shell.client.call("breaker_configure", name="model", config=config)
    shell.client.call("breaker_trip", name="model")
    shell.file("hold").touch()
    worker = shell.start("breaker.py", "work", shell.upper_unless("hold", "sleep 0.05"))
    shell.run("breaker.py", "ask", "one", "two")

    def state():
        return shell.client.call("breaker_get", name="model")["state"]

    wait_until(lambda: state() == "half_open", 10, "the probe is made")
    worker.kill()
    second = shell.start("breaker.py", "work", "tr a-z A-Z")
    second.says("two: TWO", 20)
    wait_until(lambda: state() == "closed", 5, "the breaker closes")


# ---------------------------------------------------------------------------------------------
# rate limit


def test_workers_share_a_rate_limit(shell):
    shell.run("rate_limit.py", "permits", 3, 1)
    calls = shell.file("calls")
    for _ in range(2):
        shell.start("rate_limit.py", "work", f"date +%s.%N >>'{calls}'; cat")
    shell.run("rate_limit.py", "ask", *map(str, range(9)))
    empties(shell.queue("limited"), 20)
    times = sorted(map(float, calls.read_text().split()))
    assert len(times) == 9
    # The third call after one has its permit a second after that one had it; the model began a moment later.
    assert all(later - earlier > 0.3 for earlier, later in zip(times, times[3:])), times
    assert 1.2 < times[8] - times[0] < 2 + within(2), times
    assert shell.queue("permits", "limited").stats()["size"] == 3


def test_permits_given_anew_replace_the_old_ones(shell):
    permits = shell.queue("permits", "limited")
    shell.run("rate_limit.py", "permits", 5, 60)
    shell.run("rate_limit.py", "permits", 2, 0.5)
    assert permits.counts() == (2, 0, 0, 0)
    assert permits.take_one().message["payload"] == {"seconds": 0.5}


def test_too_many_requests_are_no_failure_of_the_job(shell):
    jobs = shell.queue("limited")
    jobs.configure(retry_attempts=0)  # one failure and it is dead
    shell.run("rate_limit.py", "permits", 5, 0.1)
    shell.file("busy").touch()
    worker = shell.start("rate_limit.py", "work", shell.upper_unless("busy", "exit 75"))
    shell.run("rate_limit.py", "ask", "heron")
    worker.says("heron: exit status 75")
    shell.file("busy").unlink()
    wait_until(lambda: jobs.counts() == (0, 1, 0, 0), 1, "it waits")
    worker.says("heron: HERON")
    empties(jobs)


# ---------------------------------------------------------------------------------------------
# dead letters


def test_dead_letters_are_seen_and_redriven(shell):
    jobs = shell.queue("documents")
    alarm = shell.start("dead_letters.py", "alarm")
    alarm.says("watching")
    answer = f"test -e '{shell.file('mended')}' && echo fine"
    worker = shell.start("dead_letters.py", "work", f'read text; test "$text" != nonsense || exit 65; {answer}')
    shell.run("dead_letters.py", "send", "nonsense", "one", "two")
    wait_until(lambda: jobs.stats()["dead"] == 3, 10, "all are dead")

    assert worker.lines().count("nonsense: exit status 65") == 1
    assert worker.lines().count("one: exit status 1") == 3
    lines = shell.run("dead_letters.py", "dead")
    ids = [line.split(" ")[0] for line in lines]
    assert [line.partition(" ")[2] for line in lines] == [
        "nonsense permanent bad input",
        "one attempts exit status 1",
        "two attempts exit status 1",
    ]
    wait_until(lambda: len(alarm.lines()) == 4, 5, "the alarm rings")
    told = [line.split() for line in alarm.lines()[1:]]
    assert [(kind, reason) for kind, _, reason in told] == [
        ("documents", "permanent"),
        ("documents", "attempts"),
        ("documents", "attempts"),
    ]

    shell.file("mended").touch()
    assert shell.run("dead_letters.py", "redrive", ids[1], ids[2]) == ["2 redriven"]
    worker.says("one: fine")
    worker.says("two: fine")
    wait_until(lambda: jobs.counts() == (0, 0, 0, 1), 5, "one is left")
    assert shell.run("dead_letters.py", "dead") == lines[:1]
    assert shell.run("dead_letters.py", "redrive") == ["1 redriven"]
    wait_until(lambda: jobs.counts() == (0, 0, 0, 1), 5, "it is dead again")
    assert worker.lines().count("nonsense: exit status 65") == 2


def test_more_dead_letters_than_a_page(shell):
    jobs = shell.queue("documents")
    for n in range(120):
        jobs.kill(f"m{n}", payload={"text": f"text{n}"})
    assert [line.split()[1] for line in shell.run("dead_letters.py", "dead")] == [
        f"text{n}" for n in range(120)
    ]


# ---------------------------------------------------------------------------------------------
# request and reply


def test_a_question_is_answered(shell):
    shell.start("request_reply.py", "serve", "tr a-z A-Z")
    assert shell.run("request_reply.py", "ask", "ann", "hello") == ["HELLO"]
    asking = [shell.start("request_reply.py", "ask", name, name) for name in ("bob", "eve")]
    assert [each.ended() for each in asking] == [0, 0]
    assert [each.text() for each in asking] == ["BOB\n", "EVE\n"]
    empties(shell.queue("oracle"))
    empties(shell.queue("asker", "bob"))


def test_a_killed_servers_question_is_answered_by_another_at_once(shell):
    questions = shell.queue("oracle")
    shell.file("hold").touch()
    first = shell.start("request_reply.py", "serve", shell.upper_unless("hold", "sleep 0.05"))
    asker = shell.start("request_reply.py", "ask", "ann", "hello")
    wait_until(lambda: questions.stats()["reserved"] == 1, 5, "it is being worked on")
    shell.start("request_reply.py", "serve", "tr a-z A-Z")
    first.kill()
    assert asker.ended() == 0
    assert asker.text() == "HELLO\n"


def test_an_answer_that_came_too_late_is_not_taken_for_another(shell):
    given_up = shell.start("request_reply.py", "ask", "ann", "old")
    wait_until(lambda: shell.queue("oracle").stats()["size"] == 1, 5, "it has asked")
    given_up.kill()
    shell.start("request_reply.py", "serve", "tr a-z A-Z")
    wait_until(lambda: shell.queue("asker", "ann").stats()["size"] == 1, 5, "the late answer")
    assert shell.run("request_reply.py", "ask", "ann", "new") == ["NEW"]
    empties(shell.queue("asker", "ann"))


def test_a_question_that_names_no_queue_is_a_dead_letter(shell):
    questions = shell.queue("oracle")
    shell.start("request_reply.py", "serve", "cat")
    questions.send(payload={"text": "hello"})
    wait_until(lambda: questions.counts() == (0, 0, 0, 1), 5, "it is dead")
    assert shell.run("request_reply.py", "ask", "ann", "hello") == ["hello"]


# ---------------------------------------------------------------------------------------------
# fan-out


def test_what_is_published_and_broadcast_reaches_every_listener(shell):
    listeners = [shell.start("fan_out.py", "listen", name) for name in ("ann", "bob")]
    for listener, name in zip(listeners, ("ann", "bob")):
        listener.says(f"{name} listens")
    assert shell.run("fan_out.py", "publish", "rain") == ["ann has it", "bob has it"]
    assert shell.run("fan_out.py", "broadcast", "sun") == ["ann has it", "bob has it"]
    for listener, name in zip(listeners, ("ann", "bob")):
        listener.says(f"{name}: rain")
        listener.says(f"{name}: sun")

    assert listeners[0].stop() == 0  # it deregisters: neither subscribed nor there any more
    assert shell.run("fan_out.py", "publish", "snow") == ["bob has it"]
    assert shell.run("fan_out.py", "broadcast", "hail") == ["bob has it"]
    listeners[1].says("bob: hail")
    assert listeners[1].lines() == ["bob listens", "bob: rain", "bob: sun", "bob: snow", "bob: hail"]


def test_a_killed_listener_gets_what_was_published_meanwhile(shell):
    listener = shell.start("fan_out.py", "listen", "ann")
    listener.says("ann listens")
    listener.kill()
    assert shell.run("fan_out.py", "publish", "rain") == ["ann has it"]
    shell.start("fan_out.py", "listen", "ann").says("ann: rain")


# ---------------------------------------------------------------------------------------------
# exactly once


def balance(shell):
    return int(shell.run("exactly_once.py", "balance", shell.file("book"))[0])


def fence(shell):
    """That of the one payment, as soon as somebody has begun it."""
    try:
        with sqlite3.connect(f"file:{shell.file('book')}?mode=ro", uri=True) as book:
            row = book.execute("select fence from payment").fetchone()
            return row and row[0]
    except sqlite3.OperationalError:
        return None  # there is no book yet


def has_socket(program):
    try:
        fds = Path(f"/proc/{program.process.pid}/fd")
        return any(os.readlink(each).startswith("socket:") for each in fds.iterdir())
    except FileNotFoundError:
        return False  # one was closed meanwhile


def test_a_payment_sent_twice_is_paid_once(shell):
    worker = shell.start("exactly_once.py", "work", shell.file("book"), "true")
    assert shell.run("exactly_once.py", "pay", "invoice-7", 250) == ["sent"]
    worker.says("invoice-7 is paid")
    assert shell.run("exactly_once.py", "pay", "invoice-7", 250) == ["it was there already"]
    assert shell.run("exactly_once.py", "pay", "invoice-8", 1) == ["sent"]
    worker.says("invoice-8 is paid")
    # Sent again when the broker has forgotten it: the book has not.
    shell.queue("payments").send("invoice-7", payload={"cents": 250})
    worker.says("invoice-7 was done before")
    empties(shell.queue("payments"))
    assert balance(shell) == 251


def test_a_sender_outlives_its_broker(shell):
    shell.broker.signal(signal.SIGSTOP)
    sender = shell.start("exactly_once.py", "pay", "invoice-7", 250)
    wait_until(lambda: has_socket(sender), 10, "it has connected")
    shell.broker.kill()
    shell.broker.close_clients()
    shell.broker.start()
    shell.client = shell.broker.connect()
    assert sender.ended() == 0
    assert sender.text() == "sent\n"
    assert shell.queue("payments").counts() == (1, 0, 0, 0)


def test_a_worker_killed_and_a_broker_killed_in_the_middle_pay_once(shell):
    shell.file("hold").touch()
    slow = f"while test -e '{shell.file('hold')}'; do sleep 0.05; done"
    first = shell.start("exactly_once.py", "work", shell.file("book"), slow)
    shell.run("exactly_once.py", "pay", "invoice-7", 250)
    begun = wait_until(lambda: fence(shell), 5, "it is begun")
    first.kill()

    second = shell.start("exactly_once.py", "work", shell.file("book"), slow)
    payments = shell.queue("payments")
    wait_until(lambda: fence(shell) > begun, 15, "another has taken it over")
    # Between the effect and the ack: the broker is not there to be told.
    shell.broker.kill()
    shell.file("hold").unlink()
    second.says("invoice-7 is paid")
    assert balance(shell) == 250
    second.kill()
    shell.broker.close_clients()
    shell.broker.start()
    shell.client = shell.broker.connect()
    third = shell.start("exactly_once.py", "work", shell.file("book"), slow)
    third.says("invoice-7 was done before", 20)
    empties(payments.at(shell.client))
    assert balance(shell) == 250


def test_a_late_worker_is_refused_by_its_fence(shell):
    shell.file("hold").touch()
    shell.file("hold 2").touch()
    slow = "while test -e '{}'; do sleep 0.05; done".format
    late = shell.start("exactly_once.py", "work", shell.file("book"), slow(shell.file("hold")))
    shell.run("exactly_once.py", "pay", "invoice-7", 250)
    begun = wait_until(lambda: fence(shell), 5, "it is begun")
    other = shell.start("exactly_once.py", "work", shell.file("book"), slow(shell.file("hold 2")))
    wait_until(lambda: fence(shell) > begun, 15, "the other has taken it over")
    shell.file("hold").unlink()
    late.says("invoice-7 was taken over by another worker")
    assert balance(shell) == 0
    shell.file("hold 2").unlink()
    other.says("invoice-7 is paid")
    empties(shell.queue("payments"))
    assert balance(shell) == 250
