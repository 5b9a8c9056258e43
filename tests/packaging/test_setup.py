"""`make setup`: a good .venv isn't deleted for a Python that can't replace it."""

from __future__ import annotations

import shutil
import subprocess
import venv
from pathlib import Path

import pytest

from tests.packaging.constraints import ROOT
from tests.support.server_process import clean_environment

OLD_PYTHON = """\
#!/bin/sh
case "$2" in *exit*) exit 1 ;; *) echo 3.9.1 ;; esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone whose .venv contains a file that would be missed."""
    for file in ("scripts/setup.sh", *(f"{folder}pyproject.toml" for folder in ("", "protos/", "client/", "server/"))):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    venv.create(tmp_path / ".venv")
    (tmp_path / ".venv" / "precious").touch()
    return tmp_path


def setup(clone: Path, python: str) -> subprocess.CompletedProcess[str]:
    """Runs the command of `make setup PYTHON=...`."""
    return subprocess.run(
        ["bash", "scripts/setup.sh", "--exactly"],
        cwd=clone,
        env=clean_environment() | {"PYTHON": python, "VENV": ".venv"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_python_that_is_not_there_costs_nobody_his_environment(clone: Path) -> None:
    result = setup(clone, "python3.typo")
    assert result.returncode == 1
    assert result.stderr == (
        "setup: Python 3.11 or later is needed, python3.typo is not there; name another: make setup PYTHON=python3.12\n"
    )
    assert (clone / ".venv" / "precious").exists()


def test_neither_does_a_python_that_is_too_old(clone: Path) -> None:
    old = clone / "python-old"
    old.write_text(OLD_PYTHON)
    old.chmod(0o755)
    result = setup(clone, str(old))
    assert result.returncode == 1
    assert f"is needed, {old} is 3.9.1" in result.stderr
    assert (clone / ".venv" / "precious").exists()
