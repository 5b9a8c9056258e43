"""Types of options, and options that many commands have."""

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
"""The longest time that an option takes: thirty years. What waits would overflow with much more."""
MOST_WHOLE = 2**53
"""The greatest number that an option takes: what every program reads exactly."""

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
        if seconds > MOST_SECONDS:
            self.fail(f"{value!r} is more than {MOST_SECONDS:.0f} seconds", param, ctx)
        return seconds


class Expiry(click.ParamType):  # type: ignore[type-arg]
    """A time to come: so long from now, or a date or time of ISO 8601."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Parses it, and checks that it is to come."""
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
            self.fail(f"{value!r} must have its zone, such as {value}Z", param, ctx)
        if when <= now:
            self.fail(f"{value!r} is over already", param, ctx)
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
        """Parses it."""
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
        """Parses it."""
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
        """Parses it and checks its bounds, which are those of what is sent where none are given."""
        number = int(super().convert(value, param, ctx))
        if abs(number) > MOST_WHOLE:
            self.fail(f"{number} is more than {MOST_WHOLE}", param, ctx)
        return number


class _Text(click.types.StringParamType):
    """Text that can be sent. What the system hands over as bytes that are no UTF-8 can't."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Checks it."""
        text = str(super().convert(value, param, ctx))
        try:
            text.encode()
        except UnicodeEncodeError:
            self.fail("holds bytes that are not UTF-8", param, ctx)
        return text


def check_texts(command: click.Command) -> None:
    """Has a command, and all below it, refuse text that can't be sent. Names of files are no such text."""
    for param in command.params:
        if type(param.type) is click.types.StringParamType:
            param.type = _Text()
    if isinstance(command, click.Group):
        for below in command.commands.values():
            check_texts(below)


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
