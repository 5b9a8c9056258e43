"""Looks for known vulnerabilities in the packages of the server image: `make audit`, and a part of `make lint`.

pip-audit asks PyPI about each pin. Exit code 1: there is a known vulnerability that isn't in `ACCEPTED`. If PyPI can't
be asked, because there is no network or only a mirror, that is not a failure: a build of one commit must not depend on
it. But the output says so, and no package counts as safe that wasn't checked.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
FILES = ("server/constraints.txt", "server/build-constraints.txt")

ACCEPTED: Mapping[str, str] = {}
"""Vulnerabilities that don't affect us, by id, each with the reason."""


UNREACHABLE = ("requests.exceptions.", "ServiceError", "Could not connect", "is not redirecting")
"""Messages of pip-audit when the service doesn't answer as it should."""


class Findings(NamedTuple):
    """The result of an audit."""

    known: list[str]
    """A line for each known vulnerability."""
    unasked: list[str]
    """The packages without an answer."""
    asked: int
    """The number of packages that were looked up."""


def read_findings(dependencies: Iterable[Mapping[str, Any]], accepted: Mapping[str, str]) -> Findings:
    """Reads the "dependencies" of pip-audit's JSON."""
    known, unasked, asked = [], [], 0
    for dependency in dependencies:
        name = dependency["name"]
        if "skip_reason" in dependency:
            unasked.append(name)
            continue
        asked += 1
        for found in dependency["vulns"]:
            if accepted.keys().isdisjoint({found["id"], *found["aliases"]}):
                fixed = ", ".join(found["fix_versions"]) or "no release yet"
                known.append(f"{name} {dependency['version']}: {found['id']}, fixed in {fixed}")
    return Findings(known, unasked, asked)


def audit(path: str) -> Findings | None:
    """Asks about every pin of a file; None: the service can't be reached."""
    program = Path(sys.executable).with_name("pip-audit")
    options = ("--disable-pip", "--require-hashes", "--vulnerability-service=pypi", "--timeout=15", "--format=json")
    command = [str(program), *options, "--progress-spinner=off", "--requirement", path]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    try:
        dependencies = json.loads(run.stdout)["dependencies"]
    except ValueError:
        if any(sign in run.stderr for sign in UNREACHABLE):
            return None
        raise RuntimeError(f"pip-audit failed on {path}:\n{run.stderr[-2000:]}") from None
    return read_findings(dependencies, ACCEPTED)


def main() -> int:
    """Audits every file and returns the exit code."""
    known, unasked, asked = [], [], 0
    for path in FILES:
        found = audit(path)
        if found is None:
            unasked.append("any package")
            break
        known += found.known
        unasked += found.unasked
        asked += found.asked
    print(*known, sep="\n", end="\n" if known else "")
    if unasked:
        others = f" and {len(unasked) - 1} more" if len(unasked) > 1 else ""
        print(f"skipped: PyPI has told nothing about {unasked[0]}{others}; they are not audited")
    if asked:
        print(f"{asked} packages were looked up, {len(known)} vulnerabilities are known")
    if known:
        print("pin a release without it (`make pins`), or say in scripts/audit.py why it doesn't concern us")
    return 1 if known else 0


if __name__ == "__main__":
    sys.exit(main())
