"""Writes figures into the documents: the latest results, between two marks, and the charts beside them.

The documents have no other figures. Nothing is written by hand between the marks.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from tests.bench import report
from tests.bench.case import SPEED
from tests.bench.charts import draw_curve, draw_ratios
from tests.bench.report import Result, groups, of_kind

ROOT = Path(__file__).resolve().parents[2]
FIGURES = Path("docs", "figures")
BEGIN = "<!-- figures: begin (made by python -m tests.bench publish) -->\n"
END = "<!-- figures: end -->\n"
RATIO = (
    "A ratio is checkpointd's figure divided by the stock saver's: above 1 is good where calls a second are counted, "
    "and bad where times or sizes are."
)
HEADLINES = ("graphs-processes", "ainvoke", "growing-list")
"""The comparisons that the README shows."""
ROUNDS = (
    "The same work may stand in two places with different figures: as a row of a table and as a point of a curve it is "
    "measured at different times, on a machine that is never quite quiet. Compare within a row."
)
NOTHING = "Nothing has been measured for this version yet: see `make bench`.\n"


def publish(results: list[Result], root: Path = ROOT) -> list[Path]:
    """Writes the figures of results into the documents, replacing all earlier ones. Returns the written files.

    Files in the folder that were not published stay.
    """
    figures = root / FIGURES
    figures.mkdir(exist_ok=True)
    for old in _published(figures):
        old.unlink(missing_ok=True)
    written = draw(results, figures)
    for result in results:
        report.save(figures, result)
        written.append(figures / f"{result['name']}.json")
    for path, text in texts(results).items():
        document = root / path
        document.write_text(between_marks(document.read_text(), text))
        written.append(document)
    return written


def _published(figures: Path) -> list[Path]:
    """Returns the files that were published last: results, and their charts."""
    results: list[Result] = []
    for path in sorted(figures.glob("*.json")):
        with suppress(ValueError):
            found = json.loads(path.read_text())
            if isinstance(found, dict) and found.get("name") == path.stem and "kind" in found:
                results.append(found)
    charts = [_chart(group) for group in groups(results)]
    charts += [f"{result['name']}.svg" for result in of_kind(results, "curve")]
    return [figures / name for name in [*charts, *(f"{result['name']}.json" for result in results)]]


def texts(results: list[Result]) -> dict[str, str]:
    """Returns the text between the marks of each document, by its path."""
    return {"README.md": _readme(results), "docs/performance.md": _page(results)}


def draw(results: list[Result], folder: Path) -> list[Path]:
    """Draws all charts into a folder. Returns their paths."""
    written = []
    for group, rows in groups(results).items():
        draw_ratios(folder / _chart(group), rows)
        written.append(folder / _chart(group))
    for result in of_kind(results, "curve"):
        draw_curve(folder / f"{result['name']}.svg", result)
        written.append(folder / f"{result['name']}.svg")
    return written


def _chart(group: str) -> str:
    """The file name of a group's chart."""
    return f"{group.lower().replace(' ', '-')}.svg"


def between_marks(document: str, text: str) -> str:
    """Returns a document with another text between its marks."""
    before, found, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not found or not end:
        raise ValueError(f"there are no marks in the document: {BEGIN.strip()} ... {END.strip()}")
    return before + BEGIN + text + END + after


def _readme(results: list[Result]) -> str:
    # If none of the headlines was measured, as in a run of some cases only, the main table's existing rows are shown.
    rows = [result for result in results if result["name"] in HEADLINES] or groups(results).get(SPEED)
    if not rows:
        return NOTHING
    plain = [{name: value for name, value in row.items() if name != "memory"} for row in rows]
    return (
        f"{report.comparisons(plain, targets=False)}\n\n{RATIO} {report.provenance(rows, packages=False)} "
        "[More figures, and how to get your own](docs/performance.md).\n"
    )


def _page(results: list[Result]) -> str:
    if not results:
        return NOTHING
    parts = [report.provenance(results), f"{RATIO} {ROUNDS}"]
    for group, rows in groups(results).items():
        parts += [f"### {group}, beside the stock savers", f"![{group}](figures/{_chart(group)})"]
        parts.append(report.comparisons(rows, targets=False))
    lists = of_kind(results, "facts")
    if lists:
        parts += ["### Other figures", report.facts(lists, targets=False)]
    for result in of_kind(results, "curve"):
        heading, _, table = report.curve(result).partition(":\n\n")
        parts += [f"### {heading.replace(':', ',')}", f"![{heading}](figures/{result['name']}.svg)", table]
    for result in of_kind(results, "profile"):
        _, _, table = report.profile(result).partition(":\n\n")
        parts += ["### A put, in microseconds", "By `make bench ARGS=profile`, see below:", table]
    return "\n\n".join(parts) + "\n"
