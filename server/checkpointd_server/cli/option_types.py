"""What options are made of, and those that many commands have."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Command], Command]


class Seconds(click.ParamType):  # type: ignore[type-arg]
    """A finite number of seconds."""

    name = "seconds"

    def __init__(self, *, zero: bool) -> None:
        self._zero = zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parses it and checks its sign."""
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not math.isfinite(seconds) or seconds < 0 or (seconds == 0 and not self._zero):
            self.fail(f"{value!r} is not a number of seconds {'from' if self._zero else 'above'} 0", param, ctx)
        return seconds


class Whole(click.IntRange):
    """A whole number within bounds."""

    name = "integer"


def setting(flags: str, **options: Any) -> Decorator[Any]:
    """An option that can also be given as CHECKPOINTD_<NAME>."""
    name = flags.partition("/")[0].removeprefix("--").replace("-", "_")
    return click.option(flags, name, envvar=f"CHECKPOINTD_{name.upper()}", show_envvar=True, **options)


def stacked(*decorators: Decorator[Any]) -> Decorator[Any]:
    """Several options as one decorator, shown in this order."""

    def decorate(command: Any) -> Any:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
