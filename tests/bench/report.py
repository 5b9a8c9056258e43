"""What a benchmark says: a table, JSON and a chart."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.scenes import Scene


@dataclass(kw_only=True)
class Row:
    """What came of a scene: a figure for each round and saver."""

    scene: Scene
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """Our figure over the stock saver's, round by round."""
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return statistics.median(self.ratios)

    def as_json(self) -> dict[str, Any]:
        """The row for machines."""
        return {
            "name": self.scene.name,
            "title": self.scene.title,
            "unit": self.scene.unit,
            "checkpointd": self.ours,
            "stock": self.theirs,
            "ratio": self.ratio,
            "ratios": self.ratios,
            "target": self.scene.target,
            "reached": self.scene.reached(self.ratio),
        }


def table(rows: list[Row]) -> str:
    """The rows for people, in Markdown: medians, and the spread of the ratio over the rounds."""
    lines = [
        "| work | stock saver | checkpointd | ratio (lowest to highest) | target |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        theirs, ours = statistics.median(row.theirs), statistics.median(row.ours)
        sign = ">=" if row.scene.more_is_better else "<="
        mark = "" if row.scene.reached(row.ratio) else ", not reached"
        lines.append(
            f"| {row.scene.title} | {theirs:,.1f} {row.scene.unit} | {ours:,.1f} {row.scene.unit} "
            f"| {row.ratio:.2f} ({min(row.ratios):.2f} to {max(row.ratios):.2f}) "
            f"| {sign} {row.scene.target:.1f}{mark} |"
        )
    return "\n".join(lines)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes all figures."""
    path.write_text(json.dumps(content, indent=2) + "\n")


def write_chart(path: Path, rows: list[Row]) -> None:
    """Draws the ratios as an SVG: how many times better or worse than the stock saver, and what was wanted."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 0.7 * len(rows) + 1.2), layout="constrained")
    # Where less is better the ratio is turned over, so that longer bars are better everywhere.
    gains = [row.ratio if row.scene.more_is_better else 1 / row.ratio for row in rows]
    wanted = [row.scene.target if row.scene.more_is_better else 1 / row.scene.target for row in rows]
    positions = list(range(len(rows)))
    axes.barh(positions, gains, color="#3b7dd8", height=0.5, label="checkpointd")
    axes.plot(wanted, positions, linestyle="", marker="|", markersize=18, color="#d8503b", label="target")
    axes.axvline(1, color="#666666", linewidth=1)
    axes.set_yticks(positions, [row.scene.title for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("times the stock saver (more is better)")
    axes.legend(frameon=False, loc="lower right")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)
