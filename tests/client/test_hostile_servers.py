"""A gRPC server that answers anything: savers raise our errors, within their timeout, and continue to work."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from langgraph.checkpoint.grpc import CheckpointdError, Encryption, GrpcSaver

from checkpointd.v1 import checkpoint_service_pb2 as pb
from tests.client.hostile_server import Server
from tests.support.calls import checkpoint, config_of
from tests.support.spoiling import spoil

SEEDS = 40
METHODS = {
    "GetCheckpoint": pb.GetCheckpointRequest,
    "ListCheckpoints": pb.ListCheckpointsRequest,
    "GetDeltaChannelHistory": pb.GetDeltaChannelHistoryRequest,
    "PutCheckpoint": pb.PutCheckpointRequest,
    "PutWrites": pb.PutWritesRequest,
}

Spoil = Callable[[bytes, random.Random], bytes]


def as_it_is(data: bytes, dice: random.Random) -> bytes:
    return data


def cut(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data) + 1)]


def garbled(data: bytes, dice: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(min(len(changed), 3)):
        changed[dice.randrange(len(changed))] = dice.randrange(256)
    return bytes(changed)


class Hostile(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Serves every method, more or less correctly."""

    def __init__(self, dice: random.Random, spoils: Spoil) -> None:
        self._dice = dice
        self._spoils = spoils
        self._server = Server(dice, 0.5)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        name = details.method.rpartition("/")[2]
        if name == "Pipeline":
            return grpc.stream_stream_rpc_method_handler(self._pipeline)
        kind = METHODS.get(name)
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self._answer(kind, request))

    def _answer(self, kind: Any, request: bytes) -> bytes:
        answer: Message = self._server(kind.FromString(request) if kind else None)
        return self._spoils(answer.SerializeToString(), self._dice)

    def _pipeline(self, requests: Any, context: Any) -> Any:
        for data in requests:
            response = pb.PipelineResponse()
            for operation in pb.PipelineRequest.FromString(data).operations:
                name = operation.WhichOneof("operation")
                result = response.results.add(id=operation.id)
                with contextlib.suppress(TypeError):  # a put's answer isn't a read's
                    getattr(result, name).CopyFrom(self._server(getattr(operation, name)))
                if self._dice.random() < 0.3:
                    spoil(result, self._dice)
            yield self._spoils(response.SerializeToString(), self._dice)


@contextlib.asynccontextmanager
async def serving(handler: Hostile) -> AsyncIterator[str]:
    server = grpc.server(ThreadPoolExecutor(4), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await asyncio.to_thread(server.stop(None).wait)


async def attempt(saver: GrpcSaver, number: int) -> None:
    """Makes one of the calls, in one of the flavours. Errors other than ours propagate."""
    config = config_of("t", "", "1")
    saved = checkpoint("2", {"a": "x" * 2000}, {"a": saver.get_next_version(None)})
    new = dict(saved["channel_versions"])
    with contextlib.suppress(CheckpointdError):
        match number % 10:
            case 0:
                await saver.aget_tuple(config_of("t"))
            case 1:
                await asyncio.to_thread(saver.get_tuple, config_of("t"))
            case 2:
                async for _ in saver.alist(config_of("t")):
                    pass
            case 3:
                await asyncio.to_thread(lambda: list(saver.list(None)))
            case 4:
                await saver.aget_delta_channel_history(config=config, channels=["a"])
            case 5:
                await asyncio.to_thread(saver.get_delta_channel_history, config=config, channels=["a"])
            case 6:
                await saver.aput(config, saved, {"step": 1}, new)
            case 7:
                await asyncio.to_thread(saver.put, config, saved, {"step": 1}, new)
            case 8:
                await saver.aput_writes(config, [("a", "x" * 3_000_000)], "task")
            case _:
                await asyncio.to_thread(saver.put_writes, config, [("a", 1)], "task")


@pytest.mark.parametrize("spoils", [as_it_is, cut, garbled], ids=lambda spoils: spoils.__name__)
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
async def test_whatever_it_sends(spoils: Spoil, encrypted: bool) -> None:
    encryption = Encryption(keys={"a": bytes(32)}, current="a", required=False) if encrypted else None
    for seed in range(SEEDS // 10):
        dice = random.Random(seed)
        async with (
            serving(Hostile(dice, spoils)) as target,
            GrpcSaver(target, encryption=encryption, timeout=2, retry_budget=0) as saver,
        ):
            for number in range(10):
                async with asyncio.timeout(30):
                    await attempt(saver, number)
