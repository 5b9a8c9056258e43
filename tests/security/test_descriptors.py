"""Idle connections to a process that may open few files: other clients' calls still succeed."""

from __future__ import annotations

import errno
import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from checkpointd_server.domain.errors import DatabaseUnavailable, Overloaded
from checkpointd_server.store.errors import HostUnreachable, judge
from tests.support.http2 import Http2Client
from tests.support.server_process import ServerProcess
from tests.support.until import until

INFO, CHECK = "checkpointd.v1.InfoService/GetServerInfo", "grpc.health.v1.Health/Check"
LIST = "checkpointd.v1.CheckpointService/ListCheckpoints"
FEW_FILES = ("bash", "-c", 'ulimit -n 256; exec "$@"', "few-files")


def test_silent_connections_take_no_file_that_the_server_needs(database_url: str, tmp_path: Path) -> None:
    with ServerProcess("--database-url", database_url, log_dir=tmp_path, prefix=FEW_FILES) as server:
        host, _, port = server.target.rpartition(":")
        with ExitStack() as stack:
            honest = stack.enter_context(Http2Client(server.target))
            assert honest.call(LIST, b"").status == 0
            for _ in range(400):
                with suppress(OSError):
                    stack.enter_context(socket.create_connection((host, int(port)), timeout=5))
            end = time.monotonic() + 5  # the server checks the database every two seconds
            while time.monotonic() < end:
                assert honest.call(LIST, b"").status == 0
                assert honest.call(CHECK, b"").data.endswith(b"\x08\x01")  # SERVING
                time.sleep(0.2)

        def served() -> bool:
            with suppress(OSError), Http2Client(server.target) as another:
                return another.call(LIST, b"").status == 0
            return False

        until(served)
        server.stop()
        assert "fewer connections of clients than asked for" in server.stderr
        assert "database" not in server.stderr.replace("--database-url", "").partition("serving")[2]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_a_process_without_a_file_left_has_not_lost_its_database(number: int) -> None:
    full = OSError(number, "too many open files")
    for error in (full, HostUnreachable("db", full)):
        verdict = judge(error)
        assert verdict is not None
        assert isinstance(verdict.error, Overloaded)
        assert verdict.error.bound == "descriptors"
        assert not verdict.reconnect
    away = judge(OSError(errno.ECONNREFUSED, "refused"))
    assert away is not None
    assert isinstance(away.error, DatabaseUnavailable)
