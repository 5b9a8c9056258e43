"""Progress of what takes long, on standard error and only where a person looks."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import click


def track(items: Iterable[Any], label: str, *, total: int | None = None) -> Iterator[Any]:
    """Yields the items and shows how many of them are done.

    Args:
        items: What is worked on.
        label: What is done to them.
        total: How many there are. None: as many as `items` says, if it does.
    """
    with click.progressbar(items, length=total, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        yield from bar


@contextmanager
def counting(label: str, total: int | None = None) -> Iterator[Any]:
    """Shows a bar whose `update(n)` is called with every n things done, be they bytes or rows.

    Args:
        label: What is done.
        total: How much there is in all. None: it isn't known.
    """
    hidden = not sys.stderr.isatty()
    with click.progressbar(length=total or 0, label=label, file=sys.stderr, hidden=hidden, show_pos=True) as bar:
        yield bar
