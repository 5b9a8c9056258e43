"""Transfers of large values as flows: uploads before a put, and reads of left-out values."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from langgraph.checkpoint.grpc._transport.flows import Flow, ForEach, Offload
from langgraph.checkpoint.grpc._values.instructions import MAX_VALUE_BYTES
from langgraph.checkpoint.grpc._values.outgoing import Outgoing
from langgraph.checkpoint.grpc.errors import BaseMissingError, CorruptValueError, InvalidArgumentError

from checkpointd.v1 import value_service_pb2 as values_pb

RANGE_BYTES = 1024 * 1024 - 4096
"""Number of bytes of a value per request."""
_FEWEST_BYTES = 4096
"""Minimum number of bytes of an answer that isn't the last: otherwise reads might never end."""


class ValueGoneError(Exception):
    """A value that an answer left out is gone: its checkpoint was deleted, or replaced, since. Read it again."""


@dataclass(slots=True)
class LeftOut:
    """A left-out value: its request, and the bytes received."""

    request: values_pb.GetValueRequest
    """Names the value."""
    size: int
    chunks: dict[int, bytes] = field(default_factory=dict)
    """Its bytes, by offset."""

    def data(self) -> bytes:
        """Returns the bytes, once all of them are there."""
        return b"".join([self.chunks[offset] for offset in sorted(self.chunks)])


def send_ahead(put: Outgoing) -> Flow[None]:
    """Uploads a put's values before its request is sent. After a CheckpointdError nothing must be sent."""
    yield Offload(put.prepare)
    if put.goes_ahead:
        try:
            yield ForEach(put.parts(), lambda request, response: None)
        except InvalidArgumentError as error:
            raise put.refusal(error) from error
        put.sent_ahead()


def send(put: Outgoing) -> Flow[Any]:
    """Sends a put by a unary call, and again with whole values if a base is missing.

    For use without a pipeline. Returns the answer. Raises CheckpointdError.
    """
    while True:
        if put.goes_ahead:
            yield from send_ahead(put)
        put.stage()
        try:
            return (yield put.request)
        except BaseMissingError:
            put.discard()
            if not put.make_whole():
                raise
        except BaseException:
            put.discard()
            raise


def fetch(wanted: Sequence[LeftOut]) -> Flow[None]:
    """Reads left-out values. Raises CheckpointdError, ValueGoneError."""
    for value in wanted:
        if not 0 <= value.size <= MAX_VALUE_BYTES:
            raise CorruptValueError(f"a value has {value.size} bytes, where {MAX_VALUE_BYTES} are the most")
    ranges = deque(
        (value, offset, min(offset + RANGE_BYTES, value.size))
        for value in wanted
        for offset in range(0, value.size, RANGE_BYTES)
    )
    asked: dict[int, tuple[LeftOut, int, int]] = {}

    def requests() -> Iterator[values_pb.GetValueRequest]:
        while ranges:
            value, offset, end = ranges.popleft()
            request = values_pb.GetValueRequest(offset=offset, max_bytes=end - offset)
            request.MergeFrom(value.request)
            asked[id(request)] = (value, offset, end)
            yield request

    def take(request: values_pb.GetValueRequest, response: values_pb.GetValueResponse) -> None:
        value, offset, end = asked.pop(id(request))
        if not response.found:
            raise ValueGoneError
        data = response.data
        if response.size != value.size or len(data) > end - offset:
            raise CorruptValueError("a value doesn't have the announced number of bytes")
        if len(data) < min(end - offset, _FEWEST_BYTES):
            raise CorruptValueError("the server left out a value, and doesn't send it")
        value.chunks[offset] = data
        if offset + len(data) < end:
            # Cut to the server's largest message. The rest shrinks each time, so this ends.
            ranges.append((value, offset + len(data), end))

    while ranges:
        yield ForEach(requests(), take)
