"""`make bench` works: every case measures both savers, and its results appear in tables, charts and documents."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from tests.bench import publish, report
from tests.bench.__main__ import main
from tests.bench.case import QUICK
from tests.bench.registry import all_cases
from tests.bench.states import STATES
from tests.support.document import ROOT, Document
from tests.support.server_process import clean_environment

NAMES = [case.name for case in all_cases()]
MACHINE = {
    "cores": 2,
    "processor": "p",
    "memory_gib": 1,
    "system": "s",
    "python": "3",
    "packages": {},
    "postgresql": "18",
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a quick benchmark of everything, and its output: one for all processes of a run."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    out, printed = shared / "bench", shared / "bench.txt"
    with (shared / "bench.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not printed.exists():
            printed.write_text(measure(out))
    return out, printed.read_text()


def measure(out: Path) -> str:
    """Runs a quick benchmark of everything, and returns its output."""
    command = [sys.executable, "-m", "tests.bench", "--quick", "--out", str(out)]
    with subprocess.Popen(
        command, cwd=ROOT, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        ends = threading.Timer(500, process.terminate)
        ends.start()
        printed, progress = process.communicate()
        ends.cancel()
    assert process.returncode == 0, progress
    return printed


def comparison(**changes: Any) -> report.Result:
    """Returns a result as a comparison leaves it."""
    return {
        "name": "a",
        "title": "some work",
        "kind": "comparison",
        "group": "Speed",
        "measured": "2026-01-02",
        "quick": False,
        "machine": MACHINE,
        "unit": "ms",
        "stock": [2.0, 4.0, 8.0],
        "checkpointd": [1.0, 2.0, 6.0],
        "memory": None,
        "ratios": [0.5, 0.5, 0.75],
        "ratio": 0.5,
        "target": 0.8,
        "more_is_better": False,
        "reached": True,
        **changes,
    }


@pytest.mark.long
@pytest.mark.timeout(600)
class TestMeasuring:
    def test_every_case_leaves_its_figures(self, measured: tuple[Path, str]) -> None:
        results = report.load(measured[0], NAMES)
        assert [result["name"] for result in results] == NAMES
        for result in results:
            assert result["quick"]
            assert result["machine"]["postgresql"].startswith("18")
            # In so short a time, stored data or memory may not grow measurably.
            least = 1e-9 if result["kind"] == "comparison" and result["group"] != STATES else 0
            assert all(figure >= least for figure in figures_of(result)), result

    def test_both_savers_are_measured_at_each_point_of_a_curve(self, measured: tuple[Path, str]) -> None:
        points = {
            "scaling-agents": QUICK.agents,
            "scaling-state": QUICK.state_bytes,
            "scaling-history": QUICK.history,
            "scaling-workers": QUICK.workers,
        }
        curves = report.of_kind(report.load(measured[0], NAMES), "curve")
        assert {curve["name"]: tuple(curve["points"]) for curve in curves} == points
        for curve in curves:
            for saver in ("stock", "checkpointd"):
                assert [len(rounds) for rounds in curve[saver]] == [QUICK.rounds] * len(curve["points"])

    def test_every_side_of_a_put_is_in_the_profile(self, measured: tuple[Path, str]) -> None:
        (profile,) = report.load(measured[0], ["profile"])
        assert set(profile["columns"]) == {"1 agent", "32 agents"}
        # So short a profile may miss a layer of one of them.
        seen = {name for column in profile["columns"].values() for name, us in column.items() if us > 0}
        assert seen >= {"client: serialization", "client: GrpcSaver", "server: requests and answers (rpc)"}
        for column in profile["columns"].values():
            for side in ("client: ", "server: "):
                assert 10 < sum(us for name, us in column.items() if name.startswith(side)) < 1_000_000

    def test_charts_are_drawn(self, measured: tuple[Path, str]) -> None:
        charts = {path.stem for path in measured[0].glob("*.svg")}
        assert charts == {
            "speed",
            "one-agent-alone",
            "benchmark-graphs-of-langgraph",
            "cpu-time",
            "large-states",
            "long-term-memory",
            "scaling-agents",
            "scaling-state",
            "scaling-history",
            "scaling-workers",
        }
        for chart in charts:
            assert ElementTree.parse(measured[0] / f"{chart}.svg").getroot().tag.endswith("svg")

    def test_the_table_is_printed(self, measured: tuple[Path, str]) -> None:
        for result in report.load(measured[0], NAMES):
            if result["kind"] == "comparison":
                assert f"| {result['title']} |" in measured[1]

    def test_quick_figures_are_not_published(self, measured: tuple[Path, str]) -> None:
        result = CliRunner().invoke(main, ["publish", "--out", str(measured[0])])
        assert result.exit_code == 1
        assert "--quick mean nothing" in result.output


def figures_of(result: report.Result) -> list[float]:
    """Returns all figures of a result."""
    match result["kind"]:
        case "comparison":
            return [*result["stock"], *result["checkpointd"], *(result["memory"] or ())]
        case "curve":
            return [figure for saver in ("stock", "checkpointd") for rounds in result[saver] for figure in rounds]
        case "facts":
            return [fact["value"] for fact in result["facts"]]
        case _:
            return [column["elapsed (median)"] for column in result["columns"].values()]


def test_a_case_that_is_not_there_is_named() -> None:
    result = CliRunner().invoke(main, ["--only", "nonsense"])
    assert result.exit_code == 2
    assert "no case is named nonsense" in result.output


def test_cases_can_be_listed() -> None:
    lines = CliRunner().invoke(main, ["--list"]).output.splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    assert len(set(NAMES)) == len(NAMES)
    assert all(re.fullmatch(r"[a-z][a-z0-9-]*", name) for name in NAMES)


def test_a_row_has_medians_the_spread_and_whether_the_target_was_reached() -> None:
    (*_, row) = report.comparisons([comparison()]).splitlines()
    assert row == "| some work | 4.00 ms | 2.00 ms | 0.50 (0.50 to 0.75) | <= 0.8 |"
    (*_, row) = report.comparisons([comparison(target=0.4, reached=False)]).splitlines()
    assert row.endswith("| <= 0.4, not reached |")


def test_what_a_saver_reaches_that_stores_nothing_stands_beside_the_target() -> None:
    head, _, *rows = report.comparisons([comparison(memory=[1.0, 3.0, 2.0]), comparison()]).splitlines()
    assert head.endswith("| target | nothing stored: InMemorySaver, its ratio |")
    assert [row.split(" | ")[-1] for row in rows] == ["2.00 ms, 0.50 |", " |"]


def test_a_group_has_a_table_and_a_chart_of_its_own_and_may_have_no_target(tmp_path: Path) -> None:
    results = [comparison(), comparison(name="b", title="bytes", group="Stored", target=None, reached=None, ratio=0.01)]
    assert publish.draw(results, tmp_path) == [tmp_path / "speed.svg", tmp_path / "stored.svg"]
    told = report.report(results)
    assert "Speed:\n\n| work" in told
    assert "Stored:\n\n| work" in told
    assert told.splitlines()[-1] == "| bytes | 4.00 ms | 2.00 ms | 0.01 (0.50 to 0.75) |  |"
    readme = publish.texts(results)["README.md"]
    assert "some work" in readme
    assert "bytes" not in readme


class TestPublishing:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """Sample documents with old figures, and files beside them that were not published."""
        figures = tmp_path / publish.FIGURES
        report.save(figures, comparison(name="old", group="Old"))
        for name in ("old.svg", "drawn-by-hand.svg", "notes.md", "other.json"):
            (figures / name).write_text("[]")
        for path in ("README.md", "docs/performance.md"):
            (tmp_path / path).write_text(f"before\n{publish.BEGIN}old\n{publish.END}after\n")
        return tmp_path

    def test_what_stands_between_the_marks_is_replaced_and_nothing_else(self, root: Path) -> None:
        publish.publish([comparison()], root)
        for path in ("README.md", "docs/performance.md"):
            text = (root / path).read_text()
            assert text.startswith(f"before\n{publish.BEGIN}")
            assert text.endswith(f"{publish.END}after\n")
            assert "old" not in text
            assert "| some work | 4.00 ms | 2.00 ms |" in text
            assert "2 cores (p)" in text
            assert "2026-01-02" in text
            assert publish.RATIO in text
            for image in re.findall(r"!\[.*\]\((.*)\)", text):
                assert (root / path).parent.joinpath(image).exists()
        foreign = {"drawn-by-hand.svg", "notes.md", "other.json"}
        assert {file.name for file in (root / publish.FIGURES).iterdir()} == {"speed.svg", "a.json", *foreign}
        assert json.loads((root / publish.FIGURES / "a.json").read_text()) == comparison()

    def test_the_same_figures_make_the_same_files(self, root: Path) -> None:
        written = publish.publish([comparison()], root)
        before = [path.read_bytes() for path in written]
        assert [path.read_bytes() for path in publish.publish([comparison()], root)] == before

    def test_a_document_without_marks_is_left_alone(self) -> None:
        with pytest.raises(ValueError, match="no marks"):
            publish.between_marks("text", "figures")


def test_what_the_readme_says_of_calls_and_of_graphs_is_what_was_published() -> None:
    names = ["put", "put-writes", "graphs-agents", "graphs-processes", "ainvoke"]
    put, writes, few, many, alone = report.load(ROOT / publish.FIGURES, names)
    text = Document("README.md").prose
    assert "A call by itself takes longer than over a connection of one's own" in text
    assert "graphs are what to look at" in text
    assert put["ratio"] > 1, "README.md, What it costs, is out of date"
    assert writes["ratio"] > 1, "README.md, What it costs, is out of date"
    assert min(few["ratio"], many["ratio"], 1 / alone["ratio"]) > 1, "README.md, What it costs, is out of date"


def test_the_documents_have_the_figures_that_were_published_and_no_others() -> None:
    results = report.load(ROOT / publish.FIGURES, NAMES)
    for path, text in publish.texts(results).items():
        assert publish.between_marks(Document(path).text, text) == Document(path).text, "run: make bench ARGS=publish"
