"""Malicious payloads: bombs, pickles, references to others' data. To the server they are opaque bytes."""

from __future__ import annotations

import pickle
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import value_service_pb2 as values_pb
from checkpointd.v1 import values_pb2 as values
from tests.security.serving import Serve
from tests.support.rpc_client import Client, bearer, connected
from tests.support.server_process import ServerProcess

MEBIBYTE = 1024 * 1024
ACME, OTHER = bearer("ckd_acme-all"), bearer("ckd_other-all")


class Memory:
    """Watches the maximum memory of a server."""

    def __init__(self, server: ServerProcess) -> None:
        self._status = Path(f"/proc/{server.process.pid}/status")
        self._start = self._peak()

    def _peak(self) -> int:
        (line,) = (line for line in self._status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    def grown(self) -> int:
        """Returns how many bytes the peak is above the initial memory."""
        return self._peak() - self._start


@pytest.fixture
def quiet(database_url: str, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that accepts messages of up to 4 MiB, and logs at level info."""
    more = {"CHECKPOINTD_LOG_LEVEL": "info"}
    options = ("--database-url", database_url, "--max-message-bytes", str(4 * MEBIBYTE))
    with ServerProcess(*options, log_dir=tmp_path, env=more) as server:
        yield server


def number(value: int) -> bytes:
    """Encodes unsigned LEB128."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def blown_up(client: Client, version: int, base_size: int, times: int) -> Any:
    """Returns a put whose value is its base, repeated this many times."""
    size = base_size * times
    instructions = (number(base_size << 1 | 1) + number(0)) * times
    patch = values.Patch(base_version=f"s{version - 1}", size=size, crc32=zlib.crc32(bytes(size)))
    put = client.put_request(checkpoint_id=f"{version}", channels=["channel"], channel_versions=[f"s{version}"])
    value = values.TypedValue(type="bytes", data=instructions, patch=patch)
    put.values.add(channel="channel", version=f"s{version}", value=value)
    return put


async def test_a_value_is_not_blown_up_beyond_what_an_answer_may_have(quiet: ServerProcess) -> None:
    """A kibibyte is copied 500 times, and the result 500 times: 256 MiB from a few kilobytes."""
    async with connected(quiet.target) as client:
        put = client.put_request(checkpoint_id="0", channels=["channel"], channel_versions=["s0"])
        put.values.add(channel="channel", version="s0", value=values.TypedValue(type="bytes", data=bytes(1024)))
        await client.checkpoints.PutCheckpoint(put)
        size = 1024
        for version in (1, 2):
            await client.checkpoints.PutCheckpoint(blown_up(client, version, size, 500))
            size *= 500
        memory = Memory(quiet)
        request = pb.GetCheckpointRequest(thread_id="thread-1")
        found = await client.checkpoints.GetCheckpoint(request, timeout=20)
        assert found.ByteSize() < MEBIBYTE
        assert found.tuple.values[0].value.parts.size == size
        await client.checkpoints.ListCheckpoints(pb.ListCheckpointsRequest(), timeout=20)
        known = values_pb.KnownChannelValue(channel="channel", version="s2")
        for offset in (0, size // 2, size - 1000):
            wanted = values_pb.GetValueRequest(thread_id="thread-1", channel_value=known, offset=offset)
            answer = await client.values.GetValue(wanted, timeout=20)
            assert answer.data == bytes(len(answer.data))
            assert answer.data
            assert answer.size == size
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
"""Makes Python exit when it unpickles anything but plain values."""


class Trap:
    """An object that creates a file when its pickle is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self._path), "w")


async def test_a_pickle_is_stored_and_given_back_and_never_loaded(database_url: str, tmp_path: Path) -> None:
    sprung, hooks = tmp_path / "sprung", tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(HOOK)
    payload = pickle.dumps(Trap(sprung))
    # The trap works when it is loaded.
    pickle.loads(payload).close()
    sprung.unlink()
    more = {"PYTHONPATH": str(hooks)}
    with ServerProcess("--database-url", database_url, log_dir=tmp_path, env=more) as server:
        async with connected(server.target) as client:
            value = values.TypedValue(type="pickle", data=payload)
            put = client.put_request(
                metadata=values.Metadata(value=value, index=b"\x80"),
                body=payload,
                channels=["channel"],
                channel_versions=["i1"],
            )
            put.values.add(channel="channel", version="i1", value=value)
            await client.checkpoints.PutCheckpoint(put)
            write = client.writes_request()
            write.writes[0].value.CopyFrom(value)
            await client.checkpoints.PutWrites(write)
            part = values_pb.PutPartRequest(thread_id="thread-1", upload_id=b"u" * 16, data=payload)
            await client.values.PutPart(part)
            found = (await client.checkpoints.GetCheckpoint(pb.GetCheckpointRequest(thread_id="thread-1"))).tuple
            assert found.values[0].value == found.pending_writes[0].value == found.metadata.value == value
            assert found.body == payload
            known = values_pb.KnownChannelValue(channel="channel", version="i1")
            wanted = values_pb.GetValueRequest(thread_id="thread-1", channel_value=known)
            assert (await client.values.GetValue(wanted)).data == payload
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


async def test_an_upload_is_its_threads_own(serve: Serve, keys_file: Path) -> None:
    secret = b"a secret of thread-1" * 10
    async with serve(keys_file=keys_file) as target, connected(target) as client:
        part = values_pb.PutPartRequest(thread_id="thread-1", upload_id=b"u" * 16, data=secret)
        await client.values.PutPart(part, metadata=ACME)

        def put(thread_id: str, upload_id: bytes = b"u" * 16) -> Any:
            request = client.put_request(thread_id=thread_id, channels=["channel"], channel_versions=["i1"])
            parts = values.Parts(upload_id=upload_id, size=len(secret))
            request.values.add(channel="channel", version="i1", value=values.TypedValue(type="bytes", parts=parts))
            return request

        for thread_id, upload_id, metadata in (
            ("thread-2", b"u" * 16, ACME),
            ("thread-1", b"u" * 16, OTHER),
            ("thread-1", b"v" * 16, ACME),
            ("thread-1", bytes(16), ACME),
        ):
            refusal = await client.refused(
                client.checkpoints.PutCheckpoint(put(thread_id, upload_id), metadata=metadata)
            )
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "BASE_MISSING")
        await client.checkpoints.PutCheckpoint(put("thread-1"), metadata=ACME)
        known = values_pb.KnownChannelValue(channel="channel", version="i1")
        for thread_id, metadata, found in (
            ("thread-1", ACME, secret),
            ("thread-2", ACME, b""),
            ("thread-1", OTHER, b""),
        ):
            wanted = values_pb.GetValueRequest(thread_id=thread_id, channel_value=known)
            assert (await client.values.GetValue(wanted, metadata=metadata)).data == found
        # Nor can a value be a patch on a value of another thread or tenant.
        patch = values.Patch(base_version="i1", size=len(secret), crc32=zlib.crc32(secret))
        value = values.TypedValue(type="bytes", data=number(len(secret) << 1 | 1) + number(0), patch=patch)
        for thread_id, metadata in (("thread-2", ACME), ("thread-1", OTHER)):
            request = client.put_request(
                thread_id=thread_id, checkpoint_id="checkpoint-2", channels=["channel"], channel_versions=["i2"]
            )
            request.values.add(channel="channel", version="i2", value=value)
            refusal = await client.refused(client.checkpoints.PutCheckpoint(request, metadata=metadata))
            assert refusal.reason == "BASE_MISSING"
