"""The calls that an agent makes to its saver, without the graph around it: turns of a chat.

A turn is one read and five steps, each a put and a put_writes: 11 calls. The chat holds 20 messages at first and grows
by one a step, to 60, where it starts over.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from typing import Any, cast

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint, empty_checkpoint

STEPS = 5
CALLS = 1 + 2 * STEPS
"""The number of calls in a turn."""
SHORTEST, LONGEST = 20, 60
"""The number of messages in a chat."""


class Runtime:
    """Stands for LangGraph's runtime object, which every config of a real run carries."""


def checkpoint_of(channel_values: dict[str, Any]) -> Checkpoint:
    """Returns a checkpoint in the format that LangGraph writes. `empty_checkpoint` has an older one: reading such a
    checkpoint also reads its parent."""
    return cast(Checkpoint, {**empty_checkpoint(), "v": 4, "channel_values": channel_values})


def message(number: int) -> AnyMessage:
    """Returns a message of typical length."""
    text = f"Message {number}: " + "what about the delivery of my last order, which was due on Tuesday? " * 2
    return (HumanMessage if number % 2 else AIMessage)(text, id=str(uuid.uuid4()))


class Chat:
    """One agent's chat."""

    def __init__(self, saver: BaseCheckpointSaver[Any]) -> None:
        self._saver = saver
        self._thread_id = str(uuid.uuid4())
        self._messages = [message(number) for number in range(SHORTEST)]
        self._numbers = itertools.count(SHORTEST)
        self._version: str | None = None
        self.latencies: dict[str, list[float]] = {"get_tuple": [], "put": [], "put_writes": []}
        """The duration of each call, in seconds."""

    async def turn(self) -> None:
        """Takes a turn: 11 calls, one after another."""
        configurable = {"thread_id": self._thread_id, "checkpoint_ns": "", "__pregel_runtime": Runtime()}
        config: RunnableConfig = {"configurable": configurable}
        started = time.perf_counter()
        saved = await self._saver.aget_tuple(config)
        self._note("get_tuple", started)
        if saved is not None:
            config = {"configurable": {**configurable, **saved.config["configurable"]}}
        for step in range(STEPS):
            checkpoint, new_versions = self._step()
            started = time.perf_counter()
            stored = await self._saver.aput(config, checkpoint, {"source": "loop", "step": step}, new_versions)
            self._note("put", started)
            config = {"configurable": {**configurable, **stored["configurable"]}}
            writes = [("messages", self._messages[-1:]), ("branch:to:agent", None)]
            started = time.perf_counter()
            await self._saver.aput_writes(config, writes, str(uuid.uuid4()), "~__pregel_pull, agent")
            self._note("put_writes", started)

    def _step(self) -> tuple[Checkpoint, dict[str, Any]]:
        if len(self._messages) >= LONGEST:
            del self._messages[SHORTEST:]
        self._messages.append(message(next(self._numbers)))
        previous, self._version = self._version, self._saver.get_next_version(self._version, None)
        before = previous or self._version
        checkpoint = checkpoint_of({"messages": list(self._messages), "branch:to:agent": None})
        checkpoint["channel_versions"] = {
            "__start__": before,
            "messages": self._version,
            "branch:to:agent": self._version,
            "branch:to:tools": before,
        }
        checkpoint["versions_seen"] = {
            "__input__": {},
            "__start__": {"__start__": before},
            "agent": {"branch:to:agent": before},
            "tools": {"branch:to:tools": before},
        }
        checkpoint["updated_channels"] = ["messages", "branch:to:agent"]
        return checkpoint, {"messages": self._version, "branch:to:agent": self._version}

    def _note(self, call: str, started: float) -> None:
        self.latencies[call].append(time.perf_counter() - started)


async def chat_for(
    saver: BaseCheckpointSaver[Any], agents: int, seconds: float
) -> tuple[float, dict[str, list[float]]]:
    """Runs chats of concurrent agents for a while, after one turn each that isn't counted.

    Returns:
        Calls per second, and each call's latencies in seconds.
    """
    chats = [Chat(saver) for _ in range(agents)]
    await asyncio.gather(*(chat.turn() for chat in chats))
    for chat in chats:
        for latencies in chat.latencies.values():
            latencies.clear()
    started = time.perf_counter()

    async def keep_going(chat: Chat) -> None:
        while time.perf_counter() < started + seconds:
            await chat.turn()

    await asyncio.gather(*(keep_going(chat) for chat in chats))
    duration = time.perf_counter() - started
    merged = {
        call: [latency for chat in chats for latency in chat.latencies[call]]
        for call in ("get_tuple", "put", "put_writes")
    }
    return sum(len(latencies) for latencies in merged.values()) / duration, merged
