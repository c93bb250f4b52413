#!/usr/bin/python3
"""One agent sends another a message, which that one receives and acknowledges.

A program for the package that kept its messages in Redis by itself looks just like this, but for what the
coordinator is given.
"""
import asyncio
import uuid

from tta_agent_coordination import AgentId, AgentMessage, Connection, MessagePriority, MessageType, RedisMessageCoordinator


async def main():
    # The broker of $COORDCTL_SERVER, or the one at tcp://127.0.0.1:7420.
    async with Connection() as connection:
        coordinator = RedisMessageCoordinator(connection, key_prefix="myapp")
        sender = AgentId(type="input_processor", instance="worker-1")
        recipient = AgentId(type="world_builder", instance="worker-2")

        for text, priority in ("a forest", MessagePriority.NORMAL), ("a fire!", MessagePriority.HIGH):
            message = AgentMessage(
                message_id=str(uuid.uuid4()),
                sender=sender,
                recipient=recipient,
                message_type=MessageType.REQUEST,
                payload={"action": "process", "text": text},
                priority=priority,
            )
            result = await coordinator.send_message(sender, recipient, message)
            print(f"sent '{text}':", "delivered" if result.delivered else result.error)

        # The most urgent comes first. It is ours for 30 s, and nobody else sees it meanwhile.
        while received := await coordinator.receive(recipient, visibility_timeout=30):
            message = received.queue_message.message
            print(f"received '{message.payload['text']}' from {message.sender.type}")
            if await coordinator.ack(recipient, received.token):  # done: without this it would come again
                print("acknowledged")


asyncio.run(main())
