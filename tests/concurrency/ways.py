"""Parameters that many tests share."""

from __future__ import annotations

import pytest

from tests.support.gates import DURABILITIES

durabilities = pytest.mark.parametrize("durability", DURABILITIES)
durabilities_of_processes = pytest.mark.parametrize(
    "durability", [pytest.param("sync", marks=pytest.mark.long), *(way for way in DURABILITIES if way != "sync")]
)
"""For tests in which each durability starts processes, which takes long."""
savers = pytest.mark.parametrize("shared", [True, False], ids=["one-saver", "two-savers"])
either = pytest.mark.parametrize("concurrency", ["optimistic", "last_write_wins"])
