"""`checkpointd import`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from checkpointd_server.cli.destruction import confirm, destructive
from checkpointd_server.cli.moving_options import Selection, selecting
from checkpointd_server.cli.moving_report import interruptible, once, printable, tell
from checkpointd_server.cli.option_types import json_option, setting
from checkpointd_server.cli.progress import counting
from checkpointd_server.cli.remote import Remote, remote_options
from checkpointd_server.cli.rendering.json import print_json

if TYPE_CHECKING:
    from checkpointd_server.moving.file_source import FileEntry
    from checkpointd_server.moving.transfer import Report

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_GO_ON = "run the same command again to continue"


@click.command("import")
@click.argument("file", required=False)
@setting(
    "--from-postgres",
    help="Read the tables of LangGraph's PostgresSaver in this database, instead of a file. Prefer the environment "
    "variable.",
)
@click.option("--from-sqlite", type=_FILE, help="Read the file of LangGraph's SqliteSaver.")
@selecting
@click.option("--replace", is_flag=True, help="Replace existing threads and items that differ.")
@click.option("--allow-redacted", is_flag=True, help="Import a file that was exported with --redact, to inspect it.")
@click.option(
    "--progress-file",
    type=click.Path(path_type=Path),
    help="File that records progress, removed at the end.  [default: FILE.progress, or checkpointd-import-...progress "
    "with a name made from source and server]",
)
@destructive
@json_option
@remote_options()
def import_threads(
    remote: Remote,
    file: str | None,
    from_postgres: str | None,
    from_sqlite: Path | None,
    selection: Selection,
    replace: bool,
    allow_redacted: bool,
    progress_file: Path | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Import threads and items from FILE (- for standard input), or threads from a stock saver's tables.

    Everything is imported: checkpoints, values and task writes in their order, and the items of long-term memory; and
    everything is read back and compared. Existing threads and items are skipped if they are the same, and reported but
    left unchanged if they differ. After an interruption, run the same command again to continue. The source is only
    read.

    \b
    Examples:
        checkpointd import agents.export
        CHECKPOINTD_FROM_POSTGRES=postgresql://... checkpointd import
        checkpointd import --from-sqlite checkpoints.sqlite --thread 42
    """
    if sum(one is not None for one in (file, from_postgres, from_sqlite)) != 1:
        raise click.UsageError("give exactly one of FILE, --from-postgres and --from-sqlite")
    if replace and not dry_run:
        confirm(f"Replace threads and items at {remote.where} that differ?", yes=yes)
    if file is None and (selection.asks_for_items or not selection.with_threads):
        raise click.UsageError("a stock saver's tables have no items, only threads")

    with interruptible(_GO_ON), _source(file, from_postgres, from_sqlite, selection, allow_redacted) as found:
        if dry_run:
            _tell_what_there_is(found, as_json=as_json)
            return
        running = _Import(remote, found, selection, replace, progress_file)
        report = remote.ask(once(running.run, remote.timeout) if file == "-" else running.run, is_long=True)
        tell(report, "imported", "run the same command again to retry", as_json=as_json)


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A source of threads and items."""

    name: str
    """The file or database."""
    entries: Callable[[], Iterator[FileEntry]]
    """Yields the selected threads and items."""
    progress_file: Path | None = None
    """The default file of progress. None: named after source and server."""


class _Import:
    """An import."""

    def __init__(
        self, remote: Remote, found: _Found, selection: Selection, replace: bool, progress_file: Path | None
    ) -> None:
        self._remote = remote
        self._found = found
        self._selection = selection
        self._replace = replace
        self._progress_file = progress_file

    def run(self, channel: Any) -> Report:
        """Writes the source's threads and items to a server."""
        from checkpointd_server.moving.content import MovableThread
        from checkpointd_server.moving.export_file import ExportFileError
        from checkpointd_server.moving.item_transfer import ItemImport
        from checkpointd_server.moving.journal import Journal, JournalLost, Subject
        from checkpointd_server.moving.quotas import QuotaUsedUp
        from checkpointd_server.moving.remote_items import RemoteItems
        from checkpointd_server.moving.remote_writes import RemoteTarget
        from checkpointd_server.moving.server_identity import ServerIdentity
        from checkpointd_server.moving.transfer import Report, ThreadImport

        identity = ServerIdentity.ask(channel, self._remote.timeout)
        subject = Subject(self._found.name, str(identity))
        path = self._progress_file or self._found.progress_file or subject.default_path("import")
        target, report = RemoteTarget(channel, timeout=self._remote.timeout), Report()
        memory = RemoteItems(channel, timeout=self._remote.timeout)
        with Journal(path, subject) as journal, counting("Importing checkpoints and items") as bar:
            threads = ThreadImport(target, journal, report, replace=self._replace, progress=bar.update)
            items = ItemImport(
                memory, report, replace=self._replace, vectors=self._selection.with_vectors, progress=bar.update
            )
            try:
                for entry in self._found.entries():
                    if isinstance(entry, MovableThread):
                        threads.take(entry)
                    else:
                        items.take(entry)
                items.flush()
            except (ExportFileError, JournalLost, QuotaUsedUp) as error:
                report.stopped = str(error)
                journal.is_interrupted = True
        return report


@contextmanager
def _source(
    file: str | None,
    from_postgres: str | None,
    from_sqlite: Path | None,
    selection: Selection,
    allow_redacted: bool,
) -> Iterator[_Found]:
    """Opens the source."""
    from checkpointd_server.moving.file_source import open_file, open_stream
    from checkpointd_server.moving.stock_postgres import PostgresThreads
    from checkpointd_server.moving.stock_sqlite import SqliteThreads
    from checkpointd_server.moving.transfer import threads_of

    if from_postgres is not None:
        with PostgresThreads(from_postgres) as postgres:
            yield _Found(name=postgres.name, entries=lambda: iter(threads_of(postgres, selection.threads)))
    elif from_sqlite is not None:
        with SqliteThreads(from_sqlite) as sqlite:
            progress_file = from_sqlite.parent / f"{from_sqlite.name}.progress"
            yield _Found(
                name=sqlite.name,
                entries=lambda: iter(threads_of(sqlite, selection.threads)),
                progress_file=progress_file,
            )
    elif file == "-":
        with open_stream(sys.stdin.buffer) as stream:
            yield _in_file(stream, selection, None, allow_redacted)
    else:
        assert file is not None
        path = Path(file)
        with open_file(path) as opened:
            yield _in_file(opened, selection, path.parent / f"{path.name}.progress", allow_redacted)


def _in_file(source: Any, selection: Selection, progress_file: Path | None, allow_redacted: bool) -> _Found:
    from checkpointd_server.moving.content import MoveError

    if source.header.redacted and not allow_redacted:
        raise MoveError(
            "the file has no values: it was exported with --redact. Agents can't continue from it; "
            "--allow-redacted imports it for inspection"
        )
    if source.thread_ids is not None and (unknown := set(selection.threads) - source.thread_ids):
        raise MoveError(f"the file has no thread {min(unknown)!r}; nothing was imported")
    for missing in source.missing:
        lacks = f"the file lacks thread {missing.thread_id!r}, which couldn't be exported"
        click.echo(printable(f"warning: {lacks}: {missing.problem}"), err=True)
    return _Found(name=source.name, entries=lambda: _chosen(source.entries(), selection), progress_file=progress_file)


def _chosen(entries: Iterator[FileEntry], selection: Selection) -> Iterator[FileEntry]:
    """Yields the selected threads and items. Raises ExportFileError if a thread is missing."""
    from checkpointd_server.moving.content import MovableThread
    from checkpointd_server.moving.export_file import ExportFileError

    missing = set(selection.threads)
    for entry in entries:
        if isinstance(entry, MovableThread):
            if selection.with_threads and (not selection.threads or entry.thread_id in missing):
                missing.discard(entry.thread_id)
                yield entry
        elif selection.with_items and _is_below(entry.item.namespace, selection.namespaces):
            yield entry
    if missing:
        raise ExportFileError(f"the file has no thread {min(missing)!r}")


def _is_below(namespace: Sequence[str], wanted: Sequence[tuple[str, ...]]) -> bool:
    return not wanted or any(tuple(namespace[: len(prefix)]) == prefix for prefix in wanted)


def _tell_what_there_is(found: _Found, *, as_json: bool) -> None:
    """Prints each thread that would be imported and its size, and the number of items."""
    from checkpointd_server.moving.content import MovableThread, MoveError, digest_of

    listed: list[dict[str, Any]] = []
    items = 0
    for thread in found.entries():
        if not isinstance(thread, MovableThread):
            items += 1
            continue
        try:
            digest = digest_of(thread.read())
            listed.append({"thread_id": thread.thread_id, "checkpoints": digest.checkpoints, "writes": digest.writes})
        except MoveError as error:
            listed.append({"thread_id": thread.thread_id, "problem": str(error)})
    if as_json:
        print_json({"threads": listed, "items": items})
        return
    for one in listed:
        what = one.get("problem") or f"{one['checkpoints']} checkpoints, {one['writes']} task writes"
        click.echo(printable(f"{one['thread_id']!r}: {what}"))
    click.echo(f"{len(listed)} threads and {items} items would be imported")
