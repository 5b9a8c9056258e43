"""Payloads made to hurt: bombs, pickles, names of what belongs to others. To the server they are bytes to keep."""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import piece_service_pb2 as pieces_pb
from checkpointd.v1 import values_pb2 as values
from tests.security.serving import Serve
from tests.support.rpc_client import Client, bearer, connected
from tests.support.server_process import ServerProcess

MEBIBYTE = 1024 * 1024
ACME, OTHER = bearer("ckd_acme-all"), bearer("ckd_other-all")


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """300 MiB of nothing in 300 KiB."""
    packer = zlib.compressobj(9)
    return b"".join([packer.compress(bytes(MEBIBYTE)) for _ in range(300)]) + packer.flush()


class Memory:
    """Watches how much memory a server has had at the most."""

    def __init__(self, server: ServerProcess) -> None:
        self._status = Path(f"/proc/{server.process.pid}/status")
        self._start = self._peak()

    def _peak(self) -> int:
        (line,) = (line for line in self._status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    def grown(self) -> int:
        """By how many bytes it was above what it had at first."""
        return self._peak() - self._start


@pytest.fixture
def quiet(database_url: str, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that was warmed up, and logs what goes wrong."""
    more = {"CHECKPOINTD_LOG_LEVEL": "info"}
    options = ("--database-url", database_url, "--max-message-bytes", str(4 * MEBIBYTE))
    with ServerProcess(*options, log_dir=tmp_path, env=more) as server:
        yield server


def puts(client: Client, piece: values.Piece) -> dict[str, tuple[Any, Any]]:
    """All calls that take pieces, with this one."""
    listed = [piece] * 3
    return {
        "PutPieces": (client.pieces.PutPieces, pieces_pb.PutPiecesRequest(thread_id="t", pieces=listed)),
        "PutCheckpoint": (client.checkpoints.PutCheckpoint, client.put_request(pieces=listed)),
        "PutWrites": (client.checkpoints.PutWrites, client.writes_request(pieces=listed)),
    }


async def test_a_piece_is_not_unpacked_beyond_its_limit(quiet: ServerProcess, bomb: bytes) -> None:
    memory = Memory(quiet)
    piece = values.Piece(data=bomb, compression=values.COMPRESSION_ZLIB)
    async with connected(quiet.target) as client:
        for name, (call, request) in puts(client, piece).items():
            begun = time.monotonic()
            refusal = await client.refused(call(request, timeout=20))
            assert (refusal.code, refusal.metadata["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, "pieces[0].data"), (
                name
            )
            assert time.monotonic() - begun < 5
        small = values.Piece(data=zlib.compress(bytes(2 * MEBIBYTE)), compression=values.COMPRESSION_ZLIB)
        put = pb.BatchOperation(put_checkpoint=client.put_request(pieces=[small]))
        (result,) = (await client.checkpoints.Batch(pb.BatchRequest(operations=[put]))).results
        assert result.failure.metadata["field"] == "pieces[0].data"
    assert memory.grown() < 60 * MEBIBYTE


async def test_a_message_that_grpc_compressed_is_not_unpacked_at_all(quiet: ServerProcess) -> None:
    memory = Memory(quiet)
    packed = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(quiet.target, packed, compression=grpc.Compression.Gzip) as channel:
        client = Client(channel)
        for size in (1000, 200 * MEBIBYTE):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await client.raw("CheckpointService/PutCheckpoint", bytes(size))
            assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert "gzip" in (raised.value.details() or "")
    assert memory.grown() < 60 * MEBIBYTE


HOOK = """
import os, sys

def watch(event, args):
    if event == "pickle.find_class":
        os.write(2, b"UNPICKLED " + repr(args).encode())
        os._exit(99)

sys.addaudithook(watch)
"""
"""Ends a Python that unpickles anything that isn't made of plain values."""


class Trap:
    """What makes a file where its pickle is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self._path), "w")


async def test_a_pickle_is_stored_and_given_back_and_never_loaded(database_url: str, tmp_path: Path) -> None:
    sprung, hooks = tmp_path / "sprung", tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(HOOK)
    payload = pickle.dumps(Trap(sprung))
    # The trap works where it is loaded.
    pickle.loads(payload).close()
    sprung.unlink()
    more = {"PYTHONPATH": str(hooks)}
    with ServerProcess("--database-url", database_url, log_dir=tmp_path, env=more) as server:
        async with connected(server.target) as client:
            value = values.TypedValue(type="pickle", data=payload)
            version = values.ChannelVersion(integer=1)
            put = client.put_request(metadata=values.Metadata(value=value, index=b"\x80"))
            put.checkpoint.extra.CopyFrom(value)
            put.checkpoint.channel_versions.versions["channel"].CopyFrom(version)
            put.values.add(channel="channel", version=version, value=value)
            await client.checkpoints.PutCheckpoint(put)
            write = client.writes_request()
            write.writes[0].value.CopyFrom(value)
            await client.checkpoints.PutWrites(write)
            piece = values.Piece(name=hashlib.sha256(payload).digest(), data=payload)
            await client.pieces.PutPieces(pieces_pb.PutPiecesRequest(thread_id="thread-1", pieces=[piece]))
            found = (await client.checkpoints.GetCheckpoint(pb.GetCheckpointRequest(thread_id="thread-1"))).tuple
            assert found.values[0].value == found.pending_writes[0].value == found.metadata.value == value
            assert found.checkpoint.extra == value
            request = pieces_pb.GetPiecesRequest(thread_id="thread-1", names=[piece.name])
            assert list((await client.pieces.GetPieces(request)).pieces) == [piece]
            query = pb.ListCheckpointsRequest(filter=b"\x81\xa3run\xa3run")
            assert not (await client.checkpoints.ListCheckpoints(query)).tuples
        assert server.process.poll() is None
        assert "UNPICKLED" not in server.stderr
    assert not sprung.exists()


def test_a_server_that_unpickled_would_be_noticed(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HOOK)
    payload = pickle.dumps(Trap(tmp_path / "sprung"))
    program = f"import pickle; pickle.loads({payload!r})"
    more = {"PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", program], env=more)
    assert process.wait(20) == 99
    assert not (tmp_path / "sprung").exists()


def place(*parts: object) -> bytes:
    return json.dumps(parts).encode()


async def test_names_lead_to_nothing_but_the_thread_s_own(serve: Serve, keys_file: Path) -> None:
    secret = b"a secret of thread-1" * 10
    digest = hashlib.sha256(secret).digest()
    version = values.ChannelVersion(integer=1)
    async with serve(keys_file=keys_file) as target, connected(target) as client:
        put = client.put_request()
        put.checkpoint.channel_versions.versions["channel"].CopyFrom(version)
        put.values.add(channel="channel", version=version, value=client.value(secret))
        await client.checkpoints.PutCheckpoint(put, metadata=ACME)
        write = client.writes_request()
        write.writes[0].value.data = secret
        await client.checkpoints.PutWrites(write, metadata=ACME)
        pieces = [values.Piece(name=digest, data=secret)]
        await client.pieces.PutPieces(pieces_pb.PutPiecesRequest(thread_id="thread-1", pieces=pieces), metadata=ACME)
        own = [
            place("value", "", "channel", "i1"),
            place("write", "", "checkpoint-1", "task-1", 0),
        ]

        async def get(thread_id: str, names: list[bytes], metadata: Any) -> Any:
            request = pieces_pb.GetPiecesRequest(thread_id=thread_id, names=names)
            return await client.pieces.GetPieces(request, metadata=metadata, timeout=20)

        for names in ([digest], own):
            assert [piece.data for piece in (await get("thread-1", names, ACME)).pieces] == [secret] * len(names)
        strange = [
            place("value", "", "channel", "i1", "thread-1"),
            place("acme", "value", "", "channel", "i1"),
            place("value", "../thread-1", "channel", "i1"),
            place("value", "", "channel' OR '1'='1", "i1"),
            place("value", "", "%", "%"),
            place("value", "", "channel", 1),
            place("write", "", "checkpoint-1", "task-1", "0"),
            place("write", "", "checkpoint-1", "task-1", True),
            place("write", "", "checkpoint-1", "task-1", 2**31),
            place({"value": ""}),
            b'["value","\\u0000","channel","i1"]',
            b'["value","\\ud800","channel","i1"]',
            b"[" * 4000,
            b"\xff\xfe",
            b"null",
        ]
        for thread_id, names, metadata in (
            ("thread-2", [digest], ACME),
            ("thread-2", own, ACME),
            ("thread-1", [digest], OTHER),
            ("thread-1", own, OTHER),
            ("thread-1", strange, ACME),
        ):
            answer = await get(thread_id, names, metadata)
            assert not answer.pieces
            assert list(answer.missing) == names
        # Nor can a value be made of another thread's or tenant's pieces.
        for thread_id, metadata in (("thread-2", ACME), ("thread-1", OTHER)):
            put = client.put_request(thread_id=thread_id, checkpoint_id="checkpoint-2")
            put.checkpoint.channel_versions.versions["channel"].CopyFrom(version)
            value = values.TypedValue(type="bytes", pieces=values.PieceList(size=len(secret), names=[digest]))
            put.values.add(channel="channel", version=version, value=value)
            answer = await client.checkpoints.PutCheckpoint(put, metadata=metadata)
            assert list(answer.missing_pieces) == [digest]
