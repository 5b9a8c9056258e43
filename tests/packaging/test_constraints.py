"""The pins of the server image: they are complete, and not older than their sources."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packaging.constraints import FILES, ROOT, pins


def needs(path: str) -> Iterator[Requirement]:
    """Yields the requirements of the pyproject files that a constraints file covers."""
    for folder in ("protos", "server"):
        project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())
        found = project["build-system"]["requires"] if "build" in path else project["project"]["dependencies"]
        yield from (need for need in map(Requirement, found) if not need.name.startswith("checkpointd"))


def pinned(path: str) -> dict[str, str]:
    """Returns the version of each package."""
    return dict(pin.partition(" ; ")[0].split("==") for pin in pins(path))


@pytest.mark.parametrize("path", FILES)
def test_every_pin_has_its_hashes_and_the_file_nothing_else(path: str) -> None:
    assert pins(path)
    assert all(pins(path).values())


@pytest.mark.parametrize("path", FILES)
def test_the_pins_are_within_what_the_pyproject_files_allow(path: str) -> None:
    versions = pinned(path)
    stale = [
        str(need)
        for need in needs(path)
        if not need.specifier.contains(versions.get(canonicalize_name(need.name), "0"))
    ]
    assert stale == [], "run: make pins"


def test_the_pins_are_for_every_python_that_the_server_runs_on() -> None:
    project = tomllib.loads((ROOT / "server/pyproject.toml").read_text())
    script = (ROOT / "scripts/pin_constraints.sh").read_text()
    oldest = re.search(r"--python-version ([0-9.]+)", script)
    assert oldest is not None
    assert project["project"]["requires-python"] == f">={oldest[1]}"
