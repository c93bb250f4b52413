"""Circuit breakers: every move of the state machine, permits that are counted over all brokers, and what nobody reports."""

import itertools
import json
import os
import subprocess
import threading
import time

import pytest

from harness import (
    REPO,
    Refused,
    Worker,
    check_shape,
    fresh,
    is_count,
    is_number,
    is_text,
    is_time,
    seconds_of,
    wait_for_time,
    wait_until,
    within,
)

COORDCTL = os.environ.get("COORDCTL", str(REPO / "build" / "coordctl"))
STATES = ("closed", "open", "half_open")
CONFIG = {
    "failure_threshold": is_count,
    "timeout_seconds": is_number,
    "recovery_timeout_seconds": is_number,
    "half_open_max_calls": is_count,
    "success_threshold": is_count,
}
INFO = {
    "name": is_text,
    "state": lambda value: value in STATES,
    "failure_count": is_count,
    "half_open_calls": is_count,
    "half_open_successes": is_count,
    "total_calls": is_count,
    "successful_calls": is_count,
    "failed_calls": is_count,
    "rejected_calls": is_count,
    "state_changes": is_count,
    "last_failure_time": (None, is_time),
    "last_success_time": (None, is_time),
    "state_changed_at": (None, is_time),
    "config": CONFIG,
}
ANSWER = {
    "permitted": bool,
    "state": lambda value: value in STATES,
    "permit": (None, is_text),
    "retry_after": (None, is_number),
}
DEFAULTS = {
    "failure_threshold": 5,
    "timeout_seconds": 60,
    "recovery_timeout_seconds": 300,
    "half_open_max_calls": 3,
    "success_threshold": 2,
}
# So short that a test can wait for it, and long enough not to pass between two calls.
SHORT = 0.2


class Breaker:
    """One breaker as one client sees it. `config` goes along with every acquire."""

    def __init__(self, client, name=None, **config):
        self.client, self.name, self.config = client, name or fresh("breaker"), config

    def at(self, client):
        return Breaker(client, self.name, **self.config)

    def checked(self, info):
        check_shape(info, INFO, "info")
        assert info["name"] == self.name
        assert info["total_calls"] >= (
            info["successful_calls"] + info["failed_calls"] + info["rejected_calls"]
        )
        assert info["state"] == "half_open" or not info["half_open_calls"]
        return info

    def acquire(self):
        params = {"name": self.name, **({"config": self.config} if self.config else {})}
        answer = check_shape(self.client.call("breaker_acquire", **params), ANSWER, "answer")
        assert answer["permitted"] is (answer["permit"] is not None)
        assert not answer["permitted"] or answer["retry_after"] is None
        assert answer["permitted"] or answer["state"] != "closed"
        assert answer["state"] != "open" or answer["retry_after"] > 0
        return answer

    def permit(self):
        answer = self.acquire()
        assert answer["permitted"], answer
        return answer["permit"]

    def refused(self):
        answer = self.acquire()
        assert not answer["permitted"], answer
        return answer

    def report(self, permit, outcome, **more):
        return self.checked(
            self.client.call(
                "breaker_report", name=self.name, permit=permit, outcome=outcome, **more
            )
        )

    def succeed(self, permit=None):
        return self.report(permit or self.permit(), "success")

    def fail(self, permit=None, **more):
        return self.report(permit or self.permit(), "failure", **more)

    def manage(self, verb, **more):
        return self.checked(self.client.call(f"breaker_{verb}", name=self.name, **more))

    def get(self):
        info = self.client.call("breaker_get", name=self.name)
        return None if info is None else self.checked(info)

    def state(self):
        info = self.get()
        return info and info["state"]

    def calls(self):
        """(all, succeeded, failed, rejected)."""
        info = self.get()
        keys = ("total_calls", "successful_calls", "failed_calls", "rejected_calls")
        return tuple(info[key] for key in keys)

    def open(self):
        """Open it by failures; the info."""
        threshold = (self.get() or {"config": {**DEFAULTS, **self.config}})["config"]
        for _ in range(threshold["failure_threshold"]):
            info = self.fail()
        assert info["state"] == "open"
        return info

    def half_open(self):
        """Open it, wait, and acquire: the first permit."""
        self.open()
        answer = wait_until(
            lambda: (lambda answer: answer["permitted"] and answer)(self.acquire()),
            5,
            "a permit while half-open",
        )
        assert answer["state"] == "half_open"
        return answer["permit"]


@pytest.fixture
def breaker(client):
    return lambda **config: Breaker(client, **config)


def quick(**more):
    return {"failure_threshold": 2, "timeout_seconds": SHORT, **more}


# ---------------------------------------------------------------------------------------------
# Closed


def test_a_breaker_is_made_on_first_use_with_the_defaults(breaker):
    b = breaker()
    assert b.get() is None
    answer = b.acquire()
    assert answer["permitted"] and answer["state"] == "closed"
    info = b.get()
    assert info["config"] == DEFAULTS
    assert info["state"] == "closed" and info["state_changes"] == 0
    assert info["total_calls"] == 1 and info["failure_count"] == 0
    assert info["last_failure_time"] is None and info["last_success_time"] is None
    assert info["state_changed_at"] is None


def test_the_config_of_an_acquire_counts_only_when_it_makes_the_breaker(breaker):
    b = breaker(failure_threshold=7, timeout_seconds=1.5)
    b.acquire()
    assert b.get()["config"] == {**DEFAULTS, "failure_threshold": 7, "timeout_seconds": 1.5}
    b.config = {"failure_threshold": 1}
    b.acquire()
    assert b.get()["config"]["failure_threshold"] == 7


def test_a_nil_config_and_nil_keys_in_it_are_absent_ones(client):
    b = Breaker(client, failure_threshold=None, success_threshold=9.0)
    b.acquire()
    assert b.get()["config"] == {**DEFAULTS, "success_threshold": 9}
    other = Breaker(client)
    client.call("breaker_acquire", name=other.name, config=None)
    assert other.get()["config"] == DEFAULTS


def test_while_closed_every_call_is_permitted_and_each_permit_is_another(breaker):
    b = breaker()
    permits = [b.permit() for _ in range(50)]
    assert len(set(permits)) == 50
    assert min(map(len, permits)) >= 22  # 128 bits
    assert b.get()["half_open_calls"] == 0
    assert b.calls() == (50, 0, 0, 0)


def test_failures_in_a_row_open_it(breaker):
    b = breaker(failure_threshold=3)
    assert b.fail()["failure_count"] == 1
    info = b.fail()
    assert info["state"] == "closed" and info["failure_count"] == 2
    before = seconds_of(info["last_failure_time"])
    info = b.fail()
    assert info["state"] == "open" and info["failure_count"] == 3
    assert info["state_changes"] == 1
    assert seconds_of(info["state_changed_at"]) >= before
    assert info["last_failure_time"] == info["state_changed_at"]


def test_a_success_clears_the_count_of_failures(breaker):
    b = breaker(failure_threshold=3)
    for _ in range(4):
        b.fail()
        assert b.fail()["failure_count"] == 2
        info = b.succeed()
        assert info["failure_count"] == 0 and info["last_success_time"] is not None
    assert b.state() == "closed"
    assert b.calls() == (12, 4, 8, 0)


def test_the_order_of_the_reports_decides_not_that_of_the_permits(breaker):
    b = breaker(failure_threshold=2)
    first, second, third = b.permit(), b.permit(), b.permit()
    b.fail(third)
    b.succeed(first)
    assert b.fail(second)["state"] == "closed"


def test_failures_that_are_under_way_when_it_opens_count_in_the_totals_only(breaker):
    b = breaker(failure_threshold=2)
    permits = [b.permit() for _ in range(5)]
    assert b.fail(permits[0])["state"] == "closed"
    opened = b.fail(permits[1])
    assert opened["state"] == "open"
    b.fail(permits[2])
    info = b.succeed(permits[3])
    assert info["state"] == "open" and info["failure_count"] == 2
    assert info["state_changed_at"] == opened["state_changed_at"]
    assert b.calls() == (5, 1, 3, 0)


# ---------------------------------------------------------------------------------------------
# Open


def test_an_open_breaker_refuses_and_says_when_to_ask_again(breaker):
    b = breaker(failure_threshold=1, timeout_seconds=30)
    opened = seconds_of(b.fail()["state_changed_at"])
    answer = b.refused()
    assert answer["state"] == "open"
    assert 25 < answer["retry_after"] <= 30
    assert b.calls() == (2, 0, 1, 1)
    assert b.state() == "open"
    assert seconds_of(b.get()["state_changed_at"]) == opened


def test_it_refuses_until_its_timeout_has_passed_and_not_a_moment_longer(breaker, redis):
    b = breaker(failure_threshold=1, timeout_seconds=0.5)
    opened = seconds_of(b.fail()["state_changed_at"])
    while True:
        asked = redis.time()
        answer = b.acquire()
        answered = redis.time()
        if answer["permitted"]:
            break
        assert asked < opened + 0.5
        assert answer["retry_after"] <= opened + 0.5 - asked + 1e-5
    assert answered >= opened + 0.5
    assert answer["state"] == "half_open"


def test_retry_after_is_when_it_can_be_asked_again(breaker):
    b = breaker(**quick())
    b.open()
    retry_after = b.refused()["retry_after"]
    wait_for_time(time.monotonic() + retry_after + 0.001)
    assert b.acquire()["state"] == "half_open"


def test_only_an_acquire_makes_it_half_open(breaker, client):
    b = breaker(**quick())
    b.open()
    wait_for_time(time.monotonic() + 2 * SHORT)
    assert b.state() == "open"
    assert [each["state"] for each in listed(client) if each["name"] == b.name] == ["open"]
    b.permit()
    info = b.get()
    assert info["state"] == "half_open" and info["half_open_calls"] == 1
    assert info["state_changes"] == 2


# ---------------------------------------------------------------------------------------------
# Half-open


def test_at_most_so_many_permits_are_out_while_half_open(breaker):
    b = breaker(**quick(half_open_max_calls=3, success_threshold=3))
    first = b.half_open()
    second, third = b.permit(), b.permit()
    answer = b.refused()
    assert answer["state"] == "half_open" and answer["retry_after"] is None
    assert b.get()["half_open_calls"] == 3
    info = b.succeed(second)
    assert info["half_open_calls"] == 2 and info["half_open_successes"] == 1
    fourth = b.permit()
    b.refused()
    b.succeed(first)
    assert b.succeed(fourth)["state"] == "closed"
    assert b.succeed(third)["state"] == "closed"
    total, succeeded, failed, rejected = b.calls()
    assert (succeeded, failed) == (4, 2)
    assert total == 6 + rejected


def test_enough_successes_close_it(breaker):
    b = breaker(**quick())
    first = b.half_open()
    info = b.succeed(first)
    assert info["state"] == "half_open"
    assert (info["half_open_calls"], info["half_open_successes"]) == (0, 1)
    info = b.succeed()
    assert info["state"] == "closed" and info["state_changes"] == 3
    assert info["failure_count"] == 0 and info["half_open_successes"] == 0
    assert info["state_changed_at"] == info["last_success_time"]
    b.fail()
    assert b.state() == "closed"


def test_more_successes_can_be_wanted_than_permits_are_out_at_once(breaker):
    b = breaker(**quick(half_open_max_calls=1, success_threshold=4))
    permit = b.half_open()
    for n in range(1, 4):
        assert b.succeed(permit)["half_open_successes"] == n
        permit = b.permit()
        b.refused()
    assert b.succeed(permit)["state"] == "closed"


def test_one_failure_while_half_open_opens_it_again_for_its_whole_timeout(breaker):
    b = breaker(**quick(timeout_seconds=0.5))
    first = b.half_open()
    b.succeed(b.permit())
    info = b.fail(first)
    assert info["state"] == "open" and info["state_changes"] == 3
    assert info["half_open_calls"] == 0 and info["half_open_successes"] == 0
    answer = b.refused()
    assert 0.3 < answer["retry_after"] <= 0.5


def test_each_half_open_time_begins_its_count_anew(breaker):
    b = breaker(**quick(half_open_max_calls=2))
    first = b.half_open()
    second = b.permit()
    b.fail(first)
    wait_until(lambda: b.acquire()["permitted"], 5)
    b.permit()  # that of `second` takes no place
    b.refused()
    info = b.succeed(second)
    assert info["state"] == "half_open"
    assert (info["half_open_calls"], info["half_open_successes"]) == (2, 0)


# ---------------------------------------------------------------------------------------------
# Reports


def test_a_permit_is_reported_once(breaker):
    b = breaker(failure_threshold=2)
    permit = b.permit()
    b.fail(permit)
    for outcome in ("failure", "success", "failure"):
        info = b.report(permit, outcome)
        assert info["state"] == "closed" and info["failure_count"] == 1
    assert b.calls() == (1, 0, 1, 0)


@pytest.mark.parametrize("permit", ["", "x", "a" * 256, "ä:%0 -inf", "AAAAAAAAAAAAAAAAAAAAAA"])
def test_an_unknown_permit_counts_nothing(breaker, permit):
    b = breaker(failure_threshold=1)
    b.permit()
    before = b.get()
    assert b.report(permit, "failure") == before
    assert b.report(permit, "success") == before
    assert b.get() == before


def test_a_permit_of_another_breaker_counts_nothing(breaker):
    b, other = breaker(failure_threshold=1), breaker(failure_threshold=1)
    other.permit()
    assert other.fail(b.permit())["state"] == "closed"
    assert other.calls() == (1, 0, 0, 0)


@pytest.mark.parametrize("outcome", ["success", "failure"])
def test_a_late_report_changes_no_state(breaker, outcome):
    b = breaker(**quick(half_open_max_calls=5, success_threshold=1))
    closed = [b.permit() for _ in range(3)]
    b.half_open()
    assert b.report(closed[0], outcome)["state"] == "half_open"
    tried = b.permit()
    assert b.succeed()["state"] == "closed"
    b.fail()
    for late in (tried, closed[1]):
        info = b.report(late, outcome)
        assert info["state"] == "closed" and info["failure_count"] == 1
    b.fail()
    info = b.report(closed[2], outcome)
    assert info["state"] == "open" and info["failure_count"] == 2
    # Four were late; besides there were one success and four failures.
    counted = (info["successful_calls"], info["failed_calls"])
    assert counted == ((5, 4) if outcome == "success" else (1, 8))


def test_a_report_for_a_breaker_that_is_not_there_is_not_found(breaker, client):
    b = breaker()
    refusal = client.refused(
        "breaker_report", {"name": b.name, "permit": "p", "outcome": "success"}
    )
    assert refusal.code == "not_found" and b.name in refusal.message
    assert b.get() is None


def test_reports_can_be_notifications(breaker, client):
    b = breaker(failure_threshold=2)
    permits = [b.permit(), b.permit()]
    for permit in permits:
        params = {"name": b.name, "permit": permit, "outcome": "failure", "error": "x"}
        client.notify("breaker_report", params)
        client.notify("breaker_report", params)
    wait_until(lambda: b.state() == "open", 5)
    assert b.calls() == (2, 0, 2, 0)
    # Nobody is told of what is wrong with one, and no other method of breakers can be one.
    client.notify("breaker_report", {"name": fresh("nobody"), "permit": "", "outcome": "success"})
    client.notify("breaker_report", {"name": b.name, "permit": "p"})
    client.notify("breaker_reset", {"name": b.name})
    client.notify("breaker_acquire", {"name": b.name})
    client.expect_silence()
    assert b.state() == "open"
    assert b.calls() == (2, 0, 2, 0)


# ---------------------------------------------------------------------------------------------
# Lost permits


def test_a_lost_permit_opens_a_half_open_breaker_again(breaker):
    b = breaker(**quick(timeout_seconds=0.5, recovery_timeout_seconds=SHORT))
    lost = b.half_open()
    began = time.monotonic()
    info = wait_until(lambda: (lambda i: i["state"] == "open" and i)(b.get()), 5)
    assert time.monotonic() - began < within(SHORT + 0.5)
    assert info["state_changes"] == 3 and info["failed_calls"] == 2
    assert 0 < b.refused()["retry_after"] <= 0.5
    # It is late now: counted, and nothing else.
    late = b.succeed(lost)
    assert late["state"] == "open" and late["successful_calls"] == 1


def test_lost_permits_never_wedge_it(breaker):
    b = breaker(**quick(half_open_max_calls=2, recovery_timeout_seconds=SHORT))
    b.half_open()
    for _ in range(3):
        b.permit()
        b.refused()  # all are out, and will be lost
        wait_until(lambda: b.acquire()["permitted"], 5, "permits while half-open again")
    b.succeed(b.permit())
    assert b.succeed()["state"] == "closed"


def test_the_oldest_permit_that_is_out_decides(breaker):
    b = breaker(**quick(half_open_max_calls=2, success_threshold=50, recovery_timeout_seconds=0.6))
    first = b.half_open()
    began = time.monotonic()
    wait_for_time(began + 0.4)
    second = b.permit()
    b.succeed(first)
    wait_for_time(began + 0.8)  # longer than any, but the second one is 0.4 s out
    if time.monotonic() < began + 0.95:
        assert b.state() == "half_open"
    wait_until(lambda: b.state() == "open", 5)
    assert time.monotonic() >= began + 1.0 - 0.01
    b.succeed(second)


def test_while_closed_nobody_minds_a_lost_permit(breaker):
    b = breaker(**quick(recovery_timeout_seconds=SHORT, failure_threshold=1))
    permit = b.permit()
    wait_for_time(time.monotonic() + 3 * SHORT)
    assert b.state() == "closed" and b.get()["failure_count"] == 0
    assert b.fail(permit)["state"] == "open"


# ---------------------------------------------------------------------------------------------
# Manage


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("open_for", [None, 30])
def test_trip_opens_it_from_any_state(breaker, state, open_for):
    b = into(breaker(**quick(timeout_seconds=SHORT, half_open_max_calls=1)), state)
    before = b.get()
    info = b.manage("trip", **{"for": open_for})
    assert info["state"] == "open"
    assert info["state_changes"] == before["state_changes"] + (state != "open")
    assert info["half_open_calls"] == 0
    retry = b.refused()["retry_after"]
    if open_for:
        assert 25 < retry <= 30
    else:
        assert 0 < retry <= SHORT
        wait_until(lambda: b.acquire()["state"] == "half_open", 5)


def test_trip_can_end_sooner_than_the_timeout(breaker):
    b = breaker(failure_threshold=1, timeout_seconds=1000)
    b.fail()
    b.manage("trip", **{"for": SHORT})
    wait_until(lambda: b.acquire()["permitted"], 5)


def test_the_time_of_a_trip_is_that_of_this_opening_only(breaker):
    b = breaker(failure_threshold=1, timeout_seconds=30)
    b.permit()
    b.manage("trip", **{"for": SHORT})
    wait_until(lambda: b.acquire()["permitted"], 5)
    assert b.fail(b.permit())["state"] == "open"
    assert 25 < b.refused()["retry_after"] <= 30


@pytest.mark.parametrize("state", STATES)
def test_reset_closes_it_from_any_state(breaker, state):
    b = into(breaker(**quick(timeout_seconds=30 if state == "open" else SHORT)), state)
    before = b.get()
    info = b.manage("reset")
    assert info["state"] == "closed" and info["failure_count"] == 0
    assert info["state_changes"] == before["state_changes"] + (state != "closed")
    assert info["half_open_calls"] == info["half_open_successes"] == 0
    assert info["total_calls"] == before["total_calls"]
    assert info["failed_calls"] == before["failed_calls"]
    b.fail()
    assert b.state() == "closed"
    assert b.fail()["state"] == "open"


@pytest.mark.parametrize("state", STATES)
def test_remove_forgets_it_from_any_state(breaker, client, state):
    b = into(breaker(**quick()), state)
    permit = b.permit() if state != "open" else "x"
    assert client.call("breaker_remove", name=b.name) is True
    assert client.call("breaker_remove", name=b.name) is False
    assert b.get() is None
    assert b.name not in [each["name"] for each in listed(client)]
    b.config = {}
    assert b.acquire()["state"] == "closed"
    info = b.fail(permit)
    assert info["config"] == DEFAULTS and info["total_calls"] == 1 and info["failed_calls"] == 0


@pytest.mark.parametrize("method", ["breaker_trip", "breaker_reset"])
def test_a_breaker_that_is_not_there_is_not_found(breaker, client, method):
    b = breaker()
    refusal = client.refused(method, {"name": b.name})
    assert refusal.code == "not_found" and b.name in refusal.message
    assert b.get() is None


def test_configure_makes_a_breaker(breaker, client):
    b = breaker()
    info = b.manage("configure", config={"success_threshold": 4, "timeout_seconds": 0.25})
    assert info["config"] == {**DEFAULTS, "success_threshold": 4, "timeout_seconds": 0.25}
    assert info["state"] == "closed" and info["total_calls"] == 0
    b.config = {"success_threshold": 1}
    b.acquire()
    assert b.get()["config"]["success_threshold"] == 4


def test_configure_changes_what_is_named_and_nothing_else(breaker):
    b = breaker(failure_threshold=3)
    b.fail()
    info = b.manage("configure", config={"half_open_max_calls": 8, "timeout_seconds": None})
    assert info["config"] == {**DEFAULTS, "failure_threshold": 3, "half_open_max_calls": 8}
    assert info["failure_count"] == 1 and info["total_calls"] == 1
    assert b.manage("configure", config={}) == info


def test_what_is_configured_is_in_force_at_once(breaker):
    b = breaker(failure_threshold=10, timeout_seconds=1000)
    for _ in range(3):
        b.fail()
    b.manage("configure", config={"failure_threshold": 2})
    assert b.state() == "closed"
    assert b.fail()["state"] == "open"
    assert b.refused()["retry_after"] > 900
    b.manage("configure", config={"timeout_seconds": SHORT})
    first = wait_until(lambda: b.acquire()["permit"], 5)
    b.manage("configure", config={"half_open_max_calls": 1, "success_threshold": 1})
    b.refused()
    assert b.succeed(first)["state"] == "closed"


def into(b, state):
    """Bring a breaker of quick() into a state."""
    if state == "closed":
        b.fail()
    elif state == "open":
        b.open()
    else:
        b.succeed(b.half_open())
    assert b.state() == state
    return b


# ---------------------------------------------------------------------------------------------
# Lists and namespaces


def listed(client, **params):
    rows = client.call("breaker_list", **params)
    check_shape(rows, [INFO], "rows")
    return rows


def all_names(client, limit):
    names, after = [], None
    while page := listed(client, limit=limit, after=after):
        assert len(page) <= limit
        names += [each["name"] for each in page]
        after = names[-1]
    return names


@pytest.mark.parametrize("limit", [1, 7, 100, 1000])
def test_a_list_comes_in_pages(broker, limit):
    client = broker.in_namespace(fresh("ns"))
    n = 25 if limit < 100 else 250
    names = {f"b{i}" for i in range(n)} | {"a:b", "a%3Ab", "é", " ", "b", "zz%"}
    for name in names:
        Breaker(client, name).acquire()
    found = all_names(client, limit)
    assert len(found) == len(names) and set(found) == names
    assert found == all_names(client, 1000)
    assert listed(client)[0] == Breaker(client, found[0]).get()
    assert listed(client, after=found[-1]) == []


def test_a_list_ends_at_max_frame(own):
    broker = own(limits={"max_frame": "4KiB"})
    client = broker.connect()
    names = sorted(f"{i:03}{'x' * 125}" for i in range(20))
    for name in names:
        Breaker(client, name).acquire()
    page = listed(client)
    assert len(client.raw) <= 4096 and 0 < len(page) < 20
    assert all_names(client, 1000) == names


def test_a_namespace_has_breakers_of_its_own(broker):
    one, two = broker.in_namespace(fresh("n")), broker.in_namespace(fresh("n"))
    b = Breaker(one, "same", failure_threshold=1)
    permit = b.permit()
    other = b.at(two)
    assert other.get() is None and listed(two) == []
    assert two.refused(
        "breaker_report", {"name": "same", "permit": permit, "outcome": "failure"}
    ).code == "not_found"
    other.permit()
    other.fail(permit)
    assert other.calls() == (1, 0, 0, 0)
    b.fail(permit)
    assert b.state() == "open" and other.state() == "closed"
    assert one.call("status")["breakers"] == {"known": 1, "open": 1, "half_open": 0}
    assert two.call("status")["breakers"] == {"known": 1, "open": 0, "half_open": 0}
    assert two.call("breaker_remove", name="same") is True
    assert b.state() == "open"


def test_names_that_look_alike_are_different_breakers(broker):
    one = broker.in_namespace("x:y" + fresh("n"))
    names = ["a", "a:p", "a%3Ap", "A", "ａ", "a ", "*", "?", "[a]", "{a}", "..", "a" * 128, "due"]
    for i, name in enumerate(names):
        b = Breaker(one, name)
        for _ in range(i + 1):
            b.acquire()
    for i, name in enumerate(names):
        assert Breaker(one, name).get()["total_calls"] == i + 1
    assert sorted(all_names(one, 3)) == sorted(names)


# ---------------------------------------------------------------------------------------------
# Bad input

BAD = [
    ({}, "name"),
    ({"name": None}, "name"),
    ({"name": ""}, "name"),
    ({"name": 5}, "name"),
    ({"name": "x" * 129}, "name"),
    ({"name": "a\nb"}, "name"),
    ({"name": "a\x00b"}, "name"),
    ({"name": b"\xff"}, "name"),
    ({"name": "n", "what": 1}, "what"),
]
BAD_CONFIG = [
    (5, "config"),
    ([1], "config"),
    ({"threshold": 5}, "threshold"),
    ({7: 5}, "config"),
    ({"failure_threshold": 0}, "config.failure_threshold"),
    ({"failure_threshold": -1}, "config.failure_threshold"),
    ({"failure_threshold": 1.5}, "config.failure_threshold"),
    ({"failure_threshold": "5"}, "config.failure_threshold"),
    ({"failure_threshold": True}, "config.failure_threshold"),
    ({"failure_threshold": 2**63}, "config.failure_threshold"),
    ({"timeout_seconds": 0}, "config.timeout_seconds"),
    ({"timeout_seconds": -0.5}, "config.timeout_seconds"),
    ({"timeout_seconds": 31536001}, "config.timeout_seconds"),
    ({"timeout_seconds": float("nan")}, "config.timeout_seconds"),
    ({"timeout_seconds": float("inf")}, "config.timeout_seconds"),
    ({"recovery_timeout_seconds": 0}, "config.recovery_timeout_seconds"),
    ({"recovery_timeout_seconds": "1"}, "config.recovery_timeout_seconds"),
    ({"half_open_max_calls": 0}, "config.half_open_max_calls"),
    ({"half_open_max_calls": 1001}, "config.half_open_max_calls"),
    ({"success_threshold": 0}, "config.success_threshold"),
    ({"success_threshold": 1001}, "config.success_threshold"),
    ({"success_threshold": {}}, "config.success_threshold"),
]


@pytest.mark.parametrize("method", ["acquire", "report", "get", "configure", "trip", "reset", "remove"])
def test_a_bad_name_is_refused(client, method):
    more = {"report": {"permit": "p", "outcome": "success"}, "configure": {"config": {}}}
    for params, named in BAD:
        refusal = client.refused(f"breaker_{method}", {**more.get(method, {}), **params})
        assert refusal.code == "bad_request" and named in refusal.message, refusal


@pytest.mark.parametrize("method", ["breaker_acquire", "breaker_configure"])
def test_a_bad_config_is_refused_and_makes_no_breaker(breaker, client, method):
    b = breaker()
    for config, named in BAD_CONFIG:
        refusal = client.refused(method, {"name": b.name, "config": config})
        assert refusal.code == "bad_request" and named in refusal.message, (config, refusal)
    assert b.get() is None
    b.permit()
    before = b.get()
    for config, _ in BAD_CONFIG:
        client.refused(method, {"name": b.name, "config": config})
    assert b.get() == before


@pytest.mark.parametrize(
    "method, params, named",
    [
        ("report", {"outcome": "success"}, "permit"),
        ("report", {"permit": 5, "outcome": "success"}, "permit"),
        ("report", {"permit": "x" * 257, "outcome": "success"}, "permit"),
        ("report", {"permit": "p"}, "outcome"),
        ("report", {"permit": "p", "outcome": None}, "outcome"),
        ("report", {"permit": "p", "outcome": "timeout"}, "outcome"),
        ("report", {"permit": "p", "outcome": True}, "outcome"),
        ("report", {"permit": "p", "outcome": "failure", "error": "x" * 1025}, "error"),
        ("report", {"permit": "p", "outcome": "failure", "error": b"\xff"}, "error"),
        ("configure", {}, "config"),
        ("configure", {"config": None}, "config"),
        ("trip", {"for": 0}, "for"),
        ("trip", {"for": -1}, "for"),
        ("trip", {"for": 31536001}, "for"),
        ("trip", {"for": "1m"}, "for"),
        ("trip", {"for_time": 1}, "for_time"),
        ("reset", {"for": 1}, "for"),
        ("get", {"config": {}}, "config"),
    ],
)
def test_bad_params_are_refused(breaker, client, method, params, named):
    b = breaker()
    b.permit()
    before = b.get()
    refusal = client.refused(f"breaker_{method}", {"name": b.name, **params})
    assert refusal.code == "bad_request" and named in refusal.message, refusal
    assert b.get() == before


@pytest.mark.parametrize("params", [{"limit": 0}, {"limit": 1001}, {"limit": "x"}, {"after": 5}])
def test_bad_params_of_a_list_are_refused(client, params):
    refusal = client.refused("breaker_list", params)
    assert refusal.code == "bad_request" and next(iter(params)) in refusal.message


def test_names_and_permits_can_be_bin(client):
    name = fresh("bin")
    answer = client.call("breaker_acquire", name=name.encode(), config={b"failure_threshold": 1})
    info = client.call(
        "breaker_report", name=name.encode(), permit=answer["permit"].encode(), outcome=b"failure"
    )
    assert info["state"] == "open" and info["name"] == name


# ---------------------------------------------------------------------------------------------
# Events


class Told:
    """What a watch of breakers is told."""

    def __init__(self, client):
        self.client = client
        client.call("watch", events=["breaker"])

    def expect(self, *expected):
        """(event, name, words of the reason) of each, in order, and no more."""

        def read():
            try:
                while True:
                    self.client._take(self.client.read_frame(0))
            except TimeoutError:
                return self.client.notifications

        wait_until(lambda: len(read()) >= len(expected), 5, f"{len(expected)} events")
        assert len(read()) == len(expected), self.client.notifications
        for (method, event), (kind, name, reason) in zip(read(), expected):
            shape = {"watch_id": is_text, "event": is_text, "at": is_time, "name": is_text}
            check_shape(event, {**shape, "reason": is_text}, "event")
            assert method == "event"
            assert (event["event"], event["name"]) == (kind, name)
            assert reason in event["reason"], event
        self.client.notifications.clear()


def test_every_change_of_state_is_told_once_and_nothing_else_is(broker):
    ns = fresh("ns")
    client, told = broker.in_namespace(ns), Told(broker.in_namespace(ns))
    b = Breaker(client, "llm: gpt%5", **quick(recovery_timeout_seconds=SHORT))
    name = b.name
    b.fail()
    b.fail(error="rate\nlimit")
    b.refused()
    told.expect(("breaker_opened", name, "2 failures in a row: rate\nlimit"))
    lost = wait_until(lambda: b.acquire()["permit"], 5)
    told.expect(("breaker_half_opened", name, "timeout"))
    told.expect(("breaker_opened", name, "not reported in time"))  # nobody asked: the sweep saw it
    b.fail(lost)
    wait_until(lambda: b.acquire()["permitted"], 5)
    b.fail(b.permit(), error="again")
    b.manage("reset")
    b.manage("reset")
    told.expect(
        ("breaker_half_opened", name, "timeout"),
        ("breaker_opened", name, "a failure while half-open: again"),
        ("breaker_closed", name, "reset"),
    )
    b.manage("trip")
    b.manage("trip", **{"for": SHORT})
    first = wait_until(lambda: b.acquire()["permit"], 5)
    b.succeed(first)
    b.succeed()
    b.succeed()
    told.expect(
        ("breaker_opened", name, "tripped"),
        ("breaker_half_opened", name, "timeout"),
        ("breaker_closed", name, "successes"),
    )
    b.manage("configure", config={"failure_threshold": 1})
    b.get()
    listed(client)
    client.call("breaker_remove", name=name)  # it was closed, and is
    b.permit()
    b.manage("trip")
    client.call("breaker_remove", name=name)
    told.expect(("breaker_opened", name, "tripped"), ("breaker_closed", name, "removed"))


# ---------------------------------------------------------------------------------------------
# The table of moves: in a state, what is done, the state then, and the event that tells of it.
# Two failures in a row open it and one was counted; two successes close it and one was counted.

MOVES = [
    ("closed", "acquire", "closed", None),
    ("closed", "success", "closed", None),
    ("closed", "failure", "open", "breaker_opened"),
    ("closed", "success, failure", "closed", None),
    ("closed", "late success", "closed", None),
    ("closed", "late failure", "closed", None),
    ("closed", "success twice", "closed", None),
    ("closed", "unknown", "closed", None),
    ("closed", "wait", "closed", None),
    ("closed", "get", "closed", None),
    ("closed", "configure", "closed", None),
    ("closed", "trip", "open", "breaker_opened"),
    ("closed", "reset", "closed", None),
    ("closed", "remove", None, None),
    ("open", "acquire", "open", None),
    ("open", "wait", "open", None),
    ("open", "wait, get", "open", None),
    ("open", "wait, acquire", "half_open", "breaker_half_opened"),
    ("open", "late success", "open", None),
    ("open", "late failure", "open", None),
    ("open", "unknown", "open", None),
    ("open", "get", "open", None),
    ("open", "configure", "open", None),
    ("open", "trip", "open", None),
    ("open", "reset", "closed", "breaker_closed"),
    ("open", "remove", None, "breaker_closed"),
    ("half_open", "acquire", "half_open", None),
    ("half_open", "acquire, acquire", "half_open", None),
    ("half_open", "success", "closed", "breaker_closed"),
    ("half_open", "failure", "open", "breaker_opened"),
    ("half_open", "late success", "half_open", None),
    ("half_open", "late failure", "half_open", None),
    ("half_open", "unknown", "half_open", None),
    ("half_open", "get", "half_open", None),
    ("half_open", "configure", "half_open", None),
    ("half_open", "wait", "open", "breaker_opened"),
    ("half_open", "wait, get", "open", "breaker_opened"),
    ("half_open", "wait, success", "open", "breaker_opened"),
    ("half_open", "wait, failure", "open", "breaker_opened"),
    ("half_open", "trip", "open", "breaker_opened"),
    ("half_open", "reset", "closed", "breaker_closed"),
    ("half_open", "remove", None, "breaker_closed"),
]


@pytest.mark.parametrize("state, steps, then, event", MOVES, ids=lambda value: str(value))
def test_the_table_of_moves(broker, state, steps, then, event):
    ns = fresh("ns")
    client = broker.in_namespace(ns)
    # Long where time is to do nothing, short where it is waited for.
    waits = "wait" in steps
    b = Breaker(
        client,
        failure_threshold=2,
        success_threshold=2,
        half_open_max_calls=2,
        timeout_seconds=SHORT if waits and state == "open" else 30,
        recovery_timeout_seconds=SHORT if waits else 30,
    )
    late, permit = b.permit(), "none"
    b.manage("trip", **{"for": 0.001 if state == "half_open" else None})
    if state == "closed":
        b.manage("reset")
        permit = b.permit()
        b.fail()
    elif state == "half_open":
        b.succeed(wait_until(lambda: b.acquire()["permit"], 5))
        permit = b.permit()
    before = b.get()
    assert before["state"] == state
    told = Told(broker.in_namespace(ns))

    for step in steps.split(", "):
        if step == "acquire":
            b.acquire()
        elif step == "wait":
            wait_for_time(time.monotonic() + 2 * SHORT)
        elif step == "unknown":
            b.fail("unknown")
        elif step == "success twice":
            b.succeed(permit)
            b.succeed(permit)
        elif step in ("success", "failure"):
            b.report(permit, step)
            permit = b.permit() if state == "closed" and step == "success" else permit
        elif step in ("late success", "late failure"):
            b.report(late, step.split()[1])
        elif step == "get":
            b.get()
        elif step == "configure":
            b.manage("configure", config={"success_threshold": 1, "failure_threshold": 1})
        elif step == "remove":
            assert client.call("breaker_remove", name=b.name) is True
        else:
            b.manage(step)

    told.expect(*([(event, b.name, "")] if event else []))
    after = b.get()
    assert (after and after["state"]) == then
    if after:
        assert after["state_changes"] == before["state_changes"] + (event is not None)
        assert (after["state_changed_at"] == before["state_changed_at"]) is (event is None)


# ---------------------------------------------------------------------------------------------
# Several brokers, contention


@pytest.fixture
def pair(make_broker, start_redis):
    """Two brokers on one Redis."""
    redis = start_redis()
    return [make_broker(redis).start() for _ in range(2)]


def test_a_breaker_opened_through_one_broker_is_refused_through_the_other(pair):
    one, two = (broker.connect() for broker in pair)
    b = Breaker(one, failure_threshold=2, timeout_seconds=30)
    b.fail()
    assert b.at(two).fail()["state"] == "open"
    assert b.refused()["state"] == "open"
    assert b.at(two).refused()["retry_after"] > 25
    b.at(two).manage("reset")
    permit = b.permit()
    assert b.at(two).succeed(permit)["successful_calls"] == 1


def test_what_one_broker_does_the_other_ones_watchers_are_told(pair):
    told = Told(pair[1].connect())
    b = Breaker(pair[0].connect(), **quick(recovery_timeout_seconds=SHORT))
    b.half_open()
    told.expect(
        ("breaker_opened", b.name, "failures"),
        ("breaker_half_opened", b.name, "timeout"),
        ("breaker_opened", b.name, "not reported"),
    )


def test_permits_while_half_open_are_counted_over_all_brokers(pair):
    """32 connections fight for 3 permits; each holds its own for a moment."""
    limit = 3
    clients = [pair[i % 2].connect() for i in range(32)]
    b = Breaker(clients[0], **quick(half_open_max_calls=limit, success_threshold=1000))
    b.succeed(b.half_open())
    lock, out, most, granted = threading.Lock(), set(), [0], [0]
    stop = time.monotonic() + within(10)

    def work(client):
        mine = b.at(client)
        while granted[0] < 600:  # it would close at 1000
            assert time.monotonic() < stop
            answer = mine.acquire()
            if not answer["permitted"]:
                continue
            with lock:
                assert answer["permit"] not in out
                out.add(answer["permit"])
                granted[0] += 1
                most[0] = max(most[0], len(out))
                over = len(out) > limit
            assert not over and answer["state"] == "half_open"
            time.sleep(0.002)
            with lock:
                out.remove(answer["permit"])  # from before the report: it is out until then
            mine.succeed(answer["permit"])

    workers = [Worker(lambda client=client: work(client)) for client in clients]
    for worker in workers:
        worker.finish()
    assert most[0] == limit
    total, succeeded, failed, rejected = b.calls()
    assert failed == 2 and rejected > 0
    assert succeeded == 1 + granted[0]
    assert total == succeeded + failed + rejected


def test_of_many_who_ask_at_once_so_many_are_permitted_as_may_be(pair):
    clients = [pair[i % 2].connect() for i in range(32)]
    b = Breaker(clients[0], **quick(half_open_max_calls=5))
    for _ in range(5):
        opened = seconds_of(b.open()["state_changed_at"])
        wait_for_time(time.monotonic() + SHORT + 0.05)
        ids = [(c, c.submit("breaker_acquire", {"name": b.name})) for c in clients for _ in range(2)]
        permits = [c.result(msgid)["permit"] for c, msgid in ids]
        permits = [permit for permit in permits if permit]
        assert len(permits) == 5
        info = b.get()
        assert info["state"] == "half_open" and info["half_open_calls"] == 5
        assert seconds_of(info["state_changed_at"]) >= opened + SHORT
        b.manage("reset")


def test_one_of_many_failures_at_once_opens_it_once(pair):
    clients = [pair[i % 2].connect() for i in range(32)]
    b = Breaker(clients[0], failure_threshold=10, timeout_seconds=30)
    permits = [b.at(client).permit() for client in clients for _ in range(2)]
    ids = []
    for client, permit in zip(itertools.cycle(clients), permits):
        params = {"name": b.name, "permit": permit, "outcome": "failure"}
        ids += [(client, client.submit("breaker_report", params)) for _ in range(2)]
    for client, msgid in ids:
        b.checked(client.result(msgid))
    info = b.get()
    assert info["state"] == "open" and info["state_changes"] == 1
    assert info["failure_count"] == 10 and info["failed_calls"] == 64


# ---------------------------------------------------------------------------------------------
# Restarts, faults, forgetting


@pytest.mark.parametrize("state", STATES)
def test_a_breaker_survives_kill_9_of_broker_and_redis(make_broker, start_redis, state):
    redis = start_redis(fsync="always")
    broker = make_broker(redis).start()
    b = Breaker(broker.connect(), **quick(timeout_seconds=30 if state == "open" else SHORT))
    into(b, state)
    permit = b.permit() if state != "open" else None
    before = b.get()
    broker.close_clients()
    broker.kill()
    redis.kill()
    redis.start()
    broker.start()
    b = b.at(broker.connect())
    assert b.get() == before
    if state == "closed":
        assert b.fail(permit)["state"] == "open"
    elif state == "open":
        assert b.refused()["retry_after"] <= 30
    else:
        assert b.succeed(permit)["state"] == "closed"


def test_a_permit_lost_with_its_broker_comes_back(make_broker, start_redis):
    redis = start_redis()
    broker = make_broker(redis).start()
    b = Breaker(broker.connect(), **quick(half_open_max_calls=1, recovery_timeout_seconds=SHORT))
    b.half_open()
    broker.close_clients()
    broker.kill()
    broker.start()
    b = b.at(broker.connect())
    wait_until(lambda: b.acquire()["permitted"], 5)


def test_without_redis_a_breaker_is_unavailable(make_broker, start_redis):
    redis = start_redis()
    broker = make_broker(redis, config={"redis": {"command_timeout": "300ms"}}).start()
    broker.expected_errors = ["redis."]
    client = broker.connect()
    b = Breaker(client)
    permit = b.permit()
    redis.pause()
    refusal = client.refused("breaker_acquire", {"name": b.name})
    assert refusal.code == "unavailable"
    assert client.refused("breaker_list").code == "unavailable"
    assert "breakers" not in client.call("status")
    redis.resume()
    wait_until(lambda: client.call("status")["ready"], 10)
    assert b.succeed(permit)["state"] == "closed"


def test_scripts_that_redis_lost_are_loaded_again(make_broker, start_redis):
    redis = start_redis()
    b = Breaker(make_broker(redis).start().connect(), failure_threshold=1)
    permit = b.permit()
    redis.command("SCRIPT", "FLUSH")
    assert b.fail(permit)["state"] == "open"
    redis.command("SCRIPT", "FLUSH")
    assert listed(b.client)[0]["state"] == "open"


def test_a_breaker_that_nobody_uses_is_forgotten_with_all_it_had(own, redis):
    broker = own(breakers={"state_ttl": "1s"})
    prefix = broker.config["redis"]["key_prefix"]
    client, told = broker.connect(), Told(broker.connect())
    used, unused, opened = (Breaker(client, **quick(timeout_seconds=1)) for _ in range(3))
    for each in (used, unused, opened):
        each.permit()
    opened.manage("trip", **{"for": 2.5})
    began = time.monotonic()

    def look():
        used.succeed()
        return unused.get() is None

    wait_until(look, 5)
    assert time.monotonic() >= began + 0.9
    # The one in use is looked at again when it would be due next.
    due = ("ZSCORE", f"{prefix}:breakers:due", f"default:{used.name}")
    wait_until(lambda: int(redis.command(*due)) / 1e6 > redis.time(), 5)
    wait_until(lambda: not redis.command("KEYS", f"{prefix}:k:default:{unused.name}*"), 5)
    assert unused.name not in [each["name"] for each in listed(client)]
    # An open one stays open until its time has come.
    assert opened.state() == "open"
    wait_until(lambda: opened.get() is None, 10)
    assert time.monotonic() >= began + 2.4
    wait_until(lambda: used.get() is None, 10)
    wait_until(lambda: not redis.command("KEYS", f"{prefix}:k:*"), 5)
    assert redis.command("EXISTS", f"{prefix}:breakers", f"{prefix}:breakers:due") == 0
    told.expect(("breaker_opened", opened.name, ""), ("breaker_closed", opened.name, "forgotten"))


def test_defaults_come_from_the_configuration(own):
    defaults = {
        "failure_threshold": 1,
        "timeout": "100ms",
        "recovery_timeout": "2s",
        "half_open_max_calls": 1,
        "success_threshold": 3,
    }
    client = own(breakers={"defaults": defaults}).connect()
    b = Breaker(client, half_open_max_calls=9)
    b.acquire()
    assert b.get()["config"] == {
        "failure_threshold": 1,
        "timeout_seconds": 0.1,
        "recovery_timeout_seconds": 2,
        "half_open_max_calls": 9,
        "success_threshold": 3,
    }


def test_what_is_remembered_of_permits_is_bounded(own, redis):
    broker = own()
    prefix = broker.config["redis"]["key_prefix"]
    client = broker.connect()
    b = Breaker(client, failure_threshold=1)
    first = b.permit()
    for _ in range(21):
        ids = client.submit_all([("breaker_acquire", {"name": b.name})] * 500)
        last = client.results(ids)[-1]["permit"]
    assert redis.command("ZCARD", f"{prefix}:k:default:{b.name}:p") == 10000
    assert b.fail(first)["failed_calls"] == 0
    assert b.fail(last)["state"] == "open"


def test_a_permit_is_forgotten_after_an_hour(own, redis):
    broker = own()
    b = Breaker(broker.connect(), failure_threshold=9)
    b.permit()
    permits = f"{broker.config['redis']['key_prefix']}:k:default:{b.name}:p"
    an_hour_ago = int((redis.time() - 3600) * 1e6)
    redis.command("ZADD", permits, an_hour_ago - 1, "older", an_hour_ago + 60_000_000, "younger")
    b.permit()
    assert redis.command("ZCARD", permits) == 3
    assert b.fail("older")["failed_calls"] == 0
    assert b.fail("younger")["failed_calls"] == 1


def test_a_foreign_key_under_a_breakers_name_hurts_that_one_only(make_broker, start_redis):
    redis = start_redis()
    broker = make_broker(redis, expected_errors=["request.internal", "redis.script"]).start()
    client = broker.connect()
    bad = Breaker(client, "bad", **quick(recovery_timeout_seconds=SHORT))
    good = Breaker(client, "good", **quick(recovery_timeout_seconds=SHORT))
    bad.half_open()
    good.half_open()
    redis.command("DEL", "coordd:k:default:bad")
    redis.command("SET", "coordd:k:default:bad", "x")
    assert client.refused("breaker_get", {"name": "bad"}).code == "internal"
    # Nobody asks: the sweep gets past the bad one.
    wait_until(lambda: redis.command("HGET", "coordd:k:default:good", "state") == "1", 5)


# ---------------------------------------------------------------------------------------------
# coordctl


class Ctl:
    def __init__(self, broker, namespace):
        self.arguments = [COORDCTL, "-s", f"unix://{broker.unix_path}", "-N", namespace]

    def run(self, *words, expected=0):
        done = subprocess.run(
            [*self.arguments, *words],
            capture_output=True,
            text=True,
            timeout=within(20),
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == expected, done
        return done.stdout if expected == 0 else done.stderr

    def json(self, *words):
        return json.loads(self.run(*words, "-o", "json"))


@pytest.fixture
def ctl(broker):
    namespace = fresh("ns")
    ctl = Ctl(broker, namespace)
    ctl.client = broker.in_namespace(namespace)
    return ctl


def test_coordctl_shows_breakers(ctl):
    b = Breaker(ctl.client, "llm", failure_threshold=2)
    Breaker(ctl.client, "ä\u202e b").permit()
    b.open()
    b.refused()
    rows = {line.split("  ")[0]: line for line in ctl.run("breaker", "ls").splitlines()}
    assert rows["BREAKER"].split() == [
        *("BREAKER", "STATE", "FAILURES", "CALLS", "FAILED", "REJECTED", "SINCE")
    ]
    assert rows["llm"].split()[1:6] == ["OPEN", "2/2", "3", "2", "1"]
    assert ctl.run("breaker", "ls", "-o", "names", "--limit", "1").splitlines() == ["llm"]
    assert ctl.json("breaker", "ls")[0] == b.get()
    assert ctl.json("breaker", "show", "llm") == b.get()
    shown = ctl.run("breaker", "show", "llm")
    assert "OPEN" in shown and "rejected" in shown
    assert "there is no breaker nobody" in ctl.run("breaker", "show", "nobody", expected=3)
    status = ctl.run("status")
    assert "breakers known 2   open 1   half-open 0" in status
    assert ctl.json("status")["breakers"] == {"known": 2, "open": 1, "half_open": 0}


def test_coordctl_lists_more_breakers_than_a_page_has(ctl):
    ids = ctl.client.submit_all([("breaker_acquire", {"name": f"b{i:04}"}) for i in range(1001)])
    ctl.client.results(ids)
    assert len(ctl.run("breaker", "ls", "--no-header").splitlines()) == 1001
    assert len(ctl.run("breaker", "ls", "--no-header", "--limit", "1000").splitlines()) == 1000
    # As in queues, totals are of the first thousand.
    assert ctl.json("status")["breakers"]["known"] == 1001


def test_coordctl_looks_again_and_again(ctl):
    b = Breaker(ctl.client, "llm")
    b.permit()
    watching = subprocess.Popen(
        [*ctl.arguments, "breaker", "ls", "--no-header", "-w", "50ms"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert "closed" in watching.stdout.readline()
        b.manage("trip")
        while "OPEN" not in watching.stdout.readline():
            assert watching.poll() is None
    finally:
        watching.kill()
        watching.wait()
        watching.stdout.close()


def test_coordctl_trips_resets_and_removes(ctl):
    b = Breaker(ctl.client, "llm")
    b.permit()
    assert ctl.run("breaker", "trip", "llm", "--dry-run") == "would open llm\n"
    assert b.state() == "closed"
    assert ctl.run("breaker", "trip", "llm", "--for", "10m") == "opened llm\n"
    assert 590 < b.refused()["retry_after"] <= 600
    assert ctl.json("breaker", "trip", "llm") == {"breaker": "llm", "state": "open"}
    assert 55 < b.refused()["retry_after"] <= 60
    assert ctl.run("breaker", "reset", "llm", "--dry-run") == "would close llm\n"
    assert b.state() == "open"
    assert ctl.run("breaker", "reset", "llm") == "closed llm\n"
    assert b.state() == "closed"
    assert ctl.run("breaker", "rm", "llm", "--dry-run") == "would remove llm\n"
    ctl.run("breaker", "rm", "llm", expected=2)
    assert b.state() == "closed"
    assert ctl.run("breaker", "rm", "llm", "--yes") == "removed llm\n"
    assert b.get() is None
    for verb in (["trip"], ["reset"], ["rm", "--yes"], ["trip", "--dry-run"], ["rm", "--dry-run"]):
        assert "there is no breaker" in ctl.run("breaker", *verb, "llm", expected=3)
    ctl.run("breaker", "trip", "llm", "--for", "soon", expected=64)
    ctl.run("breaker", "trip", expected=64)
    ctl.run("breaker", "ls", "llm", expected=64)
