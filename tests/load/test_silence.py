"""No request, within the limits or beyond them, silences the server for longer than 250 ms: the worst of each.

The time of a health check depends on the machine's other work. Therefore the 250 ms apply to the CPU time that the
server's event loop computes without a break. Health checks must be answered meanwhile too, within a generous bound.
Before these limits existed, some of the requests took 2 to 200 seconds.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from zlib import crc32

import pytest

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import value_service_pb2 as values_pb
from checkpointd.v1 import values_pb2 as values
from checkpointd_server.domain.limits import Limits
from tests.load.silence import LONGEST_SILENCE, LONGEST_STRETCH, Server, watching
from tests.load.worst_requests import (
    LIMITS,
    MEBIBYTE,
    OK,
    UNBOUNDED,
    WORST,
    leb,
    many_patches,
    many_values,
    names,
    put,
    whole,
)
from tests.support.cluster import PostgresCluster
from tests.support.local_server import LocalServer
from tests.support.server_process import ServerProcess
from tests.support.stretches import measured_stretches


@pytest.fixture(scope="module")
def attacker(postgres_cluster: PostgresCluster) -> Iterator[Server]:
    database = postgres_cluster.create_migrated_database()
    # The server is in this process. Its garbage collector shouldn't have to go through what other tests left here.
    gc.collect()
    gc.freeze()
    with measured_stretches() as stretches, LocalServer(postgres_cluster.dsn(database)) as server:
        yield Server(server, stretches)
    gc.unfreeze()


LARGEST = {"max_item_bytes: JSON", "max_item_bytes: msgpack", "max_message_bytes: a value", "max_pipeline_bytes"}
"""Those that take seconds."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.long] * (name in LARGEST)) for name in WORST])
def test_a_write_of_all_that_may_be_silences_nobody(name: str, attacker: Server) -> None:
    _, method, expected, make = WORST[name]
    request = make()
    if "/" not in method:
        method = f"CheckpointService/{method}"
    if make is many_patches:  # they need a base
        assert attacker.send(method, many_values()) is OK
    attacker.silences_nobody(lambda: attacker.expect(expected, method, request))


class TestReads:
    """All reads of the largest data that the limits let in."""

    @pytest.mark.long
    def test_checkpoints_of_very_many_channels(self, attacker: Server) -> None:
        channels = names(LIMITS.max_channels)
        for number in range(30):
            request = put(
                thread_id="wide",
                checkpoint_id=f"{number:04}",
                channels=channels,
                channel_versions=["s0"] * len(channels),
                values=[whole(channel, b"v") for channel in channels] if not number else [],
            )
            assert attacker.send("CheckpointService/PutCheckpoint", request) is OK

        def read() -> None:
            for patches in (False, True):
                page = pb.ListCheckpointsRequest(thread_id="wide", page_size=1000, patches=patches)
                assert attacker.send("CheckpointService/ListCheckpoints", page) is OK
                latest = pb.GetCheckpointRequest(thread_id="wide", patches=patches)
                assert attacker.send("CheckpointService/GetCheckpoint", latest) is OK

        attacker.silences_nobody(read)

    @pytest.mark.long
    def test_the_longest_chain_of_the_largest_patches(self, attacker: Server) -> None:
        """Each patch splits its base into bytes."""
        operations = 16_384
        base = random.Random(1).randbytes(operations)
        first = put(thread_id="chain", channels=["c"], channel_versions=["s0"], values=[whole("c", base)])
        assert attacker.send("CheckpointService/PutCheckpoint", first) is OK
        instructions = b"".join(b"\x03" + leb(operations - 1 - offset) for offset in range(operations))
        for number in range(1, LIMITS.max_chain + 1):
            base = base[::-1]
            value = values.TypedValue(
                type="msgpack",
                data=instructions,
                patch=values.Patch(base_version=f"s{number - 1}", size=operations, crc32=crc32(base)),
            )
            change = values.ChannelValue(channel="c", version=f"s{number}", value=value)
            request = put(
                thread_id="chain",
                checkpoint_id=f"{number:04}",
                channels=["c"],
                channel_versions=[f"s{number}"],
                values=[change],
            )
            assert attacker.send("CheckpointService/PutCheckpoint", request) is OK
        known = values_pb.KnownChannelValue(channel="c", version=f"s{LIMITS.max_chain}")

        def read() -> None:
            for patches in (False, True):
                page = pb.ListCheckpointsRequest(thread_id="chain", patches=patches)
                assert attacker.send("CheckpointService/ListCheckpoints", page) is OK
            wanted = values_pb.GetValueRequest(thread_id="chain", channel_value=known)
            assert attacker.send("ValueService/GetValue", wanted) is OK

        attacker.silences_nobody(read)

    def test_a_value_that_is_blown_up(self, attacker: Server) -> None:
        size = 4096
        first = put(thread_id="blown", channels=["c"], channel_versions=["s0"], values=[whole("c", bytes(size))])
        assert attacker.send("CheckpointService/PutCheckpoint", first) is OK
        for number in (1, 2):
            times = 256
            value = values.TypedValue(
                type="msgpack",
                data=(leb(size << 1 | 1) + b"\x00") * times,
                patch=values.Patch(base_version=f"s{number - 1}", size=size * times, crc32=crc32(bytes(size * times))),
            )
            size *= times
            change = values.ChannelValue(channel="c", version=f"s{number}", value=value)
            request = put(thread_id="blown", channels=["c"], channel_versions=[f"s{number}"], values=[change])
            assert attacker.send("CheckpointService/PutCheckpoint", request) is OK
        known = values_pb.KnownChannelValue(channel="c", version="s2")

        def read() -> None:
            for most in (1, 60 * MEBIBYTE):
                wanted = values_pb.GetValueRequest(thread_id="blown", channel_value=known, max_bytes=most)
                assert attacker.send("ValueService/GetValue", wanted) is OK

        attacker.silences_nobody(read)


def test_every_limit_has_its_worst_case() -> None:
    tried = {limit for limit, *_ in WORST.values()}
    assert tried | UNBOUNDED == {field.name for field in dataclasses.fields(Limits)}
    assert not tried & UNBOUNDED


def test_a_server_that_is_silent_is_noticed(shared_server: ServerProcess) -> None:
    """The tests above rely on this."""
    with watching(shared_server.target) as silence, suppress(ProcessLookupError):
        shared_server.process.send_signal(19)
        time.sleep(LONGEST_SILENCE + 0.2)
        shared_server.process.send_signal(18)
    assert silence.seconds > LONGEST_SILENCE


def test_a_loop_that_computes_for_too_long_is_noticed() -> None:
    async def compute() -> None:
        await asyncio.sleep(0)
        end = time.thread_time() + LONGEST_STRETCH
        while time.thread_time() < end:
            pass

    with measured_stretches() as stretches:
        asyncio.run(compute())
    assert stretches.longest(threading.get_ident()) >= LONGEST_STRETCH
