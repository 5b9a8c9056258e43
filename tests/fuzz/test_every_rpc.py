"""Every RPC of the protocol with hostile messages and with invalid bytes: it always answers soon, as documented.

A short run tries the same inputs each time. CHECKPOINTD_FUZZ_EXAMPLES sets the number of inputs for each RPC: they
differ from run to run, and a failing input is shrunk and shown.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import psutil
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from checkpointd.v1 import (
    checkpoint_service_pb2,
    checkpoint_service_pb2_grpc,
    thread_service_pb2,
    thread_service_pb2_grpc,
)
from checkpointd.v1.errors_pb2 import ErrorReason
from tests.fuzz.messages import CHECKPOINTS, THREADS, broken, messages
from tests.support.cluster import PostgresCluster
from tests.support.rpcs import METHODS
from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.long

MORE = int(os.environ.get("CHECKPOINTD_FUZZ_EXAMPLES", "0"))
FUZZ = settings(
    max_examples=MORE or 100,
    derandomize=not MORE,
    database=None,
    deadline=None,
    phases=[Phase.generate] if not MORE else [Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
MEBIBYTE = 1024 * 1024
DOCUMENTED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.DATA_LOSS,
}
"""The codes with which a request may fail because of its content, if nothing else is wrong."""
UNEXPECTED = {"UNSPECIFIED", "INTERNAL", "DATABASE_UNAVAILABLE", "KEYS_UNAVAILABLE", "DRAINING", "OVERLOADED"}
UNEXPECTED |= {"UNAUTHENTICATED", "PERMISSION_DENIED", "DEADLINE_EXCEEDED"}
"""The reasons that no content brings about on a server that is well and asks for no tokens."""
REASONS = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()} - UNEXPECTED  # noqa: SIM118
"""Every other reason that the protocol knows."""
SLOWEST = 5.0
"""The longest time for an answer, in seconds, on a busy machine."""


class Target:
    """A server under test."""

    def __init__(self, server: ServerProcess, channel: grpc.Channel) -> None:
        self._server = server
        self._channel = channel
        self._process = psutil.Process(server.process.pid)
        self.start = self.resident
        self.codes: Counter[str] = Counter()

    @property
    def resident(self) -> int:
        """The server's memory, in bytes."""
        return int(self._process.memory_info().rss)

    def prepare(self) -> None:
        """Makes sure that the threads of the requests exist and are neither archived nor pinned."""
        threads: Any = thread_service_pb2_grpc.ThreadServiceStub(self._channel)
        checkpoints: Any = checkpoint_service_pb2_grpc.CheckpointServiceStub(self._channel)
        for thread_id in THREADS:
            with contextlib.suppress(grpc.RpcError):
                threads.ArchiveThread(thread_service_pb2.ArchiveThreadRequest(thread_id=thread_id, unarchive=True))
            with contextlib.suppress(grpc.RpcError):
                threads.UpdateThread(thread_service_pb2.UpdateThreadRequest(thread_id=thread_id, pinned=False))
            for checkpoint_id in CHECKPOINTS:
                request = checkpoint_service_pb2.PutCheckpointRequest(
                    thread_id=thread_id, checkpoint_id=checkpoint_id, body=b"\x80"
                )
                request.metadata.value.type, request.metadata.value.data = "msgpack", b"\x80"
                # Another request may have left a lease.
                with contextlib.suppress(grpc.RpcError):
                    checkpoints.PutCheckpoint(request)

    def throw(self, name: str, data: bytes) -> None:
        """Sends a request and checks the answer."""
        method = METHODS[name]
        path = f"/{method.containing_service.full_name}/{method.name}"
        # AcquireLease may wait for the lease, as it should.
        waits = method.name == "AcquireLease"
        begun = time.monotonic()
        try:
            if method.client_streaming:
                answers = list(self._channel.stream_stream(path)(iter([data]), timeout=60))
            else:
                answers = [self._channel.unary_unary(path)(data, timeout=0.5 if waits else 60)]
        except grpc.RpcError as error:
            if waits and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return
            check_refusal(error)
            self.codes[error.code().name] += 1
        else:
            self.codes["OK"] += 1
            for answer in answers:
                check_answer(method, answer)
        assert time.monotonic() - begun < SLOWEST

    def check(self) -> None:
        """Checks that the server is healthy."""
        assert self._server.process.poll() is None
        answer = health_pb2_grpc.HealthStub(self._channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        log = self._server.stderr
        for word in ("call failed", "Traceback", "antigravity", "closing a connection"):
            assert word not in log, log[log.index(word) - 500 :][:3000]
        assert self.resident - self.start < 300 * MEBIBYTE


def check_answer(method: MethodDescriptor, answer: bytes) -> None:
    """Checks that failures within an answer are documented ones."""
    response_type: Any = GetMessageClass(method.output_type)
    response = response_type.FromString(answer)
    failures = [result.failure for result in getattr(response, "results", ()) if result.HasField("failure")]
    # Each operation sets its own deadline.
    assert {failure.reason for failure in failures} <= REASONS | {"DEADLINE_EXCEEDED"}


def check_refusal(error: grpc.RpcError) -> None:
    """Checks that a call failed as documented."""
    assert error.code() in DOCUMENTED, error
    details = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    info = ErrorInfo()
    assert Status.FromString(details).details[0].Unpack(info)
    assert info.domain == "checkpointd"
    assert info.reason in REASONS
    assert f"ERROR_REASON_{info.reason}" in ErrorReason.keys()  # noqa: SIM118
    assert (info.reason == "INVALID_ARGUMENT") == (error.code() is grpc.StatusCode.INVALID_ARGUMENT)


@pytest.fixture(scope="module")
def target(postgres_cluster: PostgresCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server for the calls of this module only: they delete everything."""
    database = postgres_cluster.create_migrated_database()
    folder = tmp_path_factory.mktemp("fuzzed")
    # Hundreds of refused requests a second are a flood: their connection would be closed
    # (tests/security/test_floods.py).
    more = {"CHECKPOINTD_LOG_LEVEL": "info", "CHECKPOINTD_MAX_WASTED_CALLS": "0"}
    with ServerProcess("--database-url", postgres_cluster.dsn(database), log_dir=folder, env=more) as server:
        options = [("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(server.target, options) as channel:
            yield Target(server, channel)
    postgres_cluster.drop_database(database)


@pytest.mark.timeout(max(300, MORE))
@pytest.mark.parametrize("name", METHODS)
def test_hostile_messages(name: str, target: Target) -> None:
    @FUZZ
    @given(messages(METHODS[name].input_type))
    def attack(request: Any) -> None:
        target.throw(name, request.SerializeToString())

    target.codes.clear()
    target.prepare()
    attack()
    target.check()
    # Requests refused for their first field test no other. Conflicts and missing objects come after all fields.
    assert target.codes["OK"] + target.codes["ABORTED"] + target.codes["NOT_FOUND"] >= 3


@pytest.mark.timeout(max(300, MORE))
@pytest.mark.parametrize("name", METHODS)
def test_broken_bytes(name: str, target: Target) -> None:
    @FUZZ
    @given(st.data())
    def attack(data: st.DataObject) -> None:
        target.throw(name, data.draw(broken(METHODS[name].input_type)))

    target.prepare()
    attack()
    target.check()
