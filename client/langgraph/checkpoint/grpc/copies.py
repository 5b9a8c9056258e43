"""Copying a thread whose values are encrypted.

They are bound to their thread: rows that the server copies could not be read under the copy's name. So the client reads
each checkpoint, opens what belongs to it, seals it for the other thread and writes it there, oldest first. What is
copied is what the server would copy. It isn't one atomic step: if it breaks off, what is there of the copy is deleted
again.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Collection, Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from langgraph.checkpoint.grpc import requests
from langgraph.checkpoint.grpc._transport.cleanup import run_to_end
from langgraph.checkpoint.grpc.bindings import Binding, ChannelBinding, ExtraBinding, MetadataBinding, WriteBinding
from langgraph.checkpoint.grpc.calls import Caller
from langgraph.checkpoint.grpc.codec import Codec
from langgraph.checkpoint.grpc.downloads import Downloads
from langgraph.checkpoint.grpc.errors import (
    CheckpointdError,
    CheckpointNotFoundError,
    ThreadExistsError,
    VersionConflictError,
)
from langgraph.checkpoint.grpc.leases import Leases
from langgraph.checkpoint.grpc.pieces import Cargo, Contents
from langgraph.checkpoint.grpc.uploads import Uploads

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import values_pb2 as values

Steps = Generator[Any, Any, None]
"""The calls of a copy, one after another: yields a request, or a put and its cargo, and is sent the answer or the
error. A read's answer comes with the contents of its values' pieces."""

Place = tuple[str, str]
"""A checkpoint within its thread: namespace and id."""


@dataclass(frozen=True, kw_only=True)
class Copier:
    """Copies threads for a saver that encrypts."""

    caller: Caller
    uploads: Uploads
    downloads: Downloads
    leases: Leases
    codec: Codec

    def copy(self, source: str, target: str, at: str | None) -> None:
        """Copies a thread, whole or up to a checkpoint of its root graph. Raises as `GrpcSaver.copy_thread` does."""
        steps = self._steps(source, target, at)
        try:
            step = next(steps)
            while True:
                try:
                    answer = self._call(step)
                except CheckpointdError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration:
            return

    async def acopy(self, source: str, target: str, at: str | None) -> None:
        """Awaits `copy`."""
        steps = self._steps(source, target, at)
        try:
            step = next(steps)
            while True:
                try:
                    answer = await self._acall(step)
                except CheckpointdError as error:
                    step = steps.throw(error)
                except asyncio.CancelledError as cancelled:
                    # One more step, if any: what is there of the copy is deleted.
                    await run_to_end(self._acall(steps.throw(cancelled)))
                    raise
                else:
                    step = steps.send(answer)
        except StopIteration:
            return

    def _call(self, step: Any) -> Any:
        match step:
            case (request, cargo):
                return self.uploads.put(request, cargo)
            case pb.GetCheckpointRequest():
                return self.downloads.get(step)
            case pb.ListCheckpointsRequest():
                return self.caller.call("ListCheckpoints", lambda stubs: stubs.checkpoints.ListCheckpoints, step)
            case _:
                return self.caller.call("DeleteThread", lambda stubs: stubs.threads.DeleteThread, step)

    async def _acall(self, step: Any) -> Any:
        match step:
            case (request, cargo):
                return await self.uploads.aput(request, cargo)
            case pb.GetCheckpointRequest():
                return await self.downloads.aget(step)
            case pb.ListCheckpointsRequest():
                return await self.caller.acall("ListCheckpoints", lambda stubs: stubs.checkpoints.ListCheckpoints, step)
            case _:
                return await self.caller.acall("DeleteThread", lambda stubs: stubs.threads.DeleteThread, step)

    def _steps(self, source: str, target: str, at: str | None) -> Steps:
        source, target = requests.thread(source, "source_thread_id"), requests.thread(target, "target_thread_id")
        there = yield _page(target, size=1)
        if there.tuples:
            raise ThreadExistsError(f"thread {target!r} holds checkpoints already")
        found: list[values.CheckpointTuple] = []
        page = _page(source)
        while True:
            answer = yield page
            found += answer.tuples
            page.page_token = answer.next_page_token
            if not page.page_token:
                break
        if not found:
            return
        chosen, without_writes = self._chosen(found, at)
        # Whatever is written from here on is deleted again if the copy breaks off.
        try:
            yield from self._copied(source, target, sorted(chosen, key=lambda place: place[1]), without_writes)
        except VersionConflictError as conflict:
            # Not ours alone any more, so it stays.
            raise ThreadExistsError(
                f"somebody else wrote to thread {target!r} while it was being made: a part of the copy is there"
            ) from conflict
        except (CheckpointdError, asyncio.CancelledError):
            with suppress(CheckpointdError):
                yield self.leases.sign(requests.delete_thread(target))
            raise

    def _chosen(
        self, found: Collection[values.CheckpointTuple], at: str | None
    ) -> tuple[Collection[Place], Place | None]:
        """Returns which checkpoints to copy, and that of them whose writes are left behind."""
        if at is None:
            return [(message.checkpoint_ns, message.checkpoint_id) for message in found], None
        parents = {m.checkpoint_id: m.parent_checkpoint_id for m in found if not m.checkpoint_ns}
        if at not in parents:
            raise CheckpointNotFoundError(f"the thread has no checkpoint {at!r} in its root graph")
        line: list[str] = []
        current = at
        while current in parents and current not in line:
            line.append(current)
            current = parents[current]
        # Where the thread went on from there, the step after it is the copy's to take afresh.
        went_on = at in parents.values()
        completed = set(line) - {at} if went_on else set(line)
        chosen = [("", checkpoint_id) for checkpoint_id in line]
        for message in found:
            if message.checkpoint_ns:
                place = _metadata(message, message.thread_id, message.checkpoint)
                metadata = self.codec.load(message.metadata.value, place)
                if (metadata.get("parents") or {}).get("") in completed:
                    chosen.append((message.checkpoint_ns, message.checkpoint_id))
        return chosen, ("", at) if went_on else None

    def _copied(self, source: str, target: str, chosen: Iterable[Place], without_writes: Place | None) -> Steps:
        versions: dict[str, int] = {}
        sealed: set[tuple[str, str, bytes]] = set()
        for place in chosen:
            ns, checkpoint_id = place
            answer, contents = yield pb.GetCheckpointRequest(
                thread_id=source, checkpoint_ns=ns, checkpoint_id=checkpoint_id
            )
            if not answer.HasField("tuple"):
                raise CheckpointNotFoundError(f"checkpoint {checkpoint_id!r} was deleted while it was to be copied")
            put, cargo = self._put(answer.tuple, contents, target, sealed)
            put.precondition.if_version_match = versions.get(ns, 0)
            versions[ns] = (yield self.leases.sign(put), cargo).version
            if place != without_writes:
                for request, cargo in self._writes(answer.tuple, contents, target):
                    yield self.leases.sign(request), cargo

    def _put(
        self,
        message: values.CheckpointTuple,
        contents: Contents,
        target: str,
        sealed: set[tuple[str, str, bytes]],
    ) -> tuple[pb.PutCheckpointRequest, Cargo]:
        """Builds the put of a checkpoint's copy, with those values that no put before it has brought."""
        source, ns, own_id = message.thread_id, message.checkpoint_ns, message.checkpoint_id
        put = pb.PutCheckpointRequest(
            thread_id=target,
            checkpoint_ns=ns,
            checkpoint_id=own_id,
            parent_checkpoint_id=message.parent_checkpoint_id or None,
            checkpoint=message.checkpoint,
            request_id=requests.request_id(),
        )
        old = _metadata(message, source, message.checkpoint)
        metadata = self.codec.load(message.metadata.value, old)
        if message.checkpoint.HasField("extra"):
            bindings: tuple[Binding, Binding] = ExtraBinding(source, ns, own_id), ExtraBinding(target, ns, own_id)
            extra = put.checkpoint.extra
            extra.type, extra.data = self._sealed_anew(extra.type, extra.data, *bindings)
        stored, new = message.metadata.value, _metadata(message, target, put.checkpoint)
        put.metadata.value.type, put.metadata.value.data = self._sealed_anew(stored.type, stored.data, old, new)
        put.metadata.index = requests.index_of(self.codec, metadata, put.metadata.value.type)
        versions = message.checkpoint.channel_versions.versions
        cargo = Cargo()
        for value in message.values:
            key = (ns, value.channel, value.version.SerializeToString())
            if key not in sealed:
                sealed.add(key)
                entry = put.values.add(channel=value.channel, version=value.version)
                # As every reader does: the version that the checkpoint names.
                version = versions[value.channel] if value.channel in versions else values.ChannelVersion()
                at = (ns, value.channel, version)
                bindings = ChannelBinding(source, *at), ChannelBinding(target, *at)
                cargo.load(entry.value, *self._sealed_anew(value.value.type, contents.bytes_of(value.value), *bindings))
        return put, cargo

    def _writes(
        self, message: values.CheckpointTuple, contents: Contents, target: str
    ) -> Iterable[tuple[pb.PutWritesRequest, Cargo]]:
        """Builds the requests that write what lies beside a checkpoint, one for each task."""
        source, ns, beside = message.thread_id, message.checkpoint_ns, message.checkpoint_id
        for (task_path, task_id), writes in itertools.groupby(
            message.pending_writes, key=lambda write: (write.task_path, write.task_id)
        ):
            request = pb.PutWritesRequest(
                thread_id=target, checkpoint_ns=ns, checkpoint_id=beside, task_id=task_id, task_path=task_path
            )
            cargo = Cargo()
            for write in writes:
                entry = request.writes.add(idx=write.idx, channel=write.channel)
                at = (ns, beside, task_id, task_path, write.idx, write.channel)
                bindings = WriteBinding(source, *at), WriteBinding(target, *at)
                cargo.load(entry.value, *self._sealed_anew(write.value.type, contents.bytes_of(write.value), *bindings))
            yield request, cargo

    def _sealed_anew(self, type_tag: str, data: bytes, old: Binding, new: Binding) -> tuple[str, bytes]:
        """Binds a value to another place. Its bytes stay what the serializer made them."""
        assert self.codec.encryption is not None
        return self.codec.encryption.seal(*self.codec.encryption.open(type_tag, data, old), new)


def _metadata(message: values.CheckpointTuple, thread_id: str, checkpoint: values.Checkpoint) -> MetadataBinding:
    place = (message.checkpoint_ns, message.checkpoint_id, message.parent_checkpoint_id)
    return MetadataBinding(thread_id, *place, checkpoint)


def _page(thread_id: str, size: int = 1000) -> pb.ListCheckpointsRequest:
    return pb.ListCheckpointsRequest(thread_id=thread_id, view=pb.CHECKPOINT_VIEW_METADATA, page_size=size)
