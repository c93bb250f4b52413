"""A configuration read again while the broker serves: SIGHUP, config_reload, config_get, coordctl config."""

import re
import signal
import threading
import time

import pytest

from harness import (
    Queue,
    Refused,
    Worker,
    check_shape,
    fresh,
    ids_of,
    is_text,
    is_time,
    merge,
    to_yaml,
    wait_until,
    within,
)
from test_coordctl import Ctl

CHANGE = {"key": is_text, "from": str, "to": str, "origin": is_text}
RELOAD = {"changed": [CHANGE], "restart": [CHANGE], "warnings": [is_text]}
VALUE = {"key": is_text, "value": str, "origin": is_text, "reloadable": bool}
CONFIG = {"since": is_time, "problem": (None, is_text), "values": [VALUE]}


def agent():
    return {"type": "worker", "instance": fresh("q")}


def write(broker, **config):
    """Change some values in the broker's file."""
    broker.config = merge(broker.config, config)
    broker.config_path.write_text(to_yaml(broker.config) + "\n")


def spoil(broker):
    """Append something bad to the file."""
    broker.config_path.write_text(to_yaml(broker.config) + "\nswep:\n  grace: 1s\n")


def reload(client, **params):
    return check_shape(client.call("config_reload", **params), RELOAD)


def changed(answer):
    return {each["key"]: (each["from"], each["to"]) for each in answer["changed"]}


def config_of(client):
    answer = check_shape(client.call("config_get"), CONFIG)
    return answer, {each["key"]: each for each in answer["values"]}


@pytest.fixture
def ctl(own):
    broker = own()
    ctl = Ctl(f"unix://{broker.unix_path}")
    ctl.broker = broker
    return ctl


# -- what is put in force


def test_a_reload_tells_what_changed_and_puts_it_in_force(own):
    broker = own()
    client = broker.connect()
    queue = Queue(client, agent())
    assert reload(client) == {"changed": [], "restart": [], "warnings": []}

    write(
        broker,
        queues={"defaults": {"queue_size": 2, "visibility_timeout": "1m"}},
        registry={"heartbeat_ttl": "90s"},
        breakers={"defaults": {"failure_threshold": 7}},
    )
    answer = reload(client)
    assert changed(answer) == {
        "queues.defaults.queue_size": ("10000", "2"),
        "queues.defaults.visibility_timeout": ("5s", "1m"),
        "registry.heartbeat_ttl": ("30s", "90s"),
        "breakers.defaults.failure_threshold": ("5", "7"),
    }
    assert all(re.search(r"coordd\.yaml:\d+$", each["origin"]) for each in answer["changed"])
    queue.send_all(["m1", "m2"])
    assert queue.try_send("m3")["delivered"] is False
    received = queue.take_one()
    assert received.deadline - received.enqueued_at > 30
    assert client.call("register", agent=agent())["ttl"] == 90
    client.call("breaker_acquire", name="b")
    assert client.call("breaker_get", name="b")["config"]["failure_threshold"] == 7
    (line,) = broker.logged("config.reloaded")[1:]
    assert line["changed"] == "4" and "registry.heartbeat_ttl" in line["keys"]
    assert line["by"].startswith("127.0.0.1")


def test_limits_of_connections_change_for_those_that_are_there(own):
    broker = own()
    client, other = broker.connect(), broker.connect()
    big = Queue(other, agent()).sending(payload={"text": "x" * 100_000})
    assert other.call("send", **big)["delivered"]
    write(broker, limits={"max_frame": "64KiB", "max_parked_per_connection": 1})
    reload(client)
    queue = Queue(client, agent())
    queue.park(wait=60)
    assert client.refused("receive", {"agent": queue.agent, "wait": 5}).code == "overloaded"
    other.submit("send", big)
    assert other.expect_closed()[-1][2]["code"] == "too_large"
    assert broker.connect().call("hello")["limits"]["max_frame"] == 65536

    write(broker, server={"max_connections": 1}, limits={"max_parked_per_connection": 2})
    reload(client)
    assert client.call("ping") == "pong", "whoever is there stays"
    stranger = broker.connect()
    assert stranger.expect_closed()[0][2]["code"] == "overloaded"
    write(broker, server={"max_connections": 10})
    reload(client)
    assert broker.connect().call("ping") == "pong"
    assert not client.has_answer(queue.park(wait=60).msgid), "the second place is there"


def test_a_connection_that_rested_goes_on_when_more_may_be_in_flight(own, redis):
    broker = own(limits={"max_inflight_per_connection": 1})
    operator, client = broker.connect(), broker.connect()
    queue = Queue(client, agent())
    redis.pause()
    try:
        ids = client.submit_all([("send", queue.sending()) for _ in range(3)] + [("ping", {})])
        assert not client.has_answer(ids[-1])
        write(broker, limits={"max_inflight_per_connection": 100})
        reload(operator)
        assert client.result(ids[-1]) == "pong"
    finally:
        redis.resume()
    assert all(each["delivered"] for each in client.results(ids[:-1]))


def test_the_log_is_configured_anew(own):
    broker = own()
    client = broker.connect()
    other = broker.directory / "other.log"
    write(broker, log={"file": str(other), "format": "json", "level": "warning"})
    reload(client)
    assert '"event":"config.reloaded"' not in other.read_text(), "it is a notice"
    write(broker, log={"level": "info"})
    reload(client)
    assert '"event":"config.reloaded"' in other.read_text()
    before = broker.log_path.read_text()
    write(broker, log={"level": "debug"})
    reload(client)
    assert broker.log_path.read_text() == before
    write(broker, log={"file": str(broker.log_path), "format": "logfmt"})
    reload(client)
    assert broker.logged("config.reloaded")


def test_a_log_file_that_cannot_be_opened_refuses_the_whole(own):
    broker = own()
    broker.expected_errors = ["config.rejected"]
    client = broker.connect()
    write(broker, log={"file": "/nonexistent/log"}, registry={"heartbeat_ttl": "77s"})
    refusal = client.refused("config_reload")
    assert refusal.code == "bad_request"
    assert re.search(r"coordd\.yaml:\d+:\d+: log\.file: cannot open", refusal.message)
    assert client.call("register", agent=agent())["ttl"] == 30
    assert broker.logged("config.rejected"), "it writes on to the old one"


def test_a_level_set_for_a_while_outlasts_a_reload_that_changes_others(own):
    broker = own(log={"level": "info"})
    client = broker.connect()
    client.call("log_level", level="warning")
    write(broker, log={"rate_limit": 10})
    reload(client)
    assert client.call("log_level")["level"] == "warning"
    write(broker, log={"level": "notice"})
    reload(client)
    assert client.call("log_level") == {"level": "notice", "configured": "notice", "for": None}


def test_the_environment_and_flags_still_win(redis, make_broker):
    broker = make_broker(
        redis,
        config={"redis": {"key_prefix": fresh("own")}},
        arguments=["--set", "registry.heartbeat_ttl=11s"],
        environment={"COORDD_SWEEP__GRACE": "9s"},
    ).start()
    client = broker.connect()
    write(broker, registry={"heartbeat_ttl": "22s"}, sweep={"grace": "8s"})
    assert changed(reload(client)) == {}
    values = config_of(client)[1]
    assert values["registry.heartbeat_ttl"]["value"] == "11s"
    assert values["registry.heartbeat_ttl"]["origin"] == "flag"
    assert values["sweep.grace"]["origin"] == "env"


# -- what is refused


@pytest.mark.parametrize(
    "bad, place, key",
    [
        ("registry:\n  heartbeat_ttl: soon\n", "1:", "registry.heartbeat_ttl"),
        ("registry:\n  hartbeat_ttl: 5s\n", "1:", "registry.hartbeat_ttl"),
        ("registry: [\n", "", ""),
        ("registry:\n  forget_after: 1s\n  forget_after: 2s\n", "", "registry.forget_after"),
        ("queues:\n  defaults: {backoff_base: 10s, backoff_max: 5s}\n", "", "backoff_max"),
    ],
)
def test_a_bad_file_keeps_the_old_configuration_and_the_next_good_one_works(own, bad, place, key):
    broker = own()
    broker.expected_errors = ["config.rejected"]
    client = broker.connect()
    before = config_of(client)
    good = broker.config_path.read_text()
    number = len(good.splitlines())
    broker.config_path.write_text(good + "sweep:\n  grace: 2s\n" + bad)
    refusal = client.refused("config_reload")
    assert refusal.code == "bad_request"
    found = re.match(r"(\S*coordd\.yaml):(\d+):(\d+): (.*)", refusal.message)
    assert found and int(found[2]) > number + 2, refusal.message
    assert found[1] == str(broker.config_path)
    assert key in found[4]
    (line,) = broker.logged("config.rejected")
    assert line["kept"] == "previous" and line["level"] == "error"
    assert line["file"] == found[1]
    assert f"line={found[2]}" in line["line"] and f"column={found[3]}" in line["line"]

    after = config_of(client)
    assert after[1] == before[1] and after[0]["since"] == before[0]["since"]
    assert after[0]["problem"].startswith(found[0][: 100])
    checks = {each["name"]: each for each in client.call("status")["checks"]}
    assert checks["config"]["status"] == "warn" and found[1] in checks["config"]["message"]
    broker.config_path.write_text(good + "sweep:\n  grace: 2s\n")
    assert changed(reload(client)) == {"sweep.grace": ("5s", "2s")}
    assert config_of(client)[0]["problem"] is None


def test_what_needs_a_restart_is_refused_by_name_with_all_the_rest(own):
    broker = own()
    broker.expected_errors = ["config.rejected"]
    client = broker.connect()
    write(broker, server={"backlog": 7}, registry={"heartbeat_ttl": "77s"})
    refusal = client.refused("config_reload")
    assert refusal.code == "bad_request"
    assert re.search(
        r"coordd\.yaml:\d+:\d+: server\.backlog: .* needs a restart; now it is 1024$",
        refusal.message,
    )
    assert client.call("register", agent=agent())["ttl"] == 30
    write(broker, redis={"key_prefix": "other"}, server={"unix_mode": "0600"})
    assert "(and 2 more)" in client.refused("config_reload").message
    assert len(broker.logged("config.rejected")) == 2


def test_a_file_that_is_gone_is_refused(own):
    broker = own()
    broker.expected_errors = ["config.rejected"]
    client = broker.connect()
    text = broker.config_path.read_text()
    broker.config_path.unlink()
    assert "cannot open" in client.refused("config_reload").message
    broker.config_path.write_text(text)
    reload(client)


def test_a_dry_run_tells_and_does_nothing(own):
    broker = own()
    client = broker.connect()
    write(broker, server={"backlog": 7}, registry={"heartbeat_ttl": "77s"})
    answer = reload(client, dry_run=True)
    assert changed(answer) == {"registry.heartbeat_ttl": ("30s", "77s")}
    assert [(each["key"], each["from"], each["to"]) for each in answer["restart"]] == [
        ("server.backlog", "1024", "7")
    ]
    assert client.call("register", agent=agent())["ttl"] == 30
    assert not broker.logged("config.reloaded")
    assert config_of(client)[0]["problem"] is None


# -- SIGHUP


def test_sighup_reloads(own):
    broker = own()
    broker.expected_errors = ["config.rejected"]
    client = broker.connect()
    write(broker, registry={"heartbeat_ttl": "77s"})
    broker.signal(signal.SIGHUP)
    wait_until(lambda: broker.logged("config.reloaded"), 5)
    assert client.call("register", agent=agent())["ttl"] == 77
    spoil(broker)
    broker.signal(signal.SIGHUP)
    wait_until(lambda: broker.logged("config.rejected"), 5)
    (line,) = broker.logged("config.rejected")
    assert line["by"] == "SIGHUP" and line["key"] == "swep"
    assert client.call("register", agent=agent())["ttl"] == 77
    states = [line["to"] for line in broker.logged("server.state")]
    assert states == ["ready", "reloading", "ready", "reloading", "ready"]


def test_a_drained_broker_reloads_and_stays_drained(own):
    broker = own()
    client = broker.connect()
    client.call("drain")
    write(broker, registry={"heartbeat_ttl": "77s"})
    reload(client)
    assert client.call("status")["draining"] is True
    assert client.call("register", agent=agent())["ttl"] == 77


# -- nothing is lost


def test_ten_reloads_under_load_lose_nothing(own):
    broker = own()
    stop = threading.Event()
    agents = [agent() for _ in range(4)]
    acked = [[] for _ in agents]
    sent = [[] for _ in agents]

    def produce(i):
        queue = Queue(broker.connect(), agents[i])
        while not stop.is_set():
            ids = [fresh(f"m{i}") for _ in range(20)]
            sent[i] += queue.send_all(ids)

    def consume(i):
        queue = Queue(broker.connect(), agents[i])
        while not (stop.is_set() and len(acked[i]) == len(sent[i])):
            for each in queue.take(most=50, wait=0.2):
                assert queue.ack(each) is True
                assert each.attempts == 0, "nothing was handed out twice"
                acked[i].append(each.id)

    idle = Queue(broker.connect(), agent())
    parked = idle.park(wait=60)
    connections = broker.connect()
    producers = [Worker(lambda i=i: produce(i)) for i in range(4)]
    consumers = [Worker(lambda i=i: consume(i)) for i in range(4)]
    try:
        for n in range(10):
            write(
                broker,
                limits={"max_inflight_per_connection": 500 + n, "output_high_water": f"{n + 1}MiB"},
                queues={"defaults": {"backoff_base": f"{n + 100}ms"}, "forget_after": f"{n + 9}m"},
                redis={"command_timeout": f"{n + 5}s", "pending_limit": 5000 + n},
                server={"tcp_keepalive": f"{n + 30}s"},
            )
            assert len(changed(reload(connections))) == 7
            assert reload(connections)["changed"] == []
    finally:
        stop.set()
    for each in producers + consumers:
        each.finish()
    assert sum(map(len, sent)) > 0
    assert [sorted(each) for each in acked] == [sorted(each) for each in sent]
    assert not parked.is_answered()
    idle.at(broker.connect()).send("last")
    assert parked.result().id == "last"
    assert len(broker.logged("config.reloaded")) == 20


def test_a_reload_while_redis_is_away(start_redis, make_broker):
    redis = start_redis()
    broker = make_broker(redis, expected_errors=["redis."]).start()
    client = broker.connect()
    queue = Queue(client, agent())
    redis.kill()
    wait_until(lambda: not client.call("status")["redis"]["up"], 10)
    write(
        broker,
        queues={"defaults": {"queue_size": 1}},
        redis={"reconnect_max": "150ms", "reconnect_min": "50ms"},
        sweep={"grace": "0s"},
    )
    assert len(changed(reload(client))) == 4
    redis.start()
    wait_until(lambda: client.call("status")["redis"]["up"], 10)
    queue.send("m1")
    assert queue.try_send("m2")["error"], "the new size is in force"


# -- Redis's password


def test_a_new_password_is_used_for_the_next_connection(start_redis, make_broker):
    redis = start_redis()
    redis.command("CONFIG", "SET", "requirepass", "one")
    redis.password = "one"
    secret = redis.directory / "secret"
    secret.write_text("one\n")
    secret.chmod(0o600)
    broker = make_broker(
        redis, config={"redis": {"password_file": str(secret)}}, expected_errors=["redis."]
    ).start()
    client = broker.connect()
    secret.write_text("two\n")
    answer = reload(client)
    assert list(changed(answer)) == ["redis.password"]
    assert "two" not in str(answer) and "one" not in str(answer["changed"][0]["from"])
    wait_until(lambda: broker.logged("redis.password_refused"), 5, "it is tried at once")
    queue = Queue(client, agent())
    queue.send("m1")

    redis.command("CONFIG", "SET", "requirepass", "two")
    redis.password = "two"
    # Whoever was logged in stays so: end the connections, as a restart does.
    redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    redis.command("CLIENT", "KILL", "TYPE", "pubsub")
    wait_until(lambda: len(broker.logged("redis.ready")) == 2, 10)
    assert queue.take_one().id == "m1"
    text = broker.log_path.read_text() + broker.errors()
    assert not re.search(r"\btwo\b", text)


def test_noeviction_is_looked_into_when_it_is_asked_for(start_redis, make_broker):
    redis = start_redis(options=("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"))
    broker = make_broker(
        redis, config={"redis": {"require_noeviction": False}}, expected_errors=["redis."]
    ).start()
    client = broker.connect()
    write(broker, redis={"require_noeviction": True, "reconnect_max": "200ms"})
    reload(client)
    wait_until(lambda: not client.call("status")["redis"]["up"], 10)
    assert "evicts" in client.call("status")["redis"]["problem"]
    write(broker, redis={"require_noeviction": False})
    reload(client)
    wait_until(lambda: client.call("status")["redis"]["up"], 10)


# -- config_get


def test_config_get_tells_all_values_with_origins_and_no_secrets(redis, make_broker):
    broker = make_broker(
        redis,
        config={"redis": {"key_prefix": fresh("own")}},
        arguments=["--set", "registry.heartbeat_ttl=11s"],
    ).start()
    client = broker.connect()
    answer, values = config_of(client)
    assert time.time() - 60 < time.mktime(time.strptime(answer["since"][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone
    assert values["registry.heartbeat_ttl"] == {
        "key": "registry.heartbeat_ttl",
        "value": "11s",
        "origin": "flag",
        "reloadable": True,
    }
    assert values["server.backlog"] == {
        "key": "server.backlog",
        "value": "1024",
        "origin": "default",
        "reloadable": False,
    }
    assert values["log.level"]["value"] == "debug"
    assert re.search(r"coordd\.yaml:\d+$", values["log.level"]["origin"])
    assert values["server.listen"]["value"].startswith("tcp://127.0.0.1:0,")


def test_config_get_hides_passwords(start_redis, make_broker):
    redis = start_redis()
    redis.command("CONFIG", "SET", "requirepass", "s3cret")
    redis.password = "s3cret"
    broker = make_broker(redis, config={"redis": {"password": "s3cret"}}).start()
    answer, values = config_of(broker.connect())
    assert values["redis.password"]["value"] == "***"
    assert "s3cret" not in str(answer)


# -- coordctl config


def test_coordctl_config_shows_what_is_in_force(ctl):
    shown = ctl.out("config", "show")
    rows = {line.split()[0]: line for line in shown.splitlines()}
    assert re.search(r"^server.backlog +1024 +default +restart$", rows["server.backlog"])
    assert re.search(r"^log.level +debug +\S*coordd\.yaml:\d+ +reload$", rows["log.level"])
    only = ctl.out("config", "show", "queues.defaults").splitlines()
    assert len(only) > 5 and all(line.startswith("queues.defaults.") for line in only[1:])
    assert ctl.json("config", "show", "log.level")[0]["value"] == "debug"
    assert "no key log.lev" in ctl.fails(3, "config", "show", "log.lev")


def test_coordctl_config_diff_and_reload(ctl):
    broker = ctl.broker
    broker.expected_errors = ["config.rejected"]
    assert ctl.out("config", "diff") == "nothing would change\n"
    assert ctl.out("config", "reload") == "in force; 0 values changed\n"
    write(broker, registry={"heartbeat_ttl": "77s"}, server={"backlog": 7})
    diff = ctl.out("config", "diff")
    assert re.search(r"^registry.heartbeat_ttl +30s +77s +\S+yaml:\d+ +reload$", diff, re.M)
    assert re.search(r"^server.backlog +1024 +7 +\S+yaml:\d+ +restart$", diff, re.M)
    said = ctl.fails(1, "config", "reload", "--wait")
    assert re.search(r"coordd\.yaml:\d+:\d+: server\.backlog: .* restart", said)
    assert "refused" in ctl.run("config", "show")[2]
    write(broker, server={"backlog": 1024})
    assert ctl.out("config", "reload", "--dry-run") == ctl.out("config", "diff")
    assert ctl.out("config", "reload", "--wait", "5s") == (
        "in force; 1 value changed:\n  registry.heartbeat_ttl: 30s -> 77s\n"
    )
    assert ctl.json("config", "reload")["changed"] == []


def test_coordctl_config_check_needs_no_broker(tmp_path):
    ctl = Ctl("unix:///nonexistent/socket")
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("log: {level: debug}\n")
    assert ctl.out("config", "check", str(good)) == "the configuration is valid\n"
    assert ctl.out("config", "check", "-q", str(good)) == ""
    for text, place in (
        ("log: {levle: debug}\n", "1:7: unknown key"),
        ("server: {listen: [tcp://0.0.0.0:1]}\n", "1:18: server.listen"),
        ("redis: {url: http://x}\n", "1:14: redis.url"),
        ("log:\n  level: info\n  level: debug\n", "3:3: duplicate key"),
    ):
        bad.write_text(text)
        assert f"bad.yaml:{place}" in ctl.fails(78, "config", "check", str(good), str(bad))
