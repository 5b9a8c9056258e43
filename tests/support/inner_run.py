"""A test run within a test: with another Python, or on another PostgreSQL."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.document import ROOT
from tests.support.server_process import clean_environment

LONGEST_SECONDS = 900
"""The maximum time of a run, including installations, in seconds."""


def run_inner(command: Sequence[str | Path], **env: str) -> None:
    """Runs a command that runs tests, in the repository's root. Fails the test if it fails."""
    environment = {name: value for name, value in clean_environment().items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**environment, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
