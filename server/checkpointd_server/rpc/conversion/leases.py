"""Leases in requests about several threads."""

from __future__ import annotations

from collections.abc import Sequence

from checkpointd.v1 import values_pb2 as values
from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.limits import Limits
from checkpointd_server.rpc.conversion.validation import check_count, check_text


def read_thread_leases(leases: Sequence[values.ThreadLease], limits: Limits) -> dict[str, int]:
    """Returns the lease tokens of a request, by thread. Raises InvalidArgument."""
    check_count(len(leases), "leases", limits.max_batch)
    found: dict[str, int] = {}
    for position, lease in enumerate(leases):
        check_text(lease.thread_id, f"leases[{position}].thread_id", limits.max_thread_id_bytes)
        if lease.token <= 0:
            raise InvalidArgument(f"leases[{position}].token", "is required; tokens begin at 1")
        if found.setdefault(lease.thread_id, lease.token) != lease.token:
            raise InvalidArgument(f"leases[{position}].thread_id", "is there already, with another token")
    return found
