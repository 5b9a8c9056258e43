"""Copying a thread whose values are encrypted.

They are bound to their thread, so rows that the server copies couldn't be decrypted in the copy. Instead, the client
reads each checkpoint, decrypts it, encrypts it for the other thread, and writes it there, oldest first. It copies the
same as the server would. It isn't atomic: if it fails, the partial copy is deleted.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ormsgpack
from langgraph.checkpoint.grpc._convert import decode
from langgraph.checkpoint.grpc._convert.arguments import thread
from langgraph.checkpoint.grpc._convert.metadata import index_of
from langgraph.checkpoint.grpc._convert.random_ids import random_id
from langgraph.checkpoint.grpc._convert.reads import Found, Reader
from langgraph.checkpoint.grpc._convert.serde import ValueSerde
from langgraph.checkpoint.grpc._convert.thread_requests import delete_thread
from langgraph.checkpoint.grpc._encryption.aad import ExtraAssociatedData
from langgraph.checkpoint.grpc._transport.flows import Flow
from langgraph.checkpoint.grpc._values.cache import ValueCache
from langgraph.checkpoint.grpc._values.outgoing import OutgoingCheckpoint, OutgoingWrites
from langgraph.checkpoint.grpc._values.transfer import send
from langgraph.checkpoint.grpc.errors import (
    CheckpointdError,
    CheckpointNotFoundError,
    CorruptValueError,
    ThreadExistsError,
    VersionConflictError,
)

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import values_pb2 as values

Place = tuple[str, str]
"""A checkpoint within its thread: namespace and id."""

_CACHE_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class EncryptedThreadCopy:
    """Copies threads for a saver that encrypts."""

    serde: ValueSerde
    attach_lease: Callable[[Any], Any]
    """Adds the token of the caller's lease on its thread to a request, and returns it."""

    def copy(self, source: str, target: str, at: str | None) -> Flow[None]:
        """Copies a thread, whole or up to a checkpoint of its root graph. Raises as `GrpcSaver.copy_thread` does."""
        source, target = thread(source, "source_thread_id"), thread(target, "target_thread_id")
        there = yield _page(target, size=1)
        if there.tuples:
            raise ThreadExistsError(f"thread {target!r} holds checkpoints already")
        found: list[values.CheckpointTuple] = []
        page = _page(source)
        while True:
            answer = yield page
            found += answer.tuples
            if not answer.next_page_token:
                break
            if answer.next_page_token == page.page_token or not answer.tuples:
                raise CorruptValueError("the server's list doesn't come to an end")
            page.page_token = answer.next_page_token
        if not found:
            return
        chosen, without_writes = self._chosen(found, at)
        # Everything written from here on is deleted if the copy fails.
        try:
            yield from self._copied(source, target, sorted(chosen, key=lambda place: place[1]), without_writes)
        except VersionConflictError as conflict:
            # Others have written to it, so it is kept.
            raise ThreadExistsError(
                f"somebody else wrote to thread {target!r} while it was being made: a part of the copy is there"
            ) from conflict
        except (CheckpointdError, asyncio.CancelledError):
            with suppress(CheckpointdError):
                yield self.attach_lease(delete_thread(target))
            raise

    def _chosen(
        self, found: Collection[values.CheckpointTuple], at: str | None
    ) -> tuple[Collection[Place], Place | None]:
        """Returns the checkpoints to copy, and the one whose task writes are left out."""
        if at is None:
            return [(message.checkpoint_ns, message.checkpoint_id) for message in found], None
        parents = {m.checkpoint_id: m.parent_checkpoint_id for m in found if not m.checkpoint_ns}
        if at not in parents:
            raise CheckpointNotFoundError(f"the thread has no checkpoint {at!r} in its root graph")
        ancestors: dict[str, None] = {}
        current = at
        while current in parents and current not in ancestors:
            ancestors[current] = None
            current = parents[current]
        # If the thread continued from there, the copy must take the next step again.
        went_on = at in parents.values()
        completed = ancestors.keys() - {at} if went_on else ancestors.keys()
        chosen = [("", checkpoint_id) for checkpoint_id in ancestors]
        for message in found:
            if message.checkpoint_ns:
                metadata = decode.metadata_of(self.serde, message)
                if (metadata.get("parents") or {}).get("") in completed:
                    chosen.append((message.checkpoint_ns, message.checkpoint_id))
        return chosen, ("", at) if went_on else None

    def _copied(self, source: str, target: str, chosen: Iterable[Place], without_writes: Place | None) -> Flow[None]:
        # A separate cache: runs won't read the copied values.
        cache = ValueCache(_CACHE_BYTES)
        reader = Reader(serde=self.serde, cache=cache, first_version=str)
        versions: dict[str, int] = {}
        brought: set[tuple[str, str, str]] = set()
        for place in chosen:
            ns, checkpoint_id = place
            request = pb.GetCheckpointRequest(
                thread_id=source, checkpoint_ns=ns, checkpoint_id=checkpoint_id, patches=True
            )
            found = yield from reader.read(request)
            if found.message is None:
                raise CheckpointNotFoundError(
                    f"checkpoint {checkpoint_id!r} was deleted while the thread was being copied"
                )
            reader.keep(found)
            put = self._put(found, target, cache, brought)
            put.request.precondition.if_version_match = versions.get(ns, 0)
            self.attach_lease(put.request)
            versions[ns] = (yield from send(put)).version
            if place != without_writes:
                for writes in self._writes(found, target, cache):
                    self.attach_lease(writes.request)
                    yield from send(writes)

    def _put(
        self, found: Found, target: str, cache: ValueCache, brought: set[tuple[str, str, str]]
    ) -> OutgoingCheckpoint:
        """Builds the put of a checkpoint's copy, with values that no earlier put had."""
        message = found.message
        assert message is not None
        ns, own_id = message.checkpoint_ns, message.checkpoint_id
        old = decode.metadata_place(message, message.thread_id)
        new = old._replace(thread_id=target, body=self._body(message, target))
        stored = message.metadata.value
        type_tag, data = self.serde.open(stored.type, stored.data, (lambda: old,))
        type_tag, data = self.serde.seal(type_tag, data, new)
        request = pb.PutCheckpointRequest(
            thread_id=target,
            checkpoint_ns=ns,
            checkpoint_id=own_id,
            parent_checkpoint_id=message.parent_checkpoint_id,
            body=new.body,
            channels=message.channels,
            channel_versions=message.channel_versions,
            request_id=random_id(),
        )
        request.metadata.value.type, request.metadata.value.data = type_tag, data
        request.metadata.index = index_of(self.serde, found.metadata, type_tag, data)
        put = OutgoingCheckpoint(self.serde, cache, request)
        for channel, value in found.values.items():
            if (ns, channel, value.version) not in brought:
                brought.add((ns, channel, value.version))
                put.add(channel, value.version, value.type, value.data)
        return put

    def _body(self, message: values.CheckpointTuple, target: str) -> bytes:
        """Returns a checkpoint's body with its extra fields encrypted for the copy."""
        body = decode.body_of(message)
        if "extra" not in body:
            return message.body
        key = (message.checkpoint_ns, message.checkpoint_id)
        opened = self.serde.open(*decode.extra_of(message, body), (ExtraAssociatedData, message.thread_id, *key))
        body["extra"] = list(self.serde.seal(*opened, ExtraAssociatedData(target, *key)))
        return ormsgpack.packb(body)

    def _writes(self, found: Found, target: str, cache: ValueCache) -> Iterator[OutgoingWrites]:
        """Yields the puts of a checkpoint's task writes, one per task."""
        message = found.message
        assert message is not None
        by_task = itertools.groupby(
            zip(message.pending_writes, found.writes, strict=True),
            key=lambda pair: (pair[0].task_path, pair[0].task_id),
        )
        for (task_path, task_id), writes in by_task:
            request = pb.PutWritesRequest(
                thread_id=target,
                checkpoint_ns=message.checkpoint_ns,
                checkpoint_id=message.checkpoint_id,
                task_id=task_id,
                task_path=task_path,
                request_id=random_id(),
            )
            put = OutgoingWrites(self.serde, cache, request)
            for write, opened in writes:
                put.add(write.idx, write.channel, *opened)
            yield put


def _page(thread_id: str, size: int = 1000) -> pb.ListCheckpointsRequest:
    return pb.ListCheckpointsRequest(
        thread_id=thread_id, all_namespaces=True, view=pb.CHECKPOINT_VIEW_METADATA, page_size=size
    )
