"""Options of every command that destroys: --dry-run, the question, and --yes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from checkpointd_server.cli.option_types import stacked

destructive: Callable[[Any], Any] = stacked(
    click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
    click.option("--yes", "-y", is_flag=True, help="Don't ask."),
)
"""Gives a command `dry_run` and `yes`."""


def confirm(question: str, *, yes: bool) -> None:
    """Asks a person, on standard error, whether to go on.

    Args:
        question: What is about to happen, with its numbers: "Delete 3 threads with 120 checkpoints?"
        yes: Don't ask.

    Raises:
        click.Abort: The answer was no.
        click.UsageError: Nobody is there to answer.
    """
    if yes:
        return
    try:
        if click.confirm(question, err=True):
            return
    except click.Abort as abort:
        if isinstance(abort.__context__, EOFError):
            click.echo(err=True)
            raise click.UsageError("nobody answered: give --yes to do it without being asked") from None
        raise
    raise click.Abort
