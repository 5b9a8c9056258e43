"""Leases: one writer at a time on a thread."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class AcquireLease:
    """A lease to take, or to wait for."""

    tenant: str
    thread_id: str
    holder: bytes = field(repr=False)
    """The requesting holder. If it already has the lease, it gets it again."""
    ttl: float
    """The lease's time to live without a renewal, in seconds."""
    wait: float = 0.0
    """How long to wait for it, in seconds."""


class Lease(NamedTuple):
    """A lease in force."""

    token: int
    """The fencing token, greater than those of all earlier leases on the thread."""
    remaining: float
    """Its remaining time without a renewal, in seconds."""


class LeaseState(NamedTuple):
    """The state of a thread's lease."""

    lease: Lease | None
    """None: nobody holds it."""
    waiting: int
    """The number of waiters in the queue."""
