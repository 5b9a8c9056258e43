"""PgBouncer in transaction mode, in Debian's version: the system's, or fetched into .build without installing it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Self

from tests.support.until import until

USER = "nobody"
"""The user that it runs as, if root starts it."""
BUILD = Path(__file__).parents[2] / ".build" / "pgbouncer"

_CONFIG = """\
[databases]
* = host={host} port={port} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 100
"""


class PgBouncer:
    """PgBouncer between servers and a PostgreSQL.

    Args:
        folder: The folder for its configuration.
        socket_path: PostgreSQL's socket.
        pool_size: The number of connections to PostgreSQL. With fewer than the clients have, clients share them.
    """

    def __init__(self, folder: Path, socket_path: str, *, pool_size: int = 3) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]
        host, _, port = socket_path.rpartition("/.s.PGSQL.")
        self._config = folder / "pgbouncer.ini"
        self._config.write_text(_CONFIG.format(host=host, port=port, listen_port=self.port, pool_size=pool_size))
        self._log = folder / "pgbouncer.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()

    @property
    def dsn(self) -> str:
        """The URL of the database through PgBouncer."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Starts it, and waits until it listens."""
        program, libraries = find()
        # It refuses to run as root, and only PostgreSQL's user may use PostgreSQL's socket.
        user = [f"--user={USER}"] if os.geteuid() == 0 else []
        env = {**os.environ, "LD_LIBRARY_PATH": libraries}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([program, *user, self._config], stdout=log, stderr=log, env=env)
        until(self._refuses, lambda log: log is None)

    def _refuses(self) -> str | None:
        """Returns its log if it doesn't accept connections yet."""
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return None
        return self._log.read_text()

    def kill(self) -> None:
        """Kills it."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()


def find() -> tuple[str, str]:
    """Returns the program, and the folder of libraries that the system lacks. Fetches both if necessary."""
    installed = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if installed is not None:
        return installed, ""
    program = BUILD / "usr" / "sbin" / "pgbouncer"
    if not program.exists():
        _fetch()
    libraries = {str(path.parent) for path in (BUILD / "usr" / "lib").rglob("lib*.so*")}
    return str(program), ":".join(sorted(libraries))


def _fetch() -> None:
    """Fetches Debian's package and the libraries that it depends on, with a separate apt state, and unpacks them."""
    # Not skipped: we promise that transaction pooling works, and only these tests show it.
    assert shutil.which("apt-get"), "pgbouncer is needed for its tests: install it (brew install pgbouncer, ...)"
    partial = BUILD.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    state = partial / "apt"
    for folder in ("lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True)
    # With its own folders, apt needs no privileges.
    options = ["-q", "-o", f"Dir::State::Lists={state}/lists", "-o", f"Dir::Cache={state}/cache"]
    if os.geteuid() == 0:
        options += ["-o", "APT::Sandbox::User=root"]
    _run(["apt-get", *options, "update"], partial)
    depends = _run(["apt-cache", *options, "depends", "pgbouncer"], partial).splitlines()
    wanted = [line.split()[-1] for line in depends if line.strip().startswith("Depends: lib")]
    # The system's own C library must be used.
    libraries = [name for name in wanted if name not in ("libc6", "libpam0g", "libsystemd0")]
    _run(["apt-get", *options, "download", "pgbouncer", *libraries], partial)
    for package in partial.glob("*.deb"):
        _run(["dpkg", "-x", str(package), "."], partial)
    shutil.rmtree(BUILD, ignore_errors=True)
    partial.rename(BUILD)


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"pgbouncer is needed for its tests and can't be fetched: install it\n{done.stdout}"
    return done.stdout
