"""State of tenants in memory: calls in flight, quotas, and usage.

Every call uses it, so it needs no statement, lock or task. A tenant's usage is summed in the database every few seconds
(`quota_refresh`); what this server stores in between is counted here.

Limits are shared by the rules of `fair_shares`.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from checkpointd_server.domain.errors import Bound, CheckpointdError, Overloaded, QuotaExceeded
from checkpointd_server.domain.fair_shares import LOOK_SECONDS, RECENT_SECONDS, kept_free, room_for, share
from checkpointd_server.domain.metrics import TenantMetrics
from checkpointd_server.domain.tenants import Quotas, Usage
from checkpointd_server.rpc.calls.activity import Activity
from checkpointd_server.rpc.calls.admission import SMALL_ANSWER_BYTES, AdmissionController

MOST_TENANTS = 10_000
"""Number of tenants that are remembered. Beyond it, those without calls in flight are forgotten."""
LONGEST_BACKLOG = 5.0
"""Maximum time that a call over its tenant's rate is asked to wait, in seconds."""


class TenantState:
    """The state of one tenant."""

    __slots__ = (
        "activity", "added_bytes", "backlog", "bytes", "calls", "is_noted", "name", "quotas", "seen_at", "streams",
        "tokens", "tokens_at", "usage", "usage_due", "waiting",
    )  # fmt: skip

    def __init__(self, name: str, quotas: Quotas, now: float) -> None:
        self.name = name
        self.seen_at = now
        """The time of its last call."""
        self.activity = Activity()
        """The activity of its calls."""
        self.calls = 0
        """The number of its calls in flight, including those that wait for another client."""
        self.waiting = 0
        """The number of those that wait."""
        self.bytes = 0
        """The bytes of its requests and answers in memory."""
        self.streams = 0
        """The number of its open streams."""
        self.is_noted = False
        """True if it is registered in the database."""
        self.quotas = quotas
        """The quotas in force."""
        self.usage: Usage | None = None
        """Its usage when last summed. None: never, because no quota needs it."""
        self.usage_due = 0.0
        """The time at which it is summed next."""
        self.added_bytes = 0
        """The bytes that this server has stored for it since then."""
        self.tokens = float(quotas.max_calls_per_second or 0)
        self.tokens_at = now
        """How many calls it may make at once, as of then."""
        self.backlog = 0.0
        """How many calls were refused that may come again, as of then."""

    def give_back(self, size: int) -> None:
        """Frees its reserved bytes."""
        self.bytes -= size

    def has_all_threads(self) -> bool:
        """Returns whether it has reached its limit of threads."""
        limit = self.quotas.max_threads
        return bool(limit) and self.usage is not None and self.usage.threads >= (limit or 0)


class Tenants:
    """Keeps the state of active tenants, and shares limits between them.

    Args:
        defaults: The default quotas.
        max_calls: The maximum number of calls in flight, of all tenants.
        max_bytes: The maximum size of all requests and answers.
        max_streams: The maximum number of streams.
        clock: Returns the time, in seconds.
    """

    def __init__(
        self,
        defaults: Quotas,
        *,
        max_calls: int,
        max_bytes: int,
        max_streams: int,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.defaults = defaults
        """The default quotas."""
        self.metrics = TenantMetrics()
        """The counts of refusals."""
        self.when_new: Callable[[], None] = _do_nothing
        """Called for the first call of an unknown tenant."""
        self._max_calls = max_calls
        self._max_bytes = max_bytes
        self._max_streams = max_streams
        self._open_calls = max_calls - kept_free(max_calls)
        self._open_bytes = max_bytes - kept_free(max_bytes)
        self._clock = clock
        self._states: dict[str, TenantState] = {}
        self._recent = 1
        self._looked_at = 0.0

    @property
    def states(self) -> list[TenantState]:
        """All known tenants."""
        return list(self._states.values())

    def count_recent(self) -> int:
        """Counts the tenants that share a limit: those that called recently, or have calls in flight."""
        now = self._clock()
        return sum(bool(state.calls) or now - state.seen_at < RECENT_SECONDS for state in self._states.values())

    def find(self, name: str) -> TenantState | None:
        """Returns the state of a tenant that may never have called."""
        return self._states.get(name)

    def of(self, name: str) -> TenantState:
        """Returns the state of a calling tenant."""
        state = self._states.get(name)
        if state is None:
            if len(self._states) >= MOST_TENANTS:
                self._states = {known.name: known for known in self.states if known.calls or known.streams}
            state = self._states[name] = TenantState(name, self.defaults, self._clock())
            self.when_new()
        return state

    def admit(
        self, state: TenantState, at_work: int, wanted: int = 1, *, is_metered: bool = True
    ) -> tuple[int, CheckpointdError | None]:
        """Counts calls of a tenant as in flight: the first of the wanted ones.

        Args:
            state: The tenant.
            at_work: The number of calls in flight without them, of all tenants.
            wanted: The number of wanted calls.
            is_metered: Whether they count for its quota of calls per second.

        Returns:
            The number of admitted calls, at least one, and why the others weren't.

        Raises:
            Overloaded: The server is nearly full, and the tenant has used its share.
            QuotaExceeded: The tenant exceeds its calls per second.
        """
        now = state.seen_at = self._clock()
        admitted, refusal = wanted, None
        if at_work + wanted > self._open_calls:
            admitted = self._share("calls", self._max_calls, state.calls - state.waiting, at_work, wanted, now)
        if is_metered and (rate := state.quotas.max_calls_per_second) and admitted:
            allowed, refusal = self._take_tokens(state, rate, admitted, now)
            admitted = min(admitted, allowed)
        state.calls += admitted
        return admitted, refusal

    def check_bytes(self, state: TenantState, size: int, held: int) -> None:
        """Raises Overloaded if nearly all bytes are reserved, and these exceed the tenant's share.

        Args:
            state: The tenant.
            size: The size of the request or requests, or of an answer.
            held: The reserved bytes of all tenants.
        """
        if held and held + size > self._open_bytes:
            # In small units, because a request needs all of its bytes.
            allowed = self._share("bytes", self._max_bytes, state.bytes, held, size, self._clock())
            if allowed < size:
                raise self._refuse_share("bytes", self._max_bytes)

    def take_answer(
        self,
        state: TenantState,
        load: AdmissionController,
        size: int,
        when_sent: Callable[[Callable[[object], None]], object],
        *,
        refuse: bool,
    ) -> None:
        """Reserves the bytes of a tenant's answer until it has been sent.

        Args:
            state: The tenant.
            load: Counts the answers of all tenants.
            size: How large it is, in bytes.
            when_sent: Registers a callback for when it has been sent.
            refuse: Whether it may be rejected, because the call only read.

        Raises:
            Overloaded: There is no room for it, or its tenant has used its share, and it may be rejected.
        """
        if size <= SMALL_ANSWER_BYTES:
            return
        if refuse:
            self.check_bytes(state, size, load.held_bytes)
        load.take_answer(size, when_sent, refuse=refuse)
        state.bytes += size
        when_sent(lambda _: state.give_back(size))

    def check_stream(self, state: TenantState, open_streams: int) -> None:
        """Raises Overloaded if nearly all streams are open, and the tenant has used its share."""
        if open_streams >= self._max_streams - kept_free(self._max_streams):
            self._share("streams", self._max_streams, state.streams, open_streams, 1, self._clock())

    def check_wait(self, state: TenantState, waiting: int) -> None:
        """Raises Overloaded if nearly the maximum number of calls wait, and the tenant has used its share."""
        if waiting >= self._open_calls:
            self._share("calls", self._max_calls, state.waiting, waiting, 1, self._clock())

    def _share(self, bound: Bound, limit: int, held: int, total: int, wanted: int, now: float) -> int:
        """Returns how much a tenant gets of a nearly exhausted limit. Raises Overloaded if nothing."""
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            self._recent = self.count_recent()
        if self._recent < 2:
            return wanted
        allowed = room_for(limit, held=held, total=total, sharers=self._recent)
        if allowed <= 0:
            raise self._refuse_share(bound, limit)
        return min(wanted, allowed)

    def _refuse_share(self, bound: Bound, limit: int) -> Overloaded:
        self.metrics.share_refusals += 1
        return Overloaded(bound, limit=share(limit, self._recent), is_share=True)

    def _take_tokens(
        self, state: TenantState, rate: int, wanted: int, now: float
    ) -> tuple[int, CheckpointdError | None]:
        """Takes calls from a tenant's budget, at most a second's worth. Raises QuotaExceeded if none is left."""
        passed = (now - state.tokens_at) * rate
        state.tokens_at = now
        state.tokens = min(state.tokens + passed, float(rate))
        state.backlog = max(state.backlog - passed, 0.0)
        taken = min(int(state.tokens), wanted)
        state.tokens -= taken
        if taken == wanted:
            return taken, None
        state.backlog = min(state.backlog + wanted - taken, LONGEST_BACKLOG * rate)
        self.metrics.quota_refusals["calls_per_second"] += wanted - taken
        refusal = QuotaExceeded(
            "calls_per_second", limit=rate, used=rate, retry_after=max(state.backlog - state.tokens, 1) / rate
        )
        if not taken:
            raise refusal
        return taken, refusal

    def check_storing(self, state: TenantState, size: int) -> None:
        """Counts bytes to store for a tenant. Raises QuotaExceeded if they exceed its quota."""
        if state.usage is None:
            return
        limit, used = state.quotas.max_bytes, state.usage.bytes + state.added_bytes
        if limit and used + size > limit:
            self.metrics.quota_refusals["bytes"] += 1
            raise QuotaExceeded("bytes", limit=limit, used=used)
        state.added_bytes += size

    def refuse_thread(self, state: TenantState) -> QuotaExceeded:
        """Returns the error for creating a thread beyond a tenant's quota."""
        assert state.usage is not None
        self.metrics.quota_refusals["threads"] += 1
        return QuotaExceeded("threads", limit=state.quotas.max_threads or 0, used=state.usage.threads)

    def set_quotas(self, state: TenantState, quotas: Quotas) -> None:
        """Sets the effective quotas of a tenant."""
        effective = quotas.over(self.defaults)
        if effective == state.quotas:
            return
        if effective.max_calls_per_second != state.quotas.max_calls_per_second:
            state.tokens, state.backlog = float(effective.max_calls_per_second or 0), 0.0
        state.quotas, state.usage_due = effective, 0.0
        if not (effective.max_bytes or effective.max_threads):
            state.usage = None


def _do_nothing() -> None:
    """Does nothing."""
