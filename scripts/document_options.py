"""Writes the options of `checkpointd serve` into docs/deploying.md: `python -m scripts.document_options`."""

from __future__ import annotations

from pathlib import Path

import click

from checkpointd_server.cli.serve import serve

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "deploying.md"
BEGIN = "<!-- options: begin (made by scripts/document_options.py) -->\n"
END = "<!-- options: end -->\n"


def options_table() -> str:
    """Returns the options of `checkpointd serve` as a Markdown table."""
    rows = ["| option | environment variable | default | |", "|---|---|---|---|"]
    for option in serve.params:
        if not isinstance(option, click.Option):
            continue
        names = " / ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
        text, _, default = (option.help or "").partition("  [default: ")
        if default:
            default = default.removesuffix("]")
        elif option.is_flag:
            default = f"`{option.opts[0] if option.default else option.secondary_opts[0]}`"
        elif isinstance(option.default, str | int | float):
            default = f"`{option.default}`"
        elif isinstance(option.default, list | tuple):
            default = " ".join(f"`{value}`" for value in option.default)
        choices = ""
        if isinstance(option.type, click.Choice):
            choices = " One of " + ", ".join(f"`{choice}`" for choice in option.type.choices) + "."
        rows.append(f"| {names} | `{option.envvar}` | {default} | {text}{choices} |")
    return "\n".join(rows) + "\n"


def document() -> str:
    """Returns the document with an up-to-date table."""
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + options_table() + END + after


if __name__ == "__main__":
    DOCUMENT.write_text(document())
