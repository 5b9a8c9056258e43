"""The other Pythons that the packages support: installed with the newest dependencies, and a selection of tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.inner_run import LONGEST_SECONDS, run_inner
from tests.support.interpreters import find_interpreter

TESTS = (
    "tests/conformance",
    "tests/client/test_pipeline.py",
    "tests/client/test_streaming_app.py",
    "tests/e2e/test_interrupts.py",
    "tests/rpc/test_round_trip.py",
    "tests/store/test_puts.py",
    "tests/store/test_reads.py",
    "tests/app/test_serve.py",
)


def interpreter(version: str) -> str:
    """Returns a Python of a version. If the machine has none, skips the test with a conspicuous message."""
    if found := find_interpreter(version):
        return str(found)
    pytest.skip(f"NOT TESTED WITH PYTHON {version}: there is none in PATH, nor where pyenv and uv keep theirs")


@pytest.mark.parametrize("where", ["PYENV_ROOT", "home", "PATH"])
def test_pythons_are_found_wherever_they_are_installed(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Works even in an environment without pyenv's own programs."""
    root = tmp_path / (".pyenv" if where == "home" else "anywhere")
    version = ".".join(map(str, sys.version_info[:2]))
    for folder in (f"{version}.9", f"{version}.10"):
        (root / "versions" / folder / "bin").mkdir(parents=True)
        program = root / "versions" / folder / "bin" / f"python{version}"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        program.chmod(0o755)
    broken = tmp_path / "shims" / f"python{version}"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    monkeypatch.delenv("PYENV_ROOT", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path if where == "home" else tmp_path / "empty"))
    monkeypatch.setenv("PATH", str(program.parent if where == "PATH" else broken.parent))
    if where == "PYENV_ROOT":
        monkeypatch.setenv("PYENV_ROOT", str(root))
    assert find_interpreter(version) == program
    assert find_interpreter("2.6") is None


@pytest.mark.long
@pytest.mark.timeout(LONGEST_SECONDS)
@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_client_and_server_work_with_another_python(version: str) -> None:
    command = ["scripts/test_bounds.sh", "newest", "-n", "0", "-m", "not long", *TESTS]
    run_inner(command, PYTHON=interpreter(version))
