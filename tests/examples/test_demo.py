"""The demo: it tells the truth, notices when it doesn't, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server_process import clean_environment

ROOT = Path(__file__).resolve().parents[2]


def demo(folder: Path, *, temporary: Path) -> subprocess.Popen[str]:
    """Starts the demo that is in a folder, with an empty place for its temporary files."""
    # Processes that a shell runs in the background ignore Ctrl-C, and so do their children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(
        [sys.executable, "-m", "examples.demo"],
        cwd=folder,
        env={**clean_environment(), "TMPDIR": str(temporary)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    return folder


def test_the_demo_happens_as_told_and_leaves_nothing_behind(temporary: Path) -> None:
    told, errors = demo(ROOT, temporary=temporary).communicate(timeout=110)
    assert errors == ""
    steps = re.findall(r"^(\d)\. (.*)$", told, re.MULTILINE)
    assert [int(number) for number, _ in steps] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert re.search(r"\$ kill -9 \d+", told)
    assert told.count("tools        begins") == 1
    assert told.count("propose      begins") == 2
    assert len(set(re.findall(r"process (\d+) \| \w+ +begins", told))) == 4
    assert "ends with: We have paid back 49.90 EUR." in told
    assert "ends with: We can't pay this back" in told
    assert list(temporary.iterdir()) == []


@pytest.mark.long
def test_the_demo_fails_where_something_is_not_as_told(tmp_path: Path, temporary: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    shop = tmp_path / "examples" / "demo" / "shop.py"
    honest = '        self._note("look_up", order_id)\n'
    assert honest in shop.read_text()
    shop.write_text(shop.read_text().replace(honest, 2 * honest))

    process = demo(tmp_path, temporary=temporary)
    _, errors = process.communicate(timeout=110)
    assert process.returncode == 1
    assert errors == "\nThe demo failed: this is not as told: the order system was asked 2 times\n"
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_an_interrupted_demo_stops_its_server_and_its_agents(temporary: Path, number: signal.Signals) -> None:
    process = demo(ROOT, temporary=temporary)
    assert process.stdout is not None
    target = agent = ""
    for line in process.stdout:
        if found := re.search(r"checkpointd ready on (\S+)", line):
            target = found[1]
        if found := re.search(r"process (\d+) \| read_ticket  begins", line):
            agent = found[1]
            break
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "\nStopped.\n"
    assert list(temporary.iterdir()) == []
    host, _, port = target.partition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=5).close()
    with pytest.raises(ProcessLookupError):
        os.kill(int(agent), 0)
