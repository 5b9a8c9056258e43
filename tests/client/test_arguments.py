"""Invalid arguments: each raises a clear error that names the field, in both flavours, and nothing is stored."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import langgraph.checkpoint.grpc
import pytest
from langgraph.checkpoint.grpc import CheckpointdError, GrpcSaver, InvalidArgumentError

from tests.support.calls import checkpoint, config_of
from tests.support.server_process import ServerProcess

DEEP: Any = "bottom"
for _ in range(40):
    DEEP = {"a": DEEP}

OK = config_of("arguments")
BESIDE = config_of("arguments", "", "1")
SAVED = checkpoint("1", {"a": 1})

BAD_CALLS: dict[str, tuple[str, str, tuple[Any, ...], dict[str, Any]]] = {
    "no thread": ("get_tuple", "thread_id", ({"configurable": {}},), {}),
    "no configurable": ("get_tuple", "thread_id", ({},), {}),
    "empty thread": ("get_tuple", "thread_id", (config_of(""),), {}),
    "overlong thread": ("get_tuple", "thread_id", (config_of("t" * 513),), {}),
    "thread with NUL": ("get_tuple", "thread_id", (config_of("a\x00b"),), {}),
    "thread with a lone surrogate": ("get_tuple", "thread_id", (config_of("a\ud800"),), {}),
    "namespace that is no text": ("get_tuple", "checkpoint_ns", (config_of("t", 5),), {}),  # type: ignore[arg-type]
    "overlong namespace": ("get_tuple", "checkpoint_ns", (config_of("t", "n" * 1409),), {}),
    "overlong id": ("get_tuple", "checkpoint_id", (config_of("t", "", "c" * 129),), {}),
    "put without a thread": ("put", "thread_id", ({"configurable": {}}, SAVED, {}, {}), {}),
    "checkpoint without an id": ("put", "checkpoint_id", (OK, {**SAVED, "id": ""}, {}, {}), {}),
    "checkpoint with no id": ("put", "checkpoint_id", (OK, {k: v for k, v in SAVED.items() if k != "id"}, {}, {}), {}),
    "checkpoint with an overlong id": ("put", "checkpoint_id", (OK, checkpoint("c" * 129), {}, {}), {}),
    "overlong channel": ("put", "channel", (OK, checkpoint("1", {"c" * 513: 1}), {}, {"c" * 513: 1}), {}),
    "version of another type": ("put", "channel_versions", (OK, checkpoint("1", {"a": 1}, {"a": None}), {}, {}), {}),
    "version that is a bool": ("put", "channel_versions", (OK, checkpoint("1", {}, {"a": True}), {}, {}), {}),
    "version over 64 bits": ("put", "channel_versions", (OK, checkpoint("1", {}, {"a": 2**63}), {}, {}), {}),
    "version that is no number": ("put", "version", (OK, checkpoint("1", {}, {"a": float("nan")}), {}, {}), {}),
    "overlong version": ("put", "version", (OK, checkpoint("1", {}, {"a": "v" * 129}), {}, {}), {}),
    "writes without a checkpoint": ("put_writes", "checkpoint_id", (OK, [("a", 1)], "task"), {}),
    "writes without a task": ("put_writes", "task_id", (BESIDE, [("a", 1)], ""), {}),
    "task that is no text": ("put_writes", "task_id", (BESIDE, [("a", 1)], None), {}),
    "overlong task path": ("put_writes", "task_path", (BESIDE, [("a", 1)], "task", "p" * 65537), {}),
    "write to no channel": ("put_writes", "channel", (BESIDE, [("", 1)], "task"), {}),
    "negative limit": ("list", "limit", (OK,), {"limit": -1}),
    "limit that is no number": ("list", "limit", (OK,), {"limit": "all"}),
    "filter that is no object": ("list", "filter", (OK,), {"filter": ["source"]}),
    "filter that nests too deep": ("list", "filter", (OK,), {"filter": DEEP}),
    "filter too large": ("list", "filter", (OK,), {"filter": {"a": "x" * 70_000}}),
    "list without a thread": ("list", "thread_id", ({"configurable": {"checkpoint_ns": ""}},), {}),
    "overlong before": ("list", "before", (OK,), {"before": config_of("t", "", "c" * 129)}),
    "history of an overlong channel": (
        "get_delta_channel_history",
        "channels",
        (),
        {"config": OK, "channels": ["c" * 513]},
    ),
    "history without a thread": ("get_delta_channel_history", "thread_id", (), {"config": {}, "channels": ["a"]}),
    "too many channels": (
        "get_delta_channel_history",
        "channels",
        (),
        {"config": OK, "channels": [str(number) for number in range(1001)]},
    ),
    "delete nothing": ("delete_thread", "thread_id", ("",), {}),
    "delete an overlong thread": ("delete_thread", "thread_id", ("t" * 513,), {}),
    "one run for a list": ("delete_for_runs", "run_ids", ("ab",), {}),
    "one run as bytes": ("delete_for_runs", "run_ids", (b"ab",), {}),
    "no runs at all": ("delete_for_runs", "run_ids", (None,), {}),
    "one thread for a list": ("prune", "thread_ids", ("ab",), {"strategy": "delete"}),
    "one thread for a list, to keep some": ("prune", "thread_ids", ("ab",), {}),
    "threads that are a number": ("prune", "thread_ids", (5,), {}),
    "one channel for a list": ("get_delta_channel_history", "channels", (), {"config": OK, "channels": "ab"}),
    "a list for one thread": ("delete_thread", "thread_id", (["a", "b"],), {}),
    "a list for the thread of a copy": ("copy_thread", "source_thread_id", (["a"], "b"), {}),
    "bytes for a thread": ("get_tuple", "thread_id", (config_of(b"a"),), {}),
    "nothing for a thread": ("prune", "thread_ids", ([None],), {}),
    "overlong run": ("delete_for_runs", "run_ids", (["r" * 513],), {}),
    "copy from nowhere": ("copy_thread", "source_thread_id", ("", "b"), {}),
    "copy to nowhere": ("copy_thread", "target_thread_id", ("a", ""), {}),
    "copy onto itself": ("copy_thread", "target_thread_id", ("a", "a"), {}),
    "unknown strategy": ("prune", "strategy", (["t"],), {"strategy": "keep_some"}),
    "prune an empty thread": ("prune", "thread_ids", ([""],), {}),
}


async def call(saver: GrpcSaver, flavour: str, method: str, *arguments: Any, **options: Any) -> None:
    """Calls a method in a flavour, and consumes all that it yields."""
    if flavour == "blocking":
        list(getattr(saver, method)(*arguments, **options) or ())
    elif method == "list":
        [saved async for saved in saver.alist(*arguments, **options)]
    else:
        await getattr(saver, "a" + method)(*arguments, **options)


@pytest.mark.parametrize("flavour", ["blocking", "awaiting"])
@pytest.mark.parametrize(("method", "field", "arguments", "options"), BAD_CALLS.values(), ids=BAD_CALLS)
async def test_an_unusable_argument_is_named(
    shared_server: ServerProcess,
    flavour: str,
    method: str,
    field: str,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
) -> None:
    async with GrpcSaver(shared_server.target, retry_budget=0) as saver:
        with pytest.raises(InvalidArgumentError) as failed:
            await call(saver, flavour, method, *arguments, **options)
        assert field in failed.value.field
        assert field.rpartition("_")[2].removesuffix("s") in str(failed.value)
        assert isinstance(failed.value, ValueError)
        assert isinstance(failed.value, CheckpointdError)
        assert list(saver.list(config_of("arguments", None))) == []


def test_the_public_names_are_sorted_and_complete() -> None:
    package = langgraph.checkpoint.grpc
    assert package.__all__ == sorted(package.__all__)
    assert len(set(package.__all__)) == len(package.__all__)
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    bound = {name for name in vars(package) if not name.startswith("_")} - modules
    assert set(package.__all__) == bound
    for error in vars(importlib.import_module("langgraph.checkpoint.grpc.errors")).values():
        if isinstance(error, type) and issubclass(error, CheckpointdError):
            assert error.__name__ in package.__all__


def test_every_public_name_is_documented() -> None:
    package = langgraph.checkpoint.grpc
    assert [name for name in package.__all__ if not getattr(package, name).__doc__] == []


def test_an_empty_thread_is_not_a_missing_one(shared_server: ServerProcess) -> None:
    with GrpcSaver(shared_server.target) as saver:
        with pytest.raises(InvalidArgumentError, match="thread_id: must not be empty"):
            saver.get_tuple(config_of(""))
        with pytest.raises(InvalidArgumentError, match="thread_id: missing"):
            saver.get_tuple({"configurable": {"thread_id": None}})
