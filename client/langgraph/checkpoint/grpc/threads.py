"""Whole threads and runs: deleting, copying, pruning."""

from __future__ import annotations

from collections.abc import Sequence

from langgraph.checkpoint.grpc import advice, requests
from langgraph.checkpoint.grpc.calls import Caller
from langgraph.checkpoint.grpc.codec import Codec
from langgraph.checkpoint.grpc.copies import Copier
from langgraph.checkpoint.grpc.downloads import Downloads
from langgraph.checkpoint.grpc.encryption import Encryption
from langgraph.checkpoint.grpc.leases import Leases
from langgraph.checkpoint.grpc.runs import Runs
from langgraph.checkpoint.grpc.uploads import Uploads


class ThreadKeeper:
    """The part of a saver that works on whole threads."""

    encryption: Encryption | None
    _caller: Caller
    _leases: Leases
    _runs: Runs
    _uploads: Uploads
    _downloads: Downloads

    def _codec(self) -> Codec:
        raise NotImplementedError  # the saver has one

    def delete_thread(self, thread_id: str) -> None:
        """Deletes a thread: all its namespaces, values and writes. A run under way on it will conflict."""
        self._runs.forget_context()
        request = self._leases.sign(requests.delete_thread(thread_id))
        advice.tell_deleted(
            request, self._caller.call("DeleteThread", lambda stubs: stubs.threads.DeleteThread, request)
        )

    async def adelete_thread(self, thread_id: str) -> None:
        """Awaits `delete_thread`."""
        self._runs.forget_context()
        request = self._leases.sign(requests.delete_thread(thread_id))
        advice.tell_deleted(
            request, await self._caller.acall("DeleteThread", lambda stubs: stubs.threads.DeleteThread, request)
        )

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Deletes the checkpoints of these runs (by the metadata's `run_id`) in all threads, with their writes."""
        self._runs.forget_context()
        for request in self._leases.sign_all(requests.delete_runs(run_ids)):
            answer = self._caller.call("DeleteRuns", lambda stubs: stubs.threads.DeleteRuns, request)
            advice.tell_deleted(request, answer)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Awaits `delete_for_runs`."""
        self._runs.forget_context()
        for request in self._leases.sign_all(requests.delete_runs(run_ids)):
            answer = await self._caller.acall("DeleteRuns", lambda stubs: stubs.threads.DeleteRuns, request)
            advice.tell_deleted(request, answer)

    def copy_thread(self, source_thread_id: str, target_thread_id: str, *, checkpoint_id: str | None = None) -> None:
        """Copies a thread into one that doesn't exist yet, whole or up to a checkpoint.

        Args:
            source_thread_id: The thread to copy. Nothing happens if there is none.
            target_thread_id: The thread to make. With encryption this client makes it, a checkpoint at a time, for
                values are bound to their thread.
            checkpoint_id: Fork here: copy only this checkpoint of the root graph and what led to it.

        Raises:
            ThreadExistsError: The target holds checkpoints already.
            CheckpointNotFoundError: The thread has no such checkpoint.
        """
        self._runs.forget_context()
        if self.encryption is not None:
            self._copier().copy(source_thread_id, target_thread_id, checkpoint_id)
            return
        request = self._leases.sign_copy(requests.copy_thread(source_thread_id, target_thread_id, checkpoint_id))
        self._caller.call("CopyThread", lambda stubs: stubs.threads.CopyThread, request)

    async def acopy_thread(
        self, source_thread_id: str, target_thread_id: str, *, checkpoint_id: str | None = None
    ) -> None:
        """Awaits `copy_thread`."""
        self._runs.forget_context()
        if self.encryption is not None:
            await self._copier().acopy(source_thread_id, target_thread_id, checkpoint_id)
            return
        request = self._leases.sign_copy(requests.copy_thread(source_thread_id, target_thread_id, checkpoint_id))
        await self._caller.acall("CopyThread", lambda stubs: stubs.threads.CopyThread, request)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Removes history from threads.

        Args:
            thread_ids: The threads. Unknown ones are passed over.
            strategy: "keep_latest" keeps the newest checkpoint of each namespace and what is needed to read it whole,
                "delete" and "delete_all" remove the threads.
        """
        self._runs.forget_context()
        for request in self._leases.sign_all(requests.prune(thread_ids, strategy)):
            answer = self._caller.call("PruneThreads", lambda stubs: stubs.threads.PruneThreads, request)
            advice.tell_deleted(request, answer)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Awaits `prune`."""
        self._runs.forget_context()
        for request in self._leases.sign_all(requests.prune(thread_ids, strategy)):
            answer = await self._caller.acall("PruneThreads", lambda stubs: stubs.threads.PruneThreads, request)
            advice.tell_deleted(request, answer)

    def _copier(self) -> Copier:
        return Copier(
            caller=self._caller,
            uploads=self._uploads,
            downloads=self._downloads,
            leases=self._leases,
            codec=self._codec(),
        )
