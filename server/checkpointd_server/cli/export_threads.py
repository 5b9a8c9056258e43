"""`checkpointd export`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from checkpointd_server.cli.moving_options import Selection, selecting
from checkpointd_server.cli.moving_report import interruptible, once, tell
from checkpointd_server.cli.option_types import json_option, setting
from checkpointd_server.cli.progress import counting
from checkpointd_server.cli.remote import Remote, remote_options

if TYPE_CHECKING:
    from checkpointd.v1.export_pb2 import MissingThread
    from checkpointd_server.moving.export_file import Contents, ExportWriter, ItemPlace
    from checkpointd_server.moving.transfer import Report

_GO_ON = "run the same command again to continue"


@click.command("export")
@click.argument("file", required=False)
@selecting
@setting(
    "--to-postgres",
    help="Write to the tables of LangGraph's PostgresSaver in this database, instead of a file. Prefer the environment "
    "variable.",
)
@click.option("--redact", is_flag=True, help="Leave out all values, and all metadata except LangGraph's own.")
@json_option
@remote_options()
def export_threads(
    remote: Remote, file: str | None, selection: Selection, to_postgres: str | None, redact: bool, as_json: bool
) -> None:
    """Write threads and items to FILE, or to standard output if it is -, while agents keep working.

    Each thread and each item of long-term memory is a consistent snapshot with a checksum. The file is named
    FILE.partial until it is complete. After an interruption, run the same command again: it continues, and rereads
    whatever was changed or deleted in the meantime. Encrypted values stay encrypted.

    A thread that can't be exported is reported and noted in the file; the others are exported, and the exit code is 1.

    \b
    Examples:
        checkpointd export agents.export
        checkpointd export --thread 42 - | zstd > 42.export.zst
        checkpointd export --no-threads --namespace users.42 memories.export
        CHECKPOINTD_TO_POSTGRES=postgresql://... checkpointd export
    """
    if (file is None) == (to_postgres is None):
        raise click.UsageError("name a FILE, or give --to-postgres")
    if redact and to_postgres is not None:
        raise click.UsageError("--redact works only with a file: agents can't continue without values")
    if file == "-" and as_json:
        raise click.UsageError("--json can't be combined with -: both write to standard output")

    if to_postgres is not None and (selection.asks_for_items or not selection.with_threads):
        raise click.UsageError("--to-postgres can't store items, only threads")

    export = _Export(remote, selection, redact)
    if to_postgres is not None:
        with interruptible(_GO_ON):
            report = remote.ask(lambda channel: export.to_postgres(channel, to_postgres), is_long=True)
        tell(report, "exported", "run the same command again to retry", as_json=as_json)
    elif file == "-":
        with interruptible("the output is incomplete"):
            report = remote.ask(once(export.to_stdout, remote.timeout), is_long=True)
        tell(report, "exported", "the file lists them", as_json=as_json, quiet=True)
    else:
        assert file is not None
        path = Path(file)
        with interruptible(_GO_ON):
            report = remote.ask(lambda channel: export.to_file(channel, path), is_long=True)
        tell(report, "exported", "the file has the others and lists these", as_json=as_json)


class _Export:
    """An export.

    Args:
        remote: The server.
        selection: The threads and items to export.
        redact: Whether to leave values out.
    """

    def __init__(self, remote: Remote, selection: Selection, redact: bool) -> None:
        self._remote = remote
        self._selection = selection
        self._threads = selection.threads
        self._redact = redact

    def _source(self, channel: Any) -> Any:
        """Returns the server's threads. Raises MoveError if a requested one doesn't exist."""
        from checkpointd_server.moving.remote_threads import RemoteThreads
        from checkpointd_server.moving.transfer import NoSuchThread

        source = RemoteThreads(channel, timeout=self._remote.timeout)
        for thread_id in self._threads:
            if not source.stamp(thread_id):
                raise NoSuchThread(f"there is no thread {thread_id!r}")
        return source

    def _header(self, channel: Any) -> Any:
        from checkpointd.v1.export_pb2 import ExportSelection
        from checkpointd.v1.store_service_pb2 import StoreNamespace
        from checkpointd_server.moving.export_file import new_header
        from checkpointd_server.moving.server_identity import ServerIdentity

        identity = ServerIdentity.ask(channel, self._remote.timeout)
        wanted = self._selection
        selection = ExportSelection(
            without_threads=not wanted.with_threads,
            thread_ids=wanted.threads,
            without_items=not wanted.with_items,
            namespaces=[StoreNamespace(labels=labels) for labels in wanted.namespaces],
            without_vectors=not wanted.with_vectors,
        )
        return new_header(identity, selection, redacted=self._redact)

    def _items(self, channel: Any) -> Any:
        """Returns the server's items. Raises MoveError if they are requested and may not be read."""
        from checkpointd_server.moving.remote_items import RemoteItems

        items = RemoteItems(channel, timeout=self._remote.timeout)
        if self._selection.with_items:
            items.check_access()
        return items

    def to_stdout(self, channel: Any) -> Report:
        """Writes to standard output."""
        from checkpointd_server.moving.export_file import ExportWriter
        from checkpointd_server.moving.transfer import Report

        header, source, items, report = self._header(channel), self._source(channel), self._items(channel), Report()
        writer = ExportWriter(sys.stdout.buffer, "standard output")
        writer.begin(header)
        self._write(source, items, writer, report)
        writer.finish(_missing(report))
        return report

    def to_file(self, channel: Any, path: Path) -> Report:
        """Writes a file, or continues a partial one."""
        from checkpointd_server.moving.content import MoveError
        from checkpointd_server.moving.export_file import Contents, FileNotWritten
        from checkpointd_server.moving.partial_file import PartialFile
        from checkpointd_server.moving.transfer import Report

        header, report = self._header(channel), Report()

        source, items = self._source(channel), self._items(channel)

        def stale(found: Contents) -> Contents:
            return Contents(threads=self._stale_threads(source, found), items=self._stale_items(items, found))

        try:
            with PartialFile(path, header, stale) as partial:
                report.again = len(partial.taken_out.threads) + len(partial.taken_out.items)
                self._write(source, items, partial.writer, report)
                partial.finish(_missing(report))
        except FileNotWritten as error:
            raise MoveError(f"{error}; {_GO_ON}") from error
        return report

    def _stale_items(self, items: Any, found: Contents) -> dict[ItemPlace, int]:
        """Returns the items that were changed or deleted since they were written to the file."""
        versions: dict[ItemPlace, int] = {}
        if found.items:
            for prefix in self._selection.namespaces or ((),):
                versions |= items.versions(prefix)
        return {place: version for place, version in found.items.items() if versions.get(place) != version}

    def _stale_threads(self, source: Any, found: Contents) -> dict[str, bytes]:
        """Returns the threads that were changed or deleted since they were written to the file."""
        if not found.threads:
            return {}
        if self._threads:
            stamps = {thread_id: source.stamp(thread_id) for thread_id in found.threads}
        else:
            stamps = source.stamps()
        return {thread_id: stamp for thread_id, stamp in found.threads.items() if stamps.get(thread_id) != stamp.hex()}

    def _write(self, source: Any, items: Any, writer: ExportWriter, report: Report) -> None:
        from checkpointd_server.moving.item_transfer import export_items
        from checkpointd_server.moving.transfer import export_threads, threads_of

        if self._selection.with_threads:
            with counting("Exporting checkpoints") as bar:
                export_threads(
                    threads_of(source, self._threads),
                    writer,
                    report,
                    redact=self._redact,
                    all_threads=not self._threads,
                    progress=bar.update,
                )
        if self._selection.with_items:
            with counting("Exporting items") as bar:
                export_items(
                    items,
                    self._selection.namespaces or ((),),
                    writer,
                    report,
                    vectors=self._selection.with_vectors,
                    redact=self._redact,
                    progress=bar.update,
                )

    def to_postgres(self, channel: Any, url: str) -> Report:
        """Writes to the stock saver's tables."""
        from checkpointd_server.moving.journal import Journal, Subject
        from checkpointd_server.moving.server_identity import ServerIdentity
        from checkpointd_server.moving.stock_postgres import PostgresThreads
        from checkpointd_server.moving.transfer import Report, ThreadImport, threads_of

        identity, source, report = ServerIdentity.ask(channel, self._remote.timeout), self._source(channel), Report()
        with PostgresThreads(url) as target:
            subject = Subject(str(identity), target.name)
            with (
                Journal(subject.default_path("export"), subject) as journal,
                counting("Exporting checkpoints") as bar,
            ):
                threads = ThreadImport(target, journal, report, replace=False, progress=bar.update)
                for thread in threads_of(source, self._threads):
                    threads.take(thread)
        return report


def _missing(report: Report) -> list[MissingThread]:
    from checkpointd.v1.export_pb2 import MissingThread

    return [MissingThread(thread_id=thread_id, problem=problem) for thread_id, problem in report.failed.items()]
