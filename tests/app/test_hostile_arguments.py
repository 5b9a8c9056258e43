"""Invalid values for every option and argument: the error names the parameter, and there is no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from checkpointd_server.cli import main
from tests.support.server_process import ServerProcess

UNSENDABLE = os.fsdecode(b"\xff\xfe")
"""Bytes that aren't UTF-8, as a command line passes them."""
NOT_NUMBERS = ("9" * 30, "-" + "9" * 30, "9" * 5000, "1e999", "nan", "x", "", UNSENDABLE)
NOT_TIMES = ("999999999999d", "0000-00-00", "9" * 30, "x", UNSENDABLE)
HOSTILE = {
    "integer": NOT_NUMBERS,
    "seconds": NOT_NUMBERS,
    "size": (*NOT_NUMBERS, "999999999999TiB"),
    "duration": (*NOT_NUMBERS, "999999999w"),
    "time": NOT_TIMES,
    "when": NOT_TIMES,
    "text": (UNSENDABLE,),
    "choice": ("x", "", UNSENDABLE),
    "address": ("x", "127.0.0.1:65536", f"127.0.0.1:{'9' * 5000}", UNSENDABLE),
    "url": ("x", "http://[", UNSENDABLE),
    "name": ("pg_x", "x" * 64, UNSENDABLE),
    "dims:distance": ("x", f"{'9' * 5000}:cosine", "-1:cosine", "1:x", UNSENDABLE),
}
"""Invalid values for each type of option or argument."""
LONG = "x" * 100_000
NOWHERE = ("--target", "127.0.0.1:1")


def commands_of(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from commands_of(below, (*path, name))
    else:
        yield path, command


COMMANDS = dict(commands_of(main))
PARAMETERS = [(path, param) for path, command in COMMANDS.items() for param in command.params]


def arguments(path: tuple[str, ...], param: click.Parameter, value: str) -> list[str]:
    """Returns a command line with this value for one parameter, and valid values for all other required ones."""
    line = list(path)
    for other in COMMANDS[path].params:
        if isinstance(other, click.Argument) and (other is param or other.required):
            line.append(value if other is param else "name")
        elif other.required and other is not param:
            line += [other.opts[0], "read" if isinstance(other.type, click.Choice) else "name"]
    if path == ("retention", "set") and param.name != "keep_newest":
        line.insert(len(path), "--keep-newest=1")
    if isinstance(param, click.Option):
        line.insert(len(path), f"{longest(param)}={value}")
    # An argument that begins with a dash must not be taken for an option.
    return [
        *line[: len(path)],
        *(["--", *line[len(path) :]] if isinstance(param, click.Argument) else line[len(path) :]),
    ]


def longest(option: click.Option) -> str:
    return max(option.opts, key=len)


def run(*line: str) -> Result:
    # If a server or a migration starts anyway, it finds no database.
    result = CliRunner(env={"CHECKPOINTD_DATABASE_URL": "postgresql://127.0.0.1:1/none"}).invoke(main, line)
    assert result.exception is None or isinstance(result.exception, SystemExit), (line, result.exception)
    assert "Traceback" not in result.output
    return result


@pytest.mark.parametrize(
    ("path", "param"),
    [
        pytest.param(path, param, id=f"{' '.join(path)} {param.name}")
        for path, param in PARAMETERS
        if param.type.name in HOSTILE
    ],
)
def test_what_cant_be_meant_is_refused_by_the_name_of_the_option(path: tuple[str, ...], param: click.Parameter) -> None:
    for value in HOSTILE[param.type.name]:
        if not value and isinstance(param, click.Option) and param.envvar:
            continue  # the same as not given
        result = run(*arguments(path, param, value))
        assert result.exit_code == 2, (value, result.output)
        name = longest(param) if isinstance(param, click.Option) else param.human_readable_name
        assert name in result.stderr, (value, result.output)


def test_every_type_of_parameter_is_tried_or_takes_anything() -> None:
    others = {param.type.name for _, param in PARAMETERS} - set(HOSTILE)
    assert others <= {"boolean", "path", "file", "filename", "directory"}


@pytest.mark.parametrize(
    ("path", "param"),
    [
        pytest.param(path, param, id=f"{' '.join(path)} {param.name}")
        for path, param in PARAMETERS
        if param.type.name == "text"
        and any(other.name == "target" for other in COMMANDS[path].params)
        and param.name not in ("target", "context", "token")
    ],
)
def test_what_is_too_long_is_refused_by_the_name_of_the_option(
    path: tuple[str, ...], param: click.Parameter, shared_server: ServerProcess
) -> None:
    value = f"a={LONG}" if "=" in (param.metavar or "") else LONG
    line = arguments(path, param, value)
    result = run(*line[: len(path)], "--target", shared_server.target, *line[len(path) :])
    assert result.exit_code in (1, 2), result.output
    if "INVALID_ARGUMENT" in result.stderr or "at most" in result.stderr:
        name = longest(param) if isinstance(param, click.Option) else param.human_readable_name
        assert name in result.stderr, result.stderr[:500]


@pytest.mark.parametrize(
    "value",
    [f"a={'9' * 40}", 'a="\\ud800"', f"a={'[' * 2000}{']' * 2000}", "novalue", f"a={UNSENDABLE}"],
    ids=["number", "surrogate", "nested", "no value", "bytes"],
)
@pytest.mark.parametrize("command", [("threads", "list"), ("retention", "set", "p", "--keep-newest", "1", "--yes")])
def test_metadata_that_cant_be_sent(command: tuple[str, ...], value: str, shared_server: ServerProcess) -> None:
    result = run(*command, "--metadata", value, "--target", shared_server.target)
    assert result.exit_code == 2
    assert "--metadata" in result.stderr
    if value == "novalue":
        assert "KEY=VALUE" in result.stderr


class TestOutput:
    """Output to a full device, or to a pipe without a reader."""

    def run(self, line: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "checkpointd_server.cli", *arguments]
        return subprocess.run(["sh", "-c", line, "sh", *command], capture_output=True, check=False, timeout=60)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device without room")
    @pytest.mark.parametrize("command", [("info", "--json"), ("stats",), ("stats", "--json"), ("retention", "list")])
    def test_no_room(self, command: tuple[str, ...], shared_server: ServerProcess) -> None:
        done = self.run('"$@" > /dev/full', *command, "--target", shared_server.target)
        assert done.returncode == 1
        assert done.stderr.decode().splitlines() == ["Error: the output is cut off: No space left on device"]

    @pytest.mark.parametrize("command", [("info", "--json"), ("stats",)])
    def test_nobody_reads_it(self, command: tuple[str, ...], shared_server: ServerProcess) -> None:
        done = self.run('"$@" | true', *command, "--target", shared_server.target)
        assert done.stderr == b""

    def test_bytes_that_are_no_text(self) -> None:
        command: list[Any] = [sys.executable, "-m", "checkpointd_server.cli", "threads", "get", b"\xff", *NOWHERE]
        done = subprocess.run(command, capture_output=True, check=False, timeout=60)
        assert done.returncode == 2
        assert b"THREAD_ID" in done.stderr
        assert b"Traceback" not in done.stderr
