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
    """The holder who asks. It gets the lease that it has already."""
    ttl: float
    """How long the lease lives without a renewal, in seconds."""
    wait: float = 0.0
    """How long to wait for it, in seconds."""


class Lease(NamedTuple):
    """A lease in force."""

    token: int
    """Greater than those of all leases before it on its thread."""
    remaining: float
    """How long it lives without a renewal, in seconds."""


class LeaseState(NamedTuple):
    """The state of a thread's lease."""

    lease: Lease | None
    """None: nobody holds it."""
    waiting: int
    """How many wait in line."""
