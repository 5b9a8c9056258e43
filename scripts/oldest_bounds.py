"""The oldest releases that client, server and protocol allow, as pip constraints: one `name==version` per line."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
LANGGRAPH = "1.2.0"
"""The oldest release that the saver supports. It only depends on langgraph-checkpoint, so no file names it."""


def oldest_bounds() -> dict[str, str]:
    """Returns the oldest allowed release of each dependency, by name; if two files differ, the later one."""
    bounds = {"langgraph": LANGGRAPH}
    for name in ("protos", "client", "server"):
        project = tomllib.loads((ROOT / name / "pyproject.toml").read_text())["project"]
        extras = project.get("optional-dependencies", {}).values()
        for requirement in [*project["dependencies"], *(each for extra in extras for each in extra)]:
            if bound := re.match(r"([\w-]+)(?:\[[\w,-]+\])?>=([\w.]+)", requirement):
                key = bound[1].lower()
                bounds[key] = max(bounds.get(key, "0"), bound[2], key=_parts)
    return bounds


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


if __name__ == "__main__":
    for name, version in sorted(oldest_bounds().items()):
        print(f"{name}=={version}")
