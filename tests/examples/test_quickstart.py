"""The quickstart, run as a newcomer runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.server_process import ServerProcess, clean_environment

QUICKSTART = Path(__file__).resolve().parents[2] / "examples" / "quickstart.py"


def test_each_run_of_the_quickstart_goes_on_where_the_one_before_stopped(server: ServerProcess) -> None:
    code = QUICKSTART.read_text().replace("127.0.0.1:50051", server.target)
    assert server.target in code

    def run() -> str:
        command = [sys.executable, "-c", code]
        return subprocess.run(
            command, env=clean_environment(), check=True, capture_output=True, text=True, timeout=60
        ).stdout

    assert run() == "This thread has 1 messages.\n"
    assert run() == "This thread has 3 messages.\n"
    server.restart()
    assert run() == "This thread has 5 messages.\n"
