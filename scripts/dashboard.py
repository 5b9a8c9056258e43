"""Creates the Grafana dashboard, and its drawing in the documents: `python -m scripts.dashboard`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
DASHBOARD = ROOT / "deploy" / "grafana" / "checkpointd.json"
DRAWING = ROOT / "docs" / "drawings" / "dashboard.svg"

_OF = '{job=~"$job",instance=~"$instance"}'
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_ROW_HEIGHT = 7
_COLUMNS = 24


class Panel(NamedTuple):
    """A panel of the dashboard."""

    title: str
    help: str
    """The text of its tooltip."""
    unit: str
    """Grafana's name for the unit."""
    queries: tuple[tuple[str, str], ...]
    """PromQL and legend of each query. `OF` stands for the chosen servers, `PUT` and `GET` for a method's label."""
    kind: str = "timeseries"


def _rate(metric: str, by: str = "") -> str:
    inner = f"rate({metric}OF[$__rate_interval])"
    return f"sum by ({by}) ({inner})" if by else f"sum({inner})"


def _quantile(quantile: float, metric: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({quantile}, sum by ({labels}) (rate({metric}_bucketOF[$__rate_interval])))"


ROWS: dict[str, tuple[Panel, ...]] = {
    "At a glance": (
        Panel(
            "Serving",
            "Processes whose health tells SERVING, of those that run.",
            "short",
            (("sum(checkpointd_servingOF)", "serving"), ("sum(checkpointd_workersOF)", "running")),
            "stat",
        ),
        Panel("Database", "1: it answers.", "short", (("min(checkpointd_database_upOF)", "up"),), "stat"),
        Panel("Calls a second", "", "ops", ((_rate("checkpointd_calls_total"), "calls"),), "stat"),
        Panel(
            "Failed",
            "Share of calls that failed, conflicts and held leases aside.",
            "percentunit",
            (
                (
                    "sum(rate(checkpointd_calls_totalBAD[$__rate_interval])) / " + _rate("checkpointd_calls_total"),
                    "failed",
                ),
            ),
            "stat",
        ),
    ),
    "Calls": (
        Panel(
            "Calls by method",
            "Operations of pipelines are calls.",
            "ops",
            ((_rate("checkpointd_calls_total", "method"), "{{method}}"),),
        ),
        Panel(
            "How long they take (99%)",
            "Until they are answered, from when their request is there.",
            "s",
            ((_quantile(0.99, "checkpointd_call_seconds", "method"), "{{method}}"),),
        ),
        Panel(
            "Failures by reason",
            "Reasons are those of errors.proto.",
            "ops",
            ((_rate("checkpointd_call_failures_total", "reason"), "{{reason}}"),),
        ),
    ),
    "Runs": (
        Panel(
            "Conflicts and leases",
            "Runs that were overtaken, and what was said to those who asked for a lease.",
            "ops",
            (
                (_rate("checkpointd_conflicts_total"), "conflicts"),
                (_rate("checkpointd_leases_total", "outcome"), "lease {{outcome}}"),
            ),
        ),
        Panel(
            "Size of puts",
            "Bytes that were sent: half of them have fewer, and 99 of 100.",
            "bytes",
            (
                (_quantile(0.5, "checkpointd_request_bytes", "method"), "50% {{method}}"),
                (_quantile(0.99, "checkpointd_request_bytes", "method"), "99% {{method}}"),
            ),
        ),
        Panel(
            "Slow calls, large checkpoints",
            "Those that have a warning in the log.",
            "ops",
            (
                (_rate("checkpointd_slow_calls_total"), "slow calls"),
                (_rate("checkpointd_large_checkpoints_total"), "large checkpoints"),
            ),
        ),
    ),
    "Load": (
        Panel(
            "Calls in flight, relative to the limit",
            "At 1 calls are refused with OVERLOADED.",
            "percentunit",
            (
                ("sum(checkpointd_calls_activeOF) / sum(checkpointd_calls_limitOF)", "calls"),
                ("sum(checkpointd_bytes_in_flightOF) / sum(checkpointd_bytes_in_flight_limitOF)", "bytes"),
            ),
        ),
        Panel(
            "Queues",
            "What waits for the database.",
            "short",
            (
                ("sum(checkpointd_writes_queuedOF)", "writes"),
                ("sum(checkpointd_reads_queuedOF)", "reads"),
                ("sum(checkpointd_leases_waitingOF)", "for a lease"),
            ),
        ),
        Panel(
            "Memory and CPU",
            "Of each process.",
            "short",
            (
                ("sum(checkpointd_process_resident_bytesOF) / 2^30", "GiB"),
                (_rate("checkpointd_process_cpu_seconds_total", "instance, worker"), "cores {{instance}} {{worker}}"),
            ),
        ),
    ),
    "Database": (
        Panel(
            "Writes a commit",
            "More under load: what arrives together shares a commit.",
            "short",
            (
                (
                    _rate("checkpointd_commit_writes_sum") + " / " + _rate("checkpointd_commit_writes_count"),
                    "writes a commit",
                ),
                (_rate("checkpointd_commits_total", "outcome"), "commits a second, {{outcome}}"),
            ),
        ),
        Panel(
            "Commits and waits (99%)",
            "",
            "s",
            (
                (_quantile(0.99, "checkpointd_commit_seconds"), "commit"),
                (_quantile(0.99, "checkpointd_commit_wait_seconds"), "waits for its commit"),
                (_quantile(0.99, "checkpointd_pool_wait_seconds"), "waits for a connection"),
            ),
        ),
        Panel(
            "Statements (99%)",
            "With their round trip.",
            "s",
            ((_quantile(0.99, "checkpointd_statement_seconds", "statement"), "{{statement}}"),),
        ),
    ),
    "Long-term memory": (
        Panel(
            "Operations on items",
            "Alone or in batches.",
            "ops",
            ((_rate("checkpointd_item_operations_total", "operation, outcome"), "{{operation}}, {{outcome}}"),),
        ),
        Panel(
            "Operations on items (99%)",
            "Those of a batch that are done together take as long as all of them.",
            "s",
            ((_quantile(0.99, "checkpointd_item_operation_seconds", "operation"), "{{operation}}"),),
        ),
        Panel(
            "Items",
            "Read, found, counted, stored and deleted a second.",
            "ops",
            ((_rate("checkpointd_items_total", "operation"), "{{operation}}"),),
        ),
    ),
    "Storage": (
        Panel(
            "Tables",
            "With indexes. Measured once a minute.",
            "bytes",
            (("max by (table) (checkpointd_table_bytesOF)", "{{table}}"),),
        ),
        Panel(
            "Connections",
            "To the database, of all processes.",
            "short",
            (
                ("sum by (state) (checkpointd_pool_connectionsOF)", "{{state}}"),
                ("sum(checkpointd_pool_limitOF)", "limit"),
                (_rate("checkpointd_statement_retries_total"), "retries a second"),
            ),
        ),
        Panel(
            "Clean-up",
            "Retention, and what nobody comes for.",
            "ops",
            (
                (_rate("checkpointd_retention_checkpoints_total"), "checkpoints deleted"),
                (_rate("checkpointd_gc_threads_total"), "threads looked at"),
                (_rate("checkpointd_gc_runs_total", "outcome"), "looks, {{outcome}}"),
            ),
        ),
    ),
}


def _expression(text: str) -> str:
    bad = '{job=~"$job",instance=~"$instance",code!~"OK|ABORTED|CANCELLED|NOT_FOUND"}'
    return text.replace("OF[", _OF + "[").replace("OF)", _OF + ")").replace("BAD", bad)


def dashboard() -> dict[str, Any]:
    """Returns the dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row, members in ROWS.items():
        panels.append(
            {"type": "row", "id": len(panels) + 1, "title": row, "collapsed": False, "panels": []}
            | {"gridPos": {"x": 0, "y": y, "w": _COLUMNS, "h": 1}}
        )
        y += 1
        height = 4 if members[0].kind == "stat" else _ROW_HEIGHT
        width = _COLUMNS // len(members)
        for place, panel in enumerate(members):
            targets = [
                {"refId": chr(ord("A") + number), "expr": _expression(query), "legendFormat": legend}
                | {"datasource": _SOURCE}
                for number, (query, legend) in enumerate(panel.queries)
            ]
            panels.append(
                {
                    "type": panel.kind,
                    "id": len(panels) + 1,
                    "title": panel.title,
                    "description": panel.help,
                    "datasource": _SOURCE,
                    "gridPos": {"x": place * width, "y": y, "w": width, "h": height},
                    "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
                    "targets": targets,
                }
            )
        y += height
    return {
        "title": "checkpointd",
        "uid": "checkpointd",
        "tags": ["checkpointd", "langgraph"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"},
                _variable("job", "label_values(checkpointd_build_info, job)"),
                _variable("instance", 'label_values(checkpointd_build_info{job=~"$job"}, instance)'),
            ]
        },
        "panels": panels,
    }


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "includeAll": True,
        "multi": True,
        "refresh": 2,
        "current": {"text": "All", "value": "$__all"},
    }


def drawing(made: dict[str, Any]) -> str:
    """Returns a drawing of a dashboard: its panels in their places, each with its content."""
    scale, line = 40, 26
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in made["panels"])
    width = _COLUMNS * scale
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom * line}" font-family="sans-serif">',
        f'<rect width="{width}" height="{bottom * line}" fill="#f4f5f5"/>',
    ]
    for panel in made["panels"]:
        place = panel["gridPos"]
        x, y, w, h = place["x"] * scale, place["y"] * line, place["w"] * scale, place["h"] * line
        if panel["type"] == "row":
            parts.append(f'<text x="8" y="{y + 18}" font-size="14" fill="#333">&#9662; {escape(panel["title"])}</text>')
            continue
        parts.append(
            f'<rect x="{x + 3}" y="{y + 3}" width="{w - 6}" height="{h - 6}" rx="3" fill="#fff" stroke="#ccc"/>'
        )
        parts.append(
            f'<text x="{x + 12}" y="{y + 22}" font-size="13" font-weight="bold">{escape(panel["title"])}</text>'
        )
        for number, target in enumerate(panel["targets"]):
            legend = escape(target["legendFormat"]).replace("{{", "&#8249;").replace("}}", "&#8250;")
            color = ("#3274d9", "#e0752d", "#5aa64b")[number % 3]
            top = y + 40 + number * 18
            parts.append(f'<rect x="{x + 12}" y="{top - 4}" width="14" height="3" fill="{color}"/>')
            parts.append(f'<text x="{x + 32}" y="{top}" font-size="12" fill="#333">{legend}</text>')
        if panel["description"]:
            parts.append(
                f'<text x="{x + 12}" y="{y + h - 14}" font-size="10" fill="#777">{escape(panel["description"])}</text>'
            )
    return "\n".join([*parts, "</svg>"]) + "\n"


def text() -> str:
    """Returns the file that Grafana imports."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    DASHBOARD.write_text(text())
    DRAWING.write_text(drawing(dashboard()))
