"""examples/go, compiled with Debian's Go and gRPC, and run against a thread that a Python graph wrote."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.grpc import GrpcSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

from tests.support.debian import LONGEST_SECONDS, install
from tests.support.server_process import ServerProcess

pytestmark = [pytest.mark.long, pytest.mark.timeout(2 * LONGEST_SECONDS)]

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "golang-go",
    "golang-google-grpc-dev",
    "golang-google-protobuf-dev",
    "golang-github-vmihailenco-msgpack.v5-dev",
    "protoc-gen-go",
    "protoc-gen-go-grpc",
)
LIBRARIES = Path("/usr/share/gocode")
"""Debian's folder for the sources of Go libraries."""


def run(*command: str, cwd: Path = ROOT, **env: str) -> str:
    environment = {**os.environ, "GO111MODULE": "off", **env}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LONGEST_SECONDS,
    )
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-4000:]}"
    return done.stdout


def is_installed() -> bool:
    programs = ("go", "protoc-gen-go", "protoc-gen-go-grpc")
    libraries = ("google.golang.org/grpc", "google.golang.org/protobuf", "github.com/vmihailenco/msgpack/v5")
    return all(map(shutil.which, programs)) and all((LIBRARIES / "src" / name).exists() for name in libraries)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, compiled."""
    if not is_installed() and not (install(*PACKAGES) and is_installed()):
        pytest.skip("Debian's packages of Go are not installed, and can't be: that takes apt-get, as root")
    clone = tmp_path_factory.mktemp("go")
    for name in ("protos", "examples/go"):
        shutil.copytree(ROOT / name, clone / name)
    shutil.copy(ROOT / "buf.yaml", clone)
    # As the template tells its readers: keep only the language that is wanted.
    template, languages = (ROOT / "protos" / "buf.gen.yaml").read_text().split("  # TypeScript")
    assert "protoc-gen-go-grpc" in template
    assert "# Java" in languages
    (clone / "buf.gen.yaml").write_text(template)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    run("buf", "generate", cwd=clone, PATH=path)
    workspace = clone / "workspace"
    module = workspace / "src" / "example.com" / "agents"
    shutil.copytree(clone / "gen", module / "gen")
    shutil.copytree(clone / "examples" / "go", module / "reader")
    built = clone / "reader"
    environment = {"GOPATH": f"{workspace}:{LIBRARIES}", "GOCACHE": str(clone / "cache"), "GOFLAGS": ""}
    run("go", "vet", "./...", cwd=module / "reader", **environment)
    run("go", "build", "-o", str(built), ".", cwd=module / "reader", **environment)
    return built


def reply(state: MessagesState) -> dict[str, Any]:
    return {"messages": [AIMessage(f"to {state['messages'][-1].content}")]}


def ask(state: MessagesState) -> dict[str, Any]:
    return {"messages": [AIMessage(f"heard {interrupt({'question': 'go on?'})}")]}


def test_a_thread_of_a_python_graph_is_read(program: Path, shared_server: ServerProcess) -> None:
    thread = f"go-{uuid.uuid4()}"
    with GrpcSaver(shared_server.target) as saver:
        builder = StateGraph(MessagesState).add_node(reply).add_node(ask)
        graph = builder.add_edge(START, "reply").add_edge("reply", "ask").compile(checkpointer=saver)
        config: Any = {"configurable": {"thread_id": thread}}
        given: Any = {"messages": [("human", "hi")]}
        graph.invoke(given, config)
    lines = run(str(program), shared_server.target, thread).splitlines()
    assert lines[:2] == ["message human: hi", "message ai: to hi"]
    assert lines[2].startswith('waits [{"')
    assert '"value":{"question":"go on?"}' in lines[2]
    assert lines[3:] == ["step 1", "step 0", "step -1"]


def test_an_absent_thread_and_a_refusal_are_told_apart(program: Path, shared_server: ServerProcess) -> None:
    assert run(str(program), shared_server.target, "nobody").strip() == "there is no such thread"
    with pytest.raises(AssertionError, match=r"INVALID_ARGUMENT map\[field:thread_id limit:512\]"):
        run(str(program), shared_server.target, "x" * 1000)
