import datetime

from checkpointd.v1 import thread_service_pb2 as _thread_service_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Quotas(_message.Message):
    __slots__ = ("max_bytes", "max_threads", "max_calls_per_second")
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_THREADS_FIELD_NUMBER: _ClassVar[int]
    MAX_CALLS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    max_bytes: int
    max_threads: int
    max_calls_per_second: int
    def __init__(self, max_bytes: _Optional[int] = ..., max_threads: _Optional[int] = ..., max_calls_per_second: _Optional[int] = ...) -> None: ...

class Tenant(_message.Message):
    __slots__ = ("tenant_name", "threads", "checkpoints", "bytes", "quotas", "effective_quotas", "noted_at", "items", "item_bytes")
    TENANT_NAME_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    QUOTAS_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_QUOTAS_FIELD_NUMBER: _ClassVar[int]
    NOTED_AT_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    ITEM_BYTES_FIELD_NUMBER: _ClassVar[int]
    tenant_name: str
    threads: int
    checkpoints: int
    bytes: int
    quotas: Quotas
    effective_quotas: Quotas
    noted_at: _timestamp_pb2.Timestamp
    items: int
    item_bytes: int
    def __init__(self, tenant_name: _Optional[str] = ..., threads: _Optional[int] = ..., checkpoints: _Optional[int] = ..., bytes: _Optional[int] = ..., quotas: _Optional[_Union[Quotas, _Mapping]] = ..., effective_quotas: _Optional[_Union[Quotas, _Mapping]] = ..., noted_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., items: _Optional[int] = ..., item_bytes: _Optional[int] = ...) -> None: ...

class ListTenantsRequest(_message.Message):
    __slots__ = ("tenant_name", "page_size", "page_token")
    TENANT_NAME_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    tenant_name: str
    page_size: int
    page_token: str
    def __init__(self, tenant_name: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListTenantsResponse(_message.Message):
    __slots__ = ("tenants", "next_page_token")
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    tenants: _containers.RepeatedCompositeFieldContainer[Tenant]
    next_page_token: str
    def __init__(self, tenants: _Optional[_Iterable[_Union[Tenant, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class SetQuotasRequest(_message.Message):
    __slots__ = ("tenant_name", "quotas", "reset")
    TENANT_NAME_FIELD_NUMBER: _ClassVar[int]
    QUOTAS_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    tenant_name: str
    quotas: Quotas
    reset: bool
    def __init__(self, tenant_name: _Optional[str] = ..., quotas: _Optional[_Union[Quotas, _Mapping]] = ..., reset: bool = ...) -> None: ...

class SetQuotasResponse(_message.Message):
    __slots__ = ("quotas", "effective_quotas")
    QUOTAS_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_QUOTAS_FIELD_NUMBER: _ClassVar[int]
    quotas: Quotas
    effective_quotas: Quotas
    def __init__(self, quotas: _Optional[_Union[Quotas, _Mapping]] = ..., effective_quotas: _Optional[_Union[Quotas, _Mapping]] = ...) -> None: ...

class PurgeTenantRequest(_message.Message):
    __slots__ = ("tenant_name", "dry_run", "include_pinned", "page_token")
    TENANT_NAME_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_PINNED_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    tenant_name: str
    dry_run: bool
    include_pinned: bool
    page_token: str
    def __init__(self, tenant_name: _Optional[str] = ..., dry_run: bool = ..., include_pinned: bool = ..., page_token: _Optional[str] = ...) -> None: ...

class PurgeTenantResponse(_message.Message):
    __slots__ = ("purged_threads", "purged_checkpoints", "purged_bytes", "pinned_threads", "rows", "next_page_token")
    PURGED_THREADS_FIELD_NUMBER: _ClassVar[int]
    PURGED_CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    PURGED_BYTES_FIELD_NUMBER: _ClassVar[int]
    PINNED_THREADS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    purged_threads: int
    purged_checkpoints: int
    purged_bytes: int
    pinned_threads: int
    rows: _containers.RepeatedCompositeFieldContainer[_thread_service_pb2.PurgedRows]
    next_page_token: str
    def __init__(self, purged_threads: _Optional[int] = ..., purged_checkpoints: _Optional[int] = ..., purged_bytes: _Optional[int] = ..., pinned_threads: _Optional[int] = ..., rows: _Optional[_Iterable[_Union[_thread_service_pb2.PurgedRows, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...
