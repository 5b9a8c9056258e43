"""All cases, in the order of the report. A new module of cases is only added here."""

from __future__ import annotations

from tests.bench import comparisons, facts, profile, round_trip, scaling, states, stores, sweeping, vectors
from tests.bench.case import Case


def all_cases() -> list[Case]:
    """Returns all cases."""
    return [
        *comparisons.cases(),
        *states.cases(),
        *stores.cases(),
        *facts.cases(),
        *sweeping.cases(),
        *vectors.cases(),
        *round_trip.cases(),
        *scaling.cases(),
        *profile.cases(),
    ]
