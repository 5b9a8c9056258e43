"""The data folder of an embedded PostgreSQL: its lock, its owner, and leftovers of earlier runs."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import structlog

from checkpointd_server.domain.errors import SetupError
from checkpointd_server.embedded_postgres.access_lists import grant_traversal, has_traversal

_UNPRIVILEGED_USERS = ("checkpointd", "nobody")
"""The user that runs PostgreSQL if root starts it, if that user exists. `nobody` may be shared with others."""
_RUN_AS = """\
import os, sys
uid, gid, program = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
os.setgroups([])
os.setgid(gid)
os.setuid(uid)
os.execv(program, sys.argv[3:])
"""
_OLD_LOG = "postgres.log.old"
_OF_FILE_SYSTEMS = {"lost+found", ".snapshot", ".zfs", ".DS_Store"}
"""Files that may be in an otherwise empty folder."""
_LOG_BYTES = 4 * 1024 * 1024  # a larger log is rotated at the next start
_ORPHAN_SECONDS = 5.0
"""How long a process that a killed PostgreSQL had just forked may keep its socket, in seconds."""
_POLL_SECONDS = 0.05

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StalePostmaster:
    """A PostgreSQL that still uses the folder although nobody has locked it."""

    pid: int
    socket_dir: Path | None
    cluster: Path

    def runs(self) -> bool:
        """Returns whether it runs still."""
        return _is_postmaster(self.pid, self.cluster)

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal, if it runs still."""
        if self.runs():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


_ACCESS = """\
# Made by checkpointd at each start.
local all all peer map=checkpointd
local replication all peer map=checkpointd
"""
"""The callers that may connect, as the system names them."""


def _users(uid: int) -> str:
    """Returns the user map that `_ACCESS` names: the system users that may connect."""
    # PostgreSQL needs names. A user without one, as in some containers, can't be identified: only root may connect.
    names = {pwd.getpwuid(0).pw_name}
    with contextlib.suppress(KeyError):
        names.add(pwd.getpwuid(uid).pw_name)
    return "# Made by checkpointd at each start.\n" + "".join(f'checkpointd "{name}" all\n' for name in sorted(names))


class DataDirectory:
    """A data folder and the files in it.

    PostgreSQL refuses to run as root, so root runs it as another user: the owner of the cluster or the folder, or if
    that is root, `checkpointd`, or `nobody` if there is no such user.

    Args:
        path: The folder. It need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.realpath(path.expanduser()))
        self.cluster = self.path / "postgres"
        self.log = self.path / "postgres.log"
        self._lock = self.path / "checkpointd.lock"
        self._partial = self.path / "postgres.partial"
        self._user: pwd.struct_passwd | None = None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Creates the folder if needed, and locks it during the block. Raises SetupError if it is locked."""
        with _naming(self.path):
            if next((one for one in (self.path, *self.path.parents) if one.exists()), self.path).is_file():
                raise SetupError(
                    f"data folder {self.path}: there is a file in its place; name a folder with --data-dir"
                )
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_ours()
            # The descriptor isn't inherited, so the lock ends with this process in any case.
            handle = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise SetupError(f"data folder {self.path}: can't be locked: {error.strerror}") from error
                holder = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
                raise SetupError(
                    f"data folder {self.path}: in use by another checkpointd (pid {holder}); "
                    "stop that one, or name another folder with --data-dir"
                ) from error
            os.ftruncate(handle, 0)
            os.pwrite(handle, b"%d\n" % os.getpid(), 0)
            yield
        finally:
            os.close(handle)

    def _check_ours(self) -> None:
        """Raises SetupError if the folder has other contents: our files would mix with them, and rights change."""
        if (self.cluster / "PG_VERSION").exists():
            return  # created by us; later additions don't matter
        if (self.path / "PG_VERSION").exists():
            raise SetupError(
                f"data folder {self.path}: it is a PostgreSQL cluster itself; name an empty folder, "
                "or run that cluster and give --database-url"
            )
        # Including those of an aborted start.
        ours = {path.name for path in (self.cluster, self._partial, self.log, self._lock)} | {"socket", _OLD_LOG}
        others = sorted({path.name for path in self.path.iterdir()} - ours - _OF_FILE_SYSTEMS)
        if self.cluster.exists() and (not self.cluster.is_dir() or any(self.cluster.iterdir())):
            others.append(self.cluster.name)
        if others:
            raise SetupError(
                f"data folder {self.path}: it isn't empty and holds no data of checkpointd (there is {others[0]!r}); "
                "name a folder of its own with --data-dir"
            )

    def prepare(self, binaries: Path) -> None:
        """Lets PostgreSQL's user reach the folder and the programs. The folder must be locked.

        Raises:
            SetupError: It can't reach them.
        """
        if os.geteuid() != 0:
            return
        with _naming(self.path):
            self._user = self._choose_user()
            self._own(self._lock, 0o600)
            for folder in (self.path, binaries):
                _open_way(folder, self._user)

    def check_version(self, major_version: int) -> None:
        """Raises SetupError if the cluster was made by another major version of PostgreSQL."""
        with _naming(self.path):
            found = (self.cluster / "PG_VERSION").read_text().strip()
        if found != str(major_version):
            raise SetupError(
                f"data folder {self.path}: made by PostgreSQL {found}, the embedded one is {major_version}: "
                "dump it with the old one's pg_dump and load it into a new folder"
            )

    def let_in(self, uid: int) -> None:
        """Configures PostgreSQL to accept one system user, and root, as any role without a password."""
        with _naming(self.path):
            for name, content in (("pg_hba.conf", _ACCESS), ("pg_ident.conf", _users(uid))):
                path = self.cluster / name
                if path.exists() and path.read_text() == content:
                    continue
                partial = path.with_name(f"{name}.partial")
                partial.unlink(missing_ok=True)
                with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as file:
                    file.write(content)
                self._own(partial, 0o600)
                partial.replace(path)

    async def leftover(self) -> StalePostmaster | None:
        """Looks for a PostgreSQL of an earlier run. Raises SetupError if one runs where we can't see it."""
        lock = self._read_postmaster_file()
        if lock is None:
            return None
        pid, socket_dir, _ = lock
        leftover = StalePostmaster(pid=pid, socket_dir=socket_dir, cluster=self.cluster)
        if leftover.runs():
            return leftover
        if socket_dir is not None and not await _falls_silent(socket_dir):
            raise SetupError(f"data folder {self.path}: another host or container runs PostgreSQL on it")
        if _exists(pid):
            # Another process has the dead one's pid, as happens in containers; PostgreSQL would refuse to start.
            _log.warning("removing a stale lock of PostgreSQL", data_dir=str(self.path), pid=pid)
            (self.cluster / "postmaster.pid").unlink(missing_ok=True)
        self.remove_stale_socket_dir(socket_dir)
        return None

    def remove_stale_socket_dir(self, socket_dir: Path | None) -> None:
        """Removes the socket folder of a dead PostgreSQL, if it was outside the data folder."""
        if socket_dir is not None and socket_dir.name.startswith("checkpointd-") and not _answers(socket_dir):
            shutil.rmtree(socket_dir, ignore_errors=True)

    def is_ready(self, pid: int) -> bool:
        """Returns whether the PostgreSQL with this pid accepts connections."""
        return (lock := self._read_postmaster_file()) is not None and lock[0] == pid and lock[2] == "ready"

    def make_partial(self) -> Path:
        """Creates an empty folder for a new cluster, removing an unfinished one."""
        with _naming(self.path):
            shutil.rmtree(self._partial, ignore_errors=True)
            self.make_private(self._partial)
        return self._partial

    def adopt_partial(self) -> None:
        """Moves the finished cluster to its place, durably."""
        with _naming(self.path):
            self._partial.rename(self.cluster)
            handle = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def make_private(self, path: Path) -> None:
        """Creates a folder that only PostgreSQL's user may enter."""
        with _naming(self.path):
            path.mkdir(mode=0o700, exist_ok=True)
            self._own(path, 0o700)

    def open_log(self) -> IO[bytes]:
        """Opens PostgreSQL's log for appending."""
        with _naming(self.path):
            if self.log.exists() and self.log.stat().st_size > _LOG_BYTES:
                self.log.replace(self.log.with_name(_OLD_LOG))
            self.log.touch(mode=0o600)
            self._own(self.log, 0o600)
            return self.log.open("ab")

    def log_end(self) -> str:
        """The last lines of PostgreSQL's log, as one."""
        with _naming(self.path):
            return last_lines(self.log.read_text(errors="replace"))

    def command(self, program: Path, *arguments: str | Path) -> tuple[str | Path, ...]:
        """Returns the command line of one of PostgreSQL's programs, run as its user.

        Not by subprocess's `user`, which forks: that isn't safe with gRPC's threads.
        """
        if self._user is None:
            return (program, *arguments)
        ids = (str(self._user.pw_uid), str(self._user.pw_gid))
        return (sys.executable, "-I", "-S", "-c", _RUN_AS, *ids, program, *arguments)

    def process_options(self) -> dict[str, Any]:
        """Returns how such a command is started.

        In its own session (a terminal's Ctrl-C is only for checkpointd), and without our environment, which may contain
        secrets and PG* variables.
        """
        return {
            "cwd": self.path,
            "env": {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
            "start_new_session": True,
        }

    def _own(self, path: Path, mode: int) -> None:
        """Gives a file to PostgreSQL's user. It doesn't follow links, which could lead root out of the folder."""
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            if self._user is not None:
                os.fchown(handle, self._user.pw_uid, self._user.pw_gid)
            os.fchmod(handle, mode)
        finally:
            os.close(handle)

    def _choose_user(self) -> pwd.struct_passwd:
        for path in (self.cluster, self.path):
            if path.exists() and (owner := path.stat().st_uid) != 0:
                with contextlib.suppress(KeyError):
                    return pwd.getpwuid(owner)
                raise SetupError(f"data folder {self.path}: {path} belongs to user id {owner}, who doesn't exist")
        for name in _UNPRIVILEGED_USERS:
            with contextlib.suppress(KeyError):
                return pwd.getpwnam(name)
        raise SetupError(
            "PostgreSQL refuses to run as root, and there is no user 'checkpointd' or 'nobody' to run it as: "
            f"give the data folder {self.path} to an ordinary user, or start checkpointd as one"
        )

    def _read_postmaster_file(self) -> tuple[int, Path | None, str] | None:
        """Reads the pid, the socket's folder and the status from PostgreSQL's own lock file."""
        try:
            lines = (self.cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return None
        if not lines or not lines[0].strip().isdigit():
            return None
        socket_dir = Path(lines[4]) if len(lines) > 4 and lines[4] else None
        return int(lines[0]), socket_dir, lines[7].strip() if len(lines) > 7 else ""


def last_lines(text: str, count: int = 5) -> str:
    """The end of a program's output, on one line."""
    return " | ".join(line.strip() for line in text.splitlines()[-count:] if line.strip()) or "it says nothing"


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turns errors of the file system into one that names the folder."""
    try:
        yield
    except OSError as error:
        at = f" ({error.filename})" if error.filename and os.fspath(error.filename) != os.fspath(path) else ""
        raise SetupError(f"data folder {path}: {error.strerror or error}{at}") from error


def _open_way(target: Path, user: pwd.struct_passwd) -> None:
    """Lets a user reach a folder: root's folders above it are opened for traversal to that user only."""
    for folder in reversed((target, *target.parents)):
        status = folder.stat()
        if status.st_uid == user.pw_uid:
            walkable = status.st_mode & stat.S_IXUSR
        elif status.st_gid == user.pw_gid:
            walkable = status.st_mode & stat.S_IXGRP
        else:
            walkable = status.st_mode & stat.S_IXOTH
        if walkable or has_traversal(folder, user.pw_uid):
            continue
        if status.st_uid != 0:
            raise SetupError(f"{folder}: user {user.pw_name!r}, whom PostgreSQL runs as, can't pass; it needs {target}")
        # As root PostgreSQL runs as another user, who must be able to reach the data.
        _log.info(
            "letting PostgreSQL's user enter a folder on the way to the data", folder=str(folder), user=user.pw_name
        )
        try:
            grant_traversal(folder, user.pw_uid)
        except OSError:
            # Not for everybody: private folders may be so for good reason.
            raise SetupError(
                f"{folder}: user {user.pw_name!r}, whom PostgreSQL runs as, can't pass, and the file system has no "
                f"access lists to let that user alone; it needs {target}: name a folder elsewhere, or start as an "
                "ordinary user"
            ) from None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_postmaster(pid: int, cluster: Path) -> bool:
    """Returns whether a process is this cluster's PostgreSQL, and not another one with the same pid."""
    if not _exists(pid):
        return False
    if Path("/proc/self/cwd").exists():
        try:
            # A postmaster's working folder is its cluster. A zombie process has none.
            return os.path.realpath(f"/proc/{pid}/cwd") == str(cluster)
        except OSError:
            return False
    found = subprocess.run(["ps", "-p", str(pid), "-o", "command="], capture_output=True, text=True, check=False)  # noqa: S603, S607
    return str(cluster) in found.stdout


async def _falls_silent(socket_dir: Path) -> bool:
    """Returns whether no process listens on a socket in the folder, at least after a while."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _ORPHAN_SECONDS
    while _answers(socket_dir):
        if loop.time() > deadline:
            return False
        await asyncio.sleep(_POLL_SECONDS)
    return True


def _answers(socket_dir: Path) -> bool:
    """Returns whether a process listens on a socket in the folder."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(next(socket_dir.glob(".s.PGSQL.*[0-9]"))))
        except (OSError, StopIteration):
            return False
    return True
