"""The image of a release's protocol: additions since then are compatible with it, changes aren't."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.constraints import ROOT

BUF = Path(sys.executable).with_name("buf")
VALUES = "protos/checkpointd/v1/values.proto"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of the protocol's sources, with the image of its release."""
    for file in (
        "buf.yaml",
        "scripts/keep_protocol.sh",
        *(str(path.relative_to(ROOT)) for path in ROOT.glob("protos/**/*.proto")),
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    environment = {"VENV": str(BUF.parent.parent), "PATH": "/usr/bin:/bin"}
    subprocess.run(("scripts/keep_protocol.sh",), cwd=tmp_path, env=environment, check=True, timeout=60)
    return tmp_path


def breaks(clone: Path, before: str, after: str) -> str:
    """Changes the protocol, and returns the reported breaking changes."""
    path = clone / VALUES
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    command = (BUF, "breaking", "--against", "protos/released.binpb")
    return subprocess.run(command, cwd=clone, capture_output=True, text=True, timeout=60).stdout


def test_a_new_field_is_compatible(clone: Path) -> None:
    assert breaks(clone, "message Parts {", "message Parts {\n  // New.\n  int64 later = 1000;") == ""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("bytes upload_id = 1;", "string upload_id = 1;"),
        ("bytes upload_id = 1;", ""),
        ("message Parts {", "message Pieces {"),
    ],
)
def test_a_changed_or_removed_one_is_not(clone: Path, before: str, after: str) -> None:
    assert "values.proto" in breaks(clone, before, after)
