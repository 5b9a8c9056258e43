"""Reads, as flows: the call, values that its answer left out, and the assembly of the result."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from langgraph.checkpoint.base import CheckpointMetadata, CheckpointTuple, DeltaChannelHistory, PendingWrite
from langgraph.checkpoint.grpc._convert import decode, warnings
from langgraph.checkpoint.grpc._convert.arguments import Key
from langgraph.checkpoint.grpc._convert.encode import MAX_PAGE
from langgraph.checkpoint.grpc._convert.serde import ValueSerde
from langgraph.checkpoint.grpc._encryption.aad import ChannelAssociatedData
from langgraph.checkpoint.grpc._transport.flows import Emit, Flow
from langgraph.checkpoint.grpc._values.cache import SMALLEST_BYTES, CachedValue, ValueCache
from langgraph.checkpoint.grpc._values.rows import KEPT_BYTES, ValueRows
from langgraph.checkpoint.grpc._values.transfer import LeftOut, ValueGoneError, fetch
from langgraph.checkpoint.grpc.errors import CheckpointdError, CorruptValueError

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import value_service_pb2 as value_service
from checkpointd.v1 import values_pb2 as values_pb

OnRead = Callable[[int, Iterable[str]], None]
"""Receives the namespace's version, and the ids of the checkpoints found."""

_TRIES = 10
"""How often a read is restarted because values disappeared in the meantime."""
_MAX_KNOWN = 1000
_MAX_EMPTY_PAGES = 100
"""Maximum number of consecutive empty pages."""


class Found(NamedTuple):
    """A stored checkpoint, or None."""

    message: values_pb.CheckpointTuple | None
    version: int
    """The version of the namespace."""
    metadata: CheckpointMetadata = MappingProxyType({})  # type: ignore[assignment]
    values: Mapping[str, CachedValue] = MappingProxyType({})
    """Its channels' values, opened."""
    writes: Sequence[tuple[str, bytes]] = ()
    """The types and the serialized bytes of its task writes, decrypted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reader:
    """Reads of a saver, with its serializer and its cached values."""

    serde: ValueSerde
    cache: ValueCache
    first_version: Callable[[], Any]
    """Makes a channel's first version."""
    kept_bytes: int = KEPT_BYTES
    """The bytes of values kept while an answer is read."""

    def get(self, request: pb.GetCheckpointRequest, on_read: OnRead | None = None) -> Flow[CheckpointTuple | None]:
        """Reads one checkpoint. Raises CheckpointdError.

        Args:
            request: Which one. What is known is written into it.
            on_read: Called with the result once it is complete.
        """
        found = yield from self.read(request)
        if on_read is not None:
            on_read(found.version, () if found.message is None else (found.message.checkpoint_id,))
        if found.message is None:
            return None
        saved = yield from self._tuple_of(found.message, found)
        self.keep(found)
        return saved

    def keep(self, found: Found) -> None:
        """Caches a checkpoint's values: the next read needn't receive them, and the next put may build on them."""
        if found.message is not None:
            key = (found.message.thread_id, found.message.checkpoint_ns)
            for channel, value in found.values.items():
                if len(value.data) >= SMALLEST_BYTES:
                    self.cache.put(key, channel, value)

    def read(self, request: pb.GetCheckpointRequest) -> Flow[Found]:
        """Reads one checkpoint as it is stored, with all of its values. Raises CheckpointdError."""
        key = Key(request.thread_id, request.checkpoint_ns)
        for _ in range(_TRIES):
            known = self.cache.channels(key)
            del request.known[:]
            for channel, value in known.items():
                if len(request.known) < _MAX_KNOWN:
                    request.known.add(channel=channel, version=value.version, crc32=value.crc32)
            response: pb.GetCheckpointResponse = yield request
            if not response.HasField("tuple"):
                return Found(None, response.version)
            message = response.tuple
            decode.check_place(self.serde, request, [message])
            rows = ValueRows(self.serde, key, response.stored_values, known, kept_bytes=self.kept_bytes)
            try:
                return (yield from self._complete(message, response.version, rows))
            except ValueGoneError:
                continue
        raise _restless(key.thread_id)

    def pages(self, request: pb.ListCheckpointsRequest, limit: int | None, on_read: OnRead | None = None) -> Flow[None]:
        """Emits the checkpoints of a list, newest first. Raises CheckpointdError.

        Args:
            request: The request for the first page; changed for the pages after it.
            limit: The maximum number. None: all.
            on_read: Called for each page, if the request names a namespace.
        """
        empty = 0
        while limit is None or limit > 0:
            page: pb.ListCheckpointsResponse = yield request
            decode.check_place(self.serde, request, page.tuples)
            if on_read is not None and request.HasField("thread_id") and not request.all_namespaces:
                on_read(page.version, [message.checkpoint_id for message in page.tuples])
            if not page.tuples:
                warnings.warn_of_pattern(request)
            all_rows = self._rows_of(page)
            for message in page.tuples[:limit]:
                rows = all_rows[message.thread_id, message.checkpoint_ns]
                saved: CheckpointTuple | None
                try:
                    found = yield from self._complete(message, page.version, rows)
                except ValueGoneError:
                    # Replaced or deleted in the meantime.
                    saved = yield from self.get(_by_id(message, message.checkpoint_id))
                else:
                    saved = yield from self._tuple_of(message, found)
                    if len(page.tuples) == 1:
                        self.keep(found)
                if saved is not None:
                    yield Emit(saved)
            if not page.next_page_token:
                return
            empty = 0 if page.tuples else empty + 1
            _check_progress(request.page_token, page.next_page_token, empty)
            request.page_token = page.next_page_token
            if limit is not None:
                limit -= len(page.tuples)
                request.page_size = min(max(limit, 0), MAX_PAGE)

    def delta_history(self, request: pb.GetDeltaChannelHistoryRequest) -> Flow[Mapping[str, DeltaChannelHistory]]:
        """Reads the histories of channels, all pages of them. Raises CheckpointdError."""
        for _ in range(_TRIES):
            request.page_token = ""
            try:
                return (yield from self._histories(request))
            except ValueGoneError:
                continue
        raise _restless(request.thread_id)

    def _histories(self, request: pb.GetDeltaChannelHistoryRequest) -> Flow[Mapping[str, DeltaChannelHistory]]:
        key = Key(request.thread_id, request.checkpoint_ns)
        # Newest checkpoint first, as on the pages, each with its writes in order.
        writes: dict[str, dict[str, list[PendingWrite]]] = {channel: {} for channel in request.channels}
        histories: dict[str, DeltaChannelHistory] = {channel: {"writes": []} for channel in request.channels}
        empty = 0
        while True:
            page: pb.GetDeltaChannelHistoryResponse = yield request
            rows = ValueRows(self.serde, key, page.stored_values, kept_bytes=self.kept_bytes)
            seeds = [(found.channel, found.seed_version) for found in page.channels if found.seed_version]
            on_page = [(write.checkpoint_id, write) for found in page.channels for write in found.writes]
            data = yield from self._fetched(key, rows, seeds, on_page)
            for (beside, write), opened_write in zip(on_page, data, strict=True):
                if write.channel not in writes:
                    raise CorruptValueError(
                        f"the server answered about channel {write.channel!r}, which wasn't asked for"
                    )
                opened = decode.task_write(self.serde, key, beside, write, opened_write)
                writes[write.channel].setdefault(beside, []).append(opened)
            for channel, version in seeds:
                seed = rows.value(channel, version)
                if channel in histories and seed is not None:
                    place = (ChannelAssociatedData, *key, channel, version)
                    histories[channel]["seed"] = self.serde.load(seed.type, seed.data, place)
            if not page.next_page_token:
                break
            empty = 0 if on_page or seeds else empty + 1
            _check_progress(request.page_token, page.next_page_token, empty)
            request.page_token = page.next_page_token
        for channel, history in histories.items():
            for beside_one in reversed(writes[channel].values()):
                history["writes"] += beside_one
        return histories

    def _tuple_of(self, message: values_pb.CheckpointTuple, found: Found) -> Flow[CheckpointTuple]:
        """Deserializes a checkpoint. An old format has its pending sends among its parent's writes."""
        saved = decode.checkpoint_tuple(self.serde, message, found.metadata, found.values, found.writes)
        if decode.needs_parent_sends(saved):
            parent = yield from self.read(_by_id(message, message.parent_checkpoint_id))
            if parent.message is not None:
                sends = decode.pending_writes(self.serde, parent.message, parent.writes)
                decode.add_parent_sends(saved, sends, self.first_version())
        return saved

    def _complete(self, message: values_pb.CheckpointTuple, version: int, rows: ValueRows) -> Flow[Found]:
        """Reads what an answer left out of a checkpoint, and decrypts everything."""
        if len(message.channels) != len(message.channel_versions):
            raise CorruptValueError("the server answered with different numbers of channels and versions")
        # First, because it authenticates the versions that the values are bound to.
        metadata = decode.metadata_of(self.serde, message)
        versions = dict(zip(message.channels, message.channel_versions, strict=True))
        on_message = [(message.checkpoint_id, write) for write in message.pending_writes]
        key = Key(message.thread_id, message.checkpoint_ns)
        writes = yield from self._fetched(key, rows, versions.items(), on_message)
        values: dict[str, CachedValue] = {}
        for channel, at in versions.items():
            value = rows.value(channel, at)
            if value is not None:
                values[channel] = value
        rows.let_go()
        return Found(message, version, metadata, values, writes)

    def _fetched(
        self,
        key: Key,
        rows: ValueRows,
        versions: Iterable[tuple[str, str]],
        writes: Sequence[tuple[str, values_pb.TaskWrite]],
    ) -> Flow[list[tuple[str, bytes]]]:
        """Reads what an answer left out of channels' values, for `rows`, and of task writes. Returns these opened."""
        bases = [
            (write.channel, write.value.patch.base_version) for _, write in writes if write.value.HasField("patch")
        ]
        left_out = rows.left_out(itertools.chain(versions, bases) if bases else versions)
        apart: dict[int, LeftOut] = {}
        for at, (beside, write) in enumerate(writes):
            if write.value.HasField("parts"):
                request = value_service.GetValueRequest(
                    thread_id=key.thread_id, checkpoint_ns=key.checkpoint_ns, patches=True
                )
                request.task_write.checkpoint_id = beside
                request.task_write.task_id, request.task_write.idx = write.task_id, write.idx
                apart[at] = LeftOut(request, write.value.parts.size)
        if left_out or apart:
            yield from fetch([*left_out.values(), *apart.values()])
            for row, found in left_out.items():
                rows.take(row, found.data())
        return [
            rows.write(
                (decode.write_place, key, beside, write),
                write.channel,
                write.value,
                apart[at].data() if at in apart else write.value.data,
            )
            for at, (beside, write) in enumerate(writes)
        ]

    def _rows_of(self, page: pb.ListCheckpointsResponse) -> dict[tuple[str, str], ValueRows]:
        """Returns the rows of a page by namespace."""
        keys = [(message.thread_id, message.checkpoint_ns) for message in page.tuples]
        rows: dict[tuple[str, str], list[values_pb.StoredValue]] = {key: [] for key in keys}
        for row in page.stored_values:
            if row.tuple >= len(keys):
                raise CorruptValueError("the server answered with a value of a checkpoint that isn't on the page")
            rows[keys[row.tuple]].append(row)
        return {key: ValueRows(self.serde, key, found, kept_bytes=self.kept_bytes) for key, found in rows.items()}


def _by_id(message: values_pb.CheckpointTuple, checkpoint_id: str) -> pb.GetCheckpointRequest:
    return pb.GetCheckpointRequest(
        thread_id=message.thread_id,
        checkpoint_ns=message.checkpoint_ns,
        checkpoint_id=checkpoint_id,
        patches=True,
    )


def _check_progress(token: str, next_token: str, empty: int) -> None:
    """Raises CorruptValueError if pages don't end. `empty`: the number of consecutive empty pages."""
    if token == next_token or empty > _MAX_EMPTY_PAGES:
        raise CorruptValueError("the server's list doesn't end: it goes on with empty pages")


def _restless(thread_id: str) -> CheckpointdError:
    return CheckpointdError(f"thread {thread_id!r} changed again and again while a large value was read; try again")
