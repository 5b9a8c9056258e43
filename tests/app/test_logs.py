"""The log blocks nobody, doesn't repeat itself forever, and can't control a terminal."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import info_service_pb2 as info
from checkpointd.v1.checkpoint_service_pb2_grpc import CheckpointServiceStub
from checkpointd.v1.info_service_pb2_grpc import InfoServiceStub
from checkpointd_server.process import background_log
from checkpointd_server.process.background_log import BackgroundHandler
from checkpointd_server.process.logging import LogFormat, configure_logs, flush_logs
from tests.support.api_keys import key_entry
from tests.support.commands import run
from tests.support.http2 import Http2Client
from tests.support.rpc_client import bearer
from tests.support.server_process import ServerProcess, clean_environment

CONTROLS = "\x1b[31m \x9b2J \x85 \u2028 \u202e \n"


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """The root logger, whose handlers are restored afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield root
    flush_logs()
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


class TestWhoReadsNoLog:
    def test_holds_up_nobody_and_is_told_how_much_was_lost(self) -> None:
        reading, writing = os.pipe()
        log = logging.Logger("test")
        with os.fdopen(writing, "w") as stream, os.fdopen(reading) as end:
            log.addHandler(BackgroundHandler(stream, flush_seconds=0.2))
            number = 2 * background_log.MOST_LINES

            def write() -> None:
                for _ in range(2 * background_log.MOST_LINES):
                    log.info("line %s", "x" * 100)

            logged = threading.Thread(target=write, daemon=True)
            logged.start()
            logged.join(20)
            assert not logged.is_alive()
            read = dropped = 0
            while read + dropped < number:
                line = end.readline()
                if found := re.match(r"([0-9]+) lines of the log were dropped", line):
                    dropped += int(found[1])
                else:
                    read += 1
                if read == background_log.MOST_LINES:  # there is room again: the next line reports the loss
                    log.info("line %s", "x" * 100)
                    number += 1
            assert read + dropped == number
            assert dropped

    def test_does_not_stop_a_server(self, database_url: str, tmp_path: Path) -> None:
        command = (sys.executable, "-m", "checkpointd_server.cli", "serve", "--listen", "127.0.0.1:0")
        environment = {
            **clean_environment(),
            "CHECKPOINTD_DATABASE_URL": database_url,
            "CHECKPOINTD_LOG_LEVEL": "debug",
        }
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
            assert process.stdout is not None
            ready = process.stdout.readline().decode()
            try:
                with grpc.insecure_channel(ready.split()[-1]) as channel:
                    stub: Any = InfoServiceStub(channel)
                    for _ in range(1500):  # each of more than 100 bytes; a pipe holds 65536
                        stub.GetServerInfo(info.GetServerInfoRequest(), timeout=20)
                process.terminate()
                assert process.wait(30) == 0
            finally:
                process.kill()

    def test_lines_are_written_in_their_order_before_the_end(self) -> None:
        stream = io.StringIO()
        log = logging.Logger("test")
        handler = BackgroundHandler(stream)
        log.addHandler(handler)
        for number in range(1000):
            log.info("%d", number)
        handler.flush()
        assert stream.getvalue().split() == [str(number) for number in range(1000)]


class TestControlCharacters:
    @pytest.mark.parametrize("field", ["event", "thread_id"])
    def test_are_written_out(self, root_logger: logging.Logger, field: str) -> None:
        stream = io.StringIO()
        configure_logs(stream=stream)
        structlog.get_logger("test").info(**{"event": "said", field: CONTROLS})
        flush_logs()
        line = stream.getvalue()
        assert line.count("\n") == 1
        assert line.rstrip("\n").isprintable()
        assert "x1b[31m" in line

    def test_of_an_exception_too(self, root_logger: logging.Logger) -> None:
        stream = io.StringIO()
        configure_logs(stream=stream)
        try:
            raise ValueError("\x1b[31m")
        except ValueError:
            logging.getLogger("another").exception("failed")
        flush_logs()
        text = stream.getvalue()
        assert "Traceback" in text
        assert all(line.isprintable() for line in text.split("\n"))

    def test_are_escaped_in_json(self, root_logger: logging.Logger) -> None:
        stream = io.StringIO()
        configure_logs(format=LogFormat.JSON, stream=stream)
        structlog.get_logger("test").info("said", thread_id=CONTROLS)
        flush_logs()
        assert stream.getvalue().rstrip("\n").isprintable()
        assert json.loads(stream.getvalue())["thread_id"] == CONTROLS

    def test_of_an_id_do_nothing_to_a_terminal(self, server: ServerProcess) -> None:
        with grpc.insecure_channel(server.target) as channel:
            stub: Any = CheckpointServiceStub(channel)
            stub.GetCheckpoint(pb.GetCheckpointRequest(thread_id="\x1b[31m\u2028thread"), timeout=20)
        server.stop()
        assert "thread" in server.stderr
        assert all(line.isprintable() for line in server.stderr.split("\n"))


class TestWhatKeepsAServerFromStarting:
    @pytest.mark.parametrize(
        ("arguments", "reason", "code"),
        [
            (["--listen", "0.0.0.0:0"], "--tls-cert", 1),
            (["--listen", "nonsense"], "is not HOST:PORT", 2),
            (["--unknown", "--log-format=json"], "No such option", 2),
            (["--workers", "9"], "--pool-max-size", 2),
            (["--database-url", "postgresql://u@/d?host=/nowhere", "--database-wait", "0"], "can't be reached", 1),
            (["--workers", "2", "--database-url", "postgresql://u@/d?host=/nowhere", "--database-wait", "0"], "rea", 1),
        ],
    )
    def test_is_json_where_the_log_is(self, arguments: list[str], reason: str, code: int) -> None:
        result = run("serve", *arguments, env={"CHECKPOINTD_LOG_FORMAT": "json"})
        assert (result.returncode, result.stdout) == (code, "")
        lines = [json.loads(line) for line in result.stderr.splitlines()]
        assert [line["level"] for line in lines if line["event"] == "failed"] == ["error"]
        assert reason in lines[-1]["reason"]

    def test_is_text_where_the_log_is(self) -> None:
        result = run("serve", "--listen", "nonsense")
        assert "is not HOST:PORT" in result.stderr
        assert "{" not in result.stderr

    def test_a_fault_of_our_own_is_json_too(self) -> None:
        program = (
            "import sys; from checkpointd_server import app; from checkpointd_server.cli import main\n"
            "async def serve(*a, **k): raise ZeroDivisionError('secret')\n"
            "app.serve = serve; main()"
        )
        command = (sys.executable, "-c", program, "serve", "--log-format", "json")
        result = subprocess.run(command, capture_output=True, text=True, env=clean_environment(), timeout=60)
        assert result.returncode == 1
        (line,) = [json.loads(line) for line in result.stderr.splitlines()]
        assert line["reason"] == "an internal error"
        assert "ZeroDivisionError" in line["exception"]


class TestRefusals:
    @pytest.fixture
    def guarded(self, database_url: str, tmp_path: Path) -> Iterator[ServerProcess]:
        keys = tmp_path / "keys.toml"
        keys.write_text(key_entry("ckd_known", "acme", "read"))
        options = ("--database-url", database_url, "--keys-file", str(keys))
        with ServerProcess(*options, log_dir=tmp_path, env={"CHECKPOINTD_LOG_LEVEL": "info"}) as server:
            yield server

    def test_of_one_kind_are_counted(self, guarded: ServerProcess) -> None:
        with grpc.insecure_channel(guarded.target) as channel:
            stub: Any = InfoServiceStub(channel)
            for _ in range(200):
                with pytest.raises(grpc.RpcError):
                    stub.GetServerInfo(info.GetServerInfoRequest(), metadata=bearer("ckd_unknown"), timeout=20)
        guarded.stop()
        lines = [line for line in guarded.stderr.splitlines() if "call refused" in line]
        counted = [int(found[1]) for line in lines if (found := re.search(r"times=([0-9]+)", line))]
        assert len(lines) - len(counted) + sum(counted) == 200
        assert len(lines) <= 40  # ten lines and a count for every ten seconds

    def test_say_nothing_of_headers_that_are_no_text(self, guarded: ServerProcess) -> None:
        secret = b"Bearer ckd_caf\xe9\xff-secret"
        with Http2Client(guarded.target) as client:
            answer = client.call("checkpointd.v1.InfoService/GetServerInfo", b"", [("authorization", secret)])
            assert answer.status == grpc.StatusCode.UNAUTHENTICATED.value[0]
        time.sleep(0.2)
        guarded.stop()
        assert "UNAUTHENTICATED" in guarded.stderr
        assert "secret" not in guarded.stderr
