"""`make soak`, for a few seconds: it runs, and what it monitors can be measured."""

from __future__ import annotations

import pytest

from tests.faults.soak import soak

pytestmark = pytest.mark.long


async def test_a_short_soak(capsys: pytest.CaptureFixture[str]) -> None:
    await soak(0.1, seed=3)
    told = capsys.readouterr().out
    assert "seed 3" in told
    assert "acknowledged writes are there" in told
    assert "MiB" in told
    assert "all is well" in told
