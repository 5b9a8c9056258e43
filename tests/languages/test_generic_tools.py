"""Tools that know nothing of checkpointd: `buf curl` over reflection, and the reference generated from comments."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from google.rpc.error_details_pb2 import ErrorInfo
from langgraph.checkpoint.grpc import GrpcSaver
from langgraph.types import Interrupt

from checkpointd.v1 import (
    checkpoint_service_pb2,
    info_service_pb2,
    lease_service_pb2,
    retention_service_pb2,
    stats_service_pb2,
    store_service_pb2,
    tenant_service_pb2,
    thread_service_pb2,
    value_service_pb2,
    values_pb2,
)
from tests.support.calls import checkpoint, config_of
from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
BUF = Path(sys.executable).with_name("buf")
MODULES = (
    checkpoint_service_pb2,
    info_service_pb2,
    lease_service_pb2,
    retention_service_pb2,
    stats_service_pb2,
    store_service_pb2,
    tenant_service_pb2,
    thread_service_pb2,
    value_service_pb2,
    values_pb2,
)


def curl(server: ServerProcess, method: str, request: dict[str, Any], *options: str) -> dict[str, Any]:
    """Calls an RPC that reflection describes, or a schema that the options name."""
    url = f"http://{server.target}/checkpointd.v1.{method}"
    command = (
        *(str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge", *options),
        *("--data", json.dumps(request), url),
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    found: dict[str, Any] = json.loads(done.stdout or done.stderr)
    return found


def test_buf_curl_finds_checkpoints_by_metadata_as_json(shared_server: ServerProcess) -> None:
    mark = str(uuid.uuid4())
    with GrpcSaver(shared_server.target) as saver:
        metadata: Any = {"source": "loop", "step": 1, "user": {"name": mark}}
        saver.put(config_of(mark), checkpoint("1", {"a": "x"}), metadata, {"a": 1})
        saver.put(config_of(mark), checkpoint("2", {"a": "x"}), {"source": "loop", "step": 2}, {})
    request = {
        "filterStruct": {"user": {"name": mark}},
        "view": "CHECKPOINT_VIEW_METADATA",
        "metadataStruct": True,
        "allNamespaces": True,
    }
    answer = curl(shared_server, "CheckpointService/ListCheckpoints", request)
    (found,) = answer["tuples"]
    assert (found["threadId"], found["checkpointId"]) == (mark, "1")
    assert found["metadata"]["struct"].items() >= metadata.items()


def test_buf_curl_shows_why_a_call_is_refused(shared_server: ServerProcess) -> None:
    refused = curl(shared_server, "CheckpointService/GetCheckpoint", {"threadId": ""}, "--schema", str(ROOT))
    assert refused["code"] == "invalid_argument"
    (detail,) = refused["details"]
    assert detail["type"] == "google.rpc.ErrorInfo"
    info = ErrorInfo.FromString(base64.b64decode(detail["value"] + "=" * (-len(detail["value"]) % 4)))
    assert (info.reason, info.metadata["field"]) == ("INVALID_ARGUMENT", "thread_id")


def test_buf_curl_tells_what_waits_and_in_which_form_it_was_written(shared_server: ServerProcess) -> None:
    thread = str(uuid.uuid4())
    with GrpcSaver(shared_server.target) as saver:
        stored = saver.put(config_of(thread), checkpoint("1", {"a": "x"}), {"source": "loop", "step": 1}, {"a": 1})
        saver.put_writes(stored, [("__interrupt__", (Interrupt({"q": "go on?"}, id="i"),))], "task")
    request = {"filter": {"threadIdPrefix": thread, "statuses": ["THREAD_STATUS_INTERRUPTED"]}}
    (found,) = curl(shared_server, "ThreadService/ListThreads", request)["threads"]
    assert (found["threadId"], found["serializerFamily"]) == (thread, "SERIALIZER_FAMILY_LANGGRAPH_MSGPACK")
    assert json.loads(found["signals"][0]["json"])[0]["value"] == {"q": "go on?"}
    shown = curl(shared_server, "ThreadService/ShowCheckpoint", {"threadId": thread})
    assert json.loads(shown["json"])["values"] == {"a": "x"}


def test_buf_curl_lists_the_services(shared_server: ServerProcess) -> None:
    url = f"http://{shared_server.target}"
    command = (BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--list-services", url)
    listed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split()
    services = {name.full_name for module in MODULES for name in module.DESCRIPTOR.services_by_name.values()}
    assert services <= set(listed)


def test_the_reference_has_every_field(tmp_path: Path) -> None:
    environment = {**os.environ, "VENV": str(BUF.parent.parent), "PYTHON": sys.executable}
    command = (ROOT / "scripts" / "protocol_reference.sh", tmp_path)
    subprocess.run(command, env=environment, check=True, timeout=300, capture_output=True)
    page = (tmp_path / "checkpointd.v1.html").read_text()
    messages: list[Descriptor] = [
        message for module in MODULES for message in module.DESCRIPTOR.message_types_by_name.values()
    ]
    for message in messages:
        assert message.name in page
        assert not [field.name for field in message.fields if field.name not in page]
    assert "at most 1408 bytes" in page
