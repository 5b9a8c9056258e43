"""`checkpointd export`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from checkpointd_server.cli.option_types import json_option, setting
from checkpointd_server.cli.progress import counting
from checkpointd_server.cli.remote import Remote, remote_options
from checkpointd_server.cli.rendering.json import print_json

if TYPE_CHECKING:
    from checkpointd_server.moving.transfer import Report


@click.command("export")
@click.argument("file", required=False)
@click.option("--thread", "threads", multiple=True, help="Only this thread; may be given several times.")
@setting(
    "--to-postgres",
    help="Write into the tables of LangGraph's PostgresSaver in this database, instead of a file. Better given in the "
    "environment.",
)
@click.option("--redact", is_flag=True, help="Leave out all values, and metadata that isn't LangGraph's own.")
@json_option
@remote_options()
def export_threads(
    remote: Remote, file: str | None, threads: tuple[str, ...], to_postgres: str | None, redact: bool, as_json: bool
) -> None:
    """Write threads into FILE, or - for standard output, while the server and its agents go on.

    Each thread is written as it is at one moment, with checksums. An export that was interrupted goes on where it was
    when it is given again: until it is complete it is in FILE.partial. Threads that are encrypted stay so.

    \b
    Examples:
        checkpointd export agents.export
        checkpointd export --thread 42 - | zstd > 42.export.zst
        CHECKPOINTD_TO_POSTGRES=postgresql://... checkpointd export
    """
    from checkpointd_server.moving.remote_threads import RemoteThreads

    if (file is None) == (to_postgres is None):
        raise click.UsageError("name a FILE, or give --to-postgres")
    if redact and to_postgres is not None:
        raise click.UsageError("--redact is for files: agents can't go on without values")
    if file == "-" and as_json:
        raise click.UsageError("--json prints to standard output, where the file goes already")

    def run(channel: Any) -> Report:
        source = RemoteThreads(channel, timeout=remote.timeout)
        if to_postgres is not None:
            return _to_postgres(source, to_postgres, threads)
        assert file is not None
        return _to_file(source, file, threads, redact)

    tell(remote.ask(run), "exported", as_json=as_json, quiet=file == "-")


def _to_file(source: Any, file: str, threads: tuple[str, ...], redact: bool) -> Report:
    from checkpointd_server.moving.export_file import ExportWriter, PartialFile
    from checkpointd_server.moving.transfer import export_threads, threads_of

    with counting("Exporting checkpoints") as bar:
        if file == "-":
            writer = ExportWriter(sys.stdout.buffer)
            writer.begin(redacted=redact)
            report = export_threads(threads_of(source, threads), writer, redact=redact, progress=bar.update)
            writer.finish()
            return report
        with PartialFile(Path(file), redacted=redact) as partial:
            report = export_threads(threads_of(source, threads), partial.writer, redact=redact, progress=bar.update)
            if report.failed:
                # What it lacks, the same command adds to it.
                raise Incomplete(report)
            return report


def _to_postgres(source: Any, url: str, threads: tuple[str, ...]) -> Report:
    from checkpointd_server.moving.stock_postgres import PostgresThreads
    from checkpointd_server.moving.transfer import Journal, import_threads, threads_of

    with (
        PostgresThreads(url) as target,
        Journal(Path("checkpointd-export.progress")) as journal,
        counting("Exporting checkpoints") as bar,
    ):
        return import_threads(threads_of(source, threads), target, journal, replace=False, progress=bar.update)


class Incomplete(click.ClickException):
    """Some threads could not be moved.

    Args:
        report: Which, and why.
    """

    def __init__(self, report: Report) -> None:
        for problem in report.failed.values():
            click.echo(problem, err=True)
        super().__init__(f"{len(report.failed)} threads were not moved; the same command tries these again")


def tell(report: Report, done: str, *, as_json: bool, quiet: bool = False) -> None:
    """Prints what was moved, and ends the command with exit code 1 if anything was not.

    Args:
        report: What came of it.
        done: What was done: "exported".
        as_json: Whether as JSON.
        quiet: Whether standard output is taken.
    """
    if as_json:
        print_json(
            {
                "threads": report.threads,
                "checkpoints": report.checkpoints,
                "writes": report.writes,
                "there_already": report.there,
                "failed": report.failed,
            }
        )
    else:
        there = f"; {report.there} were there already" if report.there else ""
        click.echo(
            f"{done} {report.threads} threads with {report.checkpoints} checkpoints and {report.writes} task writes"
            f"{there}",
            err=quiet,
        )
    if report.failed:
        raise Incomplete(report)
