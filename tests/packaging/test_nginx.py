"""deploy/nginx.conf with a real nginx: savers work through it, and forbidden requests don't reach the server."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from langgraph.checkpoint.grpc import GrpcSaver, TlsOptions

from tests.support.api_keys import key_entry
from tests.support.authority import Authority
from tests.support.calls import checkpoint, config_of
from tests.support.http2 import Http2Client
from tests.support.server_process import ServerProcess
from tests.support.until import until

pytestmark = pytest.mark.long

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "nginx.conf"
KEY = "ckd_known"
GET = "checkpointd.v1.CheckpointService/GetCheckpoint"
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
"""The features for which nginx needs temporary folders."""


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program: the system's, or that of Debian's package, unpacked."""
    if installed := shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/bin:/opt/homebrew/bin"):
        return installed
    folder = tmp_path_factory.mktemp("nginx")
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("nginx is not installed, and there is no apt-get to get it with")
    with suppress(subprocess.SubprocessError, OSError):
        subprocess.run(("apt-get", "download", "nginx"), cwd=folder, check=True, capture_output=True, timeout=60)
        for package in folder.glob("nginx_*.deb"):
            subprocess.run(("dpkg-deb", "-x", package, folder), check=True, capture_output=True, timeout=60)
        program = folder / "usr" / "sbin" / "nginx"
        subprocess.run((program, "-v"), check=True, capture_output=True, timeout=60)
        return str(program)
    pytest.skip("nginx is not installed, and can't be got")


@pytest.fixture
def proxied(nginx: str, database_url: str, tmp_path: Path, authority: Authority) -> Iterator[tuple[ServerProcess, str]]:
    """A server that requires tokens, and the address of nginx in front of it."""
    keys = tmp_path / "keys.toml"
    keys.write_text(key_entry(KEY, "acme", "read", "write"))
    cert, key = authority.write(tmp_path)
    port = free_port()
    options = ("--database-url", database_url, "--keys-file", str(keys))
    with ServerProcess(*options, log_dir=tmp_path) as server:
        text = CONFIGURATION.read_text()
        for before, after in (
            ("listen 443", f"listen 127.0.0.1:{port}"),
            ("server 127.0.0.1:50051", f"server {server.target}"),
            ("/etc/checkpointd/tls.crt", str(cert)),
            ("/etc/checkpointd/tls.key", str(key)),
            ("/run/checkpointd-nginx.pid", str(tmp_path / "nginx.pid")),
            ("access_log off;", "access_log off;" + "".join(f"{kind}_temp_path {tmp_path};" for kind in TEMPORARY)),
        ):
            assert text.count(before) == 1, before
            text = text.replace(before, after)
        configuration = tmp_path / "nginx.conf"
        configuration.write_text(text)
        command = (nginx, "-p", str(tmp_path), "-c", str(configuration), "-e", "stderr", "-g", "daemon off;")
        with (tmp_path / "nginx.log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
            try:
                until(lambda: listens(port) or process.poll() is not None)
                assert process.poll() is None, (tmp_path / "nginx.log").read_text()
                yield server, f"localhost:{port}"
            finally:
                process.terminate()


@pytest.fixture
def authority() -> Authority:
    return Authority()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def connect(target: str, authority: Authority) -> Http2Client:
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.set_alpn_protocols(["h2"])
    return Http2Client(target, tls=context)


def saver_at(target: str, authority: Authority) -> GrpcSaver:
    return GrpcSaver(target, token=KEY, tls=TlsOptions(root_certificates=authority.pem))


async def test_savers_work_through_it(proxied: tuple[ServerProcess, str], authority: Authority) -> None:
    _, target = proxied
    async with saver_at(target, authority) as saver:
        config = config_of("thread")
        for number in range(5):
            config = await saver.aput(config, checkpoint(f"{number}"), {"step": number}, {})
            await saver.aput_writes(config, [("channel", "x" * 100_000)], "task")
        found = await saver.aget_tuple(config)
        assert found is not None
        assert found.checkpoint["id"] == "4"
        assert found.pending_writes == [("task", "channel", "x" * 100_000)]


def test_a_flood_of_calls_that_come_to_nothing_stays_outside(
    proxied: tuple[ServerProcess, str], authority: Authority
) -> None:
    server, target = proxied
    with saver_at(target, authority) as saver:
        saver.put(config_of("thread"), checkpoint("1"), {"step": 1}, {})
        sent = 0
        for _ in range(20):
            with suppress(OSError), connect(target, authority) as client:
                client.receive(1)
                sent += client.rapid_reset(GET, 2000)
                found = saver.get_tuple(config_of("thread"))
                assert found is not None
                client.is_closed()
        assert sent > 10_000
    server.stop()
    refused = sum(int(line.rpartition("times=")[2]) for line in server.stderr.splitlines() if "times=" in line)
    assert refused < sent / 2


@pytest.mark.parametrize("method", ["grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"])
def test_what_is_nobodys_business_is_not_passed_on(
    proxied: tuple[ServerProcess, str], authority: Authority, method: str
) -> None:
    _, target = proxied
    with connect(target, authority) as client:
        assert client.call(method, b"").headers[":status"] == "404"


def test_headers_without_end_are_refused(proxied: tuple[ServerProcess, str], authority: Authority) -> None:
    _, target = proxied
    with connect(target, authority) as client:
        answer = client.call(GET, b"", [("x-a", "x" * 20_000)])
        assert answer.headers.get(":status") in (None, "400", "431")
        assert answer.status is None


def test_health_is_answered(proxied: tuple[ServerProcess, str], authority: Authority) -> None:
    _, target = proxied
    with connect(target, authority) as client:
        answer: Any = client.call("grpc.health.v1.Health/Check", b"")
        assert answer.status == grpc.StatusCode.OK.value[0]
