"""Consumers of both libraries: what they take, how they settle it, and what becomes of it when something dies."""

import time

import pytest

from contract import url_of
from harness import Queue, fresh, wait_for_time, wait_until, within


@pytest.fixture
def url(broker):
    return url_of(broker)


@pytest.fixture
def worker(driver, url, name):
    """Start an agent on a connection of its own."""

    def start(where=url, instance="w", of=driver, ttl=None, options=None, **registration):
        if ttl is not None:
            registration["ttl"] = ttl
        agent = of.connect(where, **(options or {})).agent(name, instance, **registration)
        agent.registered()
        return agent

    return start


@pytest.fixture
def jobs(client, name):
    """The queue that the workers share."""
    return Queue(client, {"type": name, "instance": "jobs"})


def is_empty(queue):
    stats = queue.stats()
    return stats["size"] == 0


# ---------------------------------------------------------------------------------------------
# Outcomes


def test_a_job_is_acked(worker, jobs):
    consumer = worker().consume(jobs.agent, then="ack")
    jobs.send("m", payload={"n": 1}, extra="kept")
    job = consumer.took()
    assert job.id == "m" and job.attempts == 0 and job.fence > 0
    assert job.message["payload"] == {"n": 1} and job.message["extra"] == "kept"
    wait_until(lambda: is_empty(jobs))
    assert jobs.stats()["dead"] == 0


def test_an_agents_own_queue_is_the_default(worker, client):
    agent = worker()
    consumer = agent.consume(then="ack")
    queue = Queue(client, agent.id)
    queue.send("m")
    assert consumer.took().id == "m"
    wait_until(lambda: is_empty(queue))


def test_a_job_is_tried_again_after_a_nack(worker, jobs):
    consumer = worker().consume(jobs.agent, then="nack", failure="transient", error="not today", delay=0.1)
    jobs.configure(retry_attempts=2)
    jobs.send("m")
    assert [each.attempts for each in consumer.wait_for_jobs(3)] == [0, 1, 2]
    dead = wait_until(lambda: jobs.client.call("dlq_list", agent=jobs.agent)["dead"])
    assert dead[0]["reason"] == "attempts" and dead[0]["queue_message"]["last_error"] == "not today"


def test_a_permanent_failure_is_a_dead_letter_at_once(worker, jobs):
    consumer = worker().consume(jobs.agent, then="nack", failure="permanent", error="never")
    jobs.send("m")
    dead = wait_until(lambda: jobs.client.call("dlq_list", agent=jobs.agent)["dead"])
    assert dead[0]["reason"] == "permanent" and dead[0]["queue_message"]["last_error"] == "never"
    assert len(consumer.jobs()) == 1


def test_a_released_job_comes_back_without_an_attempt(worker, jobs):
    consumer = worker().consume(jobs.agent, then="release", delay=0.05)
    jobs.send("m")
    assert [each.attempts for each in consumer.wait_for_jobs(3)] == [0, 0, 0]


def test_what_a_handler_did_not_expect_is_a_transient_failure(worker, jobs):
    jobs.configure(backoff_base=0.05)
    consumer = worker().consume(jobs.agent, then="raise")
    jobs.send("m")
    again = consumer.took(2)
    assert again.attempts == 1


# ---------------------------------------------------------------------------------------------
# Without an agent


def test_a_consumer_needs_no_agent(driver, url, jobs):
    consumer = driver.connect(url).consume(jobs.agent, concurrency=3)
    jobs.configure(backoff_base=0.05)
    jobs.send_all(["acked", "nacked", "released"])
    for job, then in zip(consumer.wait_for_jobs(3), ["ack", "nack", "release"]):
        job.finish(then)
    again = consumer.wait_for_jobs(5)[3:]
    assert {each.id: each.attempts for each in again} == {"nacked": 1, "released": 0}
    for job in again:
        job.finish("ack")
    wait_until(lambda: is_empty(jobs))


def test_its_jobs_are_lost_with_the_connection_and_come_again(driver, broker, make_proxy, jobs):
    proxy = make_proxy(broker)
    consumer = driver.connect(proxy.url, backoff_max=0.3).consume(jobs.agent)
    jobs.send("m")
    job = consumer.took()
    proxy.cut()
    job.wait_until_lost()
    again = consumer.took(2)
    assert again.id == "m" and again.attempts == 1 and again.fence > job.fence
    again.finish("ack")
    wait_until(lambda: is_empty(jobs))


# ---------------------------------------------------------------------------------------------
# Concurrency


@pytest.mark.parametrize("concurrency", [1, 4])
def test_never_more_jobs_at_once_than_wanted(worker, jobs, concurrency):
    ids = jobs.send_all([fresh("m") for _ in range(40)])
    consumer = worker().consume(jobs.agent, concurrency=concurrency, then="ack", after=0.02)
    consumer.wait_for_jobs(40)
    wait_until(lambda: is_empty(jobs))
    assert sorted(consumer.ids()) == sorted(ids)
    assert consumer.most_at_once() == concurrency
    if concurrency == 1:
        assert consumer.ids() == ids


def test_the_rest_stays_in_the_queue_for_others(worker, jobs):
    consumer = worker().consume(jobs.agent, concurrency=2)
    jobs.send_all([fresh("m") for _ in range(10)])
    consumer.wait_for_jobs(2)
    assert jobs.stats()["reserved"] == 2
    assert len(jobs.take(100)) == 8


def test_workers_of_both_libraries_share_a_queue(worker, pair, jobs):
    consumers = [
        worker(of=each, instance=f"w{i}").consume(jobs.agent, concurrency=2, then="ack", after=0.01)
        for i, each in enumerate(pair)
    ]
    ids = jobs.send_all([fresh("m") for _ in range(100)])
    wait_until(lambda: is_empty(jobs), 15)
    done = [each for consumer in consumers for each in consumer.ids()]
    assert sorted(done) == sorted(ids)
    assert all(consumer.ids() for consumer in consumers)


# ---------------------------------------------------------------------------------------------
# Leases


def test_a_heartbeat_keeps_a_job_for_many_ttls(worker, jobs):
    agent = worker(ttl=within(1))
    consumer = agent.consume(jobs.agent)
    jobs.send("m")
    job = consumer.took()
    wait_for_time(time.monotonic() + within(1) * 3.5)
    assert jobs.stats()["reserved"] == 1 and not job.is_lost()
    job.finish("ack")
    wait_until(lambda: is_empty(jobs))
    assert len(consumer.jobs()) == 1 and jobs.stats()["dead"] == 0


def test_a_lease_with_a_deadline_is_extended_while_the_handler_runs(worker, jobs):
    consumer = worker().consume(
        jobs.agent, params={"lease": "timeout", "visibility_timeout": within(1)}
    )
    jobs.send("m")
    job = consumer.took()
    wait_for_time(time.monotonic() + within(1) * 3)
    assert jobs.stats()["reserved"] == 1 and not job.is_lost()
    job.finish("ack")
    wait_until(lambda: is_empty(jobs))
    assert len(consumer.jobs()) == 1


def test_a_handler_is_told_that_its_lease_is_lost(worker, jobs):
    """Somebody else settles the job; the next extension learns of it."""
    consumer = worker().consume(
        jobs.agent, params={"lease": "timeout", "visibility_timeout": within(1)}
    )
    jobs.send("m")
    job = consumer.took()
    assert jobs.client.call("ack", agent=jobs.agent, token=job.token)
    job.wait_until_lost()
    jobs.send("next")
    assert consumer.took(2).id == "next"


def test_a_job_whose_agent_was_superseded_is_lost(worker, jobs, client):
    agent = worker(ttl=within(1))
    consumer = agent.consume(jobs.agent)
    jobs.send("m")
    job = consumer.took()
    incarnation = client.call("register", agent=agent.id, ttl=300)["incarnation"]
    agent.driver.wait_for(lambda: agent.told("superseded"), 15, "that it was superseded")
    job.wait_until_lost()
    assert jobs.take_one(wait=20).attempts == 1
    # It does not fight for its name.
    wait_for_time(time.monotonic() + within(1))
    assert client.call("get_agent", agent=agent.id)["incarnation"] == incarnation


def test_a_worker_that_is_killed_is_followed_by_one_of_the_other_library(pair, start_driver, worker, jobs):
    first = start_driver(pair[0].language)
    consumer = worker(of=first, instance="first", ttl=within(1)).consume(jobs.agent)
    jobs.send("m", payload={"step": 1})
    lost = consumer.took()
    first.kill()
    killed = time.monotonic()
    second = worker(of=pair[1], instance="second").consume(jobs.agent, then="ack")
    job = second.took(1, limit=20)
    assert job.id == "m" and job.attempts == 1 and job.fence > lost.fence
    assert job.message["payload"] == {"step": 1}
    assert job.at - killed < within(5)
    wait_until(lambda: is_empty(jobs))


def test_a_program_that_is_killed_with_a_connection_lease_is_followed_at_once(start_driver, driver, worker, jobs):
    first = start_driver(driver.language)
    consumer = worker(of=first, instance="first").consume(jobs.agent, params={"lease": "connection"})
    jobs.send("m")
    consumer.took()
    first.kill()
    assert jobs.take_one().attempts == 1


# ---------------------------------------------------------------------------------------------
# Brokers that die


@pytest.fixture
def broken(own):
    """A broker that the test kills."""
    return own()


def queue_of(broker, name):
    return Queue(broker.connect(), {"type": name, "instance": "jobs"})


def test_a_consumer_is_renewed_after_a_restart(worker, broken, name):
    where = {"type": name, "instance": "jobs"}
    consumer = worker(url_of(broken), options={"backoff_max": 0.3}).consume(where, concurrency=2, then="ack")
    queue_of(broken, name).send("before")
    consumer.took()
    broken.close_clients()
    broken.kill()
    broken.start()
    queue = queue_of(broken, name)
    queue.send_all(["after-1", "after-2", "after-3"])
    consumer.wait_for_jobs(4)
    wait_until(lambda: is_empty(queue))
    assert consumer.ids()[1:] == ["after-1", "after-2", "after-3"]


def test_an_agent_resumes_its_incarnation_and_keeps_its_leases(worker, broken, name):
    agent = worker(url_of(broken), ttl=within(5), options={"backoff_max": 0.3})
    first = agent.registered()["incarnation"]
    consumer = agent.consume({"type": name, "instance": "jobs"})
    queue_of(broken, name).send("m")
    job = consumer.took()
    broken.close_clients()
    broken.kill()
    broken.start()
    queue = queue_of(broken, name)
    wait_until(lambda: queue.client.call("queue_stats", agent=queue.agent)["consumers"], what="the consumer")
    assert queue.client.call("get_agent", agent=agent.id)["incarnation"] == first
    wait_for_time(time.monotonic() + within(1))
    assert not job.is_lost() and queue.stats()["reserved"] == 1
    job.finish("ack")
    wait_until(lambda: is_empty(queue))
    assert consumer.ids() == ["m"]


@pytest.mark.parametrize("lease", ["heartbeat", "timeout"])
def test_nothing_is_lost_or_done_twice_while_brokers_die(worker, broken, name, lease):
    """Both leases outlive the connection, so each job is done once, however often the broker was killed."""
    params = {"lease": lease, **({"visibility_timeout": 60.0} if lease == "timeout" else {})}
    agent = worker(url_of(broken), ttl=300, options={"backoff_max": 0.2})
    consumer = agent.consume(
        {"type": name, "instance": "jobs"}, concurrency=3, params=params, then="ack", after=0.03
    )
    ids = [fresh("m") for _ in range(90)]
    for i in range(0, 90, 30):
        queue_of(broken, name).send_all(ids[i : i + 30])
        consumer.wait_for_jobs(i + 10)
        broken.close_clients()
        broken.kill()
        broken.start()
    # What was on its way to the worker when a broker was killed comes back when its lease ends: count it as open.
    queue = queue_of(broken, name)
    wait_until(lambda: queue.stats()["ready"] == {"9": 0, "5": 0, "1": 0}, 20, "the queue is read to its end")
    # The last jobs may be on their way to us still.
    wait_until(lambda: len(consumer.done()) + queue.stats()["reserved"] == 90, 20, "the last settlements")
    seen = consumer.ids()
    assert len(set(seen)) == len(seen), "a job was done twice"
    assert consumer.most_at_once() <= 3


def test_a_connection_lease_of_a_killed_broker_ends_at_its_deadline(worker, own, name):
    """The job is lost at once. Who was to give it back is dead: the library hands it back, or its deadline passes."""
    broker = own(sweep={"grace": "500ms"})
    agent = worker(url_of(broker), options={"backoff_max": 0.3})
    params = {"lease": "connection", "visibility_timeout": within(2)}
    consumer = agent.consume({"type": name, "instance": "jobs"}, params=params)
    queue_of(broker, name).send("m")
    job = consumer.took()
    broker.close_clients()
    broker.kill()
    job.wait_until_lost()
    broker.start()
    again = consumer.took(2, limit=20)
    assert again.id == "m" and again.fence > job.fence
    again.finish("ack")
    wait_until(lambda: is_empty(queue_of(broker, name)))


def test_a_drained_broker_is_left_and_the_consumer_goes_to_another(worker, two_brokers, name):
    one, other = two_brokers
    agent = worker(",".join(map(url_of, two_brokers)), options={"backoff_max": 0.3})
    consumer = agent.consume({"type": name, "instance": "jobs"}, then="ack")
    queue_of(one, name).send("m1")
    consumer.took()
    one.stop()
    queue = queue_of(other, name)
    queue.send("m2")
    assert consumer.took(2).id == "m2"
    wait_until(lambda: is_empty(queue))
