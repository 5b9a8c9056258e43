"""The audit of the image's packages: which entries count as findings; missing answers don't count as safe."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from scripts.audit import read_findings
from tests.packaging.constraints import ROOT


def vulnerability(name: str, *aliases: str, fixed: str = "2.0") -> dict[str, Any]:
    """An entry of pip-audit's JSON."""
    return {"id": name, "aliases": list(aliases), "fix_versions": [fixed] if fixed else [], "description": "..."}


def test_what_is_known_is_found() -> None:
    found = read_findings(
        [
            {"name": "a", "version": "1.0", "vulns": []},
            {"name": "b", "version": "1.0", "vulns": [vulnerability("PYSEC-1"), vulnerability("PYSEC-2", fixed="")]},
        ],
        accepted={},
    )
    assert found.known == ["b 1.0: PYSEC-1, fixed in 2.0", "b 1.0: PYSEC-2, fixed in no release yet"]
    assert (found.unasked, found.asked) == ([], 2)


def test_what_was_accepted_by_any_of_its_names_is_not() -> None:
    known = [vulnerability("PYSEC-1", "CVE-1", "GHSA-1"), vulnerability("PYSEC-2", "CVE-2")]
    found = read_findings([{"name": "b", "version": "1.0", "vulns": known}], accepted={"CVE-1": "we don't call it"})
    assert found.known == ["b 1.0: PYSEC-2, fixed in 2.0"]


def test_what_nobody_could_look_up_does_not_count_as_looked_up() -> None:
    found = read_findings([{"name": "a", "skip_reason": "not found"}], accepted={})
    assert found == ([], ["a"], 0)


def test_without_a_network_it_says_so_and_fails_nothing(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        # Bound but not listening: connections are refused.
        nobody.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        empty = {name: str(tmp_path) for name in ("HOME", "XDG_CACHE_HOME", "PIP_CACHE_DIR")}
        env = {**os.environ, **empty, "https_proxy": proxy, "HTTPS_PROXY": proxy, "no_proxy": "", "NO_PROXY": ""}
        command = [sys.executable, "-m", "scripts.audit"]
        run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (
        0,
        "skipped: PyPI has told nothing about any package; they are not audited\n",
    )
