"""Building blocks of a benchmark: cases of three kinds, and the pace at which they are measured.

A case has a name, for the command line and the files, and `run` measures it and returns the result as JSON. Printed,
drawn and published output is made from that JSON alone.

- `Comparison`: one figure with each saver, and a target for their ratio. A row of the table.
- `Curve`: a figure with each saver at each of several points. A plot.
- `Facts`: figures of ours without a counterpart, or that speak for themselves.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.bench.environment import Environment
from tests.bench.savers import Kind

Progress = Callable[[str], None]
"""Called with the name of the current measurement."""
SAVERS: tuple[Kind, Kind] = ("postgres", "checkpointd")
"""The savers that take turns."""
SPEED = "Speed"
"""The main table, which the README shows."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The extent of the measurements."""

    rounds: int = 3
    """The number of turns of each saver."""
    seconds: float = 5.0
    """How long a throughput is measured."""
    runs: int = 60
    """The number of timed runs for a median."""
    warm_up: int = 8
    """The number of runs before that aren't timed."""
    agents: tuple[int, ...] = (1, 4, 16, 64, 256)
    """The points of the curve over agents."""
    state_bytes: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
    """The points of the curve over the state's size."""
    history: tuple[int, ...] = (10, 100, 1_000, 10_000)
    """The points of the curve over a thread's checkpoints."""
    workers: tuple[int, ...] = (1, 2)
    """The points of the curve over server processes."""
    steps: tuple[int, int] = (300, 50)
    """The number of steps in which the list grows, and in which the constant stays in the state."""
    items: int = 10_000
    """The number of strings of 1 KB in the large list."""
    changes: int = 15
    """The number of changes of the large list."""
    large_bytes: int = 100_000_000
    """The size of the largest value."""
    most_processes: int = 4
    """The maximum number of agent processes, as in the titles."""
    processes: int = 48
    """The number of agent processes that count connections."""
    settle_seconds: float = 11.0
    """How long PostgreSQL may take to publish its statistics: up to 10 seconds for an idle connection."""


QUICK = Pace(
    rounds=1,
    seconds=0.5,
    runs=4,
    warm_up=1,
    agents=(1, 4),
    state_bytes=(1_000, 100_000),
    history=(10, 50),
    steps=(30, 5),
    items=300,
    changes=3,
    large_bytes=3_000_000,
    most_processes=2,
    processes=2,
    settle_seconds=0.0,
)
"""Just enough to check that everything works. The figures mean nothing."""


class Case(Protocol):
    """Something to measure."""

    @property
    def name(self) -> str:
        """A short name, in letters and hyphens: for the command line, and for the files."""

    @property
    def title(self) -> str:
        """A title for people."""

    def run(self, environment: Environment, pace: Pace, progress: Progress) -> dict[str, Any]:
        """Measures, and returns the result, as JSON with its "kind"."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A figure with the stock saver, and with ours."""

    name: str
    title: str
    unit: str
    """The unit of a figure."""
    measure: Callable[[Environment, Kind, Pace], float]
    """Measures one saver once."""
    more_is_better: bool
    """Whether a greater figure is better."""
    target: float | None = None
    """The desired ratio of our figure to the stock saver's."""
    group: str = SPEED
    """The heading of the table and the chart that it belongs to."""
    with_memory: bool = False
    """Whether LangGraph's saver in memory has its turn too. It only serializes, so no saver that stores can reach its
    figures."""

    def run(self, environment: Environment, pace: Pace, progress: Progress) -> dict[str, Any]:
        """Lets the savers take turns, and compares them round by round."""
        savers: tuple[Kind, ...] = (*SAVERS, "memory") if self.with_memory else SAVERS
        found: dict[Kind, list[float]] = {kind: [] for kind in savers}
        for number in range(1, pace.rounds + 1):
            progress(f"{self.title}: round {number} of {pace.rounds}")
            for kind in savers:
                found[kind].append(self.measure(environment, kind, pace))
        ratios = [ours / theirs for ours, theirs in zip(found["checkpointd"], found["postgres"], strict=True)]
        ratio = statistics.median(ratios)
        reached = None
        if self.target is not None:
            reached = ratio >= self.target if self.more_is_better else ratio <= self.target
        return {
            "kind": "comparison",
            "group": self.group,
            "unit": self.unit,
            "checkpointd": found["checkpointd"],
            "stock": found["postgres"],
            "memory": found.get("memory"),
            "ratios": ratios,
            "ratio": ratio,
            "target": self.target,
            "more_is_better": self.more_is_better,
            "reached": reached,
        }


MeasurePoint = Callable[[Kind, int], float]
"""Measures one saver at one point once."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A figure with each saver at each of several points."""

    name: str
    title: str
    axis: str
    """The label of the points."""
    unit: str
    """The unit of a figure."""
    points: Callable[[Pace], tuple[int, ...]]
    """The points where it is measured."""
    start: Callable[[Environment, Pace], AbstractContextManager[MeasurePoint]]
    """Creates what all points need, and removes it in the end."""
    logarithmic: bool = True
    """Whether the axis of the figures is logarithmic. That of the points is, if there are more than two."""

    def run(self, environment: Environment, pace: Pace, progress: Progress) -> dict[str, Any]:
        """Goes through the points in each round; at each of them the savers take turns."""
        points = self.points(pace)
        found: dict[Kind, dict[int, list[float]]] = {kind: {point: [] for point in points} for kind in SAVERS}
        progress(f"{self.title}: setting up")
        with self.start(environment, pace) as measure:
            for number in range(1, pace.rounds + 1):
                for point in points:
                    progress(f"{self.title}: round {number} of {pace.rounds}, {point:,} {self.axis}")
                    for kind in SAVERS:
                        found[kind][point].append(measure(kind, point))
        return {
            "kind": "curve",
            "axis": self.axis,
            "unit": self.unit,
            "logarithmic": self.logarithmic,
            "points": list(points),
            "checkpointd": [found["checkpointd"][point] for point in points],
            "stock": [found["postgres"][point] for point in points],
        }


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A figure that stands for itself."""

    title: str
    value: float
    unit: str = ""
    target: float | None = None
    """The desired maximum."""
    digits: int = 0
    """The number of decimals worth showing."""
    beside: str = ""
    """Context, such as the stock saver's figure."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Figures that stand for themselves."""

    name: str
    title: str
    tell: Callable[[Environment, Pace], list[Fact]] = field()
    """Measures them once."""

    def run(self, environment: Environment, pace: Pace, progress: Progress) -> dict[str, Any]:
        """Measures them."""
        progress(self.title)
        return {"kind": "facts", "facts": [vars(fact) for fact in self.tell(environment, pace)]}
