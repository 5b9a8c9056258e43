"""examples/java, compiled with Debian's Java and gRPC, and run against a thread that a Python graph wrote."""

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
from tests.support.document import ROOT
from tests.support.server_process import ServerProcess

pytestmark = [pytest.mark.long, pytest.mark.timeout(2 * LONGEST_SECONDS)]

PACKAGES = (
    *("openjdk-17-jdk-headless", "protobuf-compiler", "protobuf-compiler-grpc-java-plugin"),
    *("libgrpc-java", "libprotobuf-java", "libgoogle-common-protos-java", "libgoogle-gson-java", "libnetty-java"),
    *("libguava-java", "libperfmark-java", "libgeronimo-annotation-1.3-spec-java"),
)
JARS = Path("/usr/share/java")
LIBRARIES = (
    *("grpc-api", "grpc-context", "grpc-core", "grpc-netty", "grpc-protobuf", "grpc-protobuf-lite", "grpc-stub"),
    *("netty-buffer", "netty-codec", "netty-codec-http", "netty-codec-http2", "netty-codec-socks", "netty-common"),
    *("netty-handler", "netty-handler-proxy", "netty-resolver", "netty-transport", "perfmark-api", "guava"),
    *("protobuf", "proto-google-common-protos", "gson", "geronimo-annotation-1.3-spec"),
)


def is_installed() -> bool:
    programs = ("java", "javac", "protoc", "grpc_java_plugin")
    return all(map(shutil.which, programs)) and all((JARS / f"{name}.jar").exists() for name in LIBRARIES)


def run(*command: str | Path, cwd: Path = ROOT, **env: str) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{command[0]}:\n{done.stdout[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def classpath(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The classpath of the compiled example: its classes and libraries."""
    if not is_installed() and not (install(*PACKAGES) and is_installed()):
        pytest.skip("Debian's packages of Java are not installed, and can't be: that takes apt-get, as root")
    clone = tmp_path_factory.mktemp("java")
    shutil.copytree(ROOT / "protos", clone / "protos")
    shutil.copy(ROOT / "buf.yaml", clone)
    # As the template tells its readers: keep only the language that is wanted, and put its plugin on the PATH.
    head, languages = (ROOT / "protos" / "buf.gen.yaml").read_text().split("plugins:\n")
    plugins = languages.partition("  # Java")[2].partition("  # C#")[0].partition("\n")[2]
    assert "protoc-gen-grpc-java" in plugins
    (clone / "buf.gen.yaml").write_text(f"{head}plugins:\n{plugins}")
    (clone / "bin").mkdir()
    (clone / "bin" / "protoc-gen-grpc-java").symlink_to(str(shutil.which("grpc_java_plugin")))
    path = os.pathsep.join([str(clone / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    run("buf", "generate", cwd=clone, PATH=path)
    # Debian's jar of these is older than ErrorInfo.
    run("protoc", "--java_out=gen/java", "-Iprotos", "protos/google/rpc/error_details.proto", cwd=clone)
    found = os.pathsep.join([str(clone / "classes"), *(str(JARS / f"{name}.jar") for name in LIBRARIES)])
    sources = [*(clone / "gen" / "java").rglob("*.java"), *(ROOT / "examples" / "java").glob("*.java")]
    run("javac", "-nowarn", "-d", clone / "classes", "-classpath", found, *sources)
    return found


def reply(state: MessagesState) -> dict[str, Any]:
    return {"messages": [AIMessage(f"to {state['messages'][-1].content}")]}


def ask(state: MessagesState) -> dict[str, Any]:
    return {"messages": [AIMessage(f"heard {interrupt({'question': 'go on?'})}")]}


def test_a_thread_of_a_python_graph_is_read(classpath: str, shared_server: ServerProcess) -> None:
    thread = f"java-{uuid.uuid4()}"
    with GrpcSaver(shared_server.target) as saver:
        builder = StateGraph(MessagesState).add_node(reply).add_node(ask)
        graph = builder.add_edge(START, "reply").add_edge("reply", "ask").compile(checkpointer=saver)
        config: Any = {"configurable": {"thread_id": thread}}
        given: Any = {"messages": [("human", "hi")]}
        graph.invoke(given, config)
        ids = [found.config["configurable"]["checkpoint_id"] for found in saver.list(config)]
    lines = run("java", "-classpath", classpath, "com.example.reader.ReadThread", shared_server.target, thread)
    messages = next(line for line in lines.splitlines() if line.startswith("value messages: "))
    assert messages.index('"hi"') < messages.index('"to hi"')
    (waits,) = [line for line in lines.splitlines() if line.startswith("waits ")]
    assert '"question":"go on?"' in waits
    assert [line for line in lines.splitlines() if line.startswith("checkpoint ")] == [f"checkpoint {id}" for id in ids]


def test_a_refusal_is_told_by_its_reason(classpath: str, shared_server: ServerProcess) -> None:
    command = ("java", "-classpath", classpath, "com.example.reader.ReadThread", shared_server.target, "x" * 1000)
    with pytest.raises(AssertionError, match=r"INVALID_ARGUMENT .*field=thread_id"):
        run(*command)
