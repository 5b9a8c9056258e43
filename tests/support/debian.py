"""Debian packages that tests need."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

LONGEST_SECONDS = 600
"""Maximum time of an installation, in seconds, including waiting for others."""


def install(*packages: str) -> bool:
    """Installs packages with apt-get, as root, and returns whether they are installed.

    One process at a time: other tests may install packages, and apt-get doesn't wait for its locks.
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
