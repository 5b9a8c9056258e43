"""Commands of the server that end by themselves, and their output."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence

from tests.support.server_process import clean_environment

Result = subprocess.CompletedProcess[str]


def run(*arguments: str, env: Mapping[str, str] | None = None, prefix: Sequence[str] = ()) -> Result:
    """Runs a command that is expected to end by itself."""
    return subprocess.run(
        [*prefix, sys.executable, "-m", "checkpointd_server.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**clean_environment(), **(env or {})},
    )


def assert_one_clear_line(result: Result, *parts: str) -> None:
    assert result.returncode == 1, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert [line for line in result.stderr.splitlines() if line.startswith("Error: ")] == [
        result.stderr.splitlines()[-1]
    ]
    for part in parts:
        assert part in result.stderr.splitlines()[-1]
