"""The limits that requests are held to."""

from __future__ import annotations

from dataclasses import dataclass, replace

_AROUND_DATA = 1024
"""Bytes of a message that are reserved for everything but a value's bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits in force. The lengths of keys are fixed: their sum must fit into an entry of a PostgreSQL index."""

    max_message_bytes: int = 64 * 1024 * 1024
    """The maximum size of a message in either direction, in bytes."""
    max_tenant_bytes: int = 64
    """The longest tenant name, in bytes."""
    max_thread_id_bytes: int = 512
    """The longest thread_id, in bytes."""
    max_checkpoint_ns_bytes: int = 1408
    """The longest checkpoint_ns, in bytes. Nested subgraphs add about 50 each."""
    max_checkpoint_id_bytes: int = 128
    """The longest checkpoint_id, in bytes."""
    max_channel_bytes: int = 512
    """The longest channel name, in bytes. LangGraph derives one from each node's name, 10 bytes longer."""
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
    """The maximum nesting of a filter and a metadata index."""
    default_page_size: int = 100
    """The default number of checkpoints on a page."""
    max_page_size: int = 1000
    """The most checkpoints on a page."""
    max_page_bytes: int = 512 * 1024
    """The size at which a page ends, in bytes of everything sent. A page has at least one checkpoint."""
    max_inline_bytes: int = 512 * 1024
    """The maximum size of values and task writes in an answer, in bytes; the rest is read separately."""
    max_value_bytes: int = 1024 * 1024 * 1024
    """The maximum size of a value, in bytes, however it is sent."""
    max_part_bytes: int = 1024 * 1024
    """The largest part of a value, in bytes."""
    max_chain: int = 64
    """The maximum length of a chain of patches on a whole value."""
    max_patch_operations: int = 65_536
    """The maximum number of instructions of all patches in one put, or in one task's writes."""
    max_checkpoint_bytes: int = 8 * 1024 * 1024
    """The largest checkpoint without its values: its body, its metadata, and the names and versions of its channels."""
    max_written_bytes: int = 8 * 1024 * 1024
    """The maximum size of a checkpoint's task writes, in bytes of their names and paths; their data is read separately
    if it is too large. It is checked occasionally, so it may be exceeded a little."""
    max_known: int = 1000
    """The maximum number of known values in a read."""
    max_channels: int = 10_000
    """The most channels of a checkpoint."""
    max_values: int = 10_000
    """The maximum number of values in a put, and of writes of a task."""
    max_pipeline_operations: int = 256
    """The most operations in one message of a pipeline."""
    max_pipeline_bytes: int = 4 * 1024 * 1024
    """The largest message of a pipeline."""
    max_batch: int = 1000
    """The most threads, runs or channels that one request names."""
    max_item_labels: int = 32
    """The most labels of an item's namespace."""
    max_item_namespace_bytes: int = 1024
    """The longest namespace of an item, in bytes of all its labels."""
    max_item_key_bytes: int = 512
    """The longest key of an item, in bytes."""
    max_item_bytes: int = 8 * 1024 * 1024
    """The largest value of an item, in bytes."""
    max_item_vectors: int = 1000
    """The most vectors of an item."""
    max_vector_dims: int = 4000
    """The most components of a vector: as many as pgvector has an index for."""
    max_item_components: int = 1_000_000
    """The most components of all vectors of an item, or of a batch."""
    max_item_text_bytes: int = 256 * 1024
    """The maximum size of an item's texts for word search, in bytes."""
    max_text_query_bytes: int = 8 * 1024
    """The longest text of a search for words, in bytes."""
    max_search_limit: int = 1000
    """The most items that a search returns."""
    max_search_offset: int = 100_000
    """The maximum number of items or namespaces to skip."""
    max_namespaces: int = 10_000
    """The most namespaces that a list returns."""
    max_namespace_conditions: int = 16
    """The most conditions of a list of namespaces."""
    max_ttl_minutes: int = 100 * 366 * 24 * 60
    """The longest time to live of an item, in minutes."""
    default_lease_ttl_ms: int = 30_000
    """The default time to live of a lease, in milliseconds."""
    min_lease_ttl_ms: int = 1_000
    """The shortest time to live of a lease, in milliseconds."""
    max_lease_ttl_ms: int = 3_600_000
    """The longest time to live of a lease, in milliseconds."""
    max_lease_wait_ms: int = 30_000
    """The maximum time that one call waits for a lease, in milliseconds."""

    def fitting(self) -> Limits:
        """Returns limits that fit into messages: everything stored within them can be read again."""
        quarter = self.max_message_bytes // 4
        return replace(
            self,
            max_checkpoint_bytes=min(self.max_checkpoint_bytes, 2 * quarter),
            max_written_bytes=min(self.max_written_bytes, quarter // 2),
            max_inline_bytes=min(self.max_inline_bytes, quarter),
            max_page_bytes=min(self.max_page_bytes, quarter),
            max_part_bytes=min(self.max_part_bytes, self.max_message_bytes - _AROUND_DATA),
            max_pipeline_bytes=min(self.max_pipeline_bytes, self.max_message_bytes),
            max_item_bytes=min(self.max_item_bytes, quarter),
        )
