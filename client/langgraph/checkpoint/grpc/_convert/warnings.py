"""Warnings about valid calls that find or do nothing, and are probably mistakes."""

from __future__ import annotations

import logging

from langchain_core.runnables import RunnableConfig

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import thread_service_pb2 as threads_pb

logger = logging.getLogger("langgraph.checkpoint.grpc")


def warn_of_absent(config: RunnableConfig, request: pb.GetCheckpointRequest) -> None:
    """Warns of a run from a checkpoint that its thread doesn't have: it starts from nothing."""
    is_run = "__pregel_runtime" in config["configurable"]
    if is_run and request.checkpoint_id and not request.checkpoint_ns:
        logger.warning(
            "thread %r has no checkpoint %s: this run starts from an empty state. To go on from another thread's "
            "checkpoint, call saver.copy_thread(source, target, checkpoint_id=...) first and run on the target",
            request.thread_id,
            request.checkpoint_id,
        )


def warn_of_pattern(request: pb.ListCheckpointsRequest) -> None:
    """Warns of a thread_id that looks like a pattern and found nothing: patterns aren't supported."""
    if not request.page_token and any(sign in request.thread_id for sign in "*%?"):
        logger.warning(
            "no checkpoint is in the thread that is called %r: a thread_id is compared as it is. To find threads by "
            "how their ids begin, or by metadata, call saver.threads.search(prefix=..., metadata={...})",
            request.thread_id,
        )


def tell_deleted(
    request: threads_pb.DeleteThreadRequest | threads_pb.DeleteRunsRequest | threads_pb.PruneThreadsRequest,
    response: threads_pb.DeleteThreadResponse | threads_pb.DeleteRunsResponse | threads_pb.PruneThreadsResponse,
) -> None:
    """Logs how much was deleted: the methods of LangGraph's interface return nothing."""
    deleted = response.deleted_checkpoints
    if isinstance(request, threads_pb.DeleteThreadRequest):
        logger.info("deleted thread %r: %d checkpoints", request.thread_id, deleted)
    elif isinstance(request, threads_pb.PruneThreadsRequest):
        logger.info("pruned %d threads: deleted %d checkpoints", len(request.thread_ids), deleted)
    elif deleted:
        logger.info("deleted %d checkpoints of %d runs", deleted, len(request.run_ids))
    else:
        logger.warning(
            "deleted nothing: no checkpoint has the run_id %s in its metadata%s. It is there if a run's config has it "
            'under "metadata" or "configurable"; one at the top of a config is for traces only',
            request.run_ids[0],
            f", nor one of {len(request.run_ids) - 1} others" if len(request.run_ids) > 1 else "",
        )
