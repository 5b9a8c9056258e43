"""PortableSerializer: what it carries to LangGraph.js and back, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from functools import partial
from typing import Any

import pytest
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langgraph.checkpoint.grpc import (
    CorruptValueError,
    Encryption,
    GrpcSaver,
    PortableSerializer,
    SerializerMismatchError,
    UnportableValueError,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Interrupt, Overwrite, Send

from tests.support.calls import checkpoint, config_of
from tests.support.properties import given
from tests.support.server_process import ServerProcess

SERIALIZER = PortableSerializer()
LARGEST = 2**53 - 1


class Colour(StrEnum):
    RED = "red"


def there_and_back(value: Any) -> Any:
    return SERIALIZER.loads_typed(SERIALIZER.dumps_typed(value))


def as_json(value: Any) -> Any:
    type_tag, data = SERIALIZER.dumps_typed(value)
    assert type_tag == "json"
    return json.loads(data)


texts = st.text(st.characters(exclude_categories=["Cs"]))
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-LARGEST, LARGEST)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(texts.filter(lambda key: key != "lc"), inner)
        | st.sets(st.integers(0, 9))
        | st.dictionaries(st.integers(0, 9), inner, min_size=1)
    ),
    max_leaves=20,
)


@given(plain)
def test_plain_values_come_back_as_they_were(value: Any) -> None:
    assert there_and_back(value) == value


@pytest.mark.parametrize(
    "message",
    [
        HumanMessage("hi", id="1", name="she"),
        AIMessage("", tool_calls=[{"name": "f", "args": {"x": [1]}, "id": "t", "type": "tool_call"}]),
        AIMessage("x", usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}),
        AIMessageChunk(content="x"),
        ToolMessage("r", tool_call_id="t", artifact={"raw": b"\x00"}, status="error"),
        SystemMessage([{"type": "text", "text": "s"}]),
        ChatMessage(content="c", role="r"),
        RemoveMessage(id="1"),
    ],
)
def test_messages_are_those_of_langchain(message: Any) -> None:
    found = there_and_back({"messages": [message]})["messages"][0]
    assert type(found) is type(message)
    assert found == message
    assert as_json(message)["id"] == ["langchain_core", "messages", type(message).__name__]


def test_what_javascript_writes_is_read() -> None:
    written = {
        "undefined": {"lc": 2, "type": "undefined"},
        "set": {"lc": 2, "type": "constructor", "id": ["Set"], "method": None, "args": [[1]], "kwargs": {}},
        "map": {"lc": 2, "type": "constructor", "id": ["Map"], "method": None, "args": [[["a", 1]]], "kwargs": {}},
        "bytes": {"lc": 2, "type": "constructor", "id": ["Uint8Array"], "method": "from", "args": [[0, 255]]},
        "chunk": {
            "lc": 1,
            "type": "constructor",
            "id": ["langchain_core", "messages", "AIMessageChunk"],
            "kwargs": {"content": "x", "usage_metadata": {"lc": 2, "type": "undefined"}, "tool_call_chunks": []},
        },
    }
    found = SERIALIZER.loads_typed(("json", json.dumps(written).encode()))
    assert found == {
        "undefined": None,
        "set": {1},
        "map": {"a": 1},
        "bytes": b"\x00\xff",
        "chunk": AIMessageChunk(content="x"),
    }


def test_langgraphs_own_objects_are_restored_on_their_channels() -> None:
    interrupts = (Interrupt({"question": "?"}, id="i"), Interrupt("other", id="j"))
    assert as_json(interrupts) == [{"id": "i", "value": {"question": "?"}}, {"id": "j", "value": "other"}]
    assert SERIALIZER.restored("__interrupt__", there_and_back(interrupts)) == interrupts
    sends = [Send("node", {"messages": [HumanMessage("hi")]})]
    assert as_json(sends[0]) == {"node": "node", "args": {"messages": [as_json(HumanMessage("hi"))]}}
    assert SERIALIZER.restored("__pregel_tasks", there_and_back(sends)) == sends
    assert SERIALIZER.restored("__pregel_tasks", there_and_back(sends[0])) == sends[0]
    assert SERIALIZER.restored("__error__", there_and_back(ValueError("no"))) == "ValueError('no')"
    assert SERIALIZER.restored("state", there_and_back(interrupts)) == as_json(interrupts)
    assert there_and_back(_DeltaSnapshot([1])) == _DeltaSnapshot([1])
    assert as_json(Overwrite([1])) == {"__overwrite__": [1]}


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "path", "said"),
    [
        ({"at": [datetime.now(UTC)]}, "at[0]", "datetime.datetime"),
        ({"id": uuid.uuid4()}, "id", "uuid.UUID"),
        ([Decimal(1)], "[0]", "decimal.Decimal"),
        (Colour.RED, "", "Colour"),
        (Document("text"), "", "Document"),
        (HumanMessage("x", additional_kwargs={"at": datetime.now(UTC)}), "additional_kwargs.at", "datetime"),
        (2**53, "", "beyond 9007199254740991"),
        ({"x": float("nan")}, "x", "NaN"),
        ("\ud800", "", "lone surrogate"),
        ({"a": {"lc": 1, "type": "constructor"}}, "a", '"lc"'),
        (nested(100_000), "", "nests too deep"),
        (lambda: 1, "", "function"),
    ],
)
def test_what_it_can_not_carry_is_refused_by_its_name_and_place(value: Any, path: str, said: str) -> None:
    with pytest.raises(UnportableValueError, match=said) as refused:
        SERIALIZER.dumps_typed(value)
    assert refused.value.path == path
    copied = pickle.loads(pickle.dumps(refused.value))
    assert (str(copied), copied.path) == (str(refused.value), path)


@pytest.mark.parametrize(
    "written",
    [
        {"lc": 1, "type": "constructor", "id": ["langchain_core", "prompts", "PromptTemplate"], "kwargs": {}},
        {"lc": 2, "type": "constructor", "id": ["RegExp"], "args": ["x", "g"]},
        {"lc": 2, "type": "constructor", "id": ["os", "system"], "args": ["true"], "kwargs": {}},
    ],
)
def test_objects_are_not_made_of_what_is_no_message(written: dict[str, Any]) -> None:
    with pytest.raises(UnportableValueError):
        SERIALIZER.loads_typed(("json", json.dumps(written).encode()))


def saver_of(server: ServerProcess, **options: Any) -> GrpcSaver:
    return GrpcSaver(server.target, **options)


def test_a_refused_value_is_not_stored(shared_server: ServerProcess) -> None:
    config = config_of(str(uuid.uuid4()))
    with saver_of(shared_server, serde=SERIALIZER) as saver:
        with pytest.raises(UnportableValueError, match=r"the value: .*datetime"):
            saver.put(config, checkpoint("1", {"at": datetime.now(UTC)}), {}, {"at": 1})
        assert saver.get_tuple(config) is None


def test_a_thread_of_another_serializer_is_refused_and_left_alone(shared_server: ServerProcess) -> None:
    with saver_of(shared_server) as own, saver_of(shared_server, serde=SERIALIZER) as portable:
        for writer, reader, type_tag in ((own, portable, "msgpack"), (portable, own, "json")):
            config = config_of(str(uuid.uuid4()))
            stored = writer.put(config, checkpoint("1", {"a": 1}), {"source": "input"}, {"a": 1})
            writer.put_writes(stored, [("a", "x")], "task")
            for read in (reader.get_tuple, lambda config, reader=reader: list(reader.list(config))):
                with pytest.raises(SerializerMismatchError) as refused:
                    read(config)
                assert refused.value.type == type_tag
                assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)
            found = writer.get_tuple(config)
            assert found is not None
            assert found.pending_writes == [("task", "a", "x")]


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_the_server_refuses_what_would_mix_two_forms(shared_server: ServerProcess, encrypted: bool) -> None:
    """A writer that hasn't read the thread gets no conflict."""
    encryption = Encryption(keys={"k": os.urandom(32)}, current="k") if encrypted else None
    with (
        saver_of(shared_server, encryption=encryption) as own,
        saver_of(shared_server, serde=SERIALIZER, encryption=encryption) as portable,
    ):
        for writer, other, family in ((own, portable, "langgraph-msgpack"), (portable, own, "langgraph-json")):
            config = config_of(str(uuid.uuid4()))
            stored = writer.put(config, checkpoint("1", {"a": b"1"}), {"source": "input"}, {"a": 1})
            writes: list[Callable[[], object]] = [
                partial(other.put, config, checkpoint("2"), {}, {}),
                partial(other.put_writes, stored, [("a", None), ("b", b"x")], "task"),
                lambda other=other, stored=stored: asyncio.run(other.aput_writes(stored, [("a", b"y")], "task")),  # type: ignore[misc]
            ]
            for write in writes:
                with pytest.raises(SerializerMismatchError, match=r"use .*GrpcSaver") as refused:
                    write()
                assert (refused.value.thread_id, refused.value.family) == (stored["configurable"]["thread_id"], family)
                copied = pickle.loads(pickle.dumps(refused.value))
                assert (str(copied), copied.family) == (str(refused.value), family)
            found = writer.get_tuple(config)
            assert found is not None
            assert (found.checkpoint["id"], found.pending_writes) == ("1", [])
            assert writer.threads.get(refused.value.thread_id).serializer_family == family


class Reversed(SerializerProtocol):
    """A user's own serializer."""

    def __init__(self, type_tag: str) -> None:
        self.type_tag = type_tag

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        return self.type_tag, json.dumps(obj).encode()[::-1]

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        if data[0] != self.type_tag:
            raise NotImplementedError(data[0])
        return json.loads(data[1][::-1])


def test_a_serializer_of_ones_own_is_let_write_and_told_what_it_cant_read(shared_server: ServerProcess) -> None:
    with (
        saver_of(shared_server) as own,
        saver_of(shared_server, serde=SERIALIZER) as portable,
        saver_of(shared_server, serde=Reversed("reversed"), concurrency="last_write_wins") as custom,
    ):
        config = config_of(str(uuid.uuid4()))
        stored = custom.put(config, checkpoint("1", {"a": 1}), {}, {"a": 1})
        custom.put_writes(stored, [("a", "x")], "task")
        assert custom.threads.get(stored["configurable"]["thread_id"]).serializer_family == "other"
        for reader in (own, portable):
            with pytest.raises(SerializerMismatchError, match=r"the one that has written it.*'reversed'") as refused:
                reader.get_tuple(config)
            assert refused.value.family == "other"

        config = config_of(str(uuid.uuid4()))
        own.put(config, checkpoint("1", {"a": 1}), {}, {"a": 1})
        with pytest.raises(SerializerMismatchError, match="GrpcSaver without `serde`"):
            custom.get_tuple(config)
        custom.put(config, checkpoint("2", {"a": 1}), {}, {"a": 2})  # allowed: the custom serializer may handle both
        assert own.threads.get(str(config["configurable"]["thread_id"])).serializer_family == "langgraph-msgpack"


def test_threads_of_langgraphs_own_encryption_are_told_apart(shared_server: ServerProcess) -> None:
    def encrypted(serde: SerializerProtocol) -> EncryptedSerializer:
        return EncryptedSerializer.from_pycryptodome_aes(serde, key=b"k" * 16)

    with (
        saver_of(shared_server, serde=encrypted(JsonPlusSerializer())) as own,
        saver_of(shared_server, serde=encrypted(SERIALIZER)) as portable,
    ):
        for writer, other in ((own, portable), (portable, own)):
            config = config_of(str(uuid.uuid4()))
            stored = writer.put(config, checkpoint("1", {"a": [1]}), {}, {"a": 1})
            writer.put_writes(stored, [("__interrupt__", (Interrupt("?", id="i"),))], "task")
            with pytest.raises(SerializerMismatchError):
                other.get_tuple(config)
            with pytest.raises(SerializerMismatchError):
                other.put_writes(stored, [("a", "x")], "task")
            found = writer.get_tuple(config)
            assert found is not None
            assert [(channel, list(value)) for _, channel, value in found.pending_writes or []] == [
                ("__interrupt__", [Interrupt("?", id="i")])
            ]


def test_filters_find_portable_metadata(shared_server: ServerProcess) -> None:
    mark = str(uuid.uuid4())
    with saver_of(shared_server, serde=SERIALIZER) as saver:
        saver.put(config_of(mark), checkpoint("1"), {"source": "input", "user": {"id": mark}}, {})  # type: ignore[typeddict-unknown-key]
        (found,) = saver.list(None, filter={"user": {"id": mark}})
        assert found.config["configurable"]["thread_id"] == mark


def test_encrypted_threads_are_told_apart_too(shared_server: ServerProcess) -> None:
    encryption = Encryption(keys={"k": os.urandom(32)}, current="k")
    config = config_of(str(uuid.uuid4()))
    with saver_of(shared_server, serde=SERIALIZER, encryption=encryption) as saver:
        stored = saver.put(config, checkpoint("1", {"a": [1]}), {}, {"a": 1})
        saver.put_writes(stored, [("__interrupt__", (Interrupt("?", id="i"),))], "task")
        found = saver.get_tuple(config)
        assert found is not None
        assert found.checkpoint["channel_values"] == {"a": [1]}
        assert found.pending_writes == [("task", "__interrupt__", (Interrupt("?", id="i"),))]
    with saver_of(shared_server, encryption=encryption) as own, pytest.raises(SerializerMismatchError):
        own.get_tuple(config)


def test_a_value_that_javascript_alone_has_is_an_error_with_its_place(shared_server: ServerProcess) -> None:
    class Foreign(PortableSerializer):
        def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
            if obj == "regexp":
                return "json", b'{"lc":2,"type":"constructor","id":["RegExp"],"args":["x","g"]}'
            return super().dumps_typed(obj)

    config = config_of(str(uuid.uuid4()))
    with saver_of(shared_server, serde=Foreign()) as saver:
        saver.put(config, checkpoint("1", {"a": "regexp"}), {}, {"a": 1})
        with pytest.raises(CorruptValueError, match=r"channel 'a'.*RegExp"):
            saver.get_tuple(config)
