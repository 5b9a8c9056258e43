"""The report of a benchmark, made from the JSON that cases left: tables and lists in Markdown."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.bench.profile import CPU, DISK, ELAPSED

Result = dict[str, Any]
"""The result of a case, with its name, its title, the machine and the day."""


def save(folder: Path, result: Result) -> None:
    """Saves a result, replacing an earlier one of the same case."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{result['name']}.json").write_text(json.dumps(result, indent=2) + "\n")


def load(folder: Path, names: Iterable[str]) -> list[Result]:
    """Returns the existing results of these cases, in this order."""
    paths = [folder / f"{name}.json" for name in names]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def of_kind(results: list[Result], kind: str) -> list[Result]:
    """Returns the results of one kind of case."""
    return [result for result in results if result["kind"] == kind]


def report(results: list[Result]) -> str:
    """Returns everything, in Markdown."""
    parts = [f"{group}:\n\n{comparisons(rows)}" for group, rows in groups(results).items()]
    parts.append(facts(of_kind(results, "facts")))
    parts += [curve(result) for result in of_kind(results, "curve")]
    parts += [profile(result) for result in of_kind(results, "profile")]
    return "\n\n".join(part for part in parts if part)


def groups(results: list[Result]) -> dict[str, list[Result]]:
    """Returns the comparisons by their groups, in the order of the results."""
    found: dict[str, list[Result]] = {}
    for result in of_kind(results, "comparison"):
        found.setdefault(result["group"], []).append(result)
    return found


def comparisons(results: list[Result], *, targets: bool = True) -> str:
    """Returns a table of comparisons: medians, and the spread of the ratio over the rounds.

    Args:
        results: The comparisons.
        targets: Whether to show the targets, and whether they were reached: for developers.
    """
    heads = ["work", "stock saver", "checkpointd", "ratio (lowest to highest)"]
    if targets:
        heads.append("target")
    with_memory = any(result.get("memory") for result in results)
    if with_memory:
        heads.append("nothing stored: InMemorySaver, its ratio")
    rows = []
    for result in results:
        theirs, ours = statistics.median(result["stock"]), statistics.median(result["checkpointd"])
        target = ""
        if result["target"] is not None:
            sign = ">=" if result["more_is_better"] else "<="
            target = f"{sign} {result['target']:g}{'' if result['reached'] else ', not reached'}"
        rows.append(
            (
                result["title"],
                f"{number(theirs)} {result['unit']}",
                f"{number(ours)} {result['unit']}",
                f"{result['ratio']:.2f} ({min(result['ratios']):.2f} to {max(result['ratios']):.2f})",
                *((target,) if targets else ()),
                *((_in_memory(result, theirs),) if with_memory else ()),
            )
        )
    return _table(tuple(heads), rows)


def _in_memory(result: Result, theirs: float) -> str:
    """Returns the figure of the saver that stores nothing, and its ratio to the stock saver's: the best possible."""
    if not result.get("memory"):
        return ""
    figure = statistics.median(result["memory"])
    return f"{number(figure)} {result['unit']}, {figure / theirs:.2f}"


def facts(results: list[Result], *, targets: bool = True) -> str:
    """Returns a list of the figures that stand for themselves, with or without targets."""
    lines = []
    for fact in (fact for result in results for fact in result["facts"]):
        words = f"{fact['value']:,.{fact['digits']}f} {fact['unit']}".strip()
        if targets and fact["target"] is not None:
            missed = "" if fact["value"] <= fact["target"] else ", not reached"
            words += f" (target: at most {fact['target']:g}{missed})"
        lines.append(f"- {fact['title']}: {words}" + (f"; {fact['beside']}" if fact["beside"] else ""))
    return "\n".join(lines)


def curve(result: Result) -> str:
    """Returns the medians along a curve."""
    unit = result["unit"]
    rows = []
    for point, theirs, ours in zip(result["points"], result["stock"], result["checkpointd"], strict=True):
        low, high = statistics.median(theirs), statistics.median(ours)
        rows.append((f"{point:,}", f"{number(low)} {unit}", f"{number(high)} {unit}", f"{high / low:.2f}"))
    heading = f"{result['title']}:\n\n"
    return heading + _table((result["axis"], "stock saver", "checkpointd", "ratio"), rows)


def profile(result: Result) -> str:
    """Returns the microseconds of a put, by where they are spent: CPU time first, largest first on each side."""
    columns = result["columns"]
    rows: list[tuple[str, ...]] = []

    def add(name: str, figures: Iterable[float], *, bold: bool = False) -> None:
        mark = "**" if bold else ""
        rows.append(tuple(f"{mark}{cell}{mark}" for cell in (name, *(f"{figure:,.0f}" for figure in figures))))

    for side in ("client", "server"):
        layers = {name for column in columns.values() for name in column if name.startswith(f"{side}: ")}
        found = {name: [column.get(name, 0.0) for column in columns.values()] for name in layers}
        add(f"{side}: CPU", map(sum, zip(*found.values(), strict=True)), bold=True)
        for name in sorted(found, key=lambda name: -sum(found[name])):
            add(name, found[name])
    add(CPU, (column[CPU] for column in columns.values()), bold=True)
    add(DISK, (column[DISK] for column in columns.values()))
    add(ELAPSED, (column[ELAPSED] for column in columns.values()), bold=True)
    return f"{result['title']}:\n\n" + _table(("microseconds a put", *columns), rows)


def provenance(results: list[Result], *, packages: bool = True) -> str:
    """Describes where and when the results were measured, in a sentence for each machine."""
    told: dict[str, list[str]] = {}
    for result in results:
        machine = result["machine"]
        versions = machine["packages"] if packages else {}
        text = (
            f"{machine['cores']} cores ({machine['processor']}), {machine['memory_gib']} GiB, {machine['system']}, "
            f"Python {machine['python']}, PostgreSQL {machine['postgresql']}"
        )
        text += "".join(f", {name} {version}" for name, version in versions.items())
        told.setdefault(text, []).append(result["measured"])
    return "\n".join(
        f"Measured on {' to '.join(sorted({min(days), max(days)}))}: {text}." for text, days in told.items()
    )


def number(value: float) -> str:
    """Formats a figure with about three significant digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.1f}" if abs(value) >= 10 else f"{value:,.2f}"


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
