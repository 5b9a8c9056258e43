"""Users' own serializers: odd tags, pickle, lone surrogates, and the old kind."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from langgraph.checkpoint.grpc import GrpcSaver, InvalidArgumentError
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from tests.support.calls import Calls, checkpoint, config_of
from tests.support.comparison import FLAVOURS, Flavour
from tests.support.server_process import ServerProcess


class Tagging(SerializerProtocol):
    """A serializer with tags of its own, which no server can know."""

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self._inner = JsonPlusSerializer()

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        tag, data = self._inner.dumps_typed(obj)
        return f"{self._tag}/{tag}", data[::-1]

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        tag, content = data
        own, _, inner = tag.rpartition("/")
        assert own == self._tag
        return self._inner.loads_typed((inner, content[::-1]))


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> Flavour:
    """Both flavours."""
    given: Flavour = request.param
    return given


@pytest.mark.parametrize("tag", ["x", "my.codec;v=2", "\u00e9 \U0001f600", "'; --", "t" * 110])
async def test_a_serializer_with_odd_tags(shared_server: ServerProcess, flavour: Flavour, tag: str) -> None:
    # contract 16
    async with GrpcSaver(shared_server.target, serde=Tagging(tag)) as saver:
        calls = Calls(saver, flavour)
        await calls.put(checkpoint("1", {"a": [1]}, later=1), metadata={"step": 1, "user": "ada"})
        await calls.write("1", [("b", {"x": None})])
        found = await calls.get()
        assert found.checkpoint["channel_values"] == {"a": [1]}
        assert found.pending_writes == [("task", "b", {"x": None})]
        assert dict(found.metadata) == {"step": 1, "user": "ada"}
        assert await calls.ids(config_of(calls.thread_id), filter={"user": "ada"}) == ["1"]
        assert await calls.ids(config_of(calls.thread_id), filter={"user": "bob"}) == []


async def test_a_tag_too_long_is_refused(shared_server: ServerProcess, flavour: Flavour) -> None:
    # contract 16
    async with GrpcSaver(shared_server.target, serde=Tagging("t" * 130)) as saver:
        with pytest.raises(InvalidArgumentError, match="128"):
            await Calls(saver, flavour).put(checkpoint("1", {"a": 1}))


class Surrogates(SerializerProtocol):
    """A serializer that keeps lone surrogates."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        return "surrogates", msgpack.packb(obj, unicode_errors="surrogatepass")

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        return msgpack.unpackb(data[1], unicode_errors="surrogatepass")


async def test_lone_surrogates_that_a_serializer_keeps_come_back(
    shared_server: ServerProcess, flavour: Flavour
) -> None:
    # contract 15, 16: in values and in metadata, which the server searches.
    async with GrpcSaver(shared_server.target, serde=Surrogates()) as saver:
        calls = Calls(saver, flavour)
        await calls.put(checkpoint("1", {"text": "a\ud800b"}), metadata={"step": 1, "note": "\ud83d"})
        await calls.write("1", [("text", "\ude00c")])
        found = await calls.get()
        assert found.checkpoint["channel_values"] == {"text": "a\ud800b"}
        assert found.metadata["note"] == "\ud83d"  # type: ignore[typeddict-item]
        assert found.pending_writes == [("task", "text", "\ude00c")]


class Unpicklable:
    """An object that msgpack can't hold and pickle can."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unpicklable) and other.value == self.value

    def __hash__(self) -> int:
        return hash(self.value)


async def test_pickle_as_a_fallback(shared_server: ServerProcess, flavour: Flavour) -> None:
    # contract 16: the server never unpickles, it keeps what it is given.
    async with GrpcSaver(shared_server.target, serde=JsonPlusSerializer(pickle_fallback=True)) as saver:
        calls = Calls(saver, flavour)
        await calls.put(checkpoint("1", {"a": Unpicklable(1)}), metadata={"step": 1, "odd": Unpicklable(2)})
        await calls.write("1", [("a", Unpicklable(3))])
        found = await calls.get()
        assert found.checkpoint["channel_values"] == {"a": Unpicklable(1)}
        assert found.pending_writes == [("task", "a", Unpicklable(3))]
        assert dict(found.metadata) == {"step": 1, "odd": Unpicklable(2)}


async def test_metadata_that_another_serializer_wrote_is_searched_as_far_as_it_can_be(
    shared_server: ServerProcess, flavour: Flavour
) -> None:
    # contract 8, 14: metadata that can't be searched is stored nevertheless.
    deep: Any = "bottom"
    for _ in range(60):
        deep = [deep]
    metadata = {"large": "x" * 70_000, "deep": deep, "step": 1, "user": {"name": "ada"}}
    async with GrpcSaver(shared_server.target, serde=Tagging("x")) as saver:
        calls = Calls(saver, flavour)
        await calls.put(checkpoint("1"), metadata=metadata)
        assert dict((await calls.get()).metadata) == metadata
        assert await calls.ids(config_of(calls.thread_id), filter={"step": 1, "user": {"name": "ada"}}) == ["1"]
        assert await calls.ids(config_of(calls.thread_id), filter={"step": 2}) == []


class Dumps:
    """A serializer of the old kind, without tags: LangGraph gives it some."""

    def dumps(self, obj: Any) -> bytes:
        return repr(obj).encode()

    def loads(self, data: bytes) -> Any:
        return eval(data)


async def test_a_serializer_of_the_old_kind(shared_server: ServerProcess, flavour: Flavour) -> None:
    # contract 16
    async with GrpcSaver(shared_server.target, serde=Dumps()) as saver:  # type: ignore[arg-type]
        calls = Calls(saver, flavour)
        await calls.put(checkpoint("1", {"a": (1, "2")}), metadata={"step": 1})
        assert (await calls.get()).checkpoint["channel_values"] == {"a": (1, "2")}
