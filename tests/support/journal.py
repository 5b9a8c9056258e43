"""An agent's journal: each intended write and its outcome, one per line.

The journal is on the agent's side of the fault, and is compared with the store afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["turn", "put", "writes", "versioned"]
Event = Literal["intended", "acknowledged", "refused", "failed", "wrong"]
"""`failed`: the call raised an error that its retry budget should have covered. `wrong`: it returned an impossible
result."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """An event of a write."""

    event: Event
    kind: Kind
    thread_id: str
    name: str
    """The write: the turn's name, or the checkpoint's id."""
    value: str = ""
    """The value that was written."""
    version: int = 0
    """The version that the server has acknowledged, if the agent knows it."""
    detail: str = ""
    """For a failure, the error that was raised."""


class Journal:
    """Appends lines to a file immediately."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1, encoding="utf-8")

    def note(self, line: Line) -> None:
        """Appends a line."""
        self._file.write(json.dumps(asdict(line)) + "\n")


def read(path: Path) -> Iterator[Line]:
    """Reads a journal, even while it is being written."""
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                yield Line(**json.loads(line))


def of(lines: Iterable[Line], *events: Event) -> list[Line]:
    """Returns the lines of some events."""
    return [line for line in lines if line.event in events]
