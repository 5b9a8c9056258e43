"""Charts of a benchmark as SVG, made from the JSON that cases left."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.report import Result

MOST_LINEAR = 20
"""The greatest ratio that is drawn on a linear axis."""
LEAST_RATIO = 0.001
"""The least ratio that is drawn; ratios too small to measure are 0."""
OURS, THEIRS, INK = "#3b7dd8", "#e08a2e", "#666666"


def draw_ratios(path: Path, results: list[Result]) -> None:
    """Draws a table of comparisons: how many times better or worse than the stock saver."""
    with _figure(path, width=8, height=0.7 * len(results) + 1.2) as axes:
        # Ratios where less is better are inverted, so longer bars are better everywhere.
        gains = [
            result["ratio"] if result["more_is_better"] else 1 / max(result["ratio"], LEAST_RATIO) for result in results
        ]
        places = list(range(len(results)))
        bars = axes.barh(places, gains, color=OURS, height=0.5, label="checkpointd")
        axes.bar_label(bars, [f"{gain:.2f}" for gain in gains], padding=6)
        axes.axvline(1, color=INK, linewidth=1)
        if max(gains) > MOST_LINEAR:
            axes.set_xscale("log")
        axes.set_yticks(places, [result["title"] for result in results])
        axes.invert_yaxis()
        axes.margins(x=0.12)  # for the figures next to the bars
        axes.set_xlabel("times as good as the stock saver (more is better)")


def draw_curve(path: Path, result: Result) -> None:
    """Draws a curve for each saver: medians, and a band from the lowest to the highest round."""
    points = result["points"]
    with _figure(path, width=7, height=4) as axes:
        for saver, label, color in (("stock", "stock saver", THEIRS), ("checkpointd", "checkpointd", OURS)):
            rounds = result[saver]
            axes.plot(points, [statistics.median(one) for one in rounds], marker="o", color=color, label=label)
            axes.fill_between(
                points, [min(one) for one in rounds], [max(one) for one in rounds], color=color, alpha=0.15
            )
        if len(points) > 2:
            axes.set_xscale("log")
        if result["logarithmic"]:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.set_xticks(points, [_short(point) for point in points])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axes.set_xlabel(result["axis"])
        axes.set_ylabel(result["unit"])
        axes.grid(visible=True, color="#dddddd", linewidth=0.5)


@contextmanager
def _figure(path: Path, *, width: float, height: float) -> Iterator[Any]:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    # Text stays text, which keeps files small; stable ids keep diffs small.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.name, "font.family": "sans-serif"}):
        figure, axes = pyplot.subplots(figsize=(width, height), layout="constrained")
        yield axes
        figure.legend(frameon=False, loc="outside upper right", ncols=2)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        figure.savefig(path, format="svg", metadata={"Date": None})
        pyplot.close(figure)


def _short(point: int) -> str:
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if point >= size and point % size == 0:
            return f"{point // size}{unit}"
    return str(point)
