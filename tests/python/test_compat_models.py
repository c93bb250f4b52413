"""The models: what goes over the wire and comes back, and the method names of both pydantics."""

import dataclasses
import datetime
import enum
import json
import uuid

import pydantic
import pytest

import tta_agent_coordination as package
from tta_agent_coordination import (
    AgentId,
    AgentMessage,
    FailureType,
    MessagePriority,
    MessageResult,
    MessageType,
    NullMetrics,
    ReceivedMessage,
)
from tta_agent_coordination._model import to_wire
from tta_agent_coordination.messaging import received_from
from tta_agent_coordination.models import agent_text, agent_wire, message_wire

NAMES = """AgentId AgentMessage MessageType MessagePriority MessageResult MessageSubscription QueueMessage ReceivedMessage
FailureType MessageCoordinator AgentRegistry AgentProxy RedisMessageCoordinator RedisAgentRegistry CircuitBreaker
CircuitBreakerConfig CircuitBreakerState CircuitBreakerOpenError MetricsProtocol NullMetrics MessageCoordinatorError
AgentRegistryError RetryConfig retry_call retry_with_backoff Connection CoorddError"""


class AgentType(str, enum.Enum):
    IPA = "input_processor"
    WBA = "world_builder"


def a_message(**more):
    values = {
        "message_id": "msg-123",
        "sender": AgentId(type="a"),
        "recipient": AgentId(type="b", instance="1"),
        "message_type": MessageType.REQUEST,
        **more,
    }
    return AgentMessage(**values)


@pytest.mark.parametrize("name", NAMES.split())
def test_the_package_has_the_name(name):
    assert hasattr(package, name)
    assert name in package.__all__


def test_values_on_the_wire():
    assert [each.value for each in MessagePriority] == [1, 5, 9]
    assert [each.value for each in MessageType] == ["request", "response", "event"]
    assert [each.value for each in FailureType] == ["transient", "permanent", "timeout"]


def test_an_agent_without_an_instance_is_the_default_one():
    assert agent_wire(AgentId(type="a")) == {"type": "a", "instance": "default"}
    assert agent_wire(AgentId(type="a", instance="")) == {"type": "a", "instance": "default"}
    assert AgentId(type="a") == AgentId(type="a", instance="default") != AgentId(type="a", instance="1")
    assert len({AgentId(type="a"), AgentId(type="a", instance="default"), AgentId(type="b")}) == 2
    assert AgentId(type="a") != "a"
    assert agent_text(AgentId(type="a", instance="b")) == "a:b"


def test_an_enum_of_str_is_a_type():
    class Typed(AgentId):
        type: AgentType

    for agent in (AgentId(type=AgentType.IPA), Typed(type=AgentType.IPA), Typed(type="input_processor")):
        assert agent.type == AgentType.IPA == "input_processor"
        assert agent_wire(agent) == {"type": "input_processor", "instance": "default"}
        assert type(agent_wire(agent)["type"]) is str
    assert AgentId(type=AgentType.IPA) == Typed(type=AgentType.IPA) != AgentId(type=AgentType.WBA)


def test_a_message_on_the_wire():
    message = a_message(payload={"n": 1}, priority=MessagePriority.HIGH, correlation_id="c", trace={"a": [1]})
    wire = message_wire(message)
    assert wire == {
        "message_id": "msg-123",
        "message_type": "request",
        "payload": {"n": 1},
        "priority": 9,
        "correlation_id": "c",
        "trace": {"a": [1]},
    }
    assert type(wire["priority"]) is int and type(wire["message_type"]) is str
    assert message_wire(a_message(timestamp="2025-01-01T00:00:00Z"))["timestamp"] == "2025-01-01T00:00:00Z"
    assert message.correlation_id == "c"


def test_values_are_checked():
    for wrong in ({"priority": 2}, {"message_type": "command"}, {"payload": 7}):
        with pytest.raises(pydantic.ValidationError):
            a_message(**wrong)
    with pytest.raises(pydantic.ValidationError):
        AgentId()
    assert a_message(priority=9, message_type="event").message_type is MessageType.EVENT


def test_what_payloads_may_hold():
    @dataclasses.dataclass
    class Point:
        x: int
        y: list

    class Text(str):
        pass

    identity = uuid.uuid4()
    value = {
        "enum": AgentType.IPA,
        "model": AgentId(type=AgentType.WBA),
        "dataclass": Point(1, [AgentType.IPA]),
        "tuple": (1, 2),
        "set": {3},
        "time": datetime.datetime(2025, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc),
        "day": datetime.date(2025, 1, 2),
        "uuid": identity,
        "bytes": b"\0",
        "text": Text("t"),
        1: None,
        1.5: True,
        AgentType.WBA: 0,
        None: 0,
        identity: 0,
    }
    assert to_wire(value) == {
        "enum": "input_processor",
        "model": {"type": "world_builder", "instance": None},
        "dataclass": {"x": 1, "y": ["input_processor"]},
        "tuple": [1, 2],
        "set": [3],
        "time": "2025-01-02T03:04:05+00:00",
        "day": "2025-01-02",
        "uuid": str(identity),
        "bytes": b"\0",
        "text": "t",
        "1": None,
        "1.5": True,
        "world_builder": 0,
        "null": 0,
        str(identity): 0,
    }
    assert to_wire({False: 1, True: 2}) == {"false": 1, "true": 2}


@pytest.mark.parametrize(
    "payload, where",
    [
        ({"a": [1, ...]}, r"payload\.a\[1\] is of the type ellipsis, "),
        ({"a": {"b": object()}}, r"payload\.a\.b is of the type object, "),
        ({"a": {(1, 2): 3}}, r"payload\.a has a key of the type tuple, "),
        ({"a": AgentId}, r"payload\.a"),
    ],
)
def test_what_cannot_be_sent_is_named(payload, where):
    with pytest.raises(TypeError, match=where):
        message_wire(a_message(payload=payload))


def test_a_received_message():
    answer = {
        "token": "t",
        "queue_message": {
            "message": {
                "message_id": "m",
                "message_type": "event",
                "payload": [],  # as Lua sends an empty map
                "priority": 1,
                "timestamp": "now",
                "sender": {"type": "a", "instance": "default"},
                "recipient": {"type": "b", "instance": "default"},
                "reply_to": "x",
            },
            "priority": 1,
            "enqueued_at": "2025-01-01T00:00:00.000000Z",
            "delivery_attempts": 2,
            "last_error": None,
        },
        "visibility_deadline": None,
        "fence": 7,
        "later": "what a newer broker may add",
    }
    received = received_from(answer)
    assert received.fence == 7 and received.queue_message.delivery_attempts == 2
    assert received.queue_message.message.payload == {}
    assert received.queue_message.message.reply_to == "x"
    assert received.queue_message.priority is MessagePriority.LOW


def test_the_method_names_of_both_pydantics():
    message = a_message(payload={"n": 1}, correlation_id="c")
    dumped = message.model_dump()
    assert dumped["message_type"] is MessageType.REQUEST and dumped["correlation_id"] == "c"
    assert "timestamp" not in message.model_dump(exclude_none=True)
    plain = message.model_dump(mode="json")
    assert plain["message_type"] == "request" and plain["priority"] == 5 and type(plain["priority"]) is int
    assert json.loads(message.model_dump_json()) == plain
    assert "\n" in message.model_dump_json(indent=2)
    assert AgentMessage.model_validate(plain) == message
    assert AgentMessage.model_validate(message) == message
    assert AgentMessage.model_validate_json(message.model_dump_json()) == message
    assert message.model_copy(update={"message_id": "2"}).message_id == "2"
    assert message.model_copy(deep=True) == message
    assert AgentId.model_construct(type="a").type == "a"
    assert "type" in AgentId.model_json_schema()["properties"]
    assert AgentMessage.parse_obj(message.dict()) == message
    assert AgentMessage.parse_raw(message.json()) == message
    assert message.copy() == message
    with pytest.raises(pydantic.ValidationError):
        ReceivedMessage.model_validate({"token": "t"})


def test_results_have_defaults():
    result = MessageResult(message_id="m", delivered=True)
    assert (result.error, result.recipient, result.duplicate) == (None, None, False)


def test_null_metrics_count_nothing():
    metrics = NullMetrics()
    metrics.inc_delivered_ok(1)
    metrics.inc_delivered_error(1)
    metrics.inc_retries_scheduled(1, last_backoff_seconds=0.5)
    metrics.inc_nacks(1)
    metrics.inc_permanent(1)
