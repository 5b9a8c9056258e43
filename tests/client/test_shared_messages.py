"""Operations that share a message on a saver's stream, and operations that wait for no others."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from langgraph.checkpoint.grpc import GrpcSaver
from langgraph.checkpoint.grpc._transport.stream import Stream
from langgraph.checkpoint.grpc._transport.tuning import Tuning

from tests.support.gates import new_thread
from tests.support.local_server import LocalServer
from tests.support.runs import holding
from tests.support.server_process import ServerProcess
from tests.support.tuned import tuned


@contextmanager
def messages(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Yields the sizes of the messages that are sent."""
    sizes: list[int] = []
    take = Stream._message

    def noted(self: Stream) -> bytes:
        message = take(self)
        if message:
            sizes.append(len(message))
        return message

    with monkeypatch.context() as patch:
        patch.setattr(Stream, "_message", noted)
        yield sizes


async def test_calls_made_at_once_share_messages(shared_server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    with messages(monkeypatch) as sent:
        async with GrpcSaver(shared_server.target) as saver:
            threads = [new_thread() for _ in range(50)]
            await asyncio.gather(*(saver.aput(config, holding(i), {}, {"a": 1}) for i, config in enumerate(threads)))
            found = await asyncio.gather(*(saver.aget_tuple(config) for config in threads))
    values = [saved.checkpoint["channel_values"]["a"] for saved in found if saved is not None]
    assert values == list(range(50))
    assert len(sent) < 20


async def test_a_call_alone_is_a_message_of_its_own(
    shared_server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    with messages(monkeypatch) as sent:
        async with GrpcSaver(shared_server.target) as saver:
            config = new_thread()
            for i in range(3):
                await saver.aput(config, holding(i), {}, {"a": 1})
    assert len(sent) == 3


async def test_what_comes_while_others_are_unanswered_shares_messages(
    local_server: LocalServer, blocker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tuned(linger=60.0)(local_server.target) as saver:
        locked = new_thread()
        await saver.aput(locked, holding(0), {}, {"a": 1})
        async with blocker() as blocking:
            with messages(monkeypatch) as sent:
                puts = [asyncio.create_task(saver.aput(locked, holding(1), {}, {"a": 1}))]
                await blocking.until_waiting(1)
                for number in range(5):
                    puts.append(asyncio.create_task(saver.aput(new_thread(), holding(number), {}, {"a": 1})))
                    await asyncio.sleep(0.01)
                assert len(sent) == 1
        await asyncio.wait_for(asyncio.gather(*puts), 30)


@pytest.mark.parametrize("linger", [Tuning().linger, 60.0])
async def test_what_lingers_waits_for_no_answer(local_server: LocalServer, blocker: Any, linger: float) -> None:
    async with tuned(linger=linger)(local_server.target) as saver:
        locked = new_thread()
        await saver.aput(locked, holding(0), {}, {"a": 1})
        async with blocker() as blocking:
            stuck = asyncio.create_task(saver.aput(locked, holding(1), {}, {"a": 1}))
            await blocking.until_waiting(1)
            if linger < 1:
                await asyncio.wait_for(saver.aput(new_thread(), holding(2), {}, {"a": 1}), 20)
            # Large saves don't wait either, nor do many.
            await asyncio.wait_for(saver.aput(new_thread(), holding(os.urandom(100_000)), {}, {"a": 1}), 20)
            many = [asyncio.create_task(saver.aput(new_thread(), holding(3), {}, {"a": 1})) for _ in range(70)]
            await asyncio.wait_for(asyncio.gather(*many), 20)
            assert not stuck.done()
        await stuck


async def test_messages_are_bounded(shared_server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    with messages(monkeypatch) as sent:
        async with GrpcSaver(shared_server.target) as saver:
            value = os.urandom(300_000)
            threads = [new_thread() for _ in range(20)]
            await asyncio.gather(*(saver.aput(config, holding(value), {}, {"a": 1}) for config in threads))
            for config in threads:
                found = await saver.aget_tuple(config)
                assert found is not None
                assert found.checkpoint["channel_values"]["a"] == value
    assert max(sent) <= 1024 * 1024
