"""The usage example of the replaced package's design, as it stands there."""

import ast
import types

import pytest

from harness import fresh
from tta_agent_coordination import AgentId, MessageResult, MessageType, RedisMessageCoordinator

EXAMPLE = """
from tta_agent_coordination import RedisMessageCoordinator, AgentId, AgentMessage

# Initialize coordinator
coordinator = RedisMessageCoordinator(redis_client, key_prefix="myapp")

# Create generic agent IDs (no TTA-specific types!)
sender = AgentId(type="input_processor", instance="worker-1")
recipient = AgentId(type="world_builder", instance="worker-2")

# Send message
message = AgentMessage(
    message_id="msg-123",
    sender=sender,
    recipient=recipient,
    message_type=MessageType.REQUEST,
    payload={"action": "process", "data": {...}}
)

result = await coordinator.send_message(sender, recipient, message)
"""


@pytest.fixture
def run_example(run, url):
    """Run the example; what it leaves, and what the recipient received. The constructor's argument is a broker's URL, and
    MessageType is there although the example forgets to import it."""

    def run_example(text):
        names = {"MessageType": MessageType}
        source = text.replace("redis_client", repr(url)).replace('"myapp"', repr(fresh("myapp")))
        code = compile(source, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

        async def main():
            await types.FunctionType(code, names)()
            received = await names["coordinator"].receive(names["recipient"])
            await names["coordinator"].close()
            return received

        received = run(main())
        assert isinstance(names["coordinator"], RedisMessageCoordinator)
        return names["result"], received

    return run_example


def test_the_example_runs(run_example):
    data = {"scene": [1, 2], "mood": None}
    result, received = run_example(EXAMPLE.replace("{...}", repr(data)))
    recipient = AgentId(type="world_builder", instance="worker-2")
    assert result == MessageResult(message_id="msg-123", delivered=True, recipient=recipient)
    message = received.queue_message.message
    assert message.payload == {"action": "process", "data": data}
    assert message.sender == AgentId(type="input_processor", instance="worker-1")


def test_its_placeholder_is_no_data(run_example):
    """`{...}` is a set with an Ellipsis in it, of which the replaced package could make no JSON either."""
    result, received = run_example(EXAMPLE)
    assert not result.delivered and received is None
    assert result.error == "payload.data[0] is of the type ellipsis, which cannot be sent"
