"""The contract for a saver's reads: rules 1 to 9 of README.md."""

from __future__ import annotations

import random
import uuid
from enum import IntEnum, StrEnum
from typing import Any

import pytest
from langgraph.checkpoint.grpc import CheckpointdError, GrpcSaver, ServerUnavailableError

from tests.support.calls import Calls, checkpoint, config_of
from tests.support.server_process import ServerProcess


@pytest.mark.parametrize("absent", [{}, {"checkpoint_id": None}, {"checkpoint_id": ""}], ids=["none", "None", "empty"])
async def test_the_latest_is_the_greatest_id_not_the_last_put(calls: Calls, absent: dict[str, Any]) -> None:
    # contract 1
    for checkpoint_id in ("2", "3", "1"):
        await calls.put(checkpoint(checkpoint_id))
    found = await calls.find({"configurable": {"thread_id": calls.thread_id, "checkpoint_ns": "", **absent}})
    assert found is not None
    assert found.checkpoint["id"] == "3"


async def test_ids_are_compared_by_their_bytes(calls: Calls) -> None:
    # contract 1, 6
    ids = ["A", "Z", "_", "a", "\u00e9", "\uffff", "\U0001f600"]
    for checkpoint_id in reversed(ids):
        await calls.put(checkpoint(checkpoint_id))
    assert (await calls.get()).checkpoint["id"] == "\U0001f600"
    assert await calls.ids(config_of(calls.thread_id)) == ids[::-1]


async def test_an_absent_namespace_is_the_root(calls: Calls) -> None:
    # contract 1
    await calls.put(checkpoint("1"), ns="child")
    assert await calls.find(config_of(calls.thread_id, None)) is None
    await calls.put(checkpoint("2"))
    assert (await calls.get(ns=None)).config == config_of(calls.thread_id, "", "2")


async def test_configs_hold_three_keys_and_nothing_else(calls: Calls) -> None:
    # contract 2
    keys = {**config_of(calls.thread_id, "ns", "1")["configurable"], "mine": 1, "__pregel_x": 2}
    given = await calls.put(
        checkpoint("2"), config={"configurable": keys, "tags": ["x"], "metadata": {"y": 1}, "recursion_limit": 5}
    )
    assert given == config_of(calls.thread_id, "ns", "2")
    found = await calls.find({"configurable": {**keys, "checkpoint_id": "2"}})
    assert found is not None
    assert found.config == config_of(calls.thread_id, "ns", "2")
    assert found.parent_config == config_of(calls.thread_id, "ns", "1")
    [listed] = await calls.listed({"configurable": {**keys, "checkpoint_id": None}})
    assert (listed.config, listed.parent_config) == (found.config, found.parent_config)


async def test_the_parent_is_what_put_was_called_with(calls: Calls) -> None:
    # contract 2
    await calls.put(checkpoint("1"))
    assert (await calls.get("1")).parent_config is None
    await calls.put(checkpoint("3"), parent="nobody has stored this")
    assert (await calls.get("3")).parent_config == config_of(calls.thread_id, "", "nobody has stored this")


async def test_what_is_not_there_is_none(calls: Calls) -> None:
    # contract 3
    assert await calls.find(config_of(calls.thread_id)) is None
    await calls.put(checkpoint("1"))
    assert await calls.find(config_of(calls.thread_id, "", "2")) is None
    assert await calls.listed(config_of(calls.thread_id, "other")) == []


async def test_a_failure_to_ask_is_never_an_absence(server: ServerProcess) -> None:
    # contract 3, 30
    async with GrpcSaver(server.target, retry_budget=0, timeout=5) as saver:
        config = config_of("t")
        saver.put(config, checkpoint("1"), {}, {})
        server.kill()
        with pytest.raises(ServerUnavailableError):
            saver.get_tuple(config)
        with pytest.raises(ServerUnavailableError):
            await saver.aget_tuple(config)
        with pytest.raises(ServerUnavailableError):
            list(saver.list(config))
        with pytest.raises(ServerUnavailableError):
            [saved async for saved in saver.alist(config)]
        with pytest.raises(ServerUnavailableError):
            saver.get_delta_channel_history(config=config, channels=["a"])
        with pytest.raises(ServerUnavailableError):
            await saver.aget_delta_channel_history(config=config, channels=["a"])
        with pytest.raises(ServerUnavailableError):
            saver.put(config, checkpoint("2"), {}, {})
        with pytest.raises(ServerUnavailableError):
            await saver.aput(config, checkpoint("2"), {}, {})
        with pytest.raises(CheckpointdError):
            await saver.aput_writes(config_of("t", "", "1"), [("a", 1)], "task")


@pytest.mark.parametrize(
    ("count", "size"), [(150, 10), (6, 3_000_000)], ids=["between-pages", "between-a-page-and-its-values"]
)
async def test_a_list_cut_off_by_a_failure_raises_instead_of_ending(
    server: ServerProcess, count: int, size: int
) -> None:
    # contract 3: a part of the answer isn't returned as the answer.
    with GrpcSaver(server.target) as saver:
        for number in range(count):
            value = random.Random(number).randbytes(size)
            saver.put(config_of("t"), checkpoint(f"{number:03}", {"a": value}, {"a": number}), {}, {"a": number})
    with GrpcSaver(server.target, retry_budget=0, timeout=5) as saver:
        found = saver.list(config_of("t"))
        assert next(found).checkpoint["id"] == f"{count - 1:03}"
        server.kill()
        with pytest.raises(ServerUnavailableError):
            list(found)


async def test_writes_come_by_path_task_and_position(calls: Calls) -> None:
    # contract 4: compared bytewise, so "10" is before "9".
    await calls.put(checkpoint("1"))
    await calls.write("1", [("c", "push 9")], "t", "~push, 9")
    await calls.write("1", [("c", "push 10")], "t2", "~push, 10")
    await calls.write("1", [("a", 0), ("b", 1)], "t1", "~pull")
    await calls.write("1", [("c", "upper")], "T1", "~pull")
    await calls.write("1", [("c", "no path")], "z")
    assert [value for _, _, value in (await calls.get()).pending_writes or ()] == [
        "no path",
        "upper",
        0,
        1,
        "push 10",
        "push 9",
    ]


async def test_list_yields_full_tuples(calls: Calls) -> None:
    # contract 5
    await calls.put(checkpoint("1", {"a": 1}), metadata={"step": 1})
    await calls.put(checkpoint("2", {"a": 1, "b": [2]}), parent="1", new={"b": 1}, metadata={"step": 2})
    await calls.write("2", [("a", "written")])
    [listed] = await calls.listed(config_of(calls.thread_id), limit=1)
    assert listed == await calls.get("2")
    assert listed.checkpoint["channel_values"] == {"a": 1, "b": [2]}
    assert listed.pending_writes == [("task", "a", "written")]


async def test_list_by_thread_and_namespace(calls: Calls) -> None:
    # contract 6
    other = calls.thread_id + " other"
    for number, (thread_id, ns) in enumerate([(calls.thread_id, ""), (calls.thread_id, "child"), (other, "")]):
        await calls.put(checkpoint(str(number)), thread_id=thread_id, ns=ns, metadata={"only": calls.thread_id})
    assert await calls.ids(config_of(calls.thread_id, None)) == ["1", "0"]
    assert await calls.ids(config_of(calls.thread_id, "")) == ["0"]
    assert await calls.ids(config_of(calls.thread_id, "child")) == ["1"]
    assert await calls.ids(config_of(calls.thread_id, "chil")) == []
    assert await calls.ids(None, filter={"only": calls.thread_id}) == ["2", "1", "0"]
    assert await calls.ids(config_of(calls.thread_id, None, "1")) == ["1"]


async def test_list_filters_first_and_then_limits(calls: Calls) -> None:
    # contract 6
    for number in range(6):
        await calls.put(checkpoint(str(number)), metadata={"even": number % 2 == 0, "step": number})
    config = config_of(calls.thread_id)
    assert await calls.ids(config, filter={"even": True}, limit=2) == ["4", "2"]
    assert await calls.ids(config, limit=0) == []
    assert len(await calls.ids(config, limit=None)) == 6
    assert len(await calls.ids(config, limit=100)) == 6


async def test_list_over_many_pages(calls: Calls) -> None:
    # contract 6: a page holds 100 checkpoints or 8 MiB.
    names = [f"{number:04}" for number in range(230)]
    for name in names:
        await calls.put(checkpoint(name), metadata={"step": int(name)})
    big = "x" * 3_000_000
    for number in range(5):
        await calls.put(checkpoint(f"big {number}", {"a": big}, {"a": number}))
        names.append(f"big {number}")
    config = config_of(calls.thread_id)
    assert await calls.ids(config) == names[::-1]
    assert await calls.ids(config, limit=150) == names[::-1][:150]
    assert await calls.ids(config, limit=7) == names[::-1][:7]


async def test_before_goes_by_the_id_alone(calls: Calls) -> None:
    # contract 7
    for checkpoint_id, ns in [("1", ""), ("2", "child"), ("3", ""), ("4", "child")]:
        await calls.put(checkpoint(checkpoint_id), ns=ns)
    before = config_of("another thread", "another namespace", "3")
    assert await calls.ids(config_of(calls.thread_id, None), before=before) == ["2", "1"]
    # Subgraph time travel looks like this.
    assert await calls.ids(config_of(calls.thread_id, "child"), before=config_of("x", None, "4"), limit=1) == ["2"]
    assert await calls.ids(config_of(calls.thread_id, None), before={"configurable": {}}) == ["4", "3", "2", "1"]


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        ({"user": "ada"}, True),
        ({"user": "ada", "n": 1}, True),
        ({"user": "ada", "n": 2}, False),
        ({"user": "ad"}, False),
        ({"nested": {"a": 1}}, True),
        ({"nested": {}}, True),
        ({"nested": {"a": 1, "c": 1}}, False),
        ({"tags": ["x"]}, True),
        ({"tags": ["y", "x"]}, True),
        ({"tags": ["z"]}, False),
        ({"n": 1.0}, True),
        ({"n": True}, False),
        ({"n": "1"}, False),
        ({"nothing": None}, True),
        ({"absent": None}, False),
        ({"missing": 1}, False),
        ({"odd\x00": "a"}, False),
        ({"nul": {"a": "b\x00"}}, True),
        ({"nul": {"a": "b"}}, False),
        ({"infinite": float("inf")}, True),
        ({"infinite": float("-inf")}, False),
        ({"bytes": b"\x00\xff"}, True),
        ({"bytes": b"\x00"}, False),
        ({"'; DROP TABLE checkpoints; --": "\" OR 1=1 '"}, True),
        ({"'; DROP TABLE checkpoints; --": "x"}, False),
        ({"a.b": 1, "$c": "%s"}, True),
        ({"a": {"b": 1}}, False),
    ],
)
async def test_filter_is_containment(calls: Calls, filter: dict[str, Any], found: bool) -> None:
    # contract 8
    metadata = {
        "user": "ada",
        "n": 1,
        "nested": {"a": 1, "b": 2},
        "tags": ["x", "y"],
        "nothing": None,
        "nul": {"a": "b\x00"},
        "infinite": float("inf"),
        "bytes": b"\x00\xff",
        "'; DROP TABLE checkpoints; --": "\" OR 1=1 '",
        "a.b": 1,
        "$c": "%s",
    }
    await calls.put(checkpoint("1"), metadata=metadata)
    assert await calls.ids(config_of(calls.thread_id), filter=filter) == (["1"] if found else [])


async def test_the_latest_beside_one_by_its_id(calls: Calls) -> None:
    # contract 9: a run with an explicit id asks for both.
    for checkpoint_id in ("1", "2"):
        await calls.put(checkpoint(checkpoint_id))
    assert (await calls.get("1")).checkpoint["id"] == "1"
    assert (await calls.get()).checkpoint["id"] == "2"


class Color(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


OWNER = uuid.UUID(int=7)


@pytest.mark.parametrize(
    ("stored", "searched"),
    [
        ({"c": "red"}, {"c": Color.RED}),
        ({"c": Color.RED}, {"c": "red"}),
        ({"c": Color.RED}, {"c": Color.RED}),
        ({"c": 3}, {"c": Level.HIGH}),
        ({"c": Level.HIGH}, {"c": 3}),
        ({"c": str(OWNER)}, {"c": OWNER}),
        ({"c": OWNER}, {"c": str(OWNER)}),
        ({"c": {"deep": [Color.RED]}}, {"c": {"deep": ["red"]}}),
        ({Color.RED: 1}, {"red": 1}),
    ],
)
async def test_enums_and_uuids_are_searched_as_what_they_stand_for(
    calls: Calls, stored: dict[str, Any], searched: dict[str, Any]
) -> None:
    await calls.put(checkpoint("1"), metadata=stored)
    await calls.put(checkpoint("2"), metadata={"c": "another"})
    assert await calls.ids(config_of(calls.thread_id), filter=searched) == ["1"]
    assert (await calls.get("1")).metadata == stored
