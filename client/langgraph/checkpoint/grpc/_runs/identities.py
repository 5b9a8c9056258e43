"""Objects that LangGraph passes along, by identity, and what is known of them.

A runtime can't be referred to weakly and compares by value, and LangGraph doesn't tell when a run is over. So it is
held, and with it what the user gave the run, its context for one. But once nobody else holds it, nobody can come with
it any more: then it is let go. That is looked for every second while there are any.
"""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

MAX_IDENTITIES = 8192
"""How many objects are remembered at the most. A run that was forgotten while it was under way would write
unconditionally."""
SWEEP_SECONDS = 1.0
"""How often objects that nobody else holds are looked for."""


class _Known:
    __slots__ = ("anchor", "what")

    def __init__(self, anchor: object, what: Any) -> None:
        self.anchor = anchor
        self.what = what


_references: Callable[[object], int] | None = getattr(sys, "getrefcount", None)


def _count(known: _Known) -> int:
    assert _references is not None
    return _references(known.anchor)


_ALONE = _count(_Known(object(), None)) if _references is not None else -1
"""How many references there are to what nobody else holds. Not the same in all versions of Python."""


class Identities:
    """Properties of objects, by identity. Not guarded."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, _Known] = OrderedDict()
        self._next_sweep = 0.0

    def __len__(self) -> int:
        return len(self._known)

    def find(self, anchor: object) -> Any:
        """Returns what is known of an object; None if nothing is."""
        known = self._known.get(id(anchor))
        if known is None:
            return None
        self._known.move_to_end(id(anchor))
        return known.what

    def remember(self, anchor: object, what: Any) -> None:
        """Remembers something of an object, which is held as well: so its id stays its own."""
        self._known[id(anchor)] = _Known(anchor, what)
        while len(self._known) > MAX_IDENTITIES:
            self._known.popitem(last=False)

    def sweep(self) -> list[Any]:
        """Forgets objects that nobody else holds, if it is time to look for them.

        Returns:
            These objects: to be let go where no lock is held, for their ends may run anybody's code.
        """
        now = time.monotonic()
        if now < self._next_sweep or _references is None:
            return []
        self._next_sweep = now + SWEEP_SECONDS
        alone = [number for number, known in self._known.items() if _count(known) <= _ALONE]
        return [self._known.pop(number).anchor for number in alone]
