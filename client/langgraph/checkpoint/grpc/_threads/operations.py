"""Whole threads and runs: deleting, copying, pruning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from langgraph.checkpoint.grpc._convert import thread_requests as requests
from langgraph.checkpoint.grpc._convert import warnings
from langgraph.checkpoint.grpc._convert.serde import ValueSerde
from langgraph.checkpoint.grpc._encryption.thread_copy import EncryptedThreadCopy
from langgraph.checkpoint.grpc._runs.calls import RunCalls
from langgraph.checkpoint.grpc._runs.lease_tokens import LeaseTokens
from langgraph.checkpoint.grpc._runs.run_index import forget_context
from langgraph.checkpoint.grpc._transport import flows
from langgraph.checkpoint.grpc._transport.client import Client
from langgraph.checkpoint.grpc.encryption import Encryption
from langgraph.checkpoint.grpc.retention import Retention
from langgraph.checkpoint.grpc.threads import Threads

if TYPE_CHECKING:
    from langgraph.checkpoint.grpc.saver import GrpcSaver

Result = TypeVar("Result")


class _Settle(NamedTuple):
    """A step: waits for the writes in flight on a thread."""

    thread_id: str


class ThreadOperations:
    """The part of a saver that deletes, copies and prunes threads."""

    encryption: Encryption | None
    _client: Client
    _calls: RunCalls
    _lease_tokens: LeaseTokens

    def _value_serde(self) -> ValueSerde:
        raise NotImplementedError  # the saver has one

    @property
    def threads(self) -> Threads:
        """Threads for operators: search, inspect, archive and tag them."""
        return Threads(cast("GrpcSaver", self))

    @property
    def retention(self) -> Retention:
        """Deletions announced by retention, for code that must act before them."""
        return Retention(cast("GrpcSaver", self))

    def delete_thread(self, thread_id: str) -> None:
        """Deletes a thread: all its namespaces, values and writes. A run in progress on it will get a conflict.

        Args:
            thread_id: The thread. If there is none, nothing happens.

        Raises:
            LeaseHeldError: Somebody else holds the lease on it.
            ThreadArchivedError: It is archived.
            ThreadPinnedError: It is pinned.
            CheckpointdError: The call failed.
        """
        self._run_on_threads(self._delete_thread(thread_id))

    async def adelete_thread(self, thread_id: str) -> None:
        """Awaits `delete_thread`."""
        await self._arun_on_threads(self._delete_thread(thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Deletes the checkpoints of runs in all threads, with their writes.

        Args:
            run_ids: The runs, by the `run_id` in their metadata.

        Raises:
            LeaseHeldError: Somebody else holds the lease on one of their threads.
            ThreadArchivedError: One of their threads is archived.
            ThreadPinnedError: One of their threads is pinned.
            CheckpointdError: The call failed.
        """
        self._run_on_threads(self._delete_for_runs(run_ids))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Awaits `delete_for_runs`."""
        await self._arun_on_threads(self._delete_for_runs(run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str, *, checkpoint_id: str | None = None) -> None:
        """Copies a thread into one that doesn't exist yet, whole or up to a checkpoint.

        Args:
            source_thread_id: The thread to copy. Nothing happens if there is none.
            target_thread_id: The thread to create. With encryption this client creates it, one checkpoint at a time,
                because encrypted values are bound to their thread.
            checkpoint_id: Copy only this checkpoint of the root graph and its history. Default: copy everything.

        Raises:
            ThreadExistsError: The target already has checkpoints.
            CheckpointNotFoundError: The thread has no such checkpoint.
            CheckpointdError: The call failed.
        """
        self._run_on_threads(self._copy_thread(source_thread_id, target_thread_id, checkpoint_id))

    async def acopy_thread(
        self, source_thread_id: str, target_thread_id: str, *, checkpoint_id: str | None = None
    ) -> None:
        """Awaits `copy_thread`."""
        await self._arun_on_threads(self._copy_thread(source_thread_id, target_thread_id, checkpoint_id))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Removes history from threads.

        Args:
            thread_ids: The threads. Unknown ones are skipped.
            strategy: "keep_latest" keeps the newest checkpoint of each namespace and whatever it needs to be read,
                "delete" deletes the threads; "delete_all", the name in LangGraph's platform, does the same.

        Raises:
            LeaseHeldError: Somebody else holds the lease on one of them.
            ThreadArchivedError: One of them is archived.
            ThreadPinnedError: One of them is pinned.
            CheckpointdError: The call failed.
        """
        self._run_on_threads(self._prune(thread_ids, strategy))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Awaits `prune`."""
        await self._arun_on_threads(self._prune(thread_ids, strategy))

    # The flows of these methods. Each returns how many checkpoints it deleted, or nothing.

    def _delete_thread(self, thread_id: str) -> flows.Flow[int]:
        forget_context()
        request = self._lease_tokens.attach(requests.delete_thread(thread_id))
        yield _Settle(request.thread_id)
        response = yield request
        warnings.tell_deleted(request, response)
        return int(response.deleted_checkpoints)

    def _delete_for_runs(self, run_ids: Sequence[str]) -> flows.Flow[None]:
        forget_context()
        for request in self._lease_tokens.attach_all(requests.delete_runs(run_ids)):
            warnings.tell_deleted(request, (yield request))

    def _copy_thread(
        self, source_thread_id: str, target_thread_id: str, checkpoint_id: str | None = None
    ) -> flows.Flow[None]:
        forget_context()
        request = self._lease_tokens.attach_to_copy(
            requests.copy_thread(source_thread_id, target_thread_id, checkpoint_id)
        )
        yield _Settle(request.source_thread_id)
        if self.encryption is None:
            yield request
        else:
            encrypted = EncryptedThreadCopy(serde=self._value_serde(), attach_lease=self._lease_tokens.attach)
            yield from encrypted.copy(source_thread_id, target_thread_id, checkpoint_id)

    def _prune(self, thread_ids: Sequence[str], strategy: str) -> flows.Flow[int]:
        forget_context()
        deleted = 0
        for request in self._lease_tokens.attach_all(requests.prune(thread_ids, strategy)):
            for thread_id in request.thread_ids:
                yield _Settle(thread_id)
            response = yield request
            warnings.tell_deleted(request, response)
            deleted += response.deleted_checkpoints
        return deleted

    def _run_on_threads(self, flow: flows.Flow[Result]) -> Result:
        return flows.run(flow, self._call_on_threads)

    async def _arun_on_threads(self, flow: flows.Flow[Result]) -> Result:
        return await flows.arun(flow, self._acall_on_threads)

    def _call_on_threads(self, step: Any) -> Any:
        if isinstance(step, _Settle):
            return self._calls.wait_for_writes(step.thread_id)
        return self._client.call(step)

    async def _acall_on_threads(self, step: Any) -> Any:
        if isinstance(step, _Settle):
            return await self._calls.await_writes(step.thread_id)
        return await self._client.acall(step)
