"""Stubs for C#, generated as protos/buf.gen.yaml says: all messages and enums, and services if there is the plugin."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from checkpointd.v1 import checkpoint_service_pb2, errors_pb2, store_service_pb2, thread_service_pb2, values_pb2
from tests.support.debian import LONGEST_SECONDS, install
from tests.support.document import ROOT

pytestmark = [pytest.mark.long, pytest.mark.timeout(2 * LONGEST_SECONDS)]

PLUGIN = "grpc_csharp_plugin"
"""From NuGet's Grpc.Tools; Debian has none."""
MODULES = (checkpoint_service_pb2, errors_pb2, store_service_pb2, thread_service_pb2, values_pb2)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The text of each file that is generated."""
    if shutil.which("protoc") is None and not install("protobuf-compiler"):
        pytest.skip("protoc is not installed, and can't be: that takes apt-get, as root")
    clone = tmp_path_factory.mktemp("csharp")
    shutil.copytree(ROOT / "protos", clone / "protos")
    shutil.copy(ROOT / "buf.yaml", clone)
    # As the template tells its readers: keep only the language that is wanted.
    head, languages = (ROOT / "protos" / "buf.gen.yaml").read_text().split("plugins:\n")
    messages, services = languages.partition("  # C#")[2].partition("\n")[2].split("  - local: ")
    assert messages.startswith("  - protoc_builtin: csharp\n")
    assert services.startswith(f"{PLUGIN}\n")
    plugins = f"{messages}  - local: {services}" if shutil.which(PLUGIN) else messages
    (clone / "buf.gen.yaml").write_text(f"{head}plugins:\n{plugins}")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = ("buf", "generate")
    done = subprocess.run(
        command, cwd=clone, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return {file.name: file.read_text() for file in (clone / "gen" / "csharp").rglob("*.cs")}


def test_each_file_of_the_protocol_has_its_stubs(sources: dict[str, str]) -> None:
    files = (ROOT / "protos" / "checkpointd" / "v1").glob("*.proto")
    assert {file.stem.title().replace("_", "") + ".cs" for file in files} <= sources.keys()
    for name, text in sources.items():
        assert text.count("{") == text.count("}"), name
        assert "namespace Checkpointd.V1 {" in text


def test_every_message_and_enum_is_there(sources: dict[str, str]) -> None:
    text = "\n".join(sources.values())
    for module in MODULES:
        for message in module.DESCRIPTOR.message_types_by_name:
            assert re.search(rf"public sealed partial class {message} : pb::IMessage<{message}>", text), message
        for enum in module.DESCRIPTOR.enum_types_by_name:
            assert f"public enum {enum} {{" in text
    assert '[pbr::OriginalName("ERROR_REASON_SERIALIZER_MISMATCH")] SerializerMismatch = 26' in text


@pytest.mark.skipif(shutil.which(PLUGIN) is None, reason=f"{PLUGIN} of NuGet's Grpc.Tools is not in PATH")
def test_every_service_has_its_client(sources: dict[str, str]) -> None:
    text = "\n".join(sources.values())
    for module in MODULES:
        for service in module.DESCRIPTOR.services_by_name:
            assert f"public partial class {service}Client : grpc::ClientBase<{service}Client>" in text
