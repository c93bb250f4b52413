#!/usr/bin/python3
"""Agents of your own types: a line of text passes through three of them and comes back as a story.

A type is any string. An enum of your own keeps it from being misspelt.
"""
import asyncio
import enum

from tta_agent_coordination import Agent, Connection


class Role(str, enum.Enum):
    READER = "input_processor"
    BUILDER = "world_builder"
    WRITER = "narrative_generator"


async def main():
    async with Connection(namespace="story") as connection:
        reader = Agent(connection, Role.READER.value, "r1", capabilities=["english"])
        builder = Agent(connection, Role.BUILDER.value, "b1", capabilities=["forests", "castles"])
        writer = Agent(connection, Role.WRITER.value, "w1")

        # What a handler returns goes back to whoever asked. The message is acknowledged when it returns, and
        # tried again when it raises.
        @reader.handler
        async def read(job):
            who, *_, place = job.payload["text"].split()
            answer = await reader.request(builder.id, {"place": place})
            return await reader.request(writer.id, {"plot": f"a {who} came to {answer['world']}"})

        @builder.handler
        async def build(job):
            return {"world": f"the {job.payload['place']} in the rain"}

        @writer.handler
        async def write(job):
            return {"story": f"Once upon a time {job.payload['plot']}."}

        async with reader, builder, writer, Agent(connection, "player") as player:
            for agent in await connection.call("list_registered", type=Role.BUILDER.value):
                print("a world builder knows", " and ".join(agent["capabilities"]))
            answer = await player.request(reader.id, {"text": "wolf seeks castle"})
            print(answer["story"])


asyncio.run(main())
