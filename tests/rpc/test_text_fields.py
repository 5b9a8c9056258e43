"""Every text field of every request has a limit that is enforced, and a refused request changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import thread_service_pb2
from checkpointd.v1 import value_service_pb2 as values_pb
from checkpointd.v1 import values_pb2 as values
from tests.rpc.requests import assert_nothing_stored, channel_value, copy, send, task_write


@dataclass(frozen=True)
class Text:
    """A text field of a request."""

    method: str
    field: str
    limit: int
    """The limit in bytes; 0: the protocol has none."""
    required: bool
    request: Callable[[Any, str], Any]
    """Makes an otherwise valid request with this text in the field."""
    stored: bool = True
    """Whether a valid request succeeds when nothing else is stored."""


def tagged(text: str) -> str:
    """Returns a channel's version that is as long as a text, or a byte longer."""
    return "s" + (text[1:] if text.isascii() else text) if text else ""


def sealed(base_version: str) -> values.TypedValue:
    return values.TypedValue(type="t", data=b"?", patch=values.Patch(base_version=base_version, sealed=True))


def known(*pairs: tuple[str, str]) -> pb.GetCheckpointRequest:
    named = [values.KnownValue(channel=name, version=version) for name, version in pairs]
    return pb.GetCheckpointRequest(thread_id="t", patches=True, known=named)


def part(thread_id: str) -> values_pb.PutPartRequest:
    return values_pb.PutPartRequest(thread_id=thread_id, upload_id=b"u" * 16, data=b"data")


def get_value(**fields: Any) -> values_pb.GetValueRequest:
    if "task_write" not in fields:
        fields = {"channel_value": channel("a", "i1"), **fields}
    return values_pb.GetValueRequest(**{"thread_id": "t", **fields})


def channel(name: str, version: str) -> values_pb.KnownChannelValue:
    return values_pb.KnownChannelValue(channel=name, version=version)


def write(checkpoint_id: str, task_id: str) -> values_pb.KnownTaskWrite:
    return values_pb.KnownTaskWrite(checkpoint_id=checkpoint_id, task_id=task_id)


def tag(name: str, text: str) -> thread_service_pb2.ThreadTag:
    return thread_service_pb2.ThreadTag(name=name, text=text)


def listed(**fields: Any) -> thread_service_pb2.ListThreadsRequest:
    return thread_service_pb2.ListThreadsRequest(filter=thread_service_pb2.ThreadFilter(**fields))


def counted(**fields: Any) -> thread_service_pb2.CountThreadsRequest:
    return thread_service_pb2.CountThreadsRequest(filter=thread_service_pb2.ThreadFilter(**fields))


def purged(**fields: Any) -> thread_service_pb2.PurgeThreadsRequest:
    wanted = thread_service_pb2.ThreadFilter(archived=True, **fields)
    return thread_service_pb2.PurgeThreadsRequest(filter=wanted, dry_run=True)


def diffed(**fields: Any) -> thread_service_pb2.DiffCheckpointsRequest:
    named = {"thread_id": "t", "before_checkpoint_id": "1", "after_checkpoint_id": "2", **fields}
    return thread_service_pb2.DiffCheckpointsRequest(**named)


def updated(**fields: Any) -> thread_service_pb2.UpdateThreadRequest:
    return thread_service_pb2.UpdateThreadRequest(**{"thread_id": "t", **fields})


TEXTS = [
    Text("PutCheckpoint", "thread_id", 512, True, lambda c, x: c.put_request(thread_id=x)),
    Text("PutCheckpoint", "checkpoint_ns", 1408, False, lambda c, x: c.put_request(checkpoint_ns=x)),
    Text("PutCheckpoint", "checkpoint_id", 128, True, lambda c, x: c.put_request(checkpoint_id=x)),
    Text("PutCheckpoint", "parent_checkpoint_id", 128, False, lambda c, x: c.put_request(parent_checkpoint_id=x)),
    Text(
        "PutCheckpoint",
        "channels[1]",
        512,
        True,
        lambda c, x: c.put_request(channels=["a", x], channel_versions=["i1", "i1"]),
    ),
    Text(
        "PutCheckpoint",
        "channel_versions[0]",
        129,
        True,
        lambda c, x: c.put_request(channels=["a"], channel_versions=[tagged(x)]),
    ),
    Text(
        "PutCheckpoint",
        "values[1].channel",
        512,
        True,
        lambda c, x: c.put_request(values=[channel_value(c), channel_value(c, channel=x)]),
    ),
    Text(
        "PutCheckpoint",
        "values[0].version",
        129,
        True,
        lambda c, x: c.put_request(values=[channel_value(c, version=tagged(x))]),
    ),
    Text(
        "PutCheckpoint",
        "values[1].value.type",
        128,
        True,
        lambda c, x: c.put_request(
            values=[channel_value(c, value=None), channel_value(c, channel="b", value=c.value(b"", x))]
        ),
    ),
    Text(
        "PutCheckpoint",
        "metadata.value.type",
        128,
        True,
        lambda c, x: c.put_request(metadata=values.Metadata(value=c.value(b"", x), index=b"\x80")),
    ),
    Text(
        "PutCheckpoint",
        "values[0].value.patch.base_version",
        129,
        True,
        lambda c, x: c.put_request(values=[channel_value(c, value=sealed(tagged(x)))]),
        stored=False,
    ),
    Text(
        "PutWrites",
        "writes[0].value.patch.base_version",
        129,
        True,
        lambda c, x: c.writes_request(writes=[task_write(c, value=sealed(tagged(x)))]),
        stored=False,
    ),
    Text(
        "PutCheckpoint",
        "precondition.if_last_checkpoint_id",
        128,
        False,
        lambda c, x: c.put_request(
            precondition=values.Precondition(if_version_match=0, if_last_writer=b"w", if_last_checkpoint_id=x)
        ),
        stored=False,
    ),
    Text(
        "PutWrites",
        "precondition.if_last_checkpoint_id",
        128,
        False,
        lambda c, x: c.writes_request(
            precondition=values.Precondition(if_version_match=0, if_last_writer=b"w", if_last_checkpoint_id=x)
        ),
        stored=False,
    ),
    Text("PutWrites", "thread_id", 512, True, lambda c, x: c.writes_request(thread_id=x)),
    Text("PutWrites", "checkpoint_ns", 1408, False, lambda c, x: c.writes_request(checkpoint_ns=x)),
    Text("PutWrites", "checkpoint_id", 128, True, lambda c, x: c.writes_request(checkpoint_id=x)),
    Text("PutWrites", "task_id", 128, True, lambda c, x: c.writes_request(task_id=x)),
    Text("PutWrites", "task_path", 65536, False, lambda c, x: c.writes_request(task_path=x)),
    Text(
        "PutWrites",
        "writes[1].channel",
        512,
        True,
        lambda c, x: c.writes_request(writes=[task_write(c), task_write(c, idx=1, channel=x)]),
    ),
    Text(
        "PutWrites",
        "writes[0].value.type",
        128,
        True,
        lambda c, x: c.writes_request(writes=[task_write(c, value=c.value(b"", x))]),
    ),
    Text("GetCheckpoint", "thread_id", 512, True, lambda c, x: pb.GetCheckpointRequest(thread_id=x)),
    Text(
        "GetCheckpoint",
        "checkpoint_ns",
        1408,
        False,
        lambda c, x: pb.GetCheckpointRequest(thread_id="t", checkpoint_ns=x),
    ),
    Text(
        "GetCheckpoint",
        "checkpoint_id",
        128,
        False,
        lambda c, x: pb.GetCheckpointRequest(thread_id="t", checkpoint_id=x),
    ),
    Text("GetCheckpoint", "known[1].channel", 512, True, lambda c, x: known(("a", "i1"), (x, "i1"))),
    Text("GetCheckpoint", "known[0].version", 129, True, lambda c, x: known(("a", tagged(x)))),
    Text("PutPart", "thread_id", 512, True, lambda c, x: part(thread_id=x)),
    Text("GetValue", "thread_id", 512, True, lambda c, x: get_value(thread_id=x)),
    Text("GetValue", "checkpoint_ns", 1408, False, lambda c, x: get_value(checkpoint_ns=x)),
    Text("GetValue", "channel_value.channel", 512, True, lambda c, x: get_value(channel_value=channel(x, "i1"))),
    Text("GetValue", "channel_value.version", 129, True, lambda c, x: get_value(channel_value=channel("a", tagged(x)))),
    Text("GetValue", "task_write.checkpoint_id", 128, True, lambda c, x: get_value(task_write=write(x, "task"))),
    Text("GetValue", "task_write.task_id", 128, True, lambda c, x: get_value(task_write=write("checkpoint", x))),
    Text("ListCheckpoints", "thread_id", 512, True, lambda c, x: pb.ListCheckpointsRequest(thread_id=x)),
    Text("ListCheckpoints", "checkpoint_ns", 1408, False, lambda c, x: pb.ListCheckpointsRequest(checkpoint_ns=x)),
    Text("ListCheckpoints", "checkpoint_id", 128, False, lambda c, x: pb.ListCheckpointsRequest(checkpoint_id=x)),
    Text(
        "ListCheckpoints",
        "before_checkpoint_id",
        128,
        False,
        lambda c, x: pb.ListCheckpointsRequest(before_checkpoint_id=x),
    ),
    Text(
        "GetDeltaChannelHistory",
        "thread_id",
        512,
        True,
        lambda c, x: pb.GetDeltaChannelHistoryRequest(thread_id=x, channels=["a"]),
    ),
    Text(
        "GetDeltaChannelHistory",
        "checkpoint_ns",
        1408,
        False,
        lambda c, x: pb.GetDeltaChannelHistoryRequest(thread_id="t", checkpoint_ns=x, channels=["a"]),
    ),
    Text(
        "GetDeltaChannelHistory",
        "checkpoint_id",
        128,
        False,
        lambda c, x: pb.GetDeltaChannelHistoryRequest(thread_id="t", checkpoint_id=x, channels=["a"]),
    ),
    Text(
        "GetDeltaChannelHistory",
        "channels[1]",
        512,
        True,
        lambda c, x: pb.GetDeltaChannelHistoryRequest(thread_id="t", channels=["a", x]),
    ),
    Text("DeleteThread", "thread_id", 512, True, lambda c, x: thread_service_pb2.DeleteThreadRequest(thread_id=x)),
    Text("DeleteRuns", "run_ids[1]", 512, True, lambda c, x: thread_service_pb2.DeleteRunsRequest(run_ids=["a", x])),
    Text("CopyThread", "source_thread_id", 512, True, lambda c, x: copy(source_thread_id=x)),
    Text("CopyThread", "target_thread_id", 512, True, lambda c, x: copy(target_thread_id=x)),
    Text("CopyThread", "checkpoint_id", 128, False, lambda c, x: copy(checkpoint_id=x)),
    Text(
        "PruneThreads",
        "thread_ids[0]",
        512,
        True,
        lambda c, x: thread_service_pb2.PruneThreadsRequest(thread_ids=[x]),
    ),
    Text("ListThreads", "filter.thread_id_prefix", 512, False, lambda c, x: listed(thread_id_prefix=x)),
    Text("ListThreads", "filter.tags[0].name", 128, True, lambda c, x: listed(tags=[tag(x, "")])),
    Text("ListThreads", "filter.tags[1].text", 512, False, lambda c, x: listed(tags=[tag("a", ""), tag("b", x)])),
    Text("CountThreads", "filter.thread_id_prefix", 512, False, lambda c, x: counted(thread_id_prefix=x)),
    Text("CountThreads", "filter.tags[0].name", 128, True, lambda c, x: counted(tags=[tag(x, "")])),
    Text("CountThreads", "filter.tags[0].text", 512, False, lambda c, x: counted(tags=[tag("a", x)])),
    Text("PurgeThreads", "filter.thread_id_prefix", 512, False, lambda c, x: purged(thread_id_prefix=x)),
    Text("PurgeThreads", "filter.tags[0].name", 128, True, lambda c, x: purged(tags=[tag(x, "")])),
    Text("PurgeThreads", "filter.tags[0].text", 512, False, lambda c, x: purged(tags=[tag("a", x)])),
    Text("GetThreadTree", "thread_id", 512, True, lambda c, x: thread_service_pb2.GetThreadTreeRequest(thread_id=x)),
    Text(
        "GetThread",
        "thread_id",
        512,
        True,
        lambda c, x: thread_service_pb2.GetThreadRequest(thread_id=x),
        stored=False,
    ),
    Text(
        "ArchiveThread",
        "thread_id",
        512,
        True,
        lambda c, x: thread_service_pb2.ArchiveThreadRequest(thread_id=x),
        stored=False,
    ),
    *(
        Text(
            "ShowCheckpoint",
            field,
            limit,
            field == "thread_id",
            lambda c, x, field=field: thread_service_pb2.ShowCheckpointRequest(**{"thread_id": "t", field: x}),  # type: ignore[misc]
            stored=False,
        )
        for field, limit in (("thread_id", 512), ("checkpoint_ns", 1408), ("checkpoint_id", 128))
    ),
    *(
        Text(
            "DiffCheckpoints",
            field,
            limit,
            field != "checkpoint_ns",
            lambda c, x, field=field: diffed(**{field: x}),  # type: ignore[misc]
            stored=False,
        )
        for field, limit in (
            ("thread_id", 512),
            ("checkpoint_ns", 1408),
            ("before_checkpoint_id", 128),
            ("after_checkpoint_id", 128),
        )
    ),
    Text("UpdateThread", "thread_id", 512, True, lambda c, x: updated(thread_id=x), stored=False),
    Text("UpdateThread", "set_tags[0].name", 128, True, lambda c, x: updated(set_tags=[tag(x, "")]), stored=False),
    Text("UpdateThread", "set_tags[0].text", 512, False, lambda c, x: updated(set_tags=[tag("a", x)]), stored=False),
    Text("UpdateThread", "remove_tags[1]", 128, True, lambda c, x: updated(remove_tags=["a", x]), stored=False),
]


def name(text: Text) -> str:
    return f"{text.method}-{text.field}"


def text_fields(message: Any, prefix: str = "", depth: int = 0) -> set[str]:
    """Returns the paths of all text fields of a message, without positions and keys."""
    found = set()
    for field in message.fields:
        path = f"{prefix}{field.name}"
        nested = field.message_type
        if field.type == field.TYPE_STRING:
            found.add(path)
        elif nested is not None and nested.file.package == "google.protobuf":
            pass  # JSON, which may hold any text: see test_metadata_struct.py
        elif nested is not None and depth < 6:
            found |= text_fields(nested, f"{path}.", depth + 1)
    return found


def test_every_text_field_of_every_request_is_tried() -> None:
    covered: dict[str, set[str]] = {}
    for text in TEXTS:
        parts = [part.split("[")[0] for part in text.field.split(".")]
        covered.setdefault(text.method, set()).add(".".join(parts))
    elsewhere = {
        # Must be unset: see test_refusals.py.
        "PutCheckpoint": {"metadata.value.patch.base_version"},
        "PutWrites": {"writes.task_id", "writes.task_path", "writes.checkpoint_id"},
        # Refused unless the server made it.
        "ListCheckpoints": {"page_token"},
        "GetDeltaChannelHistory": {"page_token"},
        "ListThreads": {"page_token"},
        "GetThreadTree": {"page_token"},
        "PurgeThreads": {"page_token"},
        # Refused unless the lease exists: see test_leases.py, which covers LeaseService too.
        "DeleteRuns": {"leases.thread_id"},
        "PruneThreads": {"leases.thread_id"},
    }
    for service in (pb.DESCRIPTOR, thread_service_pb2.DESCRIPTOR, values_pb.DESCRIPTOR):
        for descriptor in service.services_by_name.values():
            for method in descriptor.methods:
                if method.name == "Pipeline":
                    continue  # the same requests and checks: see test_pipeline.py
                expected = text_fields(method.input_type) - elsewhere.get(method.name, set())
                assert covered.get(method.name, set()) == expected, method.name


@pytest.mark.parametrize("text", TEXTS, ids=name)
async def test_text_fields_are_held_to_their_limits(client: Any, text: Text) -> None:
    if text.limit:
        for character in ("x", "é"):
            too_long = character * (text.limit // len(character.encode())) + "x"
            refusal = await client.refused(send(client, text.method, text.request(client, too_long)))
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
            assert refusal.metadata == {"field": text.field, "limit": str(text.limit)}
            assert text.field in refusal.message
            assert str(text.limit) in refusal.message
    refusal = await client.refused(send(client, text.method, text.request(client, "a\0b")))
    assert (refusal.code, refusal.metadata) == (grpc.StatusCode.INVALID_ARGUMENT, {"field": text.field})
    assert "NUL" in refusal.message
    if text.required:
        refusal = await client.refused(send(client, text.method, text.request(client, "")))
        assert (refusal.code, refusal.metadata) == (grpc.StatusCode.INVALID_ARGUMENT, {"field": text.field})
    await assert_nothing_stored(client)
    if not text.stored:
        return
    for character in ("x", "é"):
        longest = character * ((text.limit or 5000) // len(character.encode()))
        await send(client, text.method, text.request(client, longest))
    if not text.required:
        await send(client, text.method, text.request(client, ""))
