"""Every scene there is, in the order of the report. A new module of scenes is added here, and nowhere else."""

from __future__ import annotations

from tests.bench import comparisons, facts, hop, profile, scaling, states
from tests.bench.scene import Scene


def catalogue() -> list[Scene]:
    """Returns all scenes."""
    return [
        *comparisons.scenes(),
        *states.scenes(),
        *facts.scenes(),
        *hop.scenes(),
        *scaling.scenes(),
        *profile.scenes(),
    ]
