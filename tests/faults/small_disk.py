"""A disk that can be filled without affecting others: a file system in memory that only a few processes see.

It is mounted in a separate mount namespace, which ends with the process that holds it, so nothing is left behind
whatever happens. Root may do that; other users do it in a user namespace, if that is allowed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Self

_MOUNT = 'mount -t tmpfs -o "size=$1m,mode=0777" tmpfs "$2" && echo ready && exec sleep infinity'


class SmallDisk:
    """A small file system.

    Args:
        megabytes: Its size.
    """

    def __init__(self, megabytes: int) -> None:
        self._megabytes = megabytes
        self._holder: subprocess.Popen[str] | None = None
        self._root = os.geteuid() == 0
        self.path = Path()
        """Its path, for the processes that see it."""

    def __enter__(self) -> Self:
        # A short path, because of the sockets in it.
        self.path = Path(tempfile.mkdtemp(prefix="cd-"))
        command = ["unshare", "--mount", *([] if self._root else ["--map-root-user"])]
        self._holder = subprocess.Popen(
            [*command, "sh", "-c", _MOUNT, "sh", str(self._megabytes), self.path],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._holder.stdout is not None
        said = self._holder.stdout.readline()
        # Not skipped: the effects of a full disk should be known. A container needs the right to mount (SYS_ADMIN),
        # or to create user namespaces.
        assert said == "ready\n", f"this machine doesn't let us mount a small file system: {said.strip()}"
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self._holder is not None
        self._holder.kill()
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def prefix(self) -> tuple[str, ...]:
        """The command that runs a process with access to the disk."""
        assert self._holder is not None
        enter = ("nsenter", f"--target={self._holder.pid}", "--mount")
        if self._root:
            return (*enter, "--")
        # PostgreSQL refuses to run as root, even as the root of a user namespace.
        return (*enter, "--user", "--preserve-credentials", "--", "unshare", f"--map-user={os.getuid()}")

    @property
    def from_outside(self) -> Path:
        """Its path for all other processes."""
        assert self._holder is not None
        return Path(f"/proc/{self._holder.pid}/root{self.path}")

    def fill(self) -> None:
        """Fills it completely."""
        with contextlib.suppress(OSError), self._ballast.open("ab", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))

    def free(self) -> None:
        """Makes room again."""
        self._ballast.unlink()

    @property
    def _ballast(self) -> Path:
        return self.from_outside / "ballast"
