"""Progress bars of slow commands, on standard error if it is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import click


def track(items: Iterable[Any], label: str, *, total: int | None = None) -> Iterator[Any]:
    """Yields the items and shows how many of them are done.

    Args:
        items: The items to process.
        label: What is done to them.
        total: The number of items. None: the length of `items`, if it has one.
    """
    with click.progressbar(items, length=total, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        yield from bar


@contextmanager
def counting(label: str, total: int | None = None) -> Iterator[Any]:
    """Shows a bar; the caller reports progress with its `update(n)`.

    Args:
        label: What is done.
        total: The sum of all updates. None: unknown.
    """
    hidden = not sys.stderr.isatty()
    with click.progressbar(length=total or 0, label=label, file=sys.stderr, hidden=hidden, show_pos=True) as bar:
        yield bar
