"""The other Pythons that the packages are for: installed with the newest dependencies, and a choice of tests."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.inner_run import LONGEST_SECONDS, run_inner

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
    """Returns a Python of a version: the system's, or one of pyenv's. Skips the test where there is none."""
    found = [name for name in (f"python{version}",) if shutil.which(name)]
    if shutil.which("pyenv"):
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=True).stdout.strip()
        found += sorted(str(path) for path in Path(root, "versions").glob(f"{version}.*/bin/python"))
    for command in found:
        # What pyenv puts into PATH may only say that it isn't switched on.
        if subprocess.run([command, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
            return command
    pytest.skip(f"there is no Python {version}")


@pytest.mark.long
@pytest.mark.timeout(LONGEST_SECONDS)
@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_client_and_server_work_with_another_python(version: str) -> None:
    command = ["scripts/test_bounds.sh", "newest", "-n", "0", "-m", "not long", *TESTS]
    run_inner(command, PYTHON=interpreter(version))
