from checkpointd.v1 import values_pb2 as _values_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PutPiecesRequest(_message.Message):
    __slots__ = ("thread_id", "pieces")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    PIECES_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    pieces: _containers.RepeatedCompositeFieldContainer[_values_pb2.Piece]
    def __init__(self, thread_id: _Optional[str] = ..., pieces: _Optional[_Iterable[_Union[_values_pb2.Piece, _Mapping]]] = ...) -> None: ...

class PutPiecesResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetPiecesRequest(_message.Message):
    __slots__ = ("thread_id", "names")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    names: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, thread_id: _Optional[str] = ..., names: _Optional[_Iterable[bytes]] = ...) -> None: ...

class GetPiecesResponse(_message.Message):
    __slots__ = ("pieces", "missing")
    PIECES_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    pieces: _containers.RepeatedCompositeFieldContainer[_values_pb2.Piece]
    missing: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, pieces: _Optional[_Iterable[_Union[_values_pb2.Piece, _Mapping]]] = ..., missing: _Optional[_Iterable[bytes]] = ...) -> None: ...
