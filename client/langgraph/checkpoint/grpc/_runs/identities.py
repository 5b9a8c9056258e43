"""Data about objects that LangGraph passes along, by identity.

A runtime can't be weakly referenced and compares by value, and LangGraph doesn't tell when a run is over. So this keeps
a reference to it, and with it to what the user gave the run, such as its context. Once there is no other reference, no
call can come with it any more, and it is dropped. This is checked every second while there are any.
"""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

MAX_IDENTITIES = 8192
"""Maximum number of objects. A run that was forgotten while in progress would write unconditionally."""
SWEEP_SECONDS = 1.0
"""How often objects without other references are searched, in seconds."""


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
"""Reference count of an object without other references. It depends on the version of Python."""


class Identities:
    """Properties of objects, by identity. Not guarded."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, _Known] = OrderedDict()
        self._next_sweep = 0.0

    def __len__(self) -> int:
        return len(self._known)

    def find(self, anchor: object) -> Any:
        """Returns the data about an object, or None."""
        known = self._known.get(id(anchor))
        if known is None:
            return None
        self._known.move_to_end(id(anchor))
        return known.what

    def remember(self, anchor: object, what: Any) -> None:
        """Stores data about an object, and references it, so its id stays unique."""
        self._known[id(anchor)] = _Known(anchor, what)
        while len(self._known) > MAX_IDENTITIES:
            self._known.popitem(last=False)

    def sweep(self) -> list[Any]:
        """Forgets objects without other references, if the check is due.

        Returns:
            These objects: drop them without holding a lock, because their finalizers may run any code.
        """
        now = time.monotonic()
        if now < self._next_sweep or _references is None:
            return []
        self._next_sweep = now + SWEEP_SECONDS
        alone = [number for number, known in self._known.items() if _count(known) <= _ALONE]
        return [self._known.pop(number).anchor for number in alone]
