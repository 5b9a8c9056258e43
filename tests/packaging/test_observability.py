"""The dashboard and the alert rules in deploy/ match the metrics that a server really serves."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from checkpointd_server.observability.families import FAMILIES
from scripts import dashboard
from tests.support.document import ROOT, Document

DASHBOARD = ROOT / "deploy/grafana/checkpointd.json"
ALERTS = ROOT / "deploy/prometheus/alerts.yml"
ENDINGS = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
SAMPLES = {name + ending: family for name, family in FAMILIES.items() for ending in ENDINGS[family.kind]}
"""Every name that a query may use; tests/app/test_metrics.py checks that it is served."""
FROM_PROMETHEUS = {"job", "instance", "le", "alertname"}


def rules() -> list[dict[str, Any]]:
    """The alert rules."""
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def queries() -> Iterator[str]:
    """Every query of the dashboard and of the rules."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["definition"]
    yield from (rule["expr"] for rule in rules())


@pytest.mark.parametrize("query", list(queries()))
def test_a_query_names_metrics_and_labels_that_there_are(query: str) -> None:
    found = re.findall(r"(checkpointd_\w+)(?:\{([^}]*)\})?", query)
    assert found
    for name, matchers in found:
        assert name in SAMPLES, name
        for label in re.findall(r"(\w+)(?:=~|!~|!=|=)", matchers):
            assert label in {*SAMPLES[name].labels, *FROM_PROMETHEUS}, (name, label)
    labels = {label for name, _ in found for label in SAMPLES[name].labels}
    for grouped in re.findall(r"by \(([^)]*)\)", query):
        assert {label.strip() for label in grouped.split(",")} <= labels | FROM_PROMETHEUS, query


def test_the_dashboard_and_its_drawing_are_those_of_the_script() -> None:
    assert DASHBOARD.read_text() == dashboard.text(), "run: python -m scripts.dashboard"
    assert dashboard.DRAWING.read_text() == dashboard.drawing(dashboard.dashboard())


def test_panels_lie_side_by_side() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        assert all(x < 24 for x, _ in cells)
        taken |= cells


def test_the_document_has_every_alert() -> None:
    assert list(Document("docs/observability.md").table("alert")) == [rule["alert"] for rule in rules()]


needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


@needs_promtool
def test_promtool_takes_the_rules() -> None:
    subprocess.run(["promtool", "check", "rules", str(ALERTS)], check=True, capture_output=True)


@needs_promtool
def test_alerts_fire_when_they_should_and_not_before(tmp_path: Path) -> None:
    target = 'job="checkpointd",instance="a"'
    series = {
        f"checkpointd_build_info{{{target}}}": "1x60",
        f"up{{{target}}}": "1x60",
        f"checkpointd_database_up{{{target}}}": "1x9 0x50",
        f"checkpointd_serving{{{target}}}": "2x60",
        f"checkpointd_workers{{{target}}}": "2x60",
        f"checkpointd_worker_restarts_total{{{target}}}": "0x9 1+1x20 21x30",
        f"checkpointd_writes_queued{{{target}}}": "0x9 3000x50",
        f"checkpointd_queue_limit{{{target}}}": "4096x60",
    }

    def firing(minute: int, alert: str, **labels: str) -> dict[str, Any]:
        (rule,) = (rule for rule in rules() if rule["alert"] == alert)
        text = {key: value.replace("{{ $labels.instance }}", "a") for key, value in rule["annotations"].items()}
        of = {"exp_labels": {"job": "checkpointd", "instance": "a", **rule["labels"]}, "exp_annotations": text}
        return {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": [of]}

    def silent(minute: int, alert: str) -> dict[str, Any]:
        return {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": []}

    cases = [
        *(silent(9, rule["alert"]) for rule in rules()),
        firing(12, "CheckpointdDatabaseDown"),
        firing(12, "CheckpointdQueueFilling"),
        firing(15, "CheckpointdWorkersDie"),
        silent(15, "CheckpointdDown"),
        silent(15, "CheckpointdNotServing"),
    ]
    test = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "30s",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "alert_rule_test": cases,
            }
        ],
    }
    file = tmp_path / "alerts_test.yml"
    file.write_text(yaml.safe_dump(test))
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
