"""Retention: policies, what they would do to threads, and what they did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import NamedTuple
from uuid import UUID

MAX_POLICIES = 100
"""The maximum number of a tenant's policies."""
MAX_POLICY_NAME_BYTES = 128
MAX_HOLD_SECONDS = 2**31
MAX_KEEP_NEWEST = 2**31 - 1
MAX_THREAD_BYTES = 2**50
"""The maximum of a policy's `max_bytes`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPolicy:
    """Rules for a selection of threads. If several policies apply to a thread, the strictest limits count."""

    name: str
    prefix: str = ""
    """The prefix of the threads' names."""
    metadata: str | None = None
    """A JSON object, as text, that the metadata index of the latest checkpoint must contain. None: anything."""
    max_idle_seconds: int | None = None
    """Deletes a thread that was idle for longer than this."""
    deletes_interrupted: bool = False
    """True if that, and the thread's own time to live, also applies to interrupted threads."""
    max_age_seconds: int | None = None
    """Deletes checkpoints older than this, except the newest."""
    keep_newest: int | None = None
    """Deletes all but this number of the newest checkpoints."""
    keep_last_of_run: bool = False
    """Deletes all checkpoints of a run except its last."""
    max_bytes: int | None = None
    """Deletes the oldest checkpoints until the thread has at most this size, or only the newest is left."""
    hold_seconds: int = 0
    """How long before a deletion from these threads, by whatever policy, it is announced. 0: not at all."""
    updated_at: datetime | None = None
    """The time at which it was last set. None: it isn't stored."""


class RetentionAction(Enum):
    """An action of retention on a thread."""

    DELETE = "delete"
    TRIM = "trim"
    """Deletes checkpoints of it."""


class RetentionOutcome(Enum):
    """The outcome of an action."""

    PLANNED = "planned"
    """Nothing was deleted: a preview."""
    DONE = "done"
    HELD = "held"
    """It was announced, and is held back."""
    BUSY = "busy"
    """The thread was locked by others: it is checked again later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionEffect:
    """A deletion of a thread, or of a part of it, with its reason."""

    thread_id: str
    action: RetentionAction
    outcome: RetentionOutcome
    reason: str
    """The limit: "ttl", "max_idle", "max_age", "keep_newest", "max_bytes" or "keep_last_of_run"."""
    policy: str
    """Whose limit it is. "": the thread's own time to live."""
    checkpoints: int
    """How many go, went, or are held."""
    until: datetime | None = None
    """For a held deletion: its deadline."""
    hold_policy: str = ""
    """For a held deletion: the policy with the hold."""


class RetentionPosition(NamedTuple):
    """The end of a page of a run."""

    listed_at: datetime
    thread: UUID


class RetentionPage(NamedTuple):
    """The findings of a part of a run."""

    effects: list[RetentionEffect]
    after: RetentionPosition | None
    """The position at which to go on. None: this was the last part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiring:
    """An announced deletion, for those who act before it."""

    thread_id: str
    action: RetentionAction
    reason: str
    policy: str
    checkpoints: int
    below: str
    """For TRIM: checkpoints below this id are deleted. "": the whole thread."""
    deadline_at: datetime
    """The time of the deletion, acknowledged or not."""
    hold_policy: str
    """The policy whose hold it is."""


class ExpiringPage(NamedTuple):
    """A page of announced deletions, earliest deadline first."""

    entries: Sequence[Expiring]
    after: RetentionPosition | None


class SweepReport(NamedTuple):
    """The deletions of a sweep."""

    has_run: bool
    """False: another server sweeps, or nothing was due."""
    threads: int
    checkpoints: int
