"""The JSON that commands print with --json."""

from __future__ import annotations

import json
from typing import Any

import click


def print_json(value: Any) -> None:
    """Prints one JSON document, indented."""
    click.echo(json.dumps(value, indent=2))
