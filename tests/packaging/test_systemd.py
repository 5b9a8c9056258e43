"""deploy/systemd: systemd accepts the unit, and the server accepts its environment file."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.deployment import DEPLOY, options_of

UNIT = DEPLOY / "systemd" / "checkpointd.service"
ENVIRONMENT = DEPLOY / "systemd" / "checkpointd.env"

verified = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


def verify(folder: Path, text: str) -> str:
    """Returns the errors that systemd finds in a unit; empty if there are none."""
    unit = folder / UNIT.name
    # The program that the unit starts must exist.
    unit.write_text(
        text.replace("/opt/checkpointd/bin/checkpointd", str(Path(sys.executable).with_name("checkpointd")))
    )
    command = ["systemd-analyze", "verify", "--man=no", "--generators=no", "--recursive-errors=no", str(unit)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return "" if run.returncode == 0 and UNIT.name not in run.stderr else f"{run.returncode}: {run.stderr}"


@verified
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    assert verify(tmp_path, UNIT.read_text()) == ""


@verified
@pytest.mark.parametrize("wrong", ["KillMode=kindly", "ProtectSytem=strict"])
def test_what_is_wrong_would_be_found(wrong: str, tmp_path: Path) -> None:
    assert verify(tmp_path, UNIT.read_text().replace("KillMode=mixed", wrong))


def variables(text: str) -> dict[str, str]:
    """Returns the variables that an environment file sets."""
    return dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))


def test_the_server_takes_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = dict(line.split("=", 1) for line in UNIT.read_text().splitlines() if "=" in line and line[0] != "#")
    assert settings["EnvironmentFile"] == f"/etc/checkpointd/{ENVIRONMENT.name}"
    text = ENVIRONMENT.read_text()
    options = options_of(variables(text), monkeypatch)
    assert float(str(options["drain_seconds"])) < float(settings["TimeoutStopSec"])
    embedded = text.replace("\nCHECKPOINTD_DATABASE_URL", "\n#").replace(
        "\n#CHECKPOINTD_DATA_DIR", "\nCHECKPOINTD_DATA_DIR"
    )
    options = options_of(variables(embedded), monkeypatch)
    assert options["database_url"] is None
    assert str(options["data_dir"]) == f"/var/lib/{settings['StateDirectory']}"
