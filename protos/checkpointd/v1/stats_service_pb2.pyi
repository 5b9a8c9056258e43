import datetime

from checkpointd.v1 import tenant_service_pb2 as _tenant_service_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetStatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ThreadCounts(_message.Message):
    __slots__ = ("idle", "running", "interrupted", "failed", "archived")
    IDLE_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    INTERRUPTED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    ARCHIVED_FIELD_NUMBER: _ClassVar[int]
    idle: int
    running: int
    interrupted: int
    failed: int
    archived: int
    def __init__(self, idle: _Optional[int] = ..., running: _Optional[int] = ..., interrupted: _Optional[int] = ..., failed: _Optional[int] = ..., archived: _Optional[int] = ...) -> None: ...

class ThreadSize(_message.Message):
    __slots__ = ("thread_id", "checkpoints", "bytes")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    checkpoints: int
    bytes: int
    def __init__(self, thread_id: _Optional[str] = ..., checkpoints: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class DayGrowth(_message.Message):
    __slots__ = ("day", "threads", "checkpoints", "bytes")
    DAY_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    day: str
    threads: int
    checkpoints: int
    bytes: int
    def __init__(self, day: _Optional[str] = ..., threads: _Optional[int] = ..., checkpoints: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class GetStatsResponse(_message.Message):
    __slots__ = ("measured_at", "threads", "by_status", "pinned_threads", "checkpoints", "writes", "writes_is_estimate", "stored_bytes", "logical_bytes", "mean_session_seconds", "oldest_at", "largest", "days", "quotas", "items", "item_bytes")
    MEASURED_AT_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    BY_STATUS_FIELD_NUMBER: _ClassVar[int]
    PINNED_THREADS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    WRITES_IS_ESTIMATE_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOGICAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEAN_SESSION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    OLDEST_AT_FIELD_NUMBER: _ClassVar[int]
    LARGEST_FIELD_NUMBER: _ClassVar[int]
    DAYS_FIELD_NUMBER: _ClassVar[int]
    QUOTAS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    ITEM_BYTES_FIELD_NUMBER: _ClassVar[int]
    measured_at: _timestamp_pb2.Timestamp
    threads: int
    by_status: ThreadCounts
    pinned_threads: int
    checkpoints: int
    writes: int
    writes_is_estimate: bool
    stored_bytes: int
    logical_bytes: int
    mean_session_seconds: float
    oldest_at: _timestamp_pb2.Timestamp
    largest: _containers.RepeatedCompositeFieldContainer[ThreadSize]
    days: _containers.RepeatedCompositeFieldContainer[DayGrowth]
    quotas: _tenant_service_pb2.Quotas
    items: int
    item_bytes: int
    def __init__(self, measured_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., threads: _Optional[int] = ..., by_status: _Optional[_Union[ThreadCounts, _Mapping]] = ..., pinned_threads: _Optional[int] = ..., checkpoints: _Optional[int] = ..., writes: _Optional[int] = ..., writes_is_estimate: bool = ..., stored_bytes: _Optional[int] = ..., logical_bytes: _Optional[int] = ..., mean_session_seconds: _Optional[float] = ..., oldest_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., largest: _Optional[_Iterable[_Union[ThreadSize, _Mapping]]] = ..., days: _Optional[_Iterable[_Union[DayGrowth, _Mapping]]] = ..., quotas: _Optional[_Union[_tenant_service_pb2.Quotas, _Mapping]] = ..., items: _Optional[int] = ..., item_bytes: _Optional[int] = ...) -> None: ...

class GetActivityRequest(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: int
    def __init__(self, limit: _Optional[int] = ...) -> None: ...

class GetActivityResponse(_message.Message):
    __slots__ = ("activity",)
    ACTIVITY_FIELD_NUMBER: _ClassVar[int]
    activity: Activity
    def __init__(self, activity: _Optional[_Union[Activity, _Mapping]] = ...) -> None: ...

class GetServerActivityRequest(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: int
    def __init__(self, limit: _Optional[int] = ...) -> None: ...

class GetServerActivityResponse(_message.Message):
    __slots__ = ("activity",)
    ACTIVITY_FIELD_NUMBER: _ClassVar[int]
    activity: Activity
    def __init__(self, activity: _Optional[_Union[Activity, _Mapping]] = ...) -> None: ...

class Activity(_message.Message):
    __slots__ = ("live_calls", "live", "slowest", "calls_per_second", "window_seconds", "busiest")
    LIVE_CALLS_FIELD_NUMBER: _ClassVar[int]
    LIVE_FIELD_NUMBER: _ClassVar[int]
    SLOWEST_FIELD_NUMBER: _ClassVar[int]
    CALLS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    WINDOW_SECONDS_FIELD_NUMBER: _ClassVar[int]
    BUSIEST_FIELD_NUMBER: _ClassVar[int]
    live_calls: int
    live: _containers.RepeatedCompositeFieldContainer[LiveCall]
    slowest: _containers.RepeatedCompositeFieldContainer[SlowCall]
    calls_per_second: float
    window_seconds: float
    busiest: _containers.RepeatedCompositeFieldContainer[BusyThread]
    def __init__(self, live_calls: _Optional[int] = ..., live: _Optional[_Iterable[_Union[LiveCall, _Mapping]]] = ..., slowest: _Optional[_Iterable[_Union[SlowCall, _Mapping]]] = ..., calls_per_second: _Optional[float] = ..., window_seconds: _Optional[float] = ..., busiest: _Optional[_Iterable[_Union[BusyThread, _Mapping]]] = ...) -> None: ...

class LiveCall(_message.Message):
    __slots__ = ("tenant_name", "method", "pipelined", "thread_id", "seconds")
    TENANT_NAME_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    PIPELINED_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    tenant_name: str
    method: str
    pipelined: bool
    thread_id: str
    seconds: float
    def __init__(self, tenant_name: _Optional[str] = ..., method: _Optional[str] = ..., pipelined: bool = ..., thread_id: _Optional[str] = ..., seconds: _Optional[float] = ...) -> None: ...

class SlowCall(_message.Message):
    __slots__ = ("tenant_name", "method", "thread_id", "seconds", "ago_seconds")
    TENANT_NAME_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    AGO_SECONDS_FIELD_NUMBER: _ClassVar[int]
    tenant_name: str
    method: str
    thread_id: str
    seconds: float
    ago_seconds: float
    def __init__(self, tenant_name: _Optional[str] = ..., method: _Optional[str] = ..., thread_id: _Optional[str] = ..., seconds: _Optional[float] = ..., ago_seconds: _Optional[float] = ...) -> None: ...

class BusyThread(_message.Message):
    __slots__ = ("tenant_name", "thread_id", "calls")
    TENANT_NAME_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    tenant_name: str
    thread_id: str
    calls: int
    def __init__(self, tenant_name: _Optional[str] = ..., thread_id: _Optional[str] = ..., calls: _Optional[int] = ...) -> None: ...
