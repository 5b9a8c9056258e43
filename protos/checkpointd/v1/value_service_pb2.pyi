from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PutPartRequest(_message.Message):
    __slots__ = ("thread_id", "upload_id", "offset", "data")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    upload_id: bytes
    offset: int
    data: bytes
    def __init__(self, thread_id: _Optional[str] = ..., upload_id: _Optional[bytes] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class PutPartResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetValueRequest(_message.Message):
    __slots__ = ("thread_id", "checkpoint_ns", "channel_value", "task_write", "offset", "max_bytes", "patches")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_NS_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_VALUE_FIELD_NUMBER: _ClassVar[int]
    TASK_WRITE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    PATCHES_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    checkpoint_ns: str
    channel_value: KnownChannelValue
    task_write: KnownTaskWrite
    offset: int
    max_bytes: int
    patches: bool
    def __init__(self, thread_id: _Optional[str] = ..., checkpoint_ns: _Optional[str] = ..., channel_value: _Optional[_Union[KnownChannelValue, _Mapping]] = ..., task_write: _Optional[_Union[KnownTaskWrite, _Mapping]] = ..., offset: _Optional[int] = ..., max_bytes: _Optional[int] = ..., patches: bool = ...) -> None: ...

class KnownChannelValue(_message.Message):
    __slots__ = ("channel", "version")
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    channel: str
    version: str
    def __init__(self, channel: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class KnownTaskWrite(_message.Message):
    __slots__ = ("checkpoint_id", "task_id", "idx")
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    IDX_FIELD_NUMBER: _ClassVar[int]
    checkpoint_id: str
    task_id: str
    idx: int
    def __init__(self, checkpoint_id: _Optional[str] = ..., task_id: _Optional[str] = ..., idx: _Optional[int] = ...) -> None: ...

class GetValueResponse(_message.Message):
    __slots__ = ("data", "size", "found", "crc32")
    DATA_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    size: int
    found: bool
    crc32: int
    def __init__(self, data: _Optional[bytes] = ..., size: _Optional[int] = ..., found: bool = ..., crc32: _Optional[int] = ...) -> None: ...
