"""Runs: the reads and writes of each, and the precondition of its next write."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from langgraph.checkpoint.grpc._convert.random_ids import random_id
from langgraph.checkpoint.grpc._transport.operation import PUT, Chain, Kind, Namespace, key_of, varint
from langgraph.checkpoint.grpc.errors import CheckpointdError, WriteConflictError, again

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import values_pb2 as values

if TYPE_CHECKING:
    from langgraph.checkpoint.grpc._runs.handover import InFlightWrite

REMEMBERED_PUTS = 64
"""Number of a run's own checkpoints that are remembered in each namespace."""

_LAST_WRITER = key_of(values.Precondition, "if_last_writer")
_LAST_CHECKPOINT_ID = key_of(values.Precondition, "if_last_checkpoint_id")
_PUT_PRECONDITION = key_of(pb.PutCheckpointRequest, "precondition")
_PUT_WRITER = key_of(pb.PutCheckpointRequest, "writer")
_WRITES_PRECONDITION = key_of(pb.PutWritesRequest, "precondition")


class Refusal:
    """A conflict of an execution with another run."""

    __slots__ = ("at", "checkpoint_ns", "error")

    def __init__(self, error: WriteConflictError, checkpoint_ns: str, at: int) -> None:
        self.error = error
        self.checkpoint_ns = checkpoint_ns
        self.at = at


class Execution:
    """One execution of a graph, with all graphs nested in it."""

    __slots__ = ("refusals",)

    def __init__(self) -> None:
        self.refusals: dict[str, Refusal] = {}
        """By thread. LangGraph drops what a nested graph's save raised when the graph is ending in an interrupt; so
        whoever has begun before and writes next in this execution raises it again."""


class Run:
    """One run, with its reads and writes."""

    __slots__ = ("began", "execution", "last_writer", "namespaces", "token", "writer")

    def __init__(self, began: int, execution: Execution | None = None) -> None:
        self.began = began
        """Its number among runs and refusals, by their beginning."""
        self.token = random_id()
        """The writer's id, for the server."""
        token = varint(len(self.token)) + self.token
        self.writer = _PUT_WRITER + token
        """The token, as the field of a put."""
        self.last_writer = _LAST_WRITER + token
        """The token, as the field of a precondition."""
        self.execution = execution
        """None for reads without a runtime."""
        self.namespaces: dict[Namespace, RunNamespace] = {}


class RunNamespace:
    """One namespace, as one run sees it. Guarded by the lock of Runs."""

    __slots__ = (
        "broken",
        "chain",
        "expected",
        "failed",
        "handed_over",
        "puts",
        "read",
        "run",
        "sent",
        "sent_id",
        "stored",
        "stored_id",
        "takers",
        "untaken",
        "version",
    )

    def __init__(self, run: Run, version: int | None) -> None:
        self.run = run
        self.version = version
        """The version that this run read, or that its own last put made. None: it has read nothing, and its writes are
        unconditional."""
        self.read: set[str] = set()
        """The checkpoints that this run read."""
        self.puts: OrderedDict[str, None] = OrderedDict()
        """The checkpoints of this run's own puts, sent or stored."""
        self.sent = 0
        """The number of puts sent."""
        self.sent_id = ""
        """The checkpoint of the last of them."""
        self.stored = 0
        """The number of the put stored last."""
        self.stored_id = ""
        self.chain = Chain()
        """The chain of its operations."""
        self.broken: CheckpointdError | None = None
        """The error of the last put, if it failed: LangGraph makes no other then, so there is none to wait for."""
        self.failed: OrderedDict[str, CheckpointdError] = OrderedDict()
        """The errors of failed puts, by checkpoint."""
        self.expected: dict[str, list[InFlightWrite]] = {}
        """Task writes that wait for the put of their checkpoint, by checkpoint."""
        self.takers: list[InFlightWrite] = []
        """Task writes in flight that others may be handed over to."""
        self.untaken: deque[InFlightWrite] = deque()
        """Puts in flight that may be handed over."""
        self.handed_over = 0
        """The number of saves in flight that were handed over."""

    def record_put(self, checkpoint_id: str) -> int:
        """Records a put that is about to be sent, and returns its number."""
        self.sent += 1
        self.sent_id = checkpoint_id
        self.broken = None
        self.puts[checkpoint_id] = None
        self.puts.move_to_end(checkpoint_id)
        if len(self.puts) > REMEMBERED_PUTS:
            self.puts.popitem(last=False)
        return self.sent

    def record_stored(self, number: int, checkpoint_id: str, version: int) -> None:
        """Records a put that was stored."""
        if number > self.stored:
            self.stored, self.stored_id = number, checkpoint_id
            if self.version is not None:
                self.version = version

    def record_failed(self, checkpoint_id: str, error: CheckpointdError, chain: Chain | None) -> list[InFlightWrite]:
        """Records a put that failed. Returns what waits for puts that won't come, if what was built on it fails too."""
        self.fail(checkpoint_id, error)
        if chain is not self.chain:
            return []
        # What comes from now on builds on what is stored.
        self.chain = Chain()
        self.broken = error
        self.sent_id = self.stored_id
        return self.take_expected()

    def take_expected(self) -> list[InFlightWrite]:
        """Returns operations that wait for puts, which won't come."""
        unsent = [write for writes in self.expected.values() for write in writes]
        self.expected.clear()
        return unsent

    def tail(self, kind: Kind, last_id: str) -> bytes:
        """Returns an operation's precondition and writer, as fields of its request.

        Args:
            kind: The operation's kind.
            last_id: The checkpoint that this run has put before it, "" if none.
        """
        if self.version is None:
            return b""
        if not last_id:
            return self._encoded(kind, values.Precondition(if_version_match=self.version).SerializeToString())
        checkpoint_id = last_id.encode()
        return self._encoded(
            kind, b"".join((self.run.last_writer, _LAST_CHECKPOINT_ID, varint(len(checkpoint_id)), checkpoint_id))
        )

    def relaxed_tail(self, kind: Kind) -> bytes:
        """Returns the tail of an operation that goes out of turn: it expects only that nobody else has written."""
        if self.version is None:
            return b""
        expected = values.Precondition(if_version_match=self.version, if_last_writer=self.run.token)
        return self._encoded(kind, expected.SerializeToString())

    def _encoded(self, kind: Kind, expected: bytes) -> bytes:
        if kind is not PUT:
            return b"".join((_WRITES_PRECONDITION, varint(len(expected)), expected))
        return b"".join((_PUT_PRECONDITION, varint(len(expected)), expected, self.run.writer))

    def knows(self, checkpoint_id: str) -> bool:
        """Returns whether the run has read this checkpoint or put it itself."""
        return checkpoint_id in self.read or checkpoint_id in self.puts

    def fail(self, checkpoint_id: str, error: CheckpointdError) -> None:
        """Stores why a put failed: operations that build on it fail too."""
        self.failed[checkpoint_id] = error
        if len(self.failed) > REMEMBERED_PUTS:
            self.failed.popitem(last=False)

    def check(self, builds_on: str) -> None:
        """Raises the error of a failed put that an operation builds on."""
        if self.failed and (error := self.failed.get(builds_on)) is not None:
            raise again(error)
