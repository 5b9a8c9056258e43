"""Properties that hold for any input, however slowly a busy machine comes up with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis
from hypothesis import HealthCheck, settings

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For a test with a number of examples of its own: `@settings(PATIENT, max_examples=300)`."""


def given(*strategies: Any, **named: Any) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Hypothesis's own `given`, which by default fails where an example takes 0.2 s or can't be found in 1."""
    with_examples: Any = hypothesis.given(*strategies, **named)

    def decorate(test: Callable[..., Any]) -> Callable[..., None]:
        decorated: Callable[..., None] = PATIENT(with_examples(test))
        return decorated

    return decorate
