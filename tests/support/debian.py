"""Packages of Debian's that tests need."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

LONGEST_SECONDS = 600
"""How long an installation may take, those that it waits for included. A test that needs one takes no longer."""


def install(*packages: str) -> bool:
    """Installs packages, and returns whether they are there. It takes apt-get, as root.

    One process at a time: others' tests may need packages just now, and apt-get refuses to wait for its locks.
    """
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        return False
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with Path(tempfile.gettempdir(), "checkpointd-tests-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (("update",), ("install", "-y", "--no-install-recommends", *packages)):
            done = subprocess.run(
                ("apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120", *command),
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=LONGEST_SECONDS,
                check=False,
            )
    return done.returncode == 0
