from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Compression(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMPRESSION_UNSPECIFIED: _ClassVar[Compression]
    COMPRESSION_ZLIB: _ClassVar[Compression]
COMPRESSION_UNSPECIFIED: Compression
COMPRESSION_ZLIB: Compression

class TypedValue(_message.Message):
    __slots__ = ("type", "data", "pieces")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    PIECES_FIELD_NUMBER: _ClassVar[int]
    type: str
    data: bytes
    pieces: PieceList
    def __init__(self, type: _Optional[str] = ..., data: _Optional[bytes] = ..., pieces: _Optional[_Union[PieceList, _Mapping]] = ...) -> None: ...

class PieceList(_message.Message):
    __slots__ = ("size", "names")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    size: int
    names: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, size: _Optional[int] = ..., names: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Piece(_message.Message):
    __slots__ = ("name", "data", "compression")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    COMPRESSION_FIELD_NUMBER: _ClassVar[int]
    name: bytes
    data: bytes
    compression: Compression
    def __init__(self, name: _Optional[bytes] = ..., data: _Optional[bytes] = ..., compression: _Optional[_Union[Compression, str]] = ...) -> None: ...

class ChannelVersion(_message.Message):
    __slots__ = ("text", "integer", "number")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    INTEGER_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    text: str
    integer: int
    number: float
    def __init__(self, text: _Optional[str] = ..., integer: _Optional[int] = ..., number: _Optional[float] = ...) -> None: ...

class ChannelVersions(_message.Message):
    __slots__ = ("versions",)
    class VersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ChannelVersion
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ChannelVersion, _Mapping]] = ...) -> None: ...
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.MessageMap[str, ChannelVersion]
    def __init__(self, versions: _Optional[_Mapping[str, ChannelVersion]] = ...) -> None: ...

class ChannelNames(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("v", "ts", "channel_versions", "versions_seen", "updated_channels", "extra")
    class VersionsSeenEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ChannelVersions
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ChannelVersions, _Mapping]] = ...) -> None: ...
    V_FIELD_NUMBER: _ClassVar[int]
    TS_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_SEEN_FIELD_NUMBER: _ClassVar[int]
    UPDATED_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    EXTRA_FIELD_NUMBER: _ClassVar[int]
    v: int
    ts: str
    channel_versions: ChannelVersions
    versions_seen: _containers.MessageMap[str, ChannelVersions]
    updated_channels: ChannelNames
    extra: TypedValue
    def __init__(self, v: _Optional[int] = ..., ts: _Optional[str] = ..., channel_versions: _Optional[_Union[ChannelVersions, _Mapping]] = ..., versions_seen: _Optional[_Mapping[str, ChannelVersions]] = ..., updated_channels: _Optional[_Union[ChannelNames, _Mapping]] = ..., extra: _Optional[_Union[TypedValue, _Mapping]] = ...) -> None: ...

class ChannelValue(_message.Message):
    __slots__ = ("channel", "version", "value")
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    channel: str
    version: ChannelVersion
    value: TypedValue
    def __init__(self, channel: _Optional[str] = ..., version: _Optional[_Union[ChannelVersion, _Mapping]] = ..., value: _Optional[_Union[TypedValue, _Mapping]] = ...) -> None: ...

class Metadata(_message.Message):
    __slots__ = ("value", "index")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    value: TypedValue
    index: bytes
    def __init__(self, value: _Optional[_Union[TypedValue, _Mapping]] = ..., index: _Optional[bytes] = ...) -> None: ...

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
    __slots__ = ("thread_id", "checkpoint_ns", "checkpoint_id", "parent_checkpoint_id", "checkpoint", "values", "metadata", "pending_writes", "version")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_NS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    PENDING_WRITES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    parent_checkpoint_id: str
    checkpoint: Checkpoint
    values: _containers.RepeatedCompositeFieldContainer[ChannelValue]
    metadata: Metadata
    pending_writes: _containers.RepeatedCompositeFieldContainer[TaskWrite]
    version: int
    def __init__(self, thread_id: _Optional[str] = ..., checkpoint_ns: _Optional[str] = ..., checkpoint_id: _Optional[str] = ..., parent_checkpoint_id: _Optional[str] = ..., checkpoint: _Optional[_Union[Checkpoint, _Mapping]] = ..., values: _Optional[_Iterable[_Union[ChannelValue, _Mapping]]] = ..., metadata: _Optional[_Union[Metadata, _Mapping]] = ..., pending_writes: _Optional[_Iterable[_Union[TaskWrite, _Mapping]]] = ..., version: _Optional[int] = ...) -> None: ...

class Precondition(_message.Message):
    __slots__ = ("if_version_match", "if_last_writer")
    IF_VERSION_MATCH_FIELD_NUMBER: _ClassVar[int]
    IF_LAST_WRITER_FIELD_NUMBER: _ClassVar[int]
    if_version_match: int
    if_last_writer: bytes
    def __init__(self, if_version_match: _Optional[int] = ..., if_last_writer: _Optional[bytes] = ...) -> None: ...

class ThreadLease(_message.Message):
    __slots__ = ("thread_id", "token")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    token: int
    def __init__(self, thread_id: _Optional[str] = ..., token: _Optional[int] = ...) -> None: ...
