"""The table of errors matches errors.proto."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from checkpointd.v1.errors_pb2 import ErrorReason
from checkpointd_server.domain import errors as domain_errors
from checkpointd_server.domain.access import ANYBODY, Scope
from checkpointd_server.domain.errors import (
    BaseMissing,
    BrokenPatch,
    ChainTooLong,
    CheckpointdError,
    CheckpointNotFound,
    DatabaseFull,
    DatabaseUnavailable,
    DeadlineExceeded,
    InvalidArgument,
    ItemVersionConflict,
    LeaseHeld,
    LeaseLost,
    Overloaded,
    PolicyNotFound,
    PredecessorMissing,
    QuotaExceeded,
    ResultTooLarge,
    SealedValue,
    SerializerMismatch,
    SetupError,
    ThreadArchived,
    ThreadExists,
    ThreadNotFound,
    ThreadPinned,
    VectorsUnavailable,
    VersionConflict,
)
from checkpointd_server.domain.serializers import SerializerFamily
from checkpointd_server.rpc.auth.scopes import PermissionDenied
from checkpointd_server.rpc.errors import (
    DETAILS_KEY,
    FAULT,
    RULES,
    Draining,
    Failure,
    RequestTooLarge,
    describe_error,
)

PROTO = Path(__file__).parents[2] / "protos/checkpointd/v1/errors.proto"
CONFLICT = {"thread_id": "t", "checkpoint_ns": "", "expected_version": 3, "current_version": 5}

EXAMPLES: list[tuple[CheckpointdError, dict[str, str]]] = [
    (PermissionDenied(Scope.DELETE, ANYBODY), {"scope": "delete"}),
    (InvalidArgument("thread_id", "is required"), {"field": "thread_id"}),
    (InvalidArgument("thread_id", "is too long", limit=512), {"field": "thread_id", "limit": "512"}),
    (
        VersionConflict(**CONFLICT, current_checkpoint_id="c"),  # type: ignore[arg-type]
        {**{key: str(value) for key, value in CONFLICT.items()}, "current_checkpoint_id": "c"},
    ),
    (
        VersionConflict(
            thread_id="t", checkpoint_ns="ns", expected_version=None, current_version=0, current_checkpoint_id=None
        ),
        {"thread_id": "t", "checkpoint_ns": "ns", "current_version": "0"},
    ),
    (LeaseHeld("t", remaining=1.5), {"thread_id": "t", "remaining_ms": "1500"}),
    (LeaseHeld("t", remaining=None), {"thread_id": "t"}),
    (LeaseLost("t"), {"thread_id": "t"}),
    (ThreadArchived("t"), {"thread_id": "t"}),
    (ThreadNotFound("t"), {"thread_id": "t"}),
    (ThreadPinned("t"), {"thread_id": "t"}),
    (
        SerializerMismatch("t", found=SerializerFamily.LANGGRAPH_MSGPACK, family=SerializerFamily.LANGGRAPH_JSON),
        {"thread_id": "t", "serializer_family": "langgraph-json", "thread_serializer_family": "langgraph-msgpack"},
    ),
    (PolicyNotFound("p"), {"name": "p"}),
    (ThreadExists("t"), {"thread_id": "t"}),
    (
        ItemVersionConflict(("a", "b"), "k", expected_version=7, current_version=0),
        {"namespace": '["a", "b"]', "key": "k", "expected_version": "7", "current_version": "0"},
    ),
    (VectorsUnavailable(), {}),
    (CheckpointNotFound("t", "c"), {"thread_id": "t", "checkpoint_id": "c"}),
    (QuotaExceeded("bytes", limit=8, used=9), {"field": "bytes", "limit": "8", "used": "9"}),
    (RequestTooLarge(9, limit=8), {"limit": "8"}),
    (ResultTooLarge(9, limit=8), {"limit": "8"}),
    (Overloaded(limit=8), {"bound": "calls", "limit": "8"}),
    (
        PredecessorMissing(**CONFLICT, current_checkpoint_id="c"),  # type: ignore[arg-type]
        {**{key: str(value) for key, value in CONFLICT.items()}, "current_checkpoint_id": "c"},
    ),
    (BaseMissing("t", "c"), {"thread_id": "t", "channel": "c"}),
    (ChainTooLong("t", "c", limit=64), {"thread_id": "t", "channel": "c", "limit": "64"}),
    (SealedValue(), {}),
    (BrokenPatch("the checksum differs"), {}),
    (DatabaseUnavailable(), {}),
    (DatabaseFull(), {}),
    (Draining(), {}),
    (DeadlineExceeded(), {}),
]


def error_info(failure: Failure) -> ErrorInfo:
    (key, details), *others = failure.trailers
    assert (key, others) == (DETAILS_KEY, [])
    status = Status.FromString(details)
    assert (status.code, status.message) == (failure.code.value[0], failure.message)
    info = ErrorInfo()
    assert len(status.details) == 1
    assert status.details[0].Unpack(info)
    assert info.domain == "checkpointd"
    return info


def documented() -> dict[str, tuple[grpc.StatusCode, set[str]]]:
    """Returns the code and the metadata keys that errors.proto documents for each reason."""
    found = {}
    for comment, name in re.findall(r"((?: *//.*\n)+) *(ERROR_REASON_\w+) =", PROTO.read_text()):
        text = " ".join(line.strip(" /") for line in comment.splitlines())
        code = re.search(r"Code: (\w+)\.", text)
        listed = re.search(r"Metadata: (.*?)\.(?: |$)", re.sub(r"\([^)]*\)", "", text))
        keys = re.findall(r"[a-z]+(?:_[a-z]+)*", listed[1]) if listed else []
        words = {"as", "for", "where", "one", "was", "exceeded", "in", "bytes", "calls", "of", "the", "put", "last"}
        if code:
            found[name] = (grpc.StatusCode[code[1]], set(keys) - words)
    return found


@pytest.mark.parametrize("reason", [value for value in ErrorReason.values() if value])
def test_every_reason_is_told_with_the_code_and_keys_of_its_documentation(reason: ErrorReason) -> None:
    code, keys = documented()[ErrorReason.Name(reason)]
    rules = [rule for rule in (*RULES.values(), FAULT) if rule.reason == reason]
    assert rules
    assert {rule.code for rule in rules} == {code}
    told: set[str] = {"error_id"} if rules == [FAULT] else set()
    for error, metadata in EXAMPLES:
        if RULES[type(error)].reason == reason:
            told |= metadata.keys()
    assert told == keys


@pytest.mark.parametrize(("error", "metadata"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_the_details_carry_the_metadata(error: CheckpointdError, metadata: dict[str, str]) -> None:
    failure = describe_error(error)
    info = error_info(failure)
    assert dict(info.metadata) == metadata
    assert failure.message == str(error)
    assert failure.error_id is None


def test_every_error_that_a_store_may_raise_has_a_rule() -> None:
    errors = [kind for kind in vars(domain_errors).values() if isinstance(kind, type)]
    for kind in errors:
        if issubclass(kind, CheckpointdError) and kind is not CheckpointdError and not issubclass(kind, SetupError):
            assert kind in RULES


def test_a_subclass_is_told_like_its_base() -> None:
    class PrimaryUnavailable(DatabaseUnavailable):
        pass

    assert describe_error(PrimaryUnavailable()).reason == "DATABASE_UNAVAILABLE"


def test_anything_else_is_a_fault_that_says_nothing_but_its_id() -> None:
    failures = [describe_error(RuntimeError("password=hunter2")) for _ in range(2)]
    for failure in failures:
        assert (failure.code, failure.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
        assert failure.error_id is not None
        assert failure.error_id in failure.message
        assert dict(error_info(failure).metadata) == {"error_id": failure.error_id}
        assert b"hunter2" not in failure.trailers[0][1]
        assert "hunter2" not in failure.message
    assert failures[0].error_id != failures[1].error_id


@pytest.mark.parametrize("character", ["x", "é", "漢", "😀", "\x01", "\n", "%"])
def test_the_longest_ids_fit_into_the_headers_of_an_answer(character: str) -> None:
    def longest(limit: int) -> str:
        return character * (limit // len(character.encode()))

    ids: dict[str, Any] = {"thread_id": longest(512), "checkpoint_ns": longest(1408)}
    failure = describe_error(
        VersionConflict(**ids, expected_version=2**62, current_version=2**62, current_checkpoint_id=longest(128))
    )
    info = error_info(failure)
    assert info.metadata["thread_id"] == ids["thread_id"]
    assert info.metadata["checkpoint_ns"] == ids["checkpoint_ns"]
    assert len(quote(failure.message, safe="")) <= 1024
    # Base64 turns 3 bytes into 4; the other headers are small.
    assert len(quote(failure.message)) + len(failure.trailers[0][1]) * 4 / 3 < 7 * 1024
