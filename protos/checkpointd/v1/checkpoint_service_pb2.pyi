from checkpointd.v1 import operation_failure_pb2 as _operation_failure_pb2
from checkpointd.v1 import store_service_pb2 as _store_service_pb2
from checkpointd.v1 import values_pb2 as _values_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CheckpointView(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHECKPOINT_VIEW_UNSPECIFIED: _ClassVar[CheckpointView]
    CHECKPOINT_VIEW_FULL: _ClassVar[CheckpointView]
    CHECKPOINT_VIEW_METADATA: _ClassVar[CheckpointView]
CHECKPOINT_VIEW_UNSPECIFIED: CheckpointView
CHECKPOINT_VIEW_FULL: CheckpointView
CHECKPOINT_VIEW_METADATA: CheckpointView

class PutCheckpointRequest(_message.Message):
    __slots__ = ("thread_id", "checkpoint_ns", "checkpoint_id", "parent_checkpoint_id", "body", "channels", "channel_versions", "values", "metadata", "precondition", "writer", "request_id", "lease_token", "ttl_seconds")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_NS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    PRECONDITION_FIELD_NUMBER: _ClassVar[int]
    WRITER_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    parent_checkpoint_id: str
    body: bytes
    channels: _containers.RepeatedScalarFieldContainer[str]
    channel_versions: _containers.RepeatedScalarFieldContainer[str]
    values: _containers.RepeatedCompositeFieldContainer[_values_pb2.ChannelValue]
    metadata: _values_pb2.Metadata
    precondition: _values_pb2.Precondition
    writer: bytes
    request_id: bytes
    lease_token: int
    ttl_seconds: int
    def __init__(self, thread_id: _Optional[str] = ..., checkpoint_ns: _Optional[str] = ..., checkpoint_id: _Optional[str] = ..., parent_checkpoint_id: _Optional[str] = ..., body: _Optional[bytes] = ..., channels: _Optional[_Iterable[str]] = ..., channel_versions: _Optional[_Iterable[str]] = ..., values: _Optional[_Iterable[_Union[_values_pb2.ChannelValue, _Mapping]]] = ..., metadata: _Optional[_Union[_values_pb2.Metadata, _Mapping]] = ..., precondition: _Optional[_Union[_values_pb2.Precondition, _Mapping]] = ..., writer: _Optional[bytes] = ..., request_id: _Optional[bytes] = ..., lease_token: _Optional[int] = ..., ttl_seconds: _Optional[int] = ...) -> None: ...

class PutCheckpointResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...

class PutWritesRequest(_message.Message):
    __slots__ = ("thread_id", "checkpoint_ns", "checkpoint_id", "task_id", "task_path", "writes", "precondition", "lease_token", "request_id", "serializer_family")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_NS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_PATH_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    PRECONDITION_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SERIALIZER_FAMILY_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    task_id: str
    task_path: str
    writes: _containers.RepeatedCompositeFieldContainer[_values_pb2.TaskWrite]
    precondition: _values_pb2.Precondition
    lease_token: int
    request_id: bytes
    serializer_family: _values_pb2.SerializerFamily
    def __init__(self, thread_id: _Optional[str] = ..., checkpoint_ns: _Optional[str] = ..., checkpoint_id: _Optional[str] = ..., task_id: _Optional[str] = ..., task_path: _Optional[str] = ..., writes: _Optional[_Iterable[_Union[_values_pb2.TaskWrite, _Mapping]]] = ..., precondition: _Optional[_Union[_values_pb2.Precondition, _Mapping]] = ..., lease_token: _Optional[int] = ..., request_id: _Optional[bytes] = ..., serializer_family: _Optional[_Union[_values_pb2.SerializerFamily, str]] = ...) -> None: ...

class PutWritesResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...

class GetCheckpointRequest(_message.Message):
    __slots__ = ("thread_id", "checkpoint_ns", "checkpoint_id", "patches", "known", "metadata_struct", "metadata_index", "counts_as_use")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_NS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    PATCHES_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    METADATA_STRUCT_FIELD_NUMBER: _ClassVar[int]
    METADATA_INDEX_FIELD_NUMBER: _ClassVar[int]
    COUNTS_AS_USE_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    patches: bool
    known: _containers.RepeatedCompositeFieldContainer[_values_pb2.KnownValue]
    metadata_struct: bool
    metadata_index: bool
    counts_as_use: bool
    def __init__(self, thread_id: _Optional[str] = ..., checkpoint_ns: _Optional[str] = ..., checkpoint_id: _Optional[str] = ..., patches: bool = ..., known: _Optional[_Iterable[_Union[_values_pb2.KnownValue, _Mapping]]] = ..., metadata_struct: bool = ..., metadata_index: bool = ..., counts_as_use: bool = ...) -> None: ...

class GetCheckpointResponse(_message.Message):
    __slots__ = ("tuple", "version", "stored_values")
    TUPLE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STORED_VALUES_FIELD_NUMBER: _ClassVar[int]
    tuple: _values_pb2.CheckpointTuple
    version: int
    stored_values: _containers.RepeatedCompositeFieldContainer[_values_pb2.StoredValue]
    def __init__(self, tuple: _Optional[_Union[_values_pb2.CheckpointTuple, _Mapping]] = ..., version: _Optional[int] = ..., stored_values: _Optional[_Iterable[_Union[_values_pb2.StoredValue, _Mapping]]] = ...) -> None: ...

class ListCheckpointsRequest(_message.Message):
    __slots__ = ("thread_id", "checkpoint_ns", "checkpoint_id", "before_checkpoint_id", "filter", "view", "page_size", "page_token", "patches", "filter_struct", "all_namespaces", "metadata_struct")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_NS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    BEFORE_CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    PATCHES_FIELD_NUMBER: _ClassVar[int]
    FILTER_STRUCT_FIELD_NUMBER: _ClassVar[int]
    ALL_NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    METADATA_STRUCT_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    before_checkpoint_id: str
    filter: bytes
    view: CheckpointView
    page_size: int
    page_token: str
    patches: bool
    filter_struct: _struct_pb2.Struct
    all_namespaces: bool
    metadata_struct: bool
    def __init__(self, thread_id: _Optional[str] = ..., checkpoint_ns: _Optional[str] = ..., checkpoint_id: _Optional[str] = ..., before_checkpoint_id: _Optional[str] = ..., filter: _Optional[bytes] = ..., view: _Optional[_Union[CheckpointView, str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., patches: bool = ..., filter_struct: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., all_namespaces: bool = ..., metadata_struct: bool = ...) -> None: ...

class ListCheckpointsResponse(_message.Message):
    __slots__ = ("tuples", "next_page_token", "version", "stored_values")
    TUPLES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STORED_VALUES_FIELD_NUMBER: _ClassVar[int]
    tuples: _containers.RepeatedCompositeFieldContainer[_values_pb2.CheckpointTuple]
    next_page_token: str
    version: int
    stored_values: _containers.RepeatedCompositeFieldContainer[_values_pb2.StoredValue]
    def __init__(self, tuples: _Optional[_Iterable[_Union[_values_pb2.CheckpointTuple, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., version: _Optional[int] = ..., stored_values: _Optional[_Iterable[_Union[_values_pb2.StoredValue, _Mapping]]] = ...) -> None: ...

class GetDeltaChannelHistoryRequest(_message.Message):
    __slots__ = ("thread_id", "checkpoint_ns", "checkpoint_id", "channels", "patches", "page_token")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_NS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    PATCHES_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    channels: _containers.RepeatedScalarFieldContainer[str]
    patches: bool
    page_token: str
    def __init__(self, thread_id: _Optional[str] = ..., checkpoint_ns: _Optional[str] = ..., checkpoint_id: _Optional[str] = ..., channels: _Optional[_Iterable[str]] = ..., patches: bool = ..., page_token: _Optional[str] = ...) -> None: ...

class DeltaChannelHistory(_message.Message):
    __slots__ = ("channel", "writes", "seed", "seed_version")
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    SEED_VERSION_FIELD_NUMBER: _ClassVar[int]
    channel: str
    writes: _containers.RepeatedCompositeFieldContainer[_values_pb2.TaskWrite]
    seed: _values_pb2.TypedValue
    seed_version: str
    def __init__(self, channel: _Optional[str] = ..., writes: _Optional[_Iterable[_Union[_values_pb2.TaskWrite, _Mapping]]] = ..., seed: _Optional[_Union[_values_pb2.TypedValue, _Mapping]] = ..., seed_version: _Optional[str] = ...) -> None: ...

class GetDeltaChannelHistoryResponse(_message.Message):
    __slots__ = ("channels", "version", "stored_values", "next_page_token")
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STORED_VALUES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    channels: _containers.RepeatedCompositeFieldContainer[DeltaChannelHistory]
    version: int
    stored_values: _containers.RepeatedCompositeFieldContainer[_values_pb2.StoredValue]
    next_page_token: str
    def __init__(self, channels: _Optional[_Iterable[_Union[DeltaChannelHistory, _Mapping]]] = ..., version: _Optional[int] = ..., stored_values: _Optional[_Iterable[_Union[_values_pb2.StoredValue, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class PipelineRequest(_message.Message):
    __slots__ = ("operations",)
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    operations: _containers.RepeatedCompositeFieldContainer[Operation]
    def __init__(self, operations: _Optional[_Iterable[_Union[Operation, _Mapping]]] = ...) -> None: ...

class Operation(_message.Message):
    __slots__ = ("id", "timeout_ms", "put_checkpoint", "put_writes", "get_checkpoint", "store_batch", "traceparent")
    ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    PUT_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    PUT_WRITES_FIELD_NUMBER: _ClassVar[int]
    GET_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    STORE_BATCH_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    id: int
    timeout_ms: int
    put_checkpoint: PutCheckpointRequest
    put_writes: PutWritesRequest
    get_checkpoint: GetCheckpointRequest
    store_batch: _store_service_pb2.BatchRequest
    traceparent: str
    def __init__(self, id: _Optional[int] = ..., timeout_ms: _Optional[int] = ..., put_checkpoint: _Optional[_Union[PutCheckpointRequest, _Mapping]] = ..., put_writes: _Optional[_Union[PutWritesRequest, _Mapping]] = ..., get_checkpoint: _Optional[_Union[GetCheckpointRequest, _Mapping]] = ..., store_batch: _Optional[_Union[_store_service_pb2.BatchRequest, _Mapping]] = ..., traceparent: _Optional[str] = ...) -> None: ...

class PipelineResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[OperationResult]
    def __init__(self, results: _Optional[_Iterable[_Union[OperationResult, _Mapping]]] = ...) -> None: ...

class OperationResult(_message.Message):
    __slots__ = ("id", "put_checkpoint", "put_writes", "get_checkpoint", "failure", "store_batch")
    ID_FIELD_NUMBER: _ClassVar[int]
    PUT_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    PUT_WRITES_FIELD_NUMBER: _ClassVar[int]
    GET_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    STORE_BATCH_FIELD_NUMBER: _ClassVar[int]
    id: int
    put_checkpoint: PutCheckpointResponse
    put_writes: PutWritesResponse
    get_checkpoint: GetCheckpointResponse
    failure: _operation_failure_pb2.OperationFailure
    store_batch: _store_service_pb2.BatchResponse
    def __init__(self, id: _Optional[int] = ..., put_checkpoint: _Optional[_Union[PutCheckpointResponse, _Mapping]] = ..., put_writes: _Optional[_Union[PutWritesResponse, _Mapping]] = ..., get_checkpoint: _Optional[_Union[GetCheckpointResponse, _Mapping]] = ..., failure: _Optional[_Union[_operation_failure_pb2.OperationFailure, _Mapping]] = ..., store_batch: _Optional[_Union[_store_service_pb2.BatchResponse, _Mapping]] = ...) -> None: ...
