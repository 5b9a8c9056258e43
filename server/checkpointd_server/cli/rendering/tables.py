"""Tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str | int]], *, right: Sequence[str] = ()) -> list[str]:
    """Returns the lines of a table without rules, columns two spaces apart.

    Args:
        header: The columns' names.
        rows: The cells. Texts stand as they are: a name that may hold control characters is made `printable` first.
        right: The names of columns that are aligned to the right, as numbers are.
    """
    from tabulate import tabulate  # takes its time to load: most commands print no table

    align = ["right" if name in right else "left" for name in header]
    cells = [[str(cell) for cell in row] for row in rows]
    text = tabulate(
        [list(header), *cells], tablefmt="plain", colalign=align, disable_numparse=True, preserve_whitespace=True
    )
    return [line.rstrip() for line in text.split("\n")]


def printable(name: str) -> str:
    """Returns a name with its control characters escaped, so that it can't steer the terminal."""
    return repr(name)[1:-1]


def byte_size(size: int) -> str:
    """Returns a number of bytes as people read it: 1.5 MiB."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
