"""Reports of `checkpointd export` and `checkpointd import`, when they end or are interrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from checkpointd_server.cli.rendering.json import print_json

if TYPE_CHECKING:
    from checkpointd_server.moving.transfer import Report

Answer = TypeVar("Answer")


class Incomplete(click.ClickException):
    """Not everything was moved.

    Args:
        report: What was moved, and what wasn't and why.
        advice: How to continue.
    """

    def __init__(self, report: Report, advice: str) -> None:
        for problem in [*report.failed.values(), *report.failed_items.values()]:
            click.echo(printable(problem), err=True)
        if report.stopped:
            super().__init__(printable(report.stopped))
        else:
            counts = {"threads": len(report.failed), "items": len(report.failed_items)}
            what = " and ".join(f"{count} {name}" for name, count in counts.items() if count)
            super().__init__(f"{what} were not moved; {advice}")


def printable(text: str) -> str:
    """Returns text that can be written to any output: an id may hold lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()


def tell(report: Report, done: str, advice: str, *, as_json: bool, quiet: bool = False) -> None:
    """Prints what was moved. Raises Incomplete (exit code 1) if anything wasn't.

    Args:
        report: The result.
        done: What was done: "exported".
        advice: What to do about threads that were not moved.
        as_json: Whether to print JSON.
        quiet: Whether standard output has the file, so that the summary goes to standard error.
    """
    if as_json:
        print_json(
            {
                "threads": report.threads,
                "checkpoints": report.checkpoints,
                "writes": report.writes,
                "there_already": report.there,
                "read_again": report.again,
                "failed": report.failed,
                "items": report.items,
                "items_there_already": report.items_there,
                "items_expired": report.items_expired,
                "failed_items": report.failed_items,
                "stopped": report.stopped or None,
            }
        )
    else:
        found = report.there + report.items_there
        there = f"; {found} already existed" if found else ""
        expired = f"; {report.items_expired} items have expired" if report.items_expired else ""
        again = f"; {report.again} were changed or deleted since the export was interrupted" if report.again else ""
        click.echo(
            f"{done} {report.threads} threads with {report.checkpoints} checkpoints and {report.writes} task writes, "
            f"and {report.items} items{there}{expired}{again}",
            err=quiet,
        )
    if report.failed or report.failed_items or report.stopped:
        raise Incomplete(report, advice)


class Interrupted(click.ClickException):
    """The user has pressed Ctrl-C."""

    exit_code = 130


@contextmanager
def interruptible(advice: str) -> Iterator[None]:
    """On Ctrl-C, ends the command with a message that says how to continue."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted: {advice}") from None


def once(question: Callable[[Any], Answer], timeout: float) -> Callable[[Any], Answer]:
    """Returns a question that isn't put to another server after it has begun: a stream can't be started again."""

    def ask(channel: Any) -> Answer:
        import grpc

        from checkpointd_server.moving.server_identity import ServerIdentity

        ServerIdentity.ask(channel, timeout)
        try:
            return question(channel)
        except grpc.RpcError as error:
            raise click.ClickException(
                f"the server failed before the end: {error.code().name}: {error.details()}"
            ) from error

    return ask
