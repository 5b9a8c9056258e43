"""State of tenants in memory: what each has at work, what it may use, and what it has used.

It is looked at with every call, so it costs no statement, no lock and no task. What a tenant holds in the database is
added up there every few seconds (`quota_refresh`); what this server stores until then is counted here.

Bounds are shared as `fair_shares` has it.
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
"""How many tenants are remembered. Beyond, those are forgotten that have nothing at work."""
LONGEST_BACKLOG = 5.0
"""The longest that a call over its tenant's rate is asked to wait, in seconds."""


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
        """How many of its calls are at work, with those that wait for another client."""
        self.waiting = 0
        """How many of them wait."""
        self.bytes = 0
        """How many bytes of requests and answers are held for it."""
        self.streams = 0
        """How many streams it has open."""
        self.is_noted = False
        """True if the database knows of it."""
        self.quotas = quotas
        """The quotas in force."""
        self.usage: Usage | None = None
        """Its usage when that was added up last. None: it wasn't, since nothing that it holds is bounded."""
        self.usage_due = 0.0
        """The time at which it is to be added up next."""
        self.added_bytes = 0
        """The bytes that this server has stored for it since."""
        self.tokens = float(quotas.max_calls_per_second or 0)
        self.tokens_at = now
        """How many calls it may make at once, as of then."""
        self.backlog = 0.0
        """How many calls were refused that may come again, as of then."""

    def give_back(self, size: int) -> None:
        """Counts bytes as no longer held for it."""
        self.bytes -= size

    def has_all_threads(self) -> bool:
        """Returns whether it has as many threads as it may have."""
        limit = self.quotas.max_threads
        return bool(limit) and self.usage is not None and self.usage.threads >= (limit or 0)


class Tenants:
    """Knows the tenants that call, and shares bounds between them.

    Args:
        defaults: What a tenant may use for which nothing was set.
        max_calls: The most calls at work at once, of all together.
        max_bytes: The most bytes of requests and answers at once.
        max_streams: The most streams.
        clock: Tells the time, in seconds.
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
        """The quotas of a tenant for which nothing was set."""
        self.metrics = TenantMetrics()
        """The counts of refusals."""
        self.when_new: Callable[[], None] = _do_nothing
        """Called when a tenant calls that isn't known."""
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
        """All that are known."""
        return list(self._states.values())

    def count_recent(self) -> int:
        """Counts the tenants that share what there is: those that called just now, or have calls at work."""
        now = self._clock()
        return sum(bool(state.calls) or now - state.seen_at < RECENT_SECONDS for state in self._states.values())

    def find(self, name: str) -> TenantState | None:
        """Returns what is known of a tenant that may never have called."""
        return self._states.get(name)

    def of(self, name: str) -> TenantState:
        """Returns what is known of a tenant that calls."""
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
        """Counts calls of a tenant as at work: the first of those that are wanted.

        Args:
            state: The tenant.
            at_work: How many calls are at work without them, of all tenants.
            wanted: How many it wants.
            is_metered: Whether they count among the calls a second that it may make.

        Returns:
            How many were admitted, at least one, and why the others weren't.

        Raises:
            Overloaded: The server is nearly full, and the tenant has its share.
            QuotaExceeded: The tenant makes more calls a second than it may.
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
        """Raises Overloaded if the server holds nearly all bytes that it may, and these are beyond the tenant's share.

        Args:
            state: The tenant.
            size: The size of the request, of several, or of an answer.
            held: How many bytes are held, of all tenants.
        """
        if held and held + size > self._open_bytes:
            # In small units, since what is wanted must be had whole.
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
        """Counts an answer as held for its tenant until it has been sent.

        Args:
            state: The tenant.
            load: What counts the answers of all.
            size: How large it is, in bytes.
            when_sent: Takes what is to be called when it has been sent.
            refuse: Whether it may be refused, for nothing was done but to read.

        Raises:
            Overloaded: There is no room for it, or its tenant has its share of that, and it may be refused.
        """
        if size <= SMALL_ANSWER_BYTES:
            return
        if refuse:
            self.check_bytes(state, size, load.held_bytes)
        load.take_answer(size, when_sent, refuse=refuse)
        state.bytes += size
        when_sent(lambda _: state.give_back(size))

    def check_stream(self, state: TenantState, open_streams: int) -> None:
        """Raises Overloaded if nearly all streams are open, and the tenant has its share."""
        if open_streams >= self._max_streams - kept_free(self._max_streams):
            self._share("streams", self._max_streams, state.streams, open_streams, 1, self._clock())

    def check_wait(self, state: TenantState, waiting: int) -> None:
        """Raises Overloaded if nearly as many calls wait as may, and the tenant has its share of them."""
        if waiting >= self._open_calls:
            self._share("calls", self._max_calls, state.waiting, waiting, 1, self._clock())

    def _share(self, bound: Bound, limit: int, held: int, total: int, wanted: int, now: float) -> int:
        """Returns how much of a bound a tenant gets that is nearly used up. Raises Overloaded if nothing."""
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
        """Takes calls from what a tenant may make now: a second's worth. Raises QuotaExceeded if none is left."""
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
        """Counts bytes that are to be stored for a tenant. Raises QuotaExceeded if they are more than it may have."""
        if state.usage is None:
            return
        limit, used = state.quotas.max_bytes, state.usage.bytes + state.added_bytes
        if limit and used + size > limit:
            self.metrics.quota_refusals["bytes"] += 1
            raise QuotaExceeded("bytes", limit=limit, used=used)
        state.added_bytes += size

    def refuse_thread(self, state: TenantState) -> QuotaExceeded:
        """Returns why a thread can't be made for a tenant that has all its threads."""
        assert state.usage is not None
        self.metrics.quota_refusals["threads"] += 1
        return QuotaExceeded("threads", limit=state.quotas.max_threads or 0, used=state.usage.threads)

    def set_quotas(self, state: TenantState, quotas: Quotas) -> None:
        """Puts quotas in force for a tenant."""
        effective = quotas.over(self.defaults)
        if effective == state.quotas:
            return
        if effective.max_calls_per_second != state.quotas.max_calls_per_second:
            state.tokens, state.backlog = float(effective.max_calls_per_second or 0), 0.0
        state.quotas, state.usage_due = effective, 0.0
        if not (effective.max_bytes or effective.max_threads):
            state.usage = None


def _do_nothing() -> None:
    """Nobody wants to know."""
