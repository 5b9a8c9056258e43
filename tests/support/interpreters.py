"""Other Pythons on the machine: in PATH, and those of pyenv and uv, even if not in PATH."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path


def find_interpreter(version: str) -> Path | None:
    """Returns a Python of a version, e.g. "3.12", that can create environments. None: there is none."""
    for command in _candidates(version):
        # pyenv's shim in PATH may only report that this version isn't enabled.
        program = "import sys, ensurepip, venv; print('%d.%d' % sys.version_info[:2])"
        try:
            said = subprocess.run([command, "-c", program], capture_output=True, text=True, check=False, timeout=60)
        except OSError:
            continue
        if said.returncode == 0 and said.stdout.strip() == version:
            return command
    return None


def _candidates(version: str) -> Iterator[Path]:
    if found := shutil.which(f"python{version}"):
        yield Path(found)
    # Newest patch release first.
    for root in _roots():
        found_here = root.glob(f"*{version}.*/bin/python{version}")
        yield from sorted(found_here, key=lambda path: [int(part) for part in _digits(path)], reverse=True)


def _digits(path: Path) -> list[str]:
    """Returns the numbers in the name of the folder that an interpreter is installed in."""
    return [part for part in path.parts[-3].replace("-", ".").split(".") if part.isdecimal()]


def _roots() -> Iterator[Path]:
    """Yields the folders that hold a folder for each Python."""
    # A clean environment may have another HOME, or none: use the user's home.
    homes = dict.fromkeys([Path.home(), Path(pwd.getpwuid(os.getuid()).pw_dir)])
    pyenvs = [Path(os.environ["PYENV_ROOT"])] if os.environ.get("PYENV_ROOT") else []
    for root in (*pyenvs, *(home / ".pyenv" for home in homes), Path("/opt/pyenv"), Path("/usr/local/pyenv")):
        yield root / "versions"
    for home in homes:
        yield home / ".local" / "share" / "uv" / "python"
