"""Options of every destructive command, --dry-run and --yes, and its confirmation prompt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from checkpointd_server.cli.option_types import stacked

destructive: Callable[[Any], Any] = stacked(
    click.option("--dry-run", is_flag=True, help="Print what would be done, without doing it."),
    click.option("--yes", "-y", is_flag=True, help="Don't ask for confirmation."),
)
"""Gives a command `dry_run` and `yes`."""


def confirm(question: str, *, yes: bool) -> None:
    """Asks a person, on standard error, whether to go on.

    Args:
        question: What is about to happen, with its numbers: "Delete 3 threads with 120 checkpoints?"
        yes: Whether to skip the question.

    Raises:
        click.Abort: The answer was no.
        click.UsageError: Standard input has no answer.
    """
    if yes:
        return
    try:
        if click.confirm(question, err=True):
            return
    except click.Abort as abort:
        if isinstance(abort.__context__, EOFError):
            click.echo(err=True)
            raise click.UsageError("no answer on standard input: give --yes to skip the question") from None
        raise
    raise click.Abort
