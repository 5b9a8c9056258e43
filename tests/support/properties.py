"""Properties that hold for any input, even if a busy machine generates it slowly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis
from hypothesis import HealthCheck, settings

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For a test with its own number of examples: `@settings(PATIENT, max_examples=300)`."""


def given(*strategies: Any, **named: Any) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Hypothesis's own `given`, without its limits: 0.2 s for an example, and 1 s to generate it."""
    with_examples: Any = hypothesis.given(*strategies, **named)

    def decorate(test: Callable[..., Any]) -> Callable[..., None]:
        decorated: Callable[..., None] = PATIENT(with_examples(test))
        return decorated

    return decorate
