"""The JavaScript client, built from source, for tests that run Node.js programs with it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

CLIENT = Path(__file__).parents[2] / "clients" / "js"
_OLDEST_NODE = 20
LONGEST_SECONDS = 600
"""How long a command may take, in seconds: npm fetches packages, and the machine may be busy."""


def require_node() -> None:
    """Skips the test without Node.js, except in CI."""
    version = ""
    if shutil.which("node") and shutil.which("npm"):
        version = subprocess.run(("node", "--version"), capture_output=True, text=True, check=True).stdout.strip()
    if int(version.lstrip("v").split(".")[0] or 0) < _OLDEST_NODE:
        missing = f"Node.js {_OLDEST_NODE} or later and npm are not installed"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)


def npm(*arguments: str, cwd: Path = CLIENT, env: Mapping[str, str] | None = None) -> str:
    """Runs npm and returns its output. Fails the test if it fails."""
    return run("npm", *arguments, cwd=cwd, env=env)


def run(*command: str, cwd: Path = CLIENT, env: Mapping[str, str] | None = None) -> str:
    """Runs a program and returns its output. Fails the test if it fails."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "NO_COLOR": "1", **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LONGEST_SECONDS,
    )
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-8000:]}"
    return done.stdout


def build() -> Path:
    """Installs the client's build tools, and builds it and its examples, if necessary. Returns its folder."""
    require_node()
    # Two processes of one test run may need it at the same time.
    with _alone(CLIENT / "node_modules.lock"):
        stamp, lock = CLIENT / "node_modules" / ".checkpointd", CLIENT / "package-lock.json"
        if not stamp.exists() or stamp.read_bytes() != lock.read_bytes():
            npm("ci", "--no-audit", "--no-fund")
            stamp.write_bytes(lock.read_bytes())
        # A rebuild must not disturb other tests' programs.
        built, sources = CLIENT / "node_modules" / ".checkpointd-built", _sources()
        if not built.exists() or built.read_text() != sources:
            npm("run", "build")
            npm("run", "examples")
            built.write_text(sources)
    return CLIENT


def _sources() -> str:
    """Returns a digest that changes with the sources."""
    files = [*CLIENT.glob("*.json"), *CLIENT.glob("*.yaml"), *CLIENT.glob("examples/*"), *CLIENT.glob("src/*.ts")]
    digest = hashlib.sha256()
    for file in sorted([*files, *(CLIENT.parents[1] / "protos").rglob("*.proto")]):
        digest.update(f"{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Holds a file's lock during a block."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
