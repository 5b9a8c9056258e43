"""The options of `checkpointd export` and `checkpointd import` that select threads and items."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click

from checkpointd_server.cli.option_types import stacked

_options = stacked(
    click.option("--thread", "threads", multiple=True, help="Move only this thread. May be given several times."),
    click.option("--threads/--no-threads", "with_threads", default=True, help="Move threads.  [default: yes]"),
    click.option(
        "--items/--no-items",
        "with_items",
        default=None,
        help="Move items of long-term memory.  [default: yes, unless --thread is given]",
    ),
    click.option(
        "--namespace",
        "namespaces",
        multiple=True,
        help="Move only items below this namespace: labels with dots between them, such as users.42, or a JSON list. "
        "May be given several times.",
    ),
    click.option(
        "--vectors/--no-vectors", "with_vectors", default=True, help="Move the vectors of items.  [default: yes]"
    ),
)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The threads and items to move."""

    with_threads: bool
    threads: tuple[str, ...]
    """The threads, in bytewise order. Empty: all."""
    with_items: bool
    asks_for_items: bool
    """True if items were named by an option."""
    namespaces: tuple[tuple[str, ...], ...]
    """The namespaces whose items are moved, in order, none below another. Empty: all."""
    with_vectors: bool


def selecting(command: Callable[..., None]) -> Any:
    """Adds the options that select what to move. The command gets `selection`, a `Selection`."""

    @functools.wraps(command)
    def resolved(
        *,
        threads: tuple[str, ...],
        with_threads: bool,
        with_items: bool | None,
        namespaces: tuple[str, ...],
        with_vectors: bool,
        **others: Any,
    ) -> None:
        command(selection=_select(threads, with_threads, with_items, namespaces, with_vectors), **others)

    return _options(resolved)


def _select(
    threads: tuple[str, ...],
    with_threads: bool,
    with_items: bool | None,
    namespaces: tuple[str, ...],
    with_vectors: bool,
) -> Selection:
    if threads and not with_threads:
        raise click.UsageError("--thread and --no-threads contradict each other")
    if namespaces and with_items is False:
        raise click.UsageError("--namespace and --no-items contradict each other")
    for thread_id in threads:
        _check_text(thread_id, "--thread")
    items = bool(namespaces) or not threads if with_items is None else with_items
    if not with_threads and not items:
        raise click.UsageError("--no-threads and --no-items leave nothing to move")
    return Selection(
        with_threads=with_threads,
        threads=tuple(sorted(set(threads), key=str.encode)),
        with_items=items,
        asks_for_items=bool(with_items or namespaces),
        namespaces=_outermost([_labels(namespace) for namespace in namespaces]),
        with_vectors=with_vectors,
    )


def _check_text(text: str, option: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise click.UsageError(f"{option}: is not valid UTF-8") from None


def _labels(text: str) -> tuple[str, ...]:
    _check_text(text, "--namespace")
    labels: Any = text.split(".")
    if text.startswith("["):
        try:
            labels = json.loads(text)
        except (ValueError, RecursionError):
            raise click.UsageError("--namespace: begins with [ but is not a JSON list") from None
    if not labels or not all(isinstance(label, str) and label for label in labels):
        raise click.UsageError("--namespace: needs labels, none of them empty, such as users.42")
    for label in labels:
        _check_text(label, "--namespace")
    return tuple(labels)


def _outermost(namespaces: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    """Returns the namespaces in order, without those below another one."""
    kept: list[tuple[str, ...]] = []
    for namespace in sorted(set(namespaces), key=lambda labels: [label.encode() for label in labels]):
        if not kept or namespace[: len(kept[-1])] != kept[-1]:
            kept.append(namespace)
    return tuple(kept)
