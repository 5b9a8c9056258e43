"""The embedded PostgreSQL: its folder, its lock, and what a crash leaves behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import psutil
import pytest

from checkpointd_server.domain.errors import SetupError
from checkpointd_server.embedded_postgres.server import EmbeddedPostgres
from tests.support.server_process import UNPRIVILEGED
from tests.support.until import auntil

HOLDER = """
import asyncio, sys
from pathlib import Path
import asyncpg
from checkpointd_server.embedded_postgres.server import EmbeddedPostgres
from checkpointd_server.process.logging import configure_logs

async def main():
    async with EmbeddedPostgres(Path(sys.argv[1])) as postgres:
        connection = await asyncpg.connect(postgres.dsn)
        await connection.execute("CREATE TABLE kept (number int); INSERT INTO kept VALUES (42)")
        print("written", flush=True)
        await asyncio.Event().wait()

configure_logs()
asyncio.run(main())
"""


async def execute(dsn: str, sql: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


async def fetch(dsn: str, sql: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


def postmaster(data_dir: Path) -> int:
    return int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])


def runs(pid: int) -> bool:
    """Returns whether a process runs. A zombie doesn't count: without an init process nothing reaps orphans."""
    found = subprocess.run(["ps", "-p", str(pid), "-o", "stat="], capture_output=True, text=True, check=False)
    return bool(found.stdout.strip()) and not found.stdout.startswith("Z")


@pytest.fixture
def new_dir(tmp_path: Path) -> Path:
    """A data folder that doesn't exist yet."""
    return tmp_path / "new"


async def test_data_survives_a_restart(new_dir: Path) -> None:
    async with EmbeddedPostgres(new_dir) as postgres:
        await execute(postgres.dsn, "CREATE TABLE kept (number int); INSERT INTO kept VALUES (42)")
    async with EmbeddedPostgres(new_dir) as postgres:
        assert await fetch(postgres.dsn, "SELECT number FROM kept") == 42


async def test_keys_sort_bytewise_and_writes_are_durable(new_dir: Path) -> None:
    async with EmbeddedPostgres(new_dir) as postgres:
        assert await fetch(postgres.dsn, "SELECT 'Z' < 'a' AND 'z' < 'ä'") is True
        assert await fetch(postgres.dsn, "SHOW server_encoding") == "UTF8"
        assert await fetch(postgres.dsn, "SHOW fsync") == "on"
        assert await fetch(postgres.dsn, "SHOW synchronous_commit") == "on"


async def test_nobody_else_can_connect(new_dir: Path) -> None:
    async with EmbeddedPostgres(new_dir) as postgres:
        assert await fetch(postgres.dsn, "SHOW listen_addresses") == ""
        socket_dir = await fetch(postgres.dsn, "SHOW unix_socket_directories")
        assert Path(str(socket_dir).strip('"')).stat().st_mode & 0o777 == 0o700


async def test_a_second_server_on_the_folder_is_refused_and_the_first_unharmed(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as postgres:
        with pytest.raises(SetupError) as refusal:
            await EmbeddedPostgres(data_dir).__aenter__()
        assert str(data_dir) in str(refusal.value)
        assert f"pid {os.getpid()}" in str(refusal.value)
        assert await fetch(postgres.dsn, "SELECT 1") == 1


async def test_what_a_killed_process_left_running_is_taken_over(data_dir: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(data_dir)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"written\n"
        holder.kill()
    orphan = postmaster(data_dir)
    assert runs(orphan)
    async with EmbeddedPostgres(data_dir) as postgres:
        assert not runs(orphan)
        assert await fetch(postgres.dsn, "SELECT number FROM kept") == 42


async def test_recovers_after_a_crash_of_postgres(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as postgres:
        await execute(postgres.dsn, "CREATE TABLE kept (number int); INSERT INTO kept VALUES (42)")
        os.kill(postmaster(data_dir), signal.SIGKILL)
        await postgres.wait_stopped()
    async with EmbeddedPostgres(data_dir) as postgres:
        assert await fetch(postgres.dsn, "SELECT number FROM kept") == 42
    assert "automatic recovery in progress" in (data_dir / "postgres.log").read_text()


def title(process: psutil.Process) -> str:
    """Returns the title of a PostgreSQL process, or nothing for one of the short-lived ones that has ended."""
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


async def test_waits_for_what_a_killed_postgres_has_left_running(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as postgres:
        await execute(postgres.dsn, "CREATE TABLE kept (number int); INSERT INTO kept VALUES (42)")
        main = psutil.Process(postmaster(data_dir))
        (child,) = [child for child in main.children() if "checkpointer" in title(child)]
        child.suspend()
        main.kill()
        await postgres.wait_stopped()
    asyncio.get_running_loop().call_later(1, child.resume)
    try:
        async with EmbeddedPostgres(data_dir) as postgres:
            assert await fetch(postgres.dsn, "SELECT number FROM kept") == 42
    finally:
        with suppress(psutil.NoSuchProcess):  # if the start failed, the process still exists
            child.resume()
    assert "pre-existing shared memory" in (data_dir / "postgres.log").read_text()


async def test_a_stale_lock_with_a_living_process_s_number_does_not_stop_it(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir):
        lock = (data_dir / "postgres" / "postmaster.pid").read_text().splitlines()
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (data_dir / "postgres" / "postmaster.pid").write_text("\n".join([str(stranger.pid), *lock[1:], ""]))
        async with EmbeddedPostgres(data_dir) as postgres:
            assert await fetch(postgres.dsn, "SELECT 1") == 1
        assert stranger.poll() is None
        stranger.kill()


@pytest.fixture
async def listener(data_dir: Path) -> AsyncIterator[socket.socket]:
    """The socket of a PostgreSQL that was killed, which another process still has open."""
    async with EmbeddedPostgres(data_dir):
        lock = (data_dir / "postgres" / "postmaster.pid").read_text().splitlines()
    with subprocess.Popen(["true"]) as gone:
        lock[0] = str(gone.pid)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, socket.socket(socket.AF_UNIX) as listener:
        lock[4] = folder
        (data_dir / "postgres" / "postmaster.pid").write_text("\n".join([*lock, ""]))
        listener.bind(f"{folder}/.s.PGSQL.5432")
        listener.listen()
        yield listener


async def test_waits_for_a_process_that_a_killed_postgres_had_just_forked(
    data_dir: Path, listener: socket.socket
) -> None:
    asyncio.get_running_loop().call_later(0.5, listener.close)
    async with EmbeddedPostgres(data_dir) as postgres:
        assert await fetch(postgres.dsn, "SELECT 1") == 1


async def test_a_folder_on_which_postgres_runs_elsewhere_is_refused(data_dir: Path, listener: socket.socket) -> None:
    with pytest.raises(SetupError, match="another host or container runs PostgreSQL on it"):
        await EmbeddedPostgres(data_dir).__aenter__()
    assert listener.fileno() >= 0


async def test_an_unfinished_cluster_is_made_anew(new_dir: Path) -> None:
    partial = new_dir / "postgres.partial"
    partial.mkdir(parents=True)
    (partial / "PG_VERSION").write_text("18\n")
    async with EmbeddedPostgres(new_dir) as postgres:
        assert await fetch(postgres.dsn, "SELECT 1") == 1
    assert not partial.exists()


async def test_cancelled_at_the_start_it_leaves_no_process_behind(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir):
        pass

    async def enter() -> None:
        async with EmbeddedPostgres(data_dir):
            await asyncio.Event().wait()

    task = asyncio.create_task(enter())
    pid_file = data_dir / "postgres" / "postmaster.pid"
    await auntil(lambda: pid_file.exists() and pid_file.read_text(), pause=0)
    pid = postmaster(data_dir)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not runs(pid)
    async with EmbeddedPostgres(data_dir) as postgres:
        assert await fetch(postgres.dsn, "SELECT 1") == 1


async def test_another_major_version_is_refused(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir):
        pass
    (data_dir / "postgres" / "PG_VERSION").write_text("17\n")
    with pytest.raises(SetupError, match=r"made by PostgreSQL 17, the embedded one is 18"):
        await EmbeddedPostgres(data_dir).__aenter__()


async def test_a_cluster_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "PG_VERSION").write_text("18\n")
    with pytest.raises(SetupError, match="is a PostgreSQL cluster itself"):
        await EmbeddedPostgres(tmp_path).__aenter__()


@pytest.mark.parametrize("name", ["README.md", ".bashrc", "postgres/notes.sql", "src/"])
async def test_a_folder_of_other_things_is_refused_and_left_as_it_was(name: str, new_dir: Path) -> None:
    stranger = new_dir / name
    stranger.parent.mkdir(parents=True)
    stranger.mkdir() if name.endswith("/") else stranger.write_text("x")
    new_dir.chmod(0o755)
    before = sorted(new_dir.rglob("*"))
    with pytest.raises(SetupError, match=r"isn't empty and holds no data of checkpointd .*--data-dir") as refusal:
        await EmbeddedPostgres(new_dir).__aenter__()
    assert f"there is '{name.partition('/')[0]}'" in str(refusal.value)
    assert sorted(new_dir.rglob("*")) == before
    assert new_dir.stat().st_mode & 0o777 == 0o755


async def test_what_file_systems_and_starts_that_were_cut_off_leave_does_not_matter(new_dir: Path) -> None:
    for folder in ("lost+found", "socket", "postgres.partial"):
        (new_dir / folder).mkdir(parents=True)
    for file in ("checkpointd.lock", "postgres.log", "postgres.log.old"):
        (new_dir / file).write_text("")
    async with EmbeddedPostgres(new_dir) as postgres:
        assert await fetch(postgres.dsn, "SELECT 1") == 1
    (new_dir / "notes.txt").write_text("put beside our own data")
    async with EmbeddedPostgres(new_dir) as postgres:
        assert await fetch(postgres.dsn, "SELECT 1") == 1


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    data_dir = tmp_path / "file" / "data"
    with pytest.raises(SetupError) as refusal:
        await EmbeddedPostgres(data_dir).__aenter__()
    assert f"data folder {data_dir}: there is a file in its place" in str(refusal.value)


async def test_it_says_why_postgres_does_not_start(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir):
        pass
    with (data_dir / "postgres" / "postgresql.conf").open("a") as configuration:
        configuration.write("no_such_setting = 1\n")
    with pytest.raises(SetupError, match=r"does not start: .*no_such_setting"):
        await EmbeddedPostgres(data_dir).__aenter__()


async def test_a_long_path_works_and_leaves_nothing_elsewhere(tmp_path: Path) -> None:
    data_dir = tmp_path / ("long" * 30)
    async with EmbeddedPostgres(data_dir) as postgres:
        assert await fetch(postgres.dsn, "SELECT 1") == 1
        socket_dir = Path(str(await fetch(postgres.dsn, "SHOW unix_socket_directories")).strip('"'))
        assert socket_dir.is_relative_to(tempfile.gettempdir())
        assert socket_dir.stat().st_mode & 0o777 == 0o700
    assert not socket_dir.exists()


async def test_an_odd_path_works(tmp_path: Path) -> None:
    async with EmbeddedPostgres(tmp_path / "a b'c,d%20&é") as postgres:
        assert await fetch(postgres.dsn, "SELECT 1") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has PostgreSQL run as somebody else")
async def test_private_folders_on_the_way_are_opened_to_postgresqls_user_alone(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    async with EmbeddedPostgres(private / "data"):
        pass
    assert stat.S_IMODE(private.stat().st_mode) & 0o007 == 0
    owner = (private / "data" / "postgres").stat().st_uid
    for user, passes in ((owner, True), (owner - 1, False)):
        look = (
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import os; os.setgroups([]); os.setgid({user}); os.setuid({user}); os.chdir({str(private)!r})",
        )
        assert (subprocess.run(look, cwd="/", capture_output=True).returncode == 0) is passes
    async with EmbeddedPostgres(private / "data"):  # again, with the existing access list
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
async def test_other_processes_of_the_user_that_it_runs_as_are_not_let_in(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as postgres:
        owner = (data_dir / "postgres").stat().st_uid
        assert owner != os.geteuid()
        program = f"import asyncio, asyncpg; asyncio.run(asyncpg.connect({postgres.dsn!r}))"
        somebody = [f"--reuid={owner}" if part.startswith("--reuid") else part for part in UNPRIVILEGED]
        result = subprocess.run(
            [*somebody, sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd="/"
        )
        assert result.returncode == 1
        assert "Peer authentication failed" in result.stderr
        assert await fetch(postgres.dsn, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user")


async def test_a_folder_that_let_everybody_in_does_so_no_more(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir):
        pass
    access = data_dir / "postgres" / "pg_hba.conf"
    assert "trust" not in access.read_text()
    access.write_text("local all all trust\n")
    async with EmbeddedPostgres(data_dir) as postgres:
        assert await fetch(postgres.dsn, "SELECT string_agg(auth_method, ' ') FROM pg_hba_file_rules") == "peer peer"
