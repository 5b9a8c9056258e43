"""What a benchmark is made of: cases of three kinds, and the pace at which they are measured.

A case has a name, for the command line and the files, and can `run`: it measures, and returns what it found as JSON.
What is printed, drawn and published is made from that JSON alone.

- `Comparison`: one figure with each saver, and a target for their ratio. A row of the table.
- `Curve`: a figure with each saver at each of several points. A plot.
- `Facts`: figures of ours that have nothing to be compared with, or that speak for themselves.
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
"""Told what is being measured."""
SAVERS: tuple[Kind, Kind] = ("postgres", "checkpointd")
"""Who takes turns."""
SPEED = "Speed"
"""The main table, which the README shows."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How much is measured."""

    rounds: int = 3
    """How often each saver has its turn."""
    seconds: float = 5.0
    """How long a throughput takes."""
    runs: int = 60
    """How many times something is timed for a median."""
    warm_up: int = 8
    """How many runs go before."""
    agents: tuple[int, ...] = (1, 4, 16, 64, 256)
    """The points of the curve over agents."""
    state_bytes: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
    """The points of the curve over the state's size."""
    history: tuple[int, ...] = (10, 100, 1_000, 10_000)
    """The points of the curve over a thread's checkpoints."""
    workers: tuple[int, ...] = (1, 2)
    """The points of the curve over server processes."""
    steps: tuple[int, int] = (300, 50)
    """How many steps the list grows, and how many the constant stays in the state."""
    items: int = 10_000
    """How many strings of 1 KB the large list has."""
    changes: int = 15
    """How often the large list is changed."""
    large_bytes: int = 100_000_000
    """How large the largest value is."""
    most_processes: int = 4
    """Maximum number of the agents' processes, as in the titles."""
    processes: int = 48
    """How many agent processes count connections."""
    settle_seconds: float = 11.0
    """How long PostgreSQL may take to publish its statistics: up to 10 seconds for a connection that is idle."""


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
"""Just enough to see that everything works. The figures mean nothing."""


class Case(Protocol):
    """Something to measure."""

    @property
    def name(self) -> str:
        """A short name, in letters and hyphens: for the command line, and for the files."""

    @property
    def title(self) -> str:
        """What it is, for people."""

    def run(self, environment: Environment, pace: Pace, progress: Progress) -> dict[str, Any]:
        """Measures. Returns what it found, for JSON, with its "kind"."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A figure with the stock saver, and with ours."""

    name: str
    title: str
    unit: str
    """The unit of a figure."""
    measure: Callable[[Environment, Kind, Pace], float]
    """Measures one saver, once."""
    more_is_better: bool
    """Whether a greater figure is better."""
    target: float | None = None
    """The ratio of our figure to the stock saver's that is wanted."""
    group: str = SPEED
    """The heading under which it stands, in a table and a chart with its like."""
    with_memory: bool = False
    """Whether LangGraph's saver in memory has its turn too. It only serializes: what it reaches is out of reach for one
    that stores."""

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
"""Measures one saver at one point, once."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A figure with each saver at each of several points."""

    name: str
    title: str
    axis: str
    """What the points are."""
    unit: str
    """The unit of a figure."""
    points: Callable[[Pace], tuple[int, ...]]
    """Where it is measured."""
    start: Callable[[Environment, Pace], AbstractContextManager[MeasurePoint]]
    """Makes what all points need, and takes it away in the end."""
    logarithmic: bool = True
    """Whether the figures' axis is logarithmic. The points' is, if there are more than two."""

    def run(self, environment: Environment, pace: Pace, progress: Progress) -> dict[str, Any]:
        """Goes along the points in each round; at each of them the savers take turns."""
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
    """At the most so much is wanted."""
    digits: int = 0
    """How many digits behind the point are worth showing."""
    beside: str = ""
    """What to know with it, such as the stock saver's figure."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Figures that stand for themselves."""

    name: str
    title: str
    tell: Callable[[Environment, Pace], list[Fact]] = field()
    """Measures them, once."""

    def run(self, environment: Environment, pace: Pace, progress: Progress) -> dict[str, Any]:
        """Measures them."""
        progress(self.title)
        return {"kind": "facts", "facts": [vars(fact) for fact in self.tell(environment, pace)]}
