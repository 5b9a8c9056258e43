"""The limits that requests are held to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits in force. The lengths of keys are fixed: their sum must fit into an entry of a PostgreSQL index."""

    max_message_bytes: int = 64 * 1024 * 1024
    """The largest message that the server takes or sends, in bytes."""
    max_tenant_bytes: int = 64
    """The longest tenant name, in bytes."""
    max_thread_id_bytes: int = 512
    """The longest thread_id, in bytes."""
    max_checkpoint_ns_bytes: int = 1408
    """The longest checkpoint_ns, in bytes. Nested subgraphs add about 50 each."""
    max_checkpoint_id_bytes: int = 128
    """The longest checkpoint_id, in bytes."""
    max_channel_bytes: int = 512
    """The longest channel name, in bytes. LangGraph makes one of each node's name, 10 bytes longer."""
    max_channel_version_bytes: int = 128
    """The longest textual channel version, in bytes."""
    max_task_id_bytes: int = 128
    """The longest task_id, in bytes."""
    max_task_path_bytes: int = 64 * 1024
    """The longest task_path, in bytes. Each task of the functional API within another one adds some 40."""
    max_type_bytes: int = 128
    """The longest serializer tag, in bytes."""
    max_run_id_bytes: int = 512
    """The longest run_id, in bytes."""
    max_token_bytes: int = 32
    """The longest writer or request_id, in bytes."""
    max_filter_bytes: int = 64 * 1024
    """The largest filter and metadata index, in bytes."""
    max_filter_depth: int = 32
    """How deep a filter and a metadata index may nest."""
    default_page_size: int = 100
    """How many checkpoints a page holds if the request doesn't say."""
    max_page_size: int = 1000
    """The most checkpoints on a page."""
    max_page_bytes: int = 2 * 1024 * 1024
    """Where a page is cut, in bytes. A page holds at least one checkpoint, however large."""
    max_value_bytes: int = 1024 * 1024 * 1024
    """The largest value, in bytes, however many pieces it comes in."""
    max_piece_bytes: int = 1024 * 1024
    """The largest piece of a value, in bytes, compressed or not."""
    max_pieces: int = 65_536
    """The most pieces of a value, and the most that one request names."""
    max_batch_operations: int = 256
    """The most calls in one batch."""
    max_batch: int = 1000
    """The most threads, runs or channels that one request names."""
    default_lease_ttl_ms: int = 30_000
    """How long a lease lives if the request doesn't say, in milliseconds."""
    min_lease_ttl_ms: int = 1_000
    """The shortest time to live of a lease, in milliseconds."""
    max_lease_ttl_ms: int = 3_600_000
    """The longest time to live of a lease, in milliseconds."""
    max_lease_wait_ms: int = 30_000
    """The longest that one call waits for a lease, in milliseconds."""
