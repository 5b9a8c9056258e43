"""The demo of long-term memory tells the truth, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.long
def test_the_demo_happens_as_told(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "examples.memory"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "I remember: I prefer trains to planes." in ended.stdout
    assert ended.stdout.count("read a profile with 2 visits") == 2
    assert list(tmp_path.iterdir()) == []
