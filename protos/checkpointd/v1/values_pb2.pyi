from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SerializerFamily(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SERIALIZER_FAMILY_UNSPECIFIED: _ClassVar[SerializerFamily]
    SERIALIZER_FAMILY_LANGGRAPH_MSGPACK: _ClassVar[SerializerFamily]
    SERIALIZER_FAMILY_LANGGRAPH_JSON: _ClassVar[SerializerFamily]
    SERIALIZER_FAMILY_OTHER: _ClassVar[SerializerFamily]
SERIALIZER_FAMILY_UNSPECIFIED: SerializerFamily
SERIALIZER_FAMILY_LANGGRAPH_MSGPACK: SerializerFamily
SERIALIZER_FAMILY_LANGGRAPH_JSON: SerializerFamily
SERIALIZER_FAMILY_OTHER: SerializerFamily

class TypedValue(_message.Message):
    __slots__ = ("type", "data", "patch", "parts", "crc32")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    PATCH_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    type: str
    data: bytes
    patch: Patch
    parts: Parts
    crc32: int
    def __init__(self, type: _Optional[str] = ..., data: _Optional[bytes] = ..., patch: _Optional[_Union[Patch, _Mapping]] = ..., parts: _Optional[_Union[Parts, _Mapping]] = ..., crc32: _Optional[int] = ...) -> None: ...

class Patch(_message.Message):
    __slots__ = ("base_version", "size", "crc32", "sealed", "base_crc32")
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    BASE_CRC32_FIELD_NUMBER: _ClassVar[int]
    base_version: str
    size: int
    crc32: int
    sealed: bool
    base_crc32: int
    def __init__(self, base_version: _Optional[str] = ..., size: _Optional[int] = ..., crc32: _Optional[int] = ..., sealed: bool = ..., base_crc32: _Optional[int] = ...) -> None: ...

class Parts(_message.Message):
    __slots__ = ("upload_id", "size")
    UPLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    upload_id: bytes
    size: int
    def __init__(self, upload_id: _Optional[bytes] = ..., size: _Optional[int] = ...) -> None: ...

class ChannelValue(_message.Message):
    __slots__ = ("channel", "version", "value")
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    channel: str
    version: str
    value: TypedValue
    def __init__(self, channel: _Optional[str] = ..., version: _Optional[str] = ..., value: _Optional[_Union[TypedValue, _Mapping]] = ...) -> None: ...

class StoredValue(_message.Message):
    __slots__ = ("tuple", "channel", "version", "value")
    TUPLE_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    tuple: int
    channel: str
    version: str
    value: TypedValue
    def __init__(self, tuple: _Optional[int] = ..., channel: _Optional[str] = ..., version: _Optional[str] = ..., value: _Optional[_Union[TypedValue, _Mapping]] = ...) -> None: ...

class KnownValue(_message.Message):
    __slots__ = ("channel", "version", "crc32")
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    channel: str
    version: str
    crc32: int
    def __init__(self, channel: _Optional[str] = ..., version: _Optional[str] = ..., crc32: _Optional[int] = ...) -> None: ...

class Metadata(_message.Message):
    __slots__ = ("value", "index", "struct")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    STRUCT_FIELD_NUMBER: _ClassVar[int]
    value: TypedValue
    index: bytes
    struct: _struct_pb2.Struct
    def __init__(self, value: _Optional[_Union[TypedValue, _Mapping]] = ..., index: _Optional[bytes] = ..., struct: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class TaskWrite(_message.Message):
    __slots__ = ("task_id", "task_path", "idx", "channel", "value", "checkpoint_id")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_PATH_FIELD_NUMBER: _ClassVar[int]
    IDX_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    task_path: str
    idx: int
    channel: str
    value: TypedValue
    checkpoint_id: str
    def __init__(self, task_id: _Optional[str] = ..., task_path: _Optional[str] = ..., idx: _Optional[int] = ..., channel: _Optional[str] = ..., value: _Optional[_Union[TypedValue, _Mapping]] = ..., checkpoint_id: _Optional[str] = ...) -> None: ...

class CheckpointTuple(_message.Message):
    __slots__ = ("thread_id", "checkpoint_ns", "checkpoint_id", "parent_checkpoint_id", "body", "channels", "channel_versions", "values", "metadata", "pending_writes", "version", "serializer_family")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_NS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    PENDING_WRITES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SERIALIZER_FAMILY_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    parent_checkpoint_id: str
    body: bytes
    channels: _containers.RepeatedScalarFieldContainer[str]
    channel_versions: _containers.RepeatedScalarFieldContainer[str]
    values: _containers.RepeatedCompositeFieldContainer[ChannelValue]
    metadata: Metadata
    pending_writes: _containers.RepeatedCompositeFieldContainer[TaskWrite]
    version: int
    serializer_family: SerializerFamily
    def __init__(self, thread_id: _Optional[str] = ..., checkpoint_ns: _Optional[str] = ..., checkpoint_id: _Optional[str] = ..., parent_checkpoint_id: _Optional[str] = ..., body: _Optional[bytes] = ..., channels: _Optional[_Iterable[str]] = ..., channel_versions: _Optional[_Iterable[str]] = ..., values: _Optional[_Iterable[_Union[ChannelValue, _Mapping]]] = ..., metadata: _Optional[_Union[Metadata, _Mapping]] = ..., pending_writes: _Optional[_Iterable[_Union[TaskWrite, _Mapping]]] = ..., version: _Optional[int] = ..., serializer_family: _Optional[_Union[SerializerFamily, str]] = ...) -> None: ...

class Precondition(_message.Message):
    __slots__ = ("if_version_match", "if_last_writer", "if_last_checkpoint_id")
    IF_VERSION_MATCH_FIELD_NUMBER: _ClassVar[int]
    IF_LAST_WRITER_FIELD_NUMBER: _ClassVar[int]
    IF_LAST_CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    if_version_match: int
    if_last_writer: bytes
    if_last_checkpoint_id: str
    def __init__(self, if_version_match: _Optional[int] = ..., if_last_writer: _Optional[bytes] = ..., if_last_checkpoint_id: _Optional[str] = ...) -> None: ...

class ThreadLease(_message.Message):
    __slots__ = ("thread_id", "token")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    token: int
    def __init__(self, thread_id: _Optional[str] = ..., token: _Optional[int] = ...) -> None: ...
