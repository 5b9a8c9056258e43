"""Every code block in the documents runs as written, and every command in them exists."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
from google.protobuf import json_format, message_factory

from checkpointd.v1 import store_service_pb2
from checkpointd_server.cli import main
from tests.support.document import ROOT, Document, documents
from tests.support.local_server import LocalServer

POOL = store_service_pb2.DESCRIPTOR.pool
WITH_PYTHON = [path for path in documents() if Document(path).blocks("python")]


def test_there_is_code_to_run() -> None:
    assert {"README.md", "docs/clients.md", "docs/getting-started.md", "docs/protocol.md"} <= set(WITH_PYTHON)


@pytest.mark.parametrize("path", WITH_PYTHON)
def test_python_in_a_document_runs_after_the_quickstart_and_a_second_time(
    path: str, local_server: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # examples write their files into the current folder
    for document in ("README.md", path, path):
        run(document, local_server.target)


def run(path: str, target: str) -> None:
    """Runs a document's Python from top to bottom."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for line, code in Document(path).blocks("python"):
        code = code.replace("127.0.0.1:50051", target)
        # Empty lines in front, so an error names the document's line.
        exec(compile("\n" * (line - 1) + code, ROOT / path, "exec", dont_inherit=True), names)
    for name in ("saver", "private"):
        if name in names:
            names[name].close()


def test_the_readme_shows_the_quickstart() -> None:
    code = (ROOT / "examples" / "quickstart.py").read_text()
    assert [shown for _, shown in Document("README.md").blocks("python")] == [code]


def commands(path: str) -> list[str]:
    """Returns each command of a document's shell blocks."""
    lines = "".join(code for _, code in Document(path).blocks("bash")).replace("\\\n", " ").splitlines()
    return [command.strip() for line in lines for command in re.split(r"&&|\|(?!\|)", line)]


@pytest.mark.parametrize("path", documents())
def test_commands_in_a_document_exist(path: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for command in commands(path):
        words = [word for word in shlex.split(command) if not re.fullmatch(r"[A-Z_]+=\S+", word)]
        match words:
            case ["make", verb, *_]:
                assert re.search(rf"^{verb}:", makefile, re.MULTILINE), command
            case [program, *arguments] if program.endswith("checkpointd"):
                check_options(command, arguments)
            case [_, "-m", "cProfile", "-o", _, "-m", "checkpointd_server.cli", *arguments]:
                check_options(command, arguments)
            case [_, "-m", "pstats", _]:
                pass
            case [_, "-m", module, *_] if module.startswith("scripts."):
                assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists(), command
            case [program, file, *_] if program.endswith("python"):
                assert (ROOT / file).exists(), command
            case ["docker", "compose", "-f", file, *_]:
                assert (ROOT / file).exists(), command
            case ["pip", "install", *wanted]:
                check_packages(command, wanted)
            case ["buf", "generate", "--template", template]:
                assert (ROOT / template).exists(), command
            case ["grpcurl", *_, method] if "/" in method:
                service, _, name = method.partition("/")
                assert name in POOL.FindServiceByName(service).methods_by_name, command
            case ["deploy/prepare.sh", _]:
                assert (ROOT / "deploy" / "prepare.sh").exists()
            case ["grpcurl", "-plaintext", "-d", body, _, method]:
                check_request(method, body)
            case ["langgraph", "dev"]:  # tests/examples/test_langgraph_dev.py runs it
                pass
            case ["kubectl", "apply", "--kustomize", folder]:
                assert (ROOT / folder / "kustomization.yaml").exists(), command
            case ["kubectl", "create", "secret", *_]:  # tests/packaging/test_kubernetes.py
                pass
            case [("cp" | "pg_restore" | "$BIN/pg_dump" | "$BIN/pg_restore"), *_]:  # tests/app/test_backup.py runs them
                pass
            case ["-c", _] if command.startswith("BIN=$(python -c "):
                pass
            case [("docker" | "echo" | "pg_dump" | "psql"), *_]:
                pass
            case _:
                pytest.fail(f"nobody checks this command: {command}")


def check_request(method: str, body: str) -> None:
    """Reads a request as JSON, which fails if the method doesn't take it."""
    service, _, name = method.partition("/")
    found = store_service_pb2.DESCRIPTOR.pool.FindServiceByName(service).methods_by_name[name]
    json_format.Parse(body, message_factory.GetMessageClass(found.input_type)())


def options(name: str) -> set[str]:
    """Returns the options of a command of `checkpointd`, and of the commands below it."""
    command = main.commands[name]
    parameters = list(command.params)
    if isinstance(command, click.Group):
        parameters += [parameter for below in command.commands.values() for parameter in below.params]
    return {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}


def check_options(command: str, arguments: list[str]) -> None:
    """Fails if `checkpointd` doesn't know a command or an option."""
    name, *rest = arguments
    assert name in main.commands, command
    assert {word for word in rest if word.startswith("--")} <= options(name), command


def check_packages(command: str, wanted: list[str]) -> None:
    """Fails unless each folder holds a package of ours with these extras."""
    for need in wanted:
        folder, *extras = re.findall(r"[\w./-]+", need)
        if folder.startswith("./"):
            project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
            assert set(extras) <= set(project.get("optional-dependencies", {})), command


@pytest.mark.parametrize("path", documents())
def test_options_that_a_document_names_exist(path: str) -> None:
    known = {"--help"}.union(*map(options, main.commands))
    named = set(re.findall(r"`(?:checkpointd \w+ )?(--[a-z-]+)", Document(path).prose))
    assert named <= known


def test_the_template_for_buf_gives_every_file_a_go_package(tmp_path: Path) -> None:
    # The first of the languages is Go.
    template, _, _ = (ROOT / "protos" / "buf.gen.yaml").read_text().partition("  # TypeScript")
    (tmp_path / "buf.gen.yaml").write_text(template)
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    plugins = ("protoc-gen-go", "protoc-gen-go-grpc")
    for plugin in plugins:
        (tmp_path / plugin).write_text(f"#!/bin/sh\nexec {sys.executable} {ROOT / 'tests/docs/plugin.py'} {plugin}\n")
        (tmp_path / plugin).chmod(0o755)
    files = sorted((ROOT / "protos").rglob("*.proto"))
    for file in files:
        copy = tmp_path / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    path = os.pathsep.join([str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(["buf", "generate"], cwd=tmp_path, env=os.environ | {"PATH": path}, check=True, timeout=60)
    made = {
        str(file.relative_to(tmp_path / "gen" / "go")): file.read_text()
        for file in (tmp_path / "gen" / "go").rglob("*.proto.*")
    }
    assert made == {
        f"{file.relative_to(ROOT / 'protos')}.{plugin}": "example.com/agents/gen/go/checkpointd/v1;checkpointdv1"
        for file in files
        if "google" not in file.parts
        for plugin in plugins
    }
