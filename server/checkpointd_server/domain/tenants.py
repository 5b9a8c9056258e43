"""Tenants as the operator sees them: what they hold, what they may use, and what goes when they are purged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Literal, NamedTuple

from checkpointd_server.domain.thread_lists import ThreadPosition

Quota = Literal["bytes", "threads", "calls_per_second"]
"""The resources with a quota."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """Quotas of a tenant. None: the server's default, or no limit there. 0: no limit."""

    max_bytes: int | None = None
    """The most bytes that its rows may have in the database."""
    max_threads: int | None = None
    """The maximum number of threads that aren't empty."""
    max_calls_per_second: int | None = None
    """The most calls and operations a second, in each process of a server."""

    def over(self, defaults: Quotas) -> Quotas:
        """Returns these, with the defaults in place of None."""
        return Quotas(
            max_bytes=defaults.max_bytes if self.max_bytes is None else self.max_bytes,
            max_threads=defaults.max_threads if self.max_threads is None else self.max_threads,
            max_calls_per_second=(
                defaults.max_calls_per_second if self.max_calls_per_second is None else self.max_calls_per_second
            ),
        )


class TenantQuotas(NamedTuple):
    """A registered tenant, and its own quotas."""

    tenant: str
    quotas: Quotas
    noted_at: datetime


class Usage(NamedTuple):
    """The sums of a tenant's data."""

    threads: int
    checkpoints: int
    bytes: int
    """Approximate bytes of its rows, including items, and exact bytes of uploads that no put has named."""
    pinned_threads: int
    pinned_checkpoints: int
    pinned_bytes: int
    """Of those before, what belongs to pinned threads."""
    items: int = 0
    """Of long-term memory."""
    item_bytes: int = 0
    """About how many of the bytes are theirs."""


class ThreadSize(NamedTuple):
    """The size of a thread."""

    thread_id: str
    checkpoints: int
    bytes: int


class Day(NamedTuple):
    """The data that came on a day, in UTC."""

    day: date
    threads: int
    """How many were made."""
    checkpoints: int
    bytes: int
    """An estimate, as checkpoints are: what a thread holds is spread evenly over its life."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Details of a tenant's data."""

    threads: int
    idle: int
    running: int
    """Written to within a minute, or leased; without an interrupt or an error."""
    interrupted: int
    failed: int
    archived: int
    pinned: int
    """Among those before, which are apart from each other."""
    checkpoints: int
    bytes: int
    """About how many the rows of threads have."""
    writes: int
    """Task writes: an estimate, unless all threads were looked at."""
    logical_bytes: int
    """An estimate of what checkpoints would have if each had all its values whole, shared with none."""
    is_estimate: bool
    """True if writes are estimated, since not all threads were looked at."""
    mean_session_seconds: float
    """From a thread's first write to its last."""
    oldest_at: datetime | None
    measured_at: datetime
    largest: Sequence[ThreadSize]
    days: Sequence[Day]
    """Today last."""
    items: int = 0
    """Of long-term memory."""
    item_bytes: int = 0
    """About how many their rows have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgePosition:
    """The place where a purge goes on: behind a thread that its filter found, or with what was there when it began."""

    is_archived: bool = False
    """True if those that aren't archived are done."""
    after: ThreadPosition | None = None
    began_at: datetime | None = None


@dataclass(slots=True, kw_only=True)
class PurgeReport:
    """The deletions of a purge, done or planned."""

    threads: int = 0
    checkpoints: int = 0
    bytes: int = 0
    pinned_threads: int = 0
    """How many were kept because they are pinned."""
    rows: Counter[str] = field(default_factory=Counter)
    """The number of deleted rows, by table."""
    next: PurgePosition | None = None
    """The position at which to go on. None: that is all."""
