"""Types of options, and options that many commands share."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

_LIFETIME = re.compile(r"(\d{1,9})([mhdw])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
MOST_SECONDS = 1e9
"""The longest time that an option accepts: thirty years. Much longer ones would overflow timers."""
MOST_WHOLE = 2**53
"""The greatest number that an option accepts: JSON parsers read it exactly."""

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Command], Command]


class Seconds(click.ParamType):  # type: ignore[type-arg]
    """A finite number of seconds."""

    name = "seconds"

    def __init__(self, *, zero: bool) -> None:
        self._zero = zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parses the number and checks its range."""
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not math.isfinite(seconds) or seconds < 0 or (seconds == 0 and not self._zero):
            self.fail(
                f"{value!r} is not a number of seconds {'from 0 up' if self._zero else 'greater than 0'}", param, ctx
            )
        if seconds > MOST_SECONDS:
            self.fail(f"{value!r} is more than {MOST_SECONDS:.0f} seconds", param, ctx)
        return seconds


class Expiry(click.ParamType):  # type: ignore[type-arg]
    """A time in the future: a lifetime from now, or a date or time in ISO 8601."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Parses the time, and checks that it is in the future."""
        if isinstance(value, datetime):
            return value
        now = datetime.now(UTC)
        try:
            if lifetime := _LIFETIME.fullmatch(value):
                when = now + int(lifetime[1]) * _UNITS[lifetime[2]]
            else:
                when = datetime.fromisoformat(value)
                if _DAY.fullmatch(value):
                    when = when.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is neither a lifetime, such as 90d, nor a date, such as 2030-01-31", param, ctx)
        if when.tzinfo is None:
            self.fail(f"{value!r} needs a time zone, such as {value}Z", param, ctx)
        if when <= now:
            self.fail(f"{value!r} is in the past", param, ctx)
        return when


EXPIRY = Expiry()


class Duration(click.ParamType):  # type: ignore[type-arg]
    """A length of time, in whole seconds.

    Args:
        most: The longest, in seconds.
    """

    name = "duration"
    _UNITS: Mapping[str, int] = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}

    def __init__(self, *, most: int) -> None:
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parses the length of time or size."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"([0-9]{1,9})([smhdw])", value)
        if match is None or not int(match[1]):
            self.fail(f"{value!r} is not a length of time, such as 45s, 30m, 12h, 90d or 4w", param, ctx)
        seconds = int(match[1]) * self._UNITS[match[2]]
        if seconds > self._most:
            self.fail(f"{value!r} is longer than {self._most} seconds", param, ctx)
        return seconds


class ByteSize(click.ParamType):  # type: ignore[type-arg]
    """A number of bytes, in units of 1024 if one is named.

    Args:
        most: The greatest, in bytes.
    """

    name = "size"
    _UNITS: Mapping[str, int] = {"": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}

    def __init__(self, *, most: int) -> None:
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parses the length of time or size."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"([0-9]{1,12}) ?(|KiB|MiB|GiB|TiB)", value)
        if match is None or not int(match[1]):
            self.fail(f"{value!r} is not a size, such as 500000, 64KiB or 5MiB", param, ctx)
        size = int(match[1]) * self._UNITS[match[2]]
        if size > self._most:
            self.fail(f"{value!r} is more than {self._most} bytes", param, ctx)
        return size


class Whole(click.IntRange):
    """A whole number within bounds."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parses the number and checks its bounds, if any, and that it can be sent exactly."""
        number = int(super().convert(value, param, ctx))
        if abs(number) > MOST_WHOLE:
            self.fail(f"{number} is more than {MOST_WHOLE}", param, ctx)
        return number


class _Text(click.types.StringParamType):
    """Text that can be sent. Arguments that aren't valid UTF-8 can't."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Checks the encoding."""
        text = str(super().convert(value, param, ctx))
        try:
            text.encode()
        except UnicodeEncodeError:
            self.fail("is not valid UTF-8", param, ctx)
        return text


def check_texts(command: click.Command) -> None:
    """Makes a command and its subcommands reject text that can't be sent. File names may be any bytes."""
    for param in command.params:
        if type(param.type) is click.types.StringParamType:
            param.type = _Text()
    if isinstance(command, click.Group):
        for below in command.commands.values():
            check_texts(below)


def setting(flags: str, *, defaults: object = None, **options: Any) -> Decorator[Any]:
    """Returns an option that can also be set by the environment variable CHECKPOINTD_<NAME>.

    Args:
        flags: The option, or a pair: "--migrate/--no-migrate".
        defaults: The object that has the option's default, as an attribute of the option's name. The help shows it.
        options: Arguments of `click.option`.
    """
    name = flags.partition("/")[0].removeprefix("--").replace("-", "_")
    if defaults is not None:
        options = {"default": getattr(defaults, name), "show_default": True, **options}
    return click.option(flags, name, envvar=f"CHECKPOINTD_{name.upper()}", show_envvar=True, **options)


def stacked(*decorators: Decorator[Any]) -> Decorator[Any]:
    """Combines options into one decorator; --help shows them in this order."""

    def decorate(command: Any) -> Any:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
