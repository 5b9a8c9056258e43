"""The options that filter threads."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import msgpack

from checkpointd_server.cli.option_types import Decorator, stacked

STATUSES = ("idle", "running", "interrupted", "failed")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Time(click.ParamType):  # type: ignore[type-arg]
    """A time in ISO 8601, by default in this machine's zone, or how long ago it is."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Parses the time."""
        if isinstance(value, datetime):
            return value
        try:
            if match := re.fullmatch(r"([0-9]{1,9})([smhd])", value):
                return datetime.now(UTC) - timedelta(seconds=int(match[1]) * _UNITS[match[2]])
            return datetime.fromisoformat(value).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is neither a time, such as 2026-05-01T12:00, nor how long ago, such as 30m, 12h or 7d",
                param,
                ctx,
            )


def read_pairs(pairs: Sequence[str], option: str, form: str = "NAME=TEXT") -> dict[str, str]:
    """Parses pairs of a name and a text. Raises UsageError."""
    found = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not name or not equals:
            raise click.UsageError(f"{option}: {pair!r} is not {form}")
        found[name] = text
    return found


def read_metadata(pairs: Sequence[str]) -> bytes:
    """Returns the filter of --metadata as msgpack. Values are parsed as JSON if possible. Raises UsageError."""
    found: dict[str, Any] = {}
    try:
        for name, text in read_pairs(pairs, "--metadata", "KEY=VALUE").items():
            try:
                found[name] = json.loads(text)
            except ValueError:
                found[name] = text
        return bytes(msgpack.packb(found)) if found else b""
    except (ValueError, OverflowError, RecursionError):
        raise click.UsageError(
            "--metadata: VALUE is nested too deeply, has a number of more than 64 bits, or text that is not Unicode"
        ) from None


_options = stacked(
    click.option("--prefix", default="", metavar="TEXT", help="Only threads whose ids begin with this."),
    click.option(
        "--metadata",
        multiple=True,
        metavar="KEY=VALUE",
        help="Only threads whose latest checkpoint has this metadata. VALUE is JSON, else text. May be given several "
        "times.",
    ),
    click.option(
        "--tag",
        "tags",
        multiple=True,
        metavar="NAME=TEXT",
        help="Only threads with this tag. May be given several times.",
    ),
    click.option(
        "--status",
        "statuses",
        multiple=True,
        type=click.Choice(STATUSES),
        help="Only threads with this status. May be given several times.",
    ),
    click.option(
        "--created-from",
        type=Time(),
        help="Only threads created at this time or later: 2026-05-01T12:00, or 7d for seven days ago.",
    ),
    click.option("--created-before", type=Time(), help="Only threads created before this time."),
    click.option("--active-from", type=Time(), help="Only threads last written to at this time or later."),
    click.option("--active-before", type=Time(), help="Only threads last written to before this time."),
)


def filter_options(*, archived: str = "Only archived threads.  [default: only threads that aren't]") -> Decorator[Any]:
    """Adds the options that filter threads. The command gets `wanted`, a ThreadFilter.

    Args:
        archived: The help text of --archived.
    """
    return lambda command: _options(click.option("--archived", is_flag=True, help=archived)(_reading(command)))


def _reading(command: Callable[..., None]) -> Callable[..., None]:
    """Returns a command that makes a ThreadFilter from the options, and calls the given one with it."""

    @functools.wraps(command)
    def read(
        *,
        prefix: str,
        metadata: Sequence[str],
        tags: Sequence[str],
        statuses: Sequence[str],
        created_from: datetime | None,
        created_before: datetime | None,
        active_from: datetime | None,
        active_before: datetime | None,
        archived: bool,
        **others: Any,
    ) -> None:
        from checkpointd.v1 import thread_service_pb2 as pb

        message = pb.ThreadFilter(
            thread_id_prefix=prefix,
            metadata=read_metadata(metadata),
            statuses=[f"THREAD_STATUS_{status.upper()}" for status in statuses],
            archived=archived,
        )
        for name, text in read_pairs(tags, "--tag").items():
            message.tags.add(name=name, text=text)
        times = (
            ("created_from", created_from),
            ("created_before", created_before),
            ("active_from", active_from),
            ("active_before", active_before),
        )
        for field, time in times:
            if time is not None:
                getattr(message, field).FromDatetime(time)
        command(wanted=message, **others)

    return read
