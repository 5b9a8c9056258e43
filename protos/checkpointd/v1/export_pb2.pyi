from checkpointd.v1 import thread_service_pb2 as _thread_service_pb2
from checkpointd.v1 import values_pb2 as _values_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExportRecord(_message.Message):
    __slots__ = ("header", "thread", "checkpoint", "end", "trailer")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    THREAD_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    TRAILER_FIELD_NUMBER: _ClassVar[int]
    header: ExportHeader
    thread: ExportedThread
    checkpoint: _values_pb2.CheckpointTuple
    end: ExportedThreadEnd
    trailer: ExportTrailer
    def __init__(self, header: _Optional[_Union[ExportHeader, _Mapping]] = ..., thread: _Optional[_Union[ExportedThread, _Mapping]] = ..., checkpoint: _Optional[_Union[_values_pb2.CheckpointTuple, _Mapping]] = ..., end: _Optional[_Union[ExportedThreadEnd, _Mapping]] = ..., trailer: _Optional[_Union[ExportTrailer, _Mapping]] = ...) -> None: ...

class ExportHeader(_message.Message):
    __slots__ = ("version", "created_at", "redacted")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    REDACTED_FIELD_NUMBER: _ClassVar[int]
    version: str
    created_at: int
    redacted: bool
    def __init__(self, version: _Optional[str] = ..., created_at: _Optional[int] = ..., redacted: bool = ...) -> None: ...

class ExportedThread(_message.Message):
    __slots__ = ("thread_id", "tags", "pinned", "ttl_seconds", "archived")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ARCHIVED_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    tags: _containers.RepeatedCompositeFieldContainer[_thread_service_pb2.ThreadTag]
    pinned: bool
    ttl_seconds: int
    archived: bool
    def __init__(self, thread_id: _Optional[str] = ..., tags: _Optional[_Iterable[_Union[_thread_service_pb2.ThreadTag, _Mapping]]] = ..., pinned: bool = ..., ttl_seconds: _Optional[int] = ..., archived: bool = ...) -> None: ...

class ExportedThreadEnd(_message.Message):
    __slots__ = ("checkpoints", "writes", "digest")
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    checkpoints: int
    writes: int
    digest: bytes
    def __init__(self, checkpoints: _Optional[int] = ..., writes: _Optional[int] = ..., digest: _Optional[bytes] = ...) -> None: ...

class ExportTrailer(_message.Message):
    __slots__ = ("threads",)
    THREADS_FIELD_NUMBER: _ClassVar[int]
    threads: int
    def __init__(self, threads: _Optional[int] = ...) -> None: ...
