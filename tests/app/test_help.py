"""Help for every command, and the options that all commands of a kind have."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from checkpointd_server.cli import main


def commands_of(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from commands_of(below, (*path, name))


COMMANDS = dict(commands_of(main))
LEAVES = [path for path, command in COMMANDS.items() if not isinstance(command, click.Group)]


def options_of(path: tuple[str, ...]) -> set[str | None]:
    return {param.name for param in COMMANDS[path].params}


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_and_group_has_help_with_an_example_of_itself(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(main, [*path, "--help"])
    assert shown.exit_code == 0
    lines = [line.strip() for line in shown.stdout.splitlines()]
    assert any(line.startswith(" ".join(["checkpointd", *path])) for line in lines), shown.stdout


def test_every_command_that_asks_a_server_speaks_json_but_health() -> None:
    asking = {path for path in LEAVES if "target" in options_of(path) and path[0] != "context"}
    assert {path for path in asking if "as_json" not in options_of(path)} == {("health",)}


def test_every_command_that_asks_first_has_a_dry_run() -> None:
    asking = {path for path in LEAVES if "yes" in options_of(path)}
    # This one removes an entry of a file, not threads.
    assert {path for path in asking if "dry_run" not in options_of(path)} == {("context", "remove")}
    assert {("purge", "tenant"), ("retention", "run"), ("threads", "delete"), ("import",)} <= asking
