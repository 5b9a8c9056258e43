"""The contract for a saver's writes: rules 10 and 17 to 26 of README.md. (11 to 16: test_fidelity.py)"""

from __future__ import annotations

import asyncio
import inspect
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langgraph.checkpoint.grpc import CheckpointNotFoundError, GrpcSaver, InvalidArgumentError, ThreadExistsError
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from tests.support.calls import Calls, checkpoint, config_of
from tests.support.server_process import ServerProcess


async def test_put_replaces_a_checkpoint_of_the_same_id(calls: Calls) -> None:
    # contract 10
    await calls.put(checkpoint("1", {"a": "old"}), metadata={"step": 1, "gone": True})
    await calls.put(checkpoint("1", {"a": "new"}, {"a": 2}), parent="0", metadata={"step": 2})
    [found] = await calls.listed(config_of(calls.thread_id))
    assert found.checkpoint["channel_values"] == {"a": "new"}
    assert found.metadata == {"step": 2}
    assert found.parent_config == config_of(calls.thread_id, "", "0")


async def test_an_unchanged_channel_is_read_from_the_version_that_wrote_it(calls: Calls) -> None:
    # contract 10
    await calls.put(checkpoint("1", {"a": "first", "b": 1}))
    # Values that aren't among the new versions are not stored, whatever the checkpoint holds.
    await calls.put(checkpoint("2", {"a": "unchanged", "b": 2}, {"a": 1, "b": 2}), parent="1", new={"b": 2})
    assert (await calls.get("2")).checkpoint["channel_values"] == {"a": "first", "b": 2}
    assert (await calls.get("1")).checkpoint["channel_values"] == {"a": "first", "b": 1}
    # Values belong to a namespace.
    await calls.put(checkpoint("3", {}, {"a": 1}), ns="child", new={})
    assert (await calls.get("3", ns="child")).checkpoint["channel_values"] == {}


async def test_values_are_those_of_the_moment_of_the_call(calls: Calls) -> None:
    # contract 17
    state: dict[str, Any] = {"a": ["before"], "b": bytearray(b"before")}
    saved = checkpoint("1", state)
    metadata = {"tags": ["before"]}
    if calls.flavour == "invoke":
        await calls.put(saved, metadata=metadata)
    else:
        config = config_of(calls.thread_id)
        under_way = asyncio.create_task(
            calls.saver.aput(config, saved, metadata, saved["channel_versions"])  # type: ignore[arg-type]
        )
        await asyncio.sleep(0)
        state["a"].append("after")
        state["b"][:] = b"AFTER!"
        metadata["tags"].append("after")
        saved["channel_versions"]["a"] = 99
        await under_way
    found = await calls.get()
    assert found.checkpoint["channel_values"] == {"a": ["before"], "b": bytearray(b"before")}
    assert found.checkpoint["channel_versions"] == {"a": 1, "b": 1}
    assert dict(found.metadata) == {"tags": ["before"]}


async def written(calls: Calls, checkpoint_id: str = "1") -> list[tuple[str, str, Any]]:
    return list((await calls.get(checkpoint_id)).pending_writes or ())


async def test_the_place_of_a_write(calls: Calls) -> None:
    # contract 18
    await calls.put(checkpoint("1"))
    await calls.write("1", [("a", 0), ("__error__", "e"), ("b", 2), ("__interrupt__", "i"), ("__resume__", "r")])
    # Special writes have places of their own, before the others; -4, -3, -1.
    assert await written(calls) == [
        ("task", "__resume__", "r"),
        ("task", "__interrupt__", "i"),
        ("task", "__error__", "e"),
        ("task", "a", 0),
        ("task", "b", 2),
    ]
    await calls.write("1", [("x", "another task")], "task 2")
    assert len(await written(calls)) == 6
    assert (await calls.find(config_of(calls.thread_id, "", "2"))) is None


async def test_regular_writes_stay_and_special_ones_are_replaced(calls: Calls) -> None:
    # contract 19
    await calls.put(checkpoint("1"))
    await calls.write("1", [("a", "first"), ("__resume__", ["one"])])
    await calls.write("1", [("a", "second"), ("__resume__", ["one", "two"]), ("b", "new")])
    assert await written(calls) == [
        ("task", "__resume__", ["one", "two"]),
        ("task", "a", "first"),
        ("task", "b", "new"),
    ]


async def test_a_mixed_batch_as_a_resume_sends_it(calls: Calls) -> None:
    # contract 19
    await calls.put(checkpoint("1"))
    await calls.write("1", [("__resume__", "x")])
    await calls.write("1", [("__resume__", "y"), ("a", 1)])
    await calls.write("1", [("__error__", "failed")])
    await calls.write("1", [("__scheduled__", None)])
    assert await written(calls) == [
        ("task", "__resume__", "y"),
        ("task", "__scheduled__", None),
        ("task", "__error__", "failed"),
        ("task", "a", 1),
    ]


@pytest.mark.parametrize("method", ["put_writes", "aput_writes"])
def test_task_path_is_a_named_parameter(method: str) -> None:
    # contract 20
    parameters = inspect.signature(getattr(GrpcSaver, method)).parameters
    assert list(parameters)[1:] == ["config", "writes", "task_id", "task_path"]
    assert parameters["task_path"].default == ""


async def test_writes_before_after_and_beside_their_checkpoint(calls: Calls) -> None:
    # contract 21
    await calls.write("1", [("a", "before")], "t1")
    await calls.put(checkpoint("1"))
    await calls.write("1", [("a", "after")], "t2")
    await calls.write("never put", [("a", "alone")])
    assert [value for _, _, value in await written(calls)] == ["before", "after"]
    # A checkpoint that is put again keeps its writes.
    await calls.put(checkpoint("1"), metadata={"step": 1})
    assert len(await written(calls)) == 2


async def test_many_calls_at_once(calls: Calls) -> None:
    # contract 21
    names = [f"{number:02}" for number in range(40)]

    async def step(name: str) -> None:
        await asyncio.gather(
            calls.put(checkpoint(name, {"a": name}, {"a": name})), calls.write(name, [("b", name)], name)
        )

    if calls.flavour == "invoke":
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda name: asyncio.run(step(name)), names))
    else:
        await asyncio.gather(*map(step, names))
    found = await calls.listed(config_of(calls.thread_id))
    assert [saved.checkpoint["channel_values"]["a"] for saved in found] == names[::-1]
    assert [saved.pending_writes for saved in found] == [[(name, "b", name)] for name in names[::-1]]


@pytest.mark.parametrize("thread_id", [123456789, "text with \u00e9, a space / and \U0001f600", "x" * 512])
async def test_a_thread_is_free_text_or_a_number(calls: Calls, thread_id: object) -> None:
    # contract 22
    await calls.do("delete_thread", thread_id)
    given = await calls.put(checkpoint("1"), thread_id=thread_id)
    assert given == config_of(str(thread_id), "", "1")
    assert (await calls.get(thread_id=thread_id)).config == given
    assert (await calls.get(thread_id=str(thread_id))).config == given
    await calls.do("delete_thread", thread_id)
    assert await calls.find(config_of(thread_id)) is None


async def test_a_namespace_grows_long(calls: Calls) -> None:
    # contract 22
    ns = "|".join(f"a_rather_long_node_name:1f0ce29f-104a-76a2-8963-ea0b90c3dd{number:02}" for number in range(23))
    assert 1300 < len(ns) <= 1408
    await calls.put(checkpoint("1"), ns=ns)
    await calls.write("1", [("a", 1)], ns=ns)
    assert len((await calls.get(ns=ns)).pending_writes or ()) == 1


@pytest.mark.parametrize(
    ("field", "limit", "config"),
    [
        ("thread_id", 512, config_of("\u00e9" * 257)),
        ("checkpoint_ns", 1408, config_of("t", "n" * 1409)),
        ("parent_checkpoint_id", 128, config_of("t", "", "c" * 129)),
    ],
)
async def test_a_key_too_long_is_a_clear_error(calls: Calls, field: str, limit: int, config: Any) -> None:
    # contract 22
    with pytest.raises(InvalidArgumentError) as failed:
        await calls.put(checkpoint("1"), config=config)
    assert (failed.value.field, failed.value.limit) == (field, limit)
    assert field in str(failed.value)
    assert str(limit) in str(failed.value)


async def test_delete_thread_takes_everything_of_one_thread(calls: Calls) -> None:
    # contract 23
    other = calls.thread_id + " other"
    for ns in ("", "child"):
        await calls.put(checkpoint("1", {"a": 1}), ns=ns)
        await calls.write("1", [("a", 1)], ns=ns)
    await calls.write("unput", [("a", 1)])
    await calls.put(checkpoint("1", {"a": 2}), thread_id=other)
    await calls.do("delete_thread", calls.thread_id)
    assert await calls.listed(config_of(calls.thread_id, None)) == []
    assert (await calls.get(thread_id=other)).checkpoint["channel_values"] == {"a": 2}
    # Nothing is left that could come back under the same ids.
    await calls.put(checkpoint("1", {}, {"a": 1}), new={})
    await calls.put(checkpoint("unput"))
    assert (await calls.get("1")).checkpoint["channel_values"] == {}
    assert (await calls.get("1")).pending_writes == []
    assert (await calls.get("unput")).pending_writes == []


async def test_delete_of_an_unknown_thread_does_nothing(calls: Calls) -> None:
    # contract 23
    await calls.do("delete_thread", calls.thread_id)


async def small_thread(calls: Calls, run_ids: tuple[str, ...] = ("run 1", "run 1", "run 2")) -> None:
    """Three checkpoints of the root and one of a nested graph, with values that span them, and writes."""
    await calls.put(checkpoint("1", {"a": "kept"}), metadata={"run_id": run_ids[0], "step": -1})
    await calls.write("1", [("a", "w1")], "t", "path")
    await calls.put(
        checkpoint("2", {"b": 2}, {"a": 1, "b": 2}), parent="1", new={"b": 2}, metadata={"run_id": run_ids[1]}
    )
    await calls.put(checkpoint("2n", {"n": 1}), ns="node:t", metadata={"run_id": run_ids[1]})
    await calls.put(checkpoint("3", {}, {"a": 1, "b": 2}), parent="2", new={}, metadata={"run_id": run_ids[2]})
    await calls.write("3", [("a", "w3")])


async def test_copy_thread_keeps_everything(calls: Calls) -> None:
    # contract 24
    await small_thread(calls)
    target = calls.thread_id + " copy"
    await calls.do("copy_thread", calls.thread_id, target)
    copied = await calls.listed(config_of(target, None))
    original = await calls.listed(config_of(calls.thread_id, None))

    def renamed(config: Any) -> Any:
        return config and config_of(
            target, config["configurable"]["checkpoint_ns"], config["configurable"]["checkpoint_id"]
        )

    assert copied == [
        saved._replace(config=renamed(saved.config), parent_config=renamed(saved.parent_config)) for saved in original
    ]
    assert len(copied) == 4
    # They are two threads now.
    await calls.do("delete_thread", calls.thread_id)
    assert len(await calls.listed(config_of(target, None))) == 4


async def test_copy_thread_up_to_a_checkpoint(calls: Calls) -> None:
    await small_thread(calls)
    target = calls.thread_id + " fork"
    await calls.do("copy_thread", calls.thread_id, target, checkpoint_id="2")
    assert await calls.ids(config_of(target)) == ["2", "1"]
    with pytest.raises(CheckpointNotFoundError):
        await calls.do("copy_thread", calls.thread_id, target + "2", checkpoint_id="9")
    with pytest.raises(ThreadExistsError):
        await calls.do("copy_thread", calls.thread_id, target)


async def test_copy_of_an_unknown_thread_does_nothing(calls: Calls) -> None:
    # contract 24
    await calls.do("copy_thread", calls.thread_id, calls.thread_id + " copy")
    assert await calls.listed(config_of(calls.thread_id + " copy", None)) == []


async def test_delete_for_runs(calls: Calls) -> None:
    # contract 24
    one, two, three = (f"{calls.thread_id} run {number}" for number in range(3))
    await small_thread(calls, (one, two, three))
    await calls.put(checkpoint("1"), thread_id=calls.thread_id + " other", metadata={"run_id": one})
    await calls.do("delete_for_runs", [one, two, "unknown"])
    assert await calls.ids(config_of(calls.thread_id, None)) == ["3"]
    # Its values were written by the checkpoints that are gone.
    assert (await calls.get()).checkpoint["channel_values"] == {"a": "kept", "b": 2}
    assert await calls.find(config_of(calls.thread_id + " other")) is None
    await calls.do("delete_for_runs", [])
    await calls.put(checkpoint("1"))
    assert (await calls.get("1")).pending_writes == []


async def test_prune_keeps_the_latest_of_each_namespace_with_its_writes(calls: Calls) -> None:
    # contract 25
    await small_thread(calls)
    await calls.put(checkpoint("1m", {"m": 1}), ns="memory")
    await calls.put(checkpoint("2m", {"m": 2}, {"m": 2}), ns="memory", parent="1m")
    await calls.do("prune", [calls.thread_id, "unknown"], strategy="keep_latest")
    latest = await calls.get()
    assert latest.checkpoint["id"] == "3"
    assert latest.checkpoint["channel_values"] == {"a": "kept", "b": 2}
    assert latest.pending_writes == [("task", "a", "w3")]
    assert await calls.ids(config_of(calls.thread_id, "")) == ["3"]
    assert await calls.ids(config_of(calls.thread_id, "memory")) == ["2m"]
    await calls.do("prune", [calls.thread_id], strategy="delete")
    assert await calls.listed(config_of(calls.thread_id, None)) == []


async def test_prune_breaks_no_delta_channel(calls: Calls) -> None:
    # contract 25
    await calls.put(checkpoint("1", {"log": _DeltaSnapshot(["s"])}, {"log": 1}))
    for number in range(2, 6):
        await calls.write(str(number - 1), [("log", [f"w{number}"])])
        await calls.put(checkpoint(str(number), {}, {"log": number}), parent=str(number - 1), new={"log": number})
    before = await calls.delta_history(["log"], "5")
    await calls.do("prune", [calls.thread_id])
    after = await calls.delta_history(["log"], "5")
    assert after == before
    assert [value for _, _, value in after["log"]["writes"]] == [["w2"], ["w3"], ["w4"], ["w5"]]


async def test_delta_history_walks_parents(calls: Calls) -> None:
    # contract 26
    await calls.put(checkpoint("1", {"log": ["plain"]}, {"log": 1}))
    await calls.write("1", [("log", "seed's own"), ("other", 1)], "t", "b")
    await calls.write("1", [("log", "first by path")], "z", "a")
    await calls.put(checkpoint("2", {}, {"log": 2}), parent="1", new={"log": 2})
    await calls.write("2", [("log", "on the way")])
    # A younger checkpoint on another branch, which a list would show.
    await calls.put(checkpoint("3", {"log": _DeltaSnapshot(["other branch"])}, {"log": 3}), parent="1")
    await calls.put(checkpoint("4", {}, {"log": 4}), parent="2", new={"log": 4})
    await calls.write("4", [("log", "target's own")])
    history = await calls.delta_history(["log", "nowhere"], "4")
    assert history == {
        "log": {
            "writes": [("z", "log", "first by path"), ("t", "log", "seed's own"), ("task", "log", "on the way")],
            "seed": ["plain"],
        },
        "nowhere": {"writes": []},
    }
    assert await calls.delta_history([], "4") == {}


async def test_delta_history_is_one_call(server: ServerProcess) -> None:
    # contract 26: not one call per ancestor.
    with GrpcSaver(server.target) as saver:
        for number in range(20):
            parent = f"{number - 1:02}" if number else None
            saver.put(config_of("t", "", parent), checkpoint(f"{number:02}", {}, {"log": number}), {}, {"log": number})
            saver.put_writes(config_of("t", "", f"{number:02}"), [("log", number)], "task")
        history = saver.get_delta_channel_history(config=config_of("t"), channels=["log"])
        saver.put(config_of("last"), checkpoint("1", {}, {}), {}, {})
        server.await_log("thread_id=last")  # a line comes a moment after its call
        assert server.stderr.count("method=CheckpointService/") == 2 * 20 + 1 + 1
    assert [value for _, _, value in history["log"]["writes"]] == list(range(19))
