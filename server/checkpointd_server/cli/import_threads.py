"""`checkpointd import`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from checkpointd_server.cli.destruction import confirm, destructive
from checkpointd_server.cli.export_threads import tell
from checkpointd_server.cli.option_types import json_option, setting
from checkpointd_server.cli.progress import counting
from checkpointd_server.cli.remote import Remote, remote_options
from checkpointd_server.cli.rendering.json import print_json

if TYPE_CHECKING:
    from checkpointd_server.moving.transfer import Report, Threads

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command("import")
@click.argument("file", required=False)
@setting(
    "--from-postgres",
    help="Read the tables of LangGraph's PostgresSaver in this database, instead of a file. Better given in the "
    "environment.",
)
@click.option("--from-sqlite", type=_FILE, help="Read the file of LangGraph's SqliteSaver.")
@click.option("--thread", "threads", multiple=True, help="Only this thread; may be given several times.")
@click.option("--replace", is_flag=True, help="Delete threads that are there already with other contents, first.")
@click.option("--allow-redacted", is_flag=True, help="Import a file without values all the same, to look into it.")
@click.option(
    "--progress-file",
    type=click.Path(path_type=Path),
    help="Where to note how far it came; removed in the end.  [default: FILE.progress, or checkpointd-import.progress]",
)
@destructive
@json_option
@remote_options()
def import_threads(
    remote: Remote,
    file: str | None,
    from_postgres: str | None,
    from_sqlite: Path | None,
    threads: tuple[str, ...],
    replace: bool,
    allow_redacted: bool,
    progress_file: Path | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Write threads of FILE (- for standard input), or of a stock saver's tables, into a server, and check each.

    Everything comes along: every checkpoint, value, task write and their order. Each thread is read back and compared.
    A thread that is there already with the same contents is passed over, one with others is left alone. An import that
    was interrupted goes on where it was when it is given again. A source is only read.

    \b
    Examples:
        checkpointd import agents.export
        CHECKPOINTD_FROM_POSTGRES=postgresql://... checkpointd import
        checkpointd import --from-sqlite checkpoints.sqlite --thread 42
    """
    if sum(one is not None for one in (file, from_postgres, from_sqlite)) != 1:
        raise click.UsageError("name a FILE, or give --from-postgres or --from-sqlite: one of them")
    if replace and not dry_run:
        confirm(f"Delete threads of {remote.where} that have other contents?", yes=yes)
    if progress_file is None:
        stem = from_sqlite or (Path(file) if file not in (None, "-") else None)
        progress_file = Path("checkpointd-import.progress") if stem is None else Path(f"{stem}.progress")

    with _source(file, from_postgres, from_sqlite, threads, allow_redacted=allow_redacted) as found:
        if dry_run:
            _tell_what_there_is(found, as_json=as_json)
            return

        def run(channel: Any) -> Report:
            from checkpointd_server.moving.remote_writes import RemoteTarget
            from checkpointd_server.moving.transfer import Journal, import_threads

            target = RemoteTarget(channel, timeout=remote.timeout)
            with Journal(progress_file) as journal, counting("Importing checkpoints") as bar:
                return import_threads(found, target, journal, replace=replace, progress=bar.update)

        tell(remote.ask(run), "imported", as_json=as_json)


@contextmanager
def _source(
    file: str | None,
    from_postgres: str | None,
    from_sqlite: Path | None,
    threads: tuple[str, ...],
    *,
    allow_redacted: bool,
) -> Iterator[Threads]:
    """Opens where threads come from."""
    from checkpointd_server.moving.content import MoveError
    from checkpointd_server.moving.export_file import ExportReader, check_file
    from checkpointd_server.moving.stock_postgres import PostgresThreads
    from checkpointd_server.moving.stock_sqlite import SqliteThreads
    from checkpointd_server.moving.transfer import threads_of, threads_of_file

    if from_postgres is not None:
        with PostgresThreads(from_postgres) as postgres:
            yield threads_of(postgres, threads)
    elif from_sqlite is not None:
        with SqliteThreads(from_sqlite) as sqlite:
            yield threads_of(sqlite, threads)
    else:
        assert file is not None
        # All of a file is checked before anything is written. What comes over a pipe can be read but once.
        digests = {} if file == "-" else check_file(Path(file))
        with sys.stdin.buffer if file == "-" else Path(file).open("rb") as opened:
            reader = ExportReader(opened)
            if reader.header.redacted and not allow_redacted:
                raise MoveError(
                    "the file has no values: it was exported with --redact. Agents can't go on with it; "
                    "--allow-redacted imports it to look into it"
                )
            yield threads_of_file(reader, threads, digests)


def _tell_what_there_is(threads: Threads, *, as_json: bool) -> None:
    """Prints each thread that would be imported, and how much it has."""
    from checkpointd_server.moving.content import MoveError
    from checkpointd_server.moving.transfer import digest_of

    found = []
    for thread in threads:
        try:
            digest = digest_of(thread.read())
            found.append({"thread_id": thread.thread_id, "checkpoints": digest.checkpoints, "writes": digest.writes})
        except MoveError as error:
            found.append({"thread_id": thread.thread_id, "problem": str(error)})
    if as_json:
        print_json({"threads": found})
        return
    for one in found:
        what = one.get("problem") or f"{one['checkpoints']} checkpoints, {one['writes']} task writes"
        click.echo(f"{one['thread_id']!r}: {what}")
    click.echo(f"{len(found)} threads would be imported")
