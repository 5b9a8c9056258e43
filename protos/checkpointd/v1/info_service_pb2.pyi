from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Capability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CAPABILITY_UNSPECIFIED: _ClassVar[Capability]
    CAPABILITY_VERSIONS: _ClassVar[Capability]
    CAPABILITY_DELTA_CHANNELS: _ClassVar[Capability]
    CAPABILITY_FORK: _ClassVar[Capability]
    CAPABILITY_LEASES: _ClassVar[Capability]
    CAPABILITY_PIPELINE: _ClassVar[Capability]
    CAPABILITY_PATCHES: _ClassVar[Capability]
    CAPABILITY_STORE: _ClassVar[Capability]
    CAPABILITY_STORE_VECTORS: _ClassVar[Capability]
CAPABILITY_UNSPECIFIED: Capability
CAPABILITY_VERSIONS: Capability
CAPABILITY_DELTA_CHANNELS: Capability
CAPABILITY_FORK: Capability
CAPABILITY_LEASES: Capability
CAPABILITY_PIPELINE: Capability
CAPABILITY_PATCHES: Capability
CAPABILITY_STORE: Capability
CAPABILITY_STORE_VECTORS: Capability

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("version", "capabilities", "limits", "not_serving_reason", "server_id", "tenant")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    NOT_SERVING_REASON_FIELD_NUMBER: _ClassVar[int]
    SERVER_ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    version: str
    capabilities: _containers.RepeatedScalarFieldContainer[Capability]
    limits: Limits
    not_serving_reason: str
    server_id: str
    tenant: str
    def __init__(self, version: _Optional[str] = ..., capabilities: _Optional[_Iterable[_Union[Capability, str]]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., not_serving_reason: _Optional[str] = ..., server_id: _Optional[str] = ..., tenant: _Optional[str] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_message_bytes", "max_thread_id_bytes", "max_checkpoint_ns_bytes", "max_checkpoint_id_bytes", "max_channel_bytes", "max_channel_version_bytes", "max_task_id_bytes", "max_task_path_bytes", "max_type_bytes", "max_filter_bytes", "max_filter_depth", "max_page_size", "max_page_bytes", "min_lease_ttl_ms", "max_lease_ttl_ms", "max_lease_wait_ms", "max_pipeline_operations", "max_pipeline_bytes", "max_value_bytes", "max_part_bytes", "max_chain", "max_patch_operations", "max_channels", "max_values", "max_checkpoint_bytes", "max_known", "max_inline_bytes", "max_batch", "max_item_labels", "max_item_namespace_bytes", "max_item_key_bytes", "max_item_bytes", "max_item_vectors", "max_vector_dims", "max_item_text_bytes", "max_search_limit")
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_THREAD_ID_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_CHECKPOINT_NS_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_CHECKPOINT_ID_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_CHANNEL_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_CHANNEL_VERSION_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_TASK_ID_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_TASK_PATH_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_TYPE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_FILTER_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_FILTER_DEPTH_FIELD_NUMBER: _ClassVar[int]
    MAX_PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_PAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MIN_LEASE_TTL_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_LEASE_TTL_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_LEASE_WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_PIPELINE_OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_PIPELINE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_VALUE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_PART_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_CHAIN_FIELD_NUMBER: _ClassVar[int]
    MAX_PATCH_OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    MAX_VALUES_FIELD_NUMBER: _ClassVar[int]
    MAX_CHECKPOINT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_KNOWN_FIELD_NUMBER: _ClassVar[int]
    MAX_INLINE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEM_LABELS_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEM_NAMESPACE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEM_KEY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEM_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEM_VECTORS_FIELD_NUMBER: _ClassVar[int]
    MAX_VECTOR_DIMS_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEM_TEXT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_SEARCH_LIMIT_FIELD_NUMBER: _ClassVar[int]
    max_message_bytes: int
    max_thread_id_bytes: int
    max_checkpoint_ns_bytes: int
    max_checkpoint_id_bytes: int
    max_channel_bytes: int
    max_channel_version_bytes: int
    max_task_id_bytes: int
    max_task_path_bytes: int
    max_type_bytes: int
    max_filter_bytes: int
    max_filter_depth: int
    max_page_size: int
    max_page_bytes: int
    min_lease_ttl_ms: int
    max_lease_ttl_ms: int
    max_lease_wait_ms: int
    max_pipeline_operations: int
    max_pipeline_bytes: int
    max_value_bytes: int
    max_part_bytes: int
    max_chain: int
    max_patch_operations: int
    max_channels: int
    max_values: int
    max_checkpoint_bytes: int
    max_known: int
    max_inline_bytes: int
    max_batch: int
    max_item_labels: int
    max_item_namespace_bytes: int
    max_item_key_bytes: int
    max_item_bytes: int
    max_item_vectors: int
    max_vector_dims: int
    max_item_text_bytes: int
    max_search_limit: int
    def __init__(self, max_message_bytes: _Optional[int] = ..., max_thread_id_bytes: _Optional[int] = ..., max_checkpoint_ns_bytes: _Optional[int] = ..., max_checkpoint_id_bytes: _Optional[int] = ..., max_channel_bytes: _Optional[int] = ..., max_channel_version_bytes: _Optional[int] = ..., max_task_id_bytes: _Optional[int] = ..., max_task_path_bytes: _Optional[int] = ..., max_type_bytes: _Optional[int] = ..., max_filter_bytes: _Optional[int] = ..., max_filter_depth: _Optional[int] = ..., max_page_size: _Optional[int] = ..., max_page_bytes: _Optional[int] = ..., min_lease_ttl_ms: _Optional[int] = ..., max_lease_ttl_ms: _Optional[int] = ..., max_lease_wait_ms: _Optional[int] = ..., max_pipeline_operations: _Optional[int] = ..., max_pipeline_bytes: _Optional[int] = ..., max_value_bytes: _Optional[int] = ..., max_part_bytes: _Optional[int] = ..., max_chain: _Optional[int] = ..., max_patch_operations: _Optional[int] = ..., max_channels: _Optional[int] = ..., max_values: _Optional[int] = ..., max_checkpoint_bytes: _Optional[int] = ..., max_known: _Optional[int] = ..., max_inline_bytes: _Optional[int] = ..., max_batch: _Optional[int] = ..., max_item_labels: _Optional[int] = ..., max_item_namespace_bytes: _Optional[int] = ..., max_item_key_bytes: _Optional[int] = ..., max_item_bytes: _Optional[int] = ..., max_item_vectors: _Optional[int] = ..., max_vector_dims: _Optional[int] = ..., max_item_text_bytes: _Optional[int] = ..., max_search_limit: _Optional[int] = ...) -> None: ...
