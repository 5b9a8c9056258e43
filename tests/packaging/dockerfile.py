"""Reads Dockerfiles like ours, so their steps can be run without a Docker engine."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(kw_only=True)
class Stage:
    """The instructions of a stage, in order."""

    copies: list[tuple[str, str]] = field(default_factory=list)
    """Source and target of each COPY from the build context."""
    copies_from_stages: list[str] = field(default_factory=list)
    """Each path of COPY --from, the same in source and target."""
    runs: list[str] = field(default_factory=list)
    """The shell command of each RUN."""
    env: dict[str, str] = field(default_factory=dict)
    """The variables that ENV sets."""
    user: str = ""
    """The user that the container runs as."""
    commands: dict[str, list[str]] = field(default_factory=dict)
    """The arguments of ENTRYPOINT, CMD and HEALTHCHECK."""


def read_dockerfile(path: Path) -> list[Stage]:
    """Returns the stages. Raises ValueError on an unknown instruction."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    stages: list[Stage] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, _, rest = line.partition(" ")
        match instruction:
            case "FROM":
                stages.append(Stage())
            case "COPY" if rest.startswith("--from="):
                _, source, target = rest.split()
                if source != target:
                    raise ValueError(line)
                stages[-1].copies_from_stages.append(source)
            case "COPY":
                source, target = rest.split()
                stages[-1].copies.append((source, target))
            case "RUN":
                stages[-1].runs.append(rest)
            case "ENV":
                stages[-1].env |= dict(word.split("=", 1) for word in rest.split())
            case "USER":
                stages[-1].user = rest
            case "ENTRYPOINT" | "CMD":
                stages[-1].commands[instruction] = json.loads(rest)
            case "HEALTHCHECK":
                stages[-1].commands[instruction] = json.loads(rest.partition("CMD ")[2])
            case "WORKDIR" | "EXPOSE" | "STOPSIGNAL":
                pass
            case _:
                raise ValueError(line)
    return stages
