"""Threads: their keys, copies and prunings."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from hashlib import sha256
from uuid import UUID
from zlib import crc32

VOLATILE_KEYS = frozenset(
    (
        *("source", "step", "parents", "run_id", "counters_since_delta_snapshot", "delta_writes_versioned", "writes"),
        *("thread_id", "checkpoint_id", "checkpoint_ns", "langgraph_step", "langgraph_node", "langgraph_triggers"),
        *("langgraph_path", "langgraph_checkpoint_ns", "run_attempt"),
    )
)
"""The entries of metadata that LangGraph changes in every step. Threads can't be found by them."""
NO_LABELS = crc32(b"[]")
"""The fingerprint of metadata that has no other entries (domain/checkpoints.py)."""

INTERRUPT_CHANNEL, ERROR_CHANNEL = "__interrupt__", "__error__"
SIGNALS = {INTERRUPT_CHANNEL: 1, ERROR_CHANNEL: 2}
"""The channels of task writes that show how a run ended, with their signals in the threads' rows."""


@lru_cache(maxsize=8192)
def thread_key(tenant: str, thread_id: str) -> UUID:
    """Returns the key that all rows of a thread begin with.

    It is the first 16 bytes of a SHA-256 over both names, each preceded by its length: so it is short, needs no
    look-up, and spreads threads evenly over the nodes of a cluster.
    """
    # Text that can't be stored gets a key as well; storing it is refused later.
    names = (tenant.encode(errors="surrogatepass"), thread_id.encode(errors="surrogatepass"))
    return UUID(bytes=sha256(b"".join(len(name).to_bytes(4, "big") + name for name in names)).digest()[:16])


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyThread:
    """A thread to copy, whole or up to a checkpoint of its root namespace."""

    tenant: str
    source_thread_id: str
    target_thread_id: str
    checkpoint_id: str | None = None
    """Fork here: this checkpoint, its ancestors, and what their steps left in subgraphs' namespaces."""
    request_id: bytes = b""
    lease_token: int = 0
    """The token of the lease that the caller holds on the target; 0: none."""


class PruneStrategy(Enum):
    """The part of a thread that pruning keeps."""

    KEEP_LATEST = "keep_latest"
    DELETE = "delete"
