"""Whatever a server answers, the result is a value or one of our errors, in bounded time and memory."""

from __future__ import annotations

import contextlib
import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.grpc import CheckpointdError, CorruptValueError
from langgraph.checkpoint.grpc._convert import encode
from langgraph.checkpoint.grpc._convert.reads import Reader
from langgraph.checkpoint.grpc._convert.serde import ValueSerde
from langgraph.checkpoint.grpc._encryption.thread_copy import EncryptedThreadCopy
from langgraph.checkpoint.grpc._transport import flows
from langgraph.checkpoint.grpc._values import rows
from langgraph.checkpoint.grpc._values.cache import CachedValue, ValueCache
from langgraph.checkpoint.grpc._values.instructions import MAX_VALUE_BYTES
from langgraph.checkpoint.grpc._values.transfer import LeftOut, ValueGoneError, fetch

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import thread_service_pb2 as threads_pb
from checkpointd.v1 import value_service_pb2 as value_service
from tests.client.hostile_server import (
    CONFIG,
    LENIENT,
    PLAIN,
    Server,
    sound_rows,
    sound_tuple,
)
from tests.support.properties import PATIENT
from tests.support.spoiling import NEXT_VERSION, VERSION


def reader(serde: ValueSerde = PLAIN) -> Reader:
    cache = ValueCache(10**6)
    cache.put(("t", ""), "a", CachedValue(VERSION, "bytes", "bytes", 1, b"z" * 1000))
    return Reader(serde=serde, cache=cache, first_version=lambda: "1")


READS: dict[str, Callable[[ValueSerde, Server], Any]] = {
    "get": lambda serde, server: flows.run(reader(serde).get(encode.get(CONFIG)), server),
    "list": lambda serde, server: list(
        flows.iterate(
            reader(serde).pages(encode.list_checkpoints(serde, CONFIG, filter=None, before=None, limit=None), None),
            server,
        )
    ),
    "history": lambda serde, server: flows.run(
        reader(serde).delta_history(encode.delta_history(CONFIG, ["a"])), server
    ),
    "copy": lambda serde, server: flows.run(
        EncryptedThreadCopy(serde=LENIENT, attach_lease=lambda request: request).copy("t", "u", None), server
    ),
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("serde", [PLAIN, LENIENT], ids=["plain", "encrypted"])
@given(seed=st.integers(0, 2**64))
@settings(PATIENT, max_examples=250)
def test_whatever_it_answers(serde: ValueSerde, read: str, seed: int) -> None:
    dice = random.Random(seed)
    server = Server(dice, dice.choice([0.1, 0.5, 1]))
    with pytest.MonkeyPatch.context() as patched, contextlib.suppress(CheckpointdError):
        patched.setattr(rows, "AT_ONCE_BYTES", dice.choice([0, rows.AT_ONCE_BYTES]))
        READS[read](serde, server)
    assert server.calls < 2000


@pytest.mark.parametrize("read", ["get", "list", "history"])
def test_a_sound_answer_is_read(read: str) -> None:
    """Otherwise the test above would test nothing."""
    found = READS[read](PLAIN, Server(random.Random(1), 0))
    match read:
        case "get":
            assert found.checkpoint["channel_values"]["b"] == 1
            assert found.pending_writes == [("task", "a", "\0" * 6)]
        case "list":
            assert len(found) == 8
        case _:
            assert found["a"]["writes"] == [("t", "a", None)] * 4


class TestEndlessAnswers:
    def endless(self, answer: Callable[[Any, int], Any], read: str) -> int:
        calls = 0

        def server(request: Any) -> Any:
            nonlocal calls
            calls += 1
            assert calls < 5000, "it doesn't end"
            return answer(request, calls)

        with pytest.raises(CheckpointdError):
            READS[read](PLAIN, server)  # type: ignore[arg-type]
        return calls

    def test_empty_pages(self) -> None:
        assert self.endless(lambda _, call: pb.ListCheckpointsResponse(next_page_token=str(call)), "list") < 200
        assert self.endless(lambda _, call: pb.ListCheckpointsResponse(next_page_token="1"), "list") < 5
        page = pb.GetDeltaChannelHistoryResponse
        assert self.endless(lambda _, call: page(next_page_token=str(call)), "history") < 200
        assert self.endless(lambda _, call: page(next_page_token="1"), "history") < 5
        assert self.endless(lambda _, call: pb.ListCheckpointsResponse(next_page_token=str(call)), "copy") < 5

    @pytest.mark.parametrize(
        "value",
        [
            value_service.GetValueResponse(),
            value_service.GetValueResponse(found=True, size=1000),
            value_service.GetValueResponse(found=True, size=1000, data=b"x"),
            value_service.GetValueResponse(found=True, size=1000, data=bytes(2000)),
            value_service.GetValueResponse(found=True, size=2000, data=bytes(1000)),
        ],
        ids=["is gone", "has no bytes", "comes by the byte", "has too many bytes", "has another size"],
    )
    def test_a_value_that_never_comes(self, value: value_service.GetValueResponse) -> None:
        sound = Server(random.Random(1), 0)

        def answer(request: Any, call: int) -> Any:
            return value if isinstance(request, value_service.GetValueRequest) else sound(request)

        assert self.endless(answer, "get") < 100


class TestMemory:
    def peak(self, flow: flows.Flow[Any], server: Callable[[Any], Any]) -> int:
        tracemalloc.start()
        try:
            with pytest.raises((CheckpointdError, ValueGoneError)):
                flows.run(flow, server)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def test_a_size_that_is_a_lie_takes_none(self) -> None:
        for size in (-1, MAX_VALUE_BYTES, MAX_VALUE_BYTES + 1, 2**62):
            wanted = [LeftOut(value_service.GetValueRequest(), size)]
            assert self.peak(fetch(wanted), lambda _: value_service.GetValueResponse()) < 4_000_000

    def test_a_patch_makes_no_more_than_it_may(self) -> None:
        def server(request: Any) -> Any:
            answer = pb.GetCheckpointResponse(tuple=sound_tuple())
            del answer.tuple.pending_writes[:]
            sound_rows(answer.stored_values)
            base, patched, _ = answer.stored_values
            base.value.ClearField("parts")
            base.value.data = bytes(1_000_000)
            patched.value.patch.size = 2**40
            patched.value.data = b"\x81\x89\x7a\x00" * 100_000
            return answer

        assert self.peak(reader().get(encode.get(CONFIG)), server) < 40_000_000

    def test_patches_in_a_circle(self) -> None:
        def server(request: Any) -> Any:
            answer = pb.GetCheckpointResponse(tuple=sound_tuple())
            del answer.tuple.pending_writes[:]
            sound_rows(answer.stored_values)
            base, _, _ = answer.stored_values
            base.value.patch.base_version = NEXT_VERSION
            return answer

        with pytest.raises(CorruptValueError, match="chain of patches doesn't end"):
            flows.run(Reader(serde=PLAIN, cache=ValueCache(0), first_version=str).get(encode.get(CONFIG)), server)


def test_a_copy_that_breaks_off_is_deleted_again() -> None:
    made: list[Any] = []
    sound = Server(random.Random(1), 0)

    def server(request: Any) -> Any:
        made.append(type(request))
        if isinstance(request, pb.PutWritesRequest):
            raise CheckpointdError("no")
        at_target = isinstance(request, pb.ListCheckpointsRequest) and request.thread_id == "u"
        return pb.ListCheckpointsResponse() if at_target else sound(request)

    with pytest.raises(CheckpointdError, match="no"):
        READS["copy"](LENIENT, server)  # type: ignore[arg-type]
    assert made[-3:] == [pb.PutCheckpointRequest, pb.PutWritesRequest, threads_pb.DeleteThreadRequest]
