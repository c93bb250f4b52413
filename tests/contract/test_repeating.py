"""What becomes of calls when the connection breaks, the broker dies, or Redis is away."""

import re
import signal
import time

import pytest

from contract import url_of
from harness import REPO, Queue, Refused, fresh, wait_for_time, wait_until, within

METHODS = {
    found[1]: found[2].split(" | ")
    for found in re.finditer(
        r"^METHOD\((\w+), \w+, ([^,]+),", (REPO / "src/api/methods.def").read_text(), re.MULTILINE
    )
}
# Those of a connection are renewed by the libraries, which are tested with consumers and watches.
OF_A_CONNECTION = {"hello", "consume", "cancel", "watch", "unwatch", "close_connection"}
AGAIN = [each for each, flags in METHODS.items() if "AGAIN" in flags and each not in OF_A_CONNECTION]
ONCE = [each for each in METHODS if each not in AGAIN and each not in OF_A_CONNECTION]


def params_of(method, name):
    """Params with which `method` is answered, whatever was before."""
    agent = {"type": name, "instance": "i"}
    message = {"message_id": fresh("m"), "message_type": "event", "payload": {}}
    known = {
        "agent": agent,
        "sender": agent,
        "recipient": agent,
        "message": message,
        "messages": [{"recipient": agent, "message": message}],
        "message_types": ["event"],
        "subscription_id": "none",
        "max": 5,
        "token": "none",
        "tokens": ["none"],
        "visibility_timeout": 5,
        "name": name,
        "config": {},
        "permit": "none",
        "outcome": "success",
    }
    more = {"broadcast": {"recipients": [agent]}, "config_reload": {"dry_run": True}}
    row = re.search(rf"^METHOD\({method}, \w+, [^,]+, ([^,]+),", (REPO / "src/api/methods.def").read_text(), re.MULTILINE)
    return {**{key: known[key] for key in re.findall(r"F\((\w+)\)", row[1])}, **more.get(method, {})}


@pytest.fixture
def prepared(own, name):
    """A broker of the test's own, in which `name` is an agent and a breaker."""
    broker = own()
    client = broker.connect()
    client.call("register", agent={"type": name, "instance": "i"}, ttl=300)
    client.call("breaker_acquire", name=name)
    return broker


def test_the_table_says_what_may_be_asked_again():
    assert "send" in AGAIN and "receive" in AGAIN and "breaker_acquire" in ONCE and "purge" in ONCE


def test_what_may_be_asked_again_is_when_its_answer_was_lost(driver, prepared, make_proxy, name):
    proxy = make_proxy(prepared)
    connection = driver.connect(proxy.url, backoff_max=0.1)
    for method in AGAIN:
        proxy.eat_answers(method)
        before = proxy.count(method)
        connection.submit(method, params_of(method, name), timeout=20).result()
        assert proxy.count(method) == before + 2, method


def test_what_may_not_be_asked_again_fails_at_once(driver, prepared, make_proxy, name):
    proxy = make_proxy(prepared)
    connection = driver.connect(proxy.url, backoff_max=0.1)
    for method in ONCE:
        proxy.eat_answers(method)
        answer = connection.submit(method, params_of(method, name), timeout=20)
        assert answer.failure().shape == ("unavailable", True, "unknown"), method
        assert answer.took() < within(3), method
        assert connection.call("ping") == "pong"
        assert proxy.count(method) == 1, method
    # What the broker has done it did once.
    assert connection.call("breaker_list") == []


def test_a_lost_permit_is_not_taken_twice(driver, own, make_proxy, name):
    broker = own()
    proxy = make_proxy(broker)
    connection = driver.connect(proxy.url)
    for cut in (proxy.eat_answers, proxy.cut_requests):
        cut("breaker_acquire")
        failure = connection.submit("breaker_acquire", {"name": name}, timeout=20).failure()
        assert failure.shape == ("unavailable", True, "unknown")
    assert broker.connect().call("breaker_get", name=name)["total_calls"] == 1


def test_a_call_under_way_when_the_broker_is_killed_is_not_repeated(driver, start_redis, make_broker, name):
    redis = start_redis()
    broker = make_broker(redis, config={"redis": {"command_timeout": "15s"}}, expected_errors=("redis.",)).start()
    connection = driver.connect(url_of(broker))
    assert connection.call("ping") == "pong"
    redis.pause()
    once = connection.submit("breaker_acquire", {"name": name}, timeout=25)
    again = connection.submit("breaker_get", {"name": name}, timeout=25)
    assert connection.call("ping") == "pong"  # so the broker has them
    broker.kill()
    assert once.failure().shape == ("unavailable", True, "unknown")
    assert once.took() < within(5)
    redis.resume()
    broker.start()
    assert again.result() is None or again.result()["total_calls"] == 1
    info = broker.connect().call("breaker_get", name=name)
    assert info is None or info["total_calls"] == 1


def test_what_never_left_is_asked_for_every_method(driver, prepared, make_proxy, name):
    proxy = make_proxy(prepared)
    prepared.kill()
    proxy.is_shut = True  # until the broker has its Redis, before which it would answer `unavailable`
    connection = driver.connect(proxy.url, backoff_max=0.2)
    answers = {
        method: connection.submit(method, params_of(method, name), timeout=30) for method in AGAIN + ONCE
    }
    prepared.start()
    wait_until(lambda: prepared.connect().call("status")["redis"]["up"], what="its Redis")
    proxy.is_shut = False
    for method, answer in answers.items():
        answer.result()
        assert proxy.count(method) == 1, method


def test_sends_in_flight_when_the_broker_is_killed_are_stored_once_and_in_order(driver, own, name):
    broker = own()
    queue = Queue(None, {"type": name, "instance": "i"})
    connection = driver.connect(url_of(broker))
    assert connection.call("ping") == "pong"
    ids = [f"{name}-{i}" for i in range(2000)]
    answers = connection.submit_all([("send", queue.sending(each)) for each in ids])
    answers[20].line()
    broker.kill()
    answered = sum(each.is_there() for each in answers)
    broker.start()
    results = [each.result() for each in answers]
    assert [each["message_id"] for each in results] == ids
    assert all(each["delivered"] for each in results)
    assert answered < len(ids), "the kill came too late to prove anything"
    assert stored(broker, queue) == ids


def stored(broker, queue):
    """The ids of all there is in a queue, in order."""
    queue = queue.at(broker.connect())
    ids = []
    while batch := queue.take(1000, visibility_timeout=300):
        ids += [each.id for each in batch]
    return ids


def test_sends_whose_answers_were_lost_are_stored_once_and_in_order(driver, own, make_proxy, name):
    """The connection ends thrice in the middle; some sends were stored without an answer, some were not read."""
    broker = own()
    proxy = make_proxy(broker)
    queue = Queue(None, {"type": name, "instance": "i"})
    connection = driver.connect(proxy.url, backoff_max=0.1)
    assert connection.call("ping") == "pong"
    ids = [f"{name}-{i}" for i in range(300)]
    proxy.eat_answers("send", 3)
    answers = connection.submit_all([("send", queue.sending(each)) for each in ids])
    results = [each.result() for each in answers]
    assert all(each["delivered"] for each in results)
    assert any("duplicate" in each for each in results)
    assert stored(broker, queue) == ids


def test_sends_while_nothing_is_there_keep_their_order(driver, own, name):
    broker = own()
    broker.kill()
    queue = Queue(None, {"type": name, "instance": "i"})
    connection = driver.connect(url_of(broker), backoff_max=0.2)
    ids = [f"{name}-{i}" for i in range(100)]
    answers = connection.submit_all([("send", queue.sending(each)) for each in ids[:50]])
    broker.start()
    answers += connection.submit_all([("send", queue.sending(each)) for each in ids[50:]])
    assert all(each.result()["delivered"] for each in answers)
    assert stored(broker, queue) == ids


def test_a_dead_redis_is_waited_for_and_then_told(driver, start_redis, make_broker, make_proxy, name):
    redis = start_redis()
    broker = make_broker(redis, expected_errors=("redis.", "request.")).start()
    proxy = make_proxy(broker)
    queue = Queue(None, {"type": name, "instance": "i"})
    connection = driver.connect(proxy.url, backoff_max=0.5)
    assert connection.call("ping") == "pong"
    redis.kill()
    answer = connection.submit("send", queue.sending("m1"), timeout=1)
    failure = answer.failure()
    assert failure.code == "unavailable" and failure.retryable and failure.applied
    assert 0.9 < answer.took() < 1 + within(1)
    # It asked more than once, with pauses, over the one connection.
    assert 2 <= proxy.count("send") <= 20
    answers = [
        connection.submit("send", queue.sending("m2"), timeout=30),
        connection.submit("breaker_acquire", {"name": name}, timeout=30),
    ]
    wait_until(lambda: proxy.count("breaker_acquire") >= 2, what="the repetition of what was not applied")
    redis.start()
    assert answers[0].result()["delivered"]
    assert answers[1].result()["permitted"] is True
    assert len(proxy.connects) == 1
    assert stored(broker, queue)[-1] == "m2"
    assert broker.connect().call("breaker_get", name=name)["total_calls"] == 1


def test_sends_repeated_while_redis_is_away_keep_their_order(driver, start_redis, make_broker, name):
    redis = start_redis()
    broker = make_broker(redis, expected_errors=("redis.", "request.")).start()
    queue = Queue(None, {"type": name, "instance": "i"})
    connection = driver.connect(url_of(broker), backoff_max=0.2)
    assert connection.call("ping") == "pong"
    redis.kill()
    ids = [f"{name}-{i}" for i in range(200)]
    answers = connection.submit_all([("send", queue.sending(each)) for each in ids])
    redis.start()
    assert all(each.result()["delivered"] for each in answers)
    assert stored(broker, queue) == ids


def test_a_broker_that_stops_is_left_for_another(driver, two_brokers, name):
    """It is kept from its end by a message that somebody holds, and answers `shutting_down` meanwhile."""
    one, other = two_brokers
    agent = {"type": name, "instance": "i"}
    holder = Queue(one.connect(), agent)
    holder.send("held")
    held = holder.receive(lease="connection", visibility_timeout=60)
    connection = driver.connect(url_of(one), url_of(other))
    assert connection.call("ping") == "pong"
    parked = connection.submit("receive", {"agent": agent, "wait": 20}, timeout=30)
    assert connection.call("ping") == "pong"
    one.signal(signal.SIGTERM)

    def drains():
        try:
            holder.client.call("peek", agent=agent)
        except Refused as refused:
            return refused.code == "shutting_down"

    wait_until(drains, what="the drain")
    answer = connection.submit("breaker_acquire", {"name": name}, timeout=20)
    assert answer.result()["permitted"] is True
    assert answer.took() < within(5)
    Queue(other.connect(), agent).send("m")
    assert parked.result()["queue_message"]["message"]["message_id"] == "m"
    assert holder.ack(held)
    assert one.wait(10) == 0
    assert other.connect().call("breaker_get", name=name)["total_calls"] == 1


def test_nothing_fails_while_brokers_are_restarted_one_after_the_other(driver, two_brokers, name):
    queue = Queue(None, {"type": name, "instance": "i"})
    connection = driver.connect(*map(url_of, two_brokers))
    ids, answers = [], []

    def send(count):
        for _ in range(count):
            ids.append(fresh(name))
            answers.append(connection.submit("send", queue.sending(ids[-1])))

    send(50)
    for broker in two_brokers:
        broker.signal(signal.SIGTERM)
        send(50)
        assert broker.wait(20) == 0
        send(50)
        broker.start()
        send(50)
    assert all(each.result()["delivered"] for each in answers)
    assert stored(two_brokers[0], queue) == ids


def test_a_drained_broker_that_is_alone_is_asked_until_it_hands_out(driver, own, make_proxy, name):
    broker = own()
    proxy = make_proxy(broker)
    agent = {"type": name, "instance": "i"}
    client = broker.connect()
    Queue(client, agent).send("m")
    client.call("drain")
    connection = driver.connect(proxy.url, backoff_max=0.3)
    answer = connection.submit("receive", {"agent": agent}, timeout=25)
    wait_until(lambda: proxy.count("receive") >= 2, what="the repetition")
    assert len(proxy.connects) < 50
    client.call("undrain")
    assert answer.result()["queue_message"]["message"]["message_id"] == "m"


def test_a_deadline_covers_everything(driver, own):
    """A broker that does not answer, and nobody to go to."""
    broker = own()
    connection = driver.connect(url_of(broker))
    assert connection.call("ping") == "pong"
    broker.signal(signal.SIGSTOP)
    try:
        for timeout in (0.3, 1.2):
            answer = connection.submit("ping", timeout=timeout)
            failure = answer.failure()
            assert failure.retryable and failure.applied == "unknown"
            assert timeout - 0.05 <= answer.took() < timeout + within(1)
    finally:
        broker.signal(signal.SIGCONT)
    assert connection.call("ping") == "pong"


def test_a_late_answer_is_nobodys(driver, own):
    broker = own()
    connection = driver.connect(url_of(broker))
    connection.call("ping")
    broker.signal(signal.SIGSTOP)
    late = [connection.submit("breaker_acquire", {"name": fresh("b")}, timeout=0.2) for _ in range(20)]
    for each in late:
        each.failure()
    broker.signal(signal.SIGCONT)
    for each in connection.submit_all([("breaker_acquire", {"name": f"n{i}"}) for i in range(20)]):
        assert each.result()["permitted"] is True


def test_hundreds_of_calls_at_once(driver, broker, name):
    connection = driver.connect(url_of(broker))
    queue = Queue(None, {"type": name, "instance": "i"})
    calls = []
    for i in range(300):
        calls += [("ping", {}), ("send", queue.sending(f"m{i}")), ("breaker_acquire", {"name": f"{name}-{i % 7}"})]
    answers = connection.submit_all(calls)
    results = [each.result() for each in answers]
    assert results[::3] == ["pong"] * 300
    assert [each["message_id"] for each in results[1::3]] == [f"m{i}" for i in range(300)]
    assert all(each["permitted"] for each in results[2::3])


def test_more_parked_receives_than_a_broker_takes_are_all_answered(driver, broker, name):
    """It parks 256 of a connection, and says `overloaded` to more: those are asked again."""
    connection = driver.connect(url_of(broker), backoff_max=0.3)
    agent = {"type": name, "instance": "i"}
    answers = connection.submit_all([("receive", {"agent": agent, "wait": 1.0})] * 300, timeout=30)
    assert [each.result() for each in answers] == [None] * 300


def test_a_notification_is_obeyed_and_not_answered(driver, broker, client, name):
    agent = {"type": name, "instance": "i"}
    queue = Queue(client, agent)
    queue.send("m")
    connection = driver.connect(url_of(broker))
    connection.call("ping")
    connection.notify("ack", agent=agent, token=queue.receive(visibility_timeout=60).token)
    assert connection.call("ping") == "pong"
    wait_until(lambda: queue.stats()["reserved"] == 0, what="the ack")


def test_time_is_not_spent_on_what_is_over(driver, tmp_path):
    """Many calls with deadlines of their own, and nobody there."""
    connection = driver.connect(f"unix://{tmp_path}/nobody.sock")
    began = time.monotonic()
    answers = [connection.submit("ping", timeout=0.1 + i / 50) for i in range(50)]
    for i, each in enumerate(answers):
        each.failure()
        assert 0.1 + i / 50 - 0.05 <= each.took() < 0.1 + i / 50 + within(1)
    wait_for_time(began)
