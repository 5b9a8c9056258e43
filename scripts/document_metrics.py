"""Writes the metrics into docs/observability.md: `python -m scripts.document_metrics`."""

from __future__ import annotations

from pathlib import Path

from checkpointd_server.observability.families import FAMILIES

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "observability.md"
BEGIN = "<!-- metrics: begin (made by scripts/document_metrics.py) -->\n"
END = "<!-- metrics: end -->\n"


def metrics_table() -> str:
    """Returns the metrics as a Markdown table, counters with the suffix that Prometheus sees."""
    rows = ["| metric | kind | labels | |", "|---|---|---|---|"]
    for name, family in FAMILIES.items():
        ending = "_total" if family.kind == "counter" else ""
        labels = ", ".join(f"`{label}`" for label in family.labels)
        rows.append(f"| `{name}{ending}` | {family.kind} | {labels} | {family.help} |")
    return "\n".join(rows) + "\n"


def document() -> str:
    """Returns the document with an up-to-date table."""
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + metrics_table() + END + after


if __name__ == "__main__":
    DOCUMENT.write_text(document())
