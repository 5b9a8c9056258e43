"""Tables and texts for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str | int]], *, right: Sequence[str] = ()) -> list[str]:
    """Returns the lines of a table without borders, its columns two spaces apart.

    Args:
        header: The columns' names.
        rows: The cells. Texts are printed as they are: make names `printable` first.
        right: The names of right-aligned columns.
    """
    from tabulate import tabulate  # slow to import, and most commands print no table

    align = ["right" if name in right else "left" for name in header]
    cells = [[str(cell) for cell in row] for row in rows]
    text = tabulate(
        [list(header), *cells], tablefmt="plain", colalign=align, disable_numparse=True, preserve_whitespace=True
    )
    return [line.rstrip() for line in text.split("\n")]


def printable(name: str) -> str:
    """Returns a name with control characters escaped, which could control the terminal."""
    return repr(name)[1:-1]


def byte_size(size: int) -> str:
    """Returns a number of bytes with its unit: 1.5 MiB."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
