from checkpointd.v1 import store_service_pb2 as _store_service_pb2
from checkpointd.v1 import thread_service_pb2 as _thread_service_pb2
from checkpointd.v1 import values_pb2 as _values_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExportRecord(_message.Message):
    __slots__ = ("header", "thread", "checkpoint", "end", "trailer", "item")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    THREAD_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    TRAILER_FIELD_NUMBER: _ClassVar[int]
    ITEM_FIELD_NUMBER: _ClassVar[int]
    header: ExportHeader
    thread: ExportedThread
    checkpoint: _values_pb2.CheckpointTuple
    end: ExportedThreadEnd
    trailer: ExportTrailer
    item: _store_service_pb2.WholeItem
    def __init__(self, header: _Optional[_Union[ExportHeader, _Mapping]] = ..., thread: _Optional[_Union[ExportedThread, _Mapping]] = ..., checkpoint: _Optional[_Union[_values_pb2.CheckpointTuple, _Mapping]] = ..., end: _Optional[_Union[ExportedThreadEnd, _Mapping]] = ..., trailer: _Optional[_Union[ExportTrailer, _Mapping]] = ..., item: _Optional[_Union[_store_service_pb2.WholeItem, _Mapping]] = ...) -> None: ...

class ExportHeader(_message.Message):
    __slots__ = ("version", "created_at", "redacted", "export_id", "server_id", "tenant", "selection")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    REDACTED_FIELD_NUMBER: _ClassVar[int]
    EXPORT_ID_FIELD_NUMBER: _ClassVar[int]
    SERVER_ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    version: str
    created_at: int
    redacted: bool
    export_id: bytes
    server_id: str
    tenant: str
    selection: ExportSelection
    def __init__(self, version: _Optional[str] = ..., created_at: _Optional[int] = ..., redacted: bool = ..., export_id: _Optional[bytes] = ..., server_id: _Optional[str] = ..., tenant: _Optional[str] = ..., selection: _Optional[_Union[ExportSelection, _Mapping]] = ...) -> None: ...

class ExportSelection(_message.Message):
    __slots__ = ("without_threads", "thread_ids", "without_items", "namespaces", "without_vectors")
    WITHOUT_THREADS_FIELD_NUMBER: _ClassVar[int]
    THREAD_IDS_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_ITEMS_FIELD_NUMBER: _ClassVar[int]
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_VECTORS_FIELD_NUMBER: _ClassVar[int]
    without_threads: bool
    thread_ids: _containers.RepeatedScalarFieldContainer[str]
    without_items: bool
    namespaces: _containers.RepeatedCompositeFieldContainer[_store_service_pb2.StoreNamespace]
    without_vectors: bool
    def __init__(self, without_threads: bool = ..., thread_ids: _Optional[_Iterable[str]] = ..., without_items: bool = ..., namespaces: _Optional[_Iterable[_Union[_store_service_pb2.StoreNamespace, _Mapping]]] = ..., without_vectors: bool = ...) -> None: ...

class ExportedThread(_message.Message):
    __slots__ = ("thread_id", "tags", "pinned", "ttl_seconds", "archived", "stamp")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ARCHIVED_FIELD_NUMBER: _ClassVar[int]
    STAMP_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    tags: _containers.RepeatedCompositeFieldContainer[_thread_service_pb2.ThreadTag]
    pinned: bool
    ttl_seconds: int
    archived: bool
    stamp: bytes
    def __init__(self, thread_id: _Optional[str] = ..., tags: _Optional[_Iterable[_Union[_thread_service_pb2.ThreadTag, _Mapping]]] = ..., pinned: bool = ..., ttl_seconds: _Optional[int] = ..., archived: bool = ..., stamp: _Optional[bytes] = ...) -> None: ...

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
    __slots__ = ("threads", "items", "missing")
    THREADS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    threads: int
    items: int
    missing: _containers.RepeatedCompositeFieldContainer[MissingThread]
    def __init__(self, threads: _Optional[int] = ..., items: _Optional[int] = ..., missing: _Optional[_Iterable[_Union[MissingThread, _Mapping]]] = ...) -> None: ...

class MissingThread(_message.Message):
    __slots__ = ("thread_id", "problem")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    problem: str
    def __init__(self, thread_id: _Optional[str] = ..., problem: _Optional[str] = ...) -> None: ...
