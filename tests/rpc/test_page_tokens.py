"""Page tokens: opaque, and valid for one request only."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest
from hypothesis import strategies as st

from checkpointd.v1.checkpoint_service_pb2 import CheckpointView, GetDeltaChannelHistoryRequest, ListCheckpointsRequest
from checkpointd_server.domain.checkpoints import CheckpointPosition
from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.limits import Limits
from checkpointd_server.rpc.conversion.page_tokens import (
    read_history_token,
    read_list_token,
    write_history_token,
    write_list_token,
)
from tests.support.properties import given

LIMITS = Limits()
POSITION = CheckpointPosition("checkpoint-1", "thread-1", "ns")


def read(token: str, request: ListCheckpointsRequest, tenant: str = "default") -> CheckpointPosition | None:
    sent = ListCheckpointsRequest()
    sent.CopyFrom(request)
    sent.page_token = token
    return read_list_token(sent, tenant, LIMITS)


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)


@given(names, names, names)
def test_a_token_leads_back_to_its_position(checkpoint_id: str, thread_id: str, checkpoint_ns: str) -> None:
    position = CheckpointPosition(checkpoint_id, thread_id, checkpoint_ns)
    request = ListCheckpointsRequest(thread_id=thread_id)
    token = write_list_token(position, request, "default")
    assert re.fullmatch(r"[A-Za-z0-9_-]+", token)
    assert read(token, request) == position


def test_no_token_is_the_first_page() -> None:
    assert read_list_token(ListCheckpointsRequest(), "default", LIMITS) is None


def test_the_page_size_may_change_between_pages() -> None:
    token = write_list_token(POSITION, ListCheckpointsRequest(thread_id="t", page_size=5), "default")
    assert read(token, ListCheckpointsRequest(thread_id="t", page_size=50)) == POSITION


def test_a_token_may_be_followed_from_a_request_that_had_one() -> None:
    first = ListCheckpointsRequest(thread_id="t")
    second = ListCheckpointsRequest(thread_id="t", page_token=write_list_token(POSITION, first, "default"))
    third = write_list_token(POSITION._replace(checkpoint_id="checkpoint-0"), second, "default")
    assert read(third, first) == POSITION._replace(checkpoint_id="checkpoint-0")


OTHER_VALUES: dict[str, Any] = {
    "thread_id": "other",
    "checkpoint_ns": "other",
    "checkpoint_id": "other",
    "before_checkpoint_id": "other",
    "filter": b"\x81\xa1k\x02",
    "patches": True,
    "filter_struct": {"k": 2},
    "all_namespaces": True,
    "metadata_struct": True,
    "view": CheckpointView.CHECKPOINT_VIEW_METADATA,
}


@pytest.mark.parametrize(
    "field",
    [f.name for f in ListCheckpointsRequest.DESCRIPTOR.fields if f.name not in ("page_size", "page_token")],
)
def test_a_token_is_bound_to_every_field(field: str) -> None:
    request = ListCheckpointsRequest(
        thread_id="t", checkpoint_ns="", checkpoint_id="c", before_checkpoint_id="d", filter=b"\x81\xa1k\x01"
    )
    token = write_list_token(POSITION, request, "default")
    changed = ListCheckpointsRequest()
    changed.CopyFrom(request)
    if field == "filter_struct":
        changed.filter_struct.update(OTHER_VALUES[field])
    else:
        setattr(changed, field, OTHER_VALUES[field])
    for other in (changed, _without(request, field)):
        if other != request:
            with pytest.raises(InvalidArgument, match="another request") as error:
                read(token, other)
            assert error.value.field == "page_token"


def _without(request: ListCheckpointsRequest, field: str) -> ListCheckpointsRequest:
    copy = ListCheckpointsRequest()
    copy.CopyFrom(request)
    copy.ClearField(field)
    return copy


def test_a_token_is_bound_to_its_tenant() -> None:
    request = ListCheckpointsRequest(thread_id="t")
    token = write_list_token(POSITION, request, "acme")
    assert read(token, request, "acme") == POSITION
    with pytest.raises(InvalidArgument, match="another request"):
        read(token, request, "globex")


def forged(content: bytes) -> str:
    return base64.urlsafe_b64encode(b"d" * 16 + content).rstrip(b"=").decode()


MALFORMED = {
    "not base64": "!!!",
    "not ASCII": "é",
    "a character of the other alphabet": "ab+/",
    "too short": "abcd",
    "one character": "a",
    "padding inside": "ab==cd",
    "no JSON": forged(b"nonsense"),
    "not UTF-8": forged(b'["\xff", "t", ""]'),
    "an object": forged(b'{"checkpoint_id": "c", "thread_id": "t", "checkpoint_ns": ""}'),
    "too few parts": forged(b'["c", "t"]'),
    "too many parts": forged(b'["c", "t", "", ""]'),
    "numbers": forged(b"[1, 2, 3]"),
    "null": forged(b"null"),
    "a NUL": forged(b'["c\\u0000", "t", ""]'),
    "a lone surrogate": forged(b'["\\ud800", "t", ""]'),
    "no thread": forged(b'["c", "", ""]'),
    "an endless id": forged(json.dumps(["c" * 129, "t", ""]).encode()),
    "deep nesting": forged(b"[" * 100_000),
}


@pytest.mark.parametrize("token", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidArgument, match="not a token") as error:
        read(token, ListCheckpointsRequest(thread_id="t"))
    assert error.value.field == "page_token"


@given(st.text(max_size=60))
def test_any_other_text_is_refused(token: str) -> None:
    if token.encode("utf-8", "ignore").decode() == token != "":
        with pytest.raises(InvalidArgument):
            read(token, ListCheckpointsRequest(thread_id="t"))


@given(st.data())
def test_a_token_that_was_tampered_with_is_refused_or_another_position(data: st.DataObject) -> None:
    request = ListCheckpointsRequest(thread_id="t")
    token = write_list_token(POSITION, request, "default")
    at = data.draw(st.integers(0, 20))  # within the digest
    letter = data.draw(st.sampled_from("ABCDabcd0189-_"))
    if token[at] != letter:
        with pytest.raises(InvalidArgument):
            read(token[:at] + letter + token[at + 1 :], request)


class TestHistories:
    def read(self, token: str, **fields: Any) -> str | None:
        request = GetDeltaChannelHistoryRequest(**{"thread_id": "t", "channels": ["a", "b"], **fields})
        request.page_token = token
        return read_history_token(request, "default")

    def test_a_token_leads_back_to_where_the_store_said(self) -> None:
        request = GetDeltaChannelHistoryRequest(thread_id="t", channels=["a", "b"])
        token = write_history_token("checkpoint-1", request, "default")
        assert self.read(token) == "checkpoint-1"
        assert read_history_token(request, "default") is None

    @pytest.mark.parametrize(
        "other",
        [
            {"thread_id": "other"},
            {"checkpoint_ns": "other"},
            {"checkpoint_id": "other"},
            {"channels": ["b", "a"]},
            {"patches": True},
        ],
    )
    def test_a_token_is_bound_to_its_request(self, other: dict[str, Any]) -> None:
        request = GetDeltaChannelHistoryRequest(thread_id="t", channels=["a", "b"])
        token = write_history_token("checkpoint-1", request, "default")
        with pytest.raises(InvalidArgument, match="another request"):
            self.read(token, **other)

    @pytest.mark.parametrize("content", [b"[]", b'[""]', b'["a", "b"]', b"[1]", b'"a"', b'["a\\u0000"]', b"nonsense"])
    def test_a_malformed_token_is_refused(self, content: bytes) -> None:
        with pytest.raises(InvalidArgument, match="not a token") as error:
            self.read(forged(content))
        assert error.value.field == "page_token"
