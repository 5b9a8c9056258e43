"""`make flaky`: stopped processes continue, protected ones aren't stopped, and failures are reported."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import flaky
from tests.support.pauses import own_pauses

PROGRAM = [sys.executable, "-c", "import time; time.sleep(2)"]


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """The lock that is held by tests that stop processes themselves."""
    path = tmp_path / "lock"
    path.touch()
    return path


def test_a_run_is_stopped_now_and_then_and_comes_to_its_end(lock: Path) -> None:
    with subprocess.Popen(PROGRAM) as process:
        assert flaky.pause_now_and_then(process, random.Random(1), lock) > 0
    assert process.returncode == 0


def test_nothing_is_stopped_while_a_test_does_that_itself(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHECKPOINTD_TEST_PAUSES", str(lock))
    with own_pauses(), subprocess.Popen(PROGRAM) as process:
        assert flaky.pause_now_and_then(process, random.Random(1), lock) == 0


def test_what_fails_is_told_with_the_seed_of_its_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = tmp_path / "test_order.py"
    module.write_text("seen = []\ndef test_a(): seen.append(1)\ndef test_b(): assert seen\n")
    plain = ("-n0", "-p", "no:langsmith_plugin")
    options = ("--times", "2", "--seed", "3", "--no-pauses", "--logs", str(tmp_path / "logs"))
    assert flaky.main([*options, "--", *plain, str(module)]) == 1
    one, other, *_ = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"seed 3: 0 pauses, \d+ s: all passed", one)
    assert re.fullmatch(r"seed 4: 0 pauses, \d+ s: \S*test_order\.py::test_b", other)
