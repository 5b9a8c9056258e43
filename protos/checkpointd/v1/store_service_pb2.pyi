import datetime

from checkpointd.v1 import operation_failure_pb2 as _operation_failure_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class VectorDistance(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VECTOR_DISTANCE_UNSPECIFIED: _ClassVar[VectorDistance]
    VECTOR_DISTANCE_COSINE: _ClassVar[VectorDistance]
    VECTOR_DISTANCE_L2: _ClassVar[VectorDistance]
    VECTOR_DISTANCE_INNER_PRODUCT: _ClassVar[VectorDistance]

class TextMatch(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TEXT_MATCH_UNSPECIFIED: _ClassVar[TextMatch]
    TEXT_MATCH_ANY: _ClassVar[TextMatch]
    TEXT_MATCH_WEB: _ClassVar[TextMatch]

class NamespaceMatch(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NAMESPACE_MATCH_UNSPECIFIED: _ClassVar[NamespaceMatch]
    NAMESPACE_MATCH_PREFIX: _ClassVar[NamespaceMatch]
    NAMESPACE_MATCH_SUFFIX: _ClassVar[NamespaceMatch]

class ItemView(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ITEM_VIEW_UNSPECIFIED: _ClassVar[ItemView]
    ITEM_VIEW_WHOLE: _ClassVar[ItemView]
    ITEM_VIEW_WITHOUT_VECTORS: _ClassVar[ItemView]
    ITEM_VIEW_KEYS: _ClassVar[ItemView]

class RestoreOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RESTORE_OUTCOME_UNSPECIFIED: _ClassVar[RestoreOutcome]
    RESTORE_OUTCOME_RESTORED: _ClassVar[RestoreOutcome]
    RESTORE_OUTCOME_SAME: _ClassVar[RestoreOutcome]
    RESTORE_OUTCOME_DIFFERENT: _ClassVar[RestoreOutcome]
    RESTORE_OUTCOME_EXPIRED: _ClassVar[RestoreOutcome]
VECTOR_DISTANCE_UNSPECIFIED: VectorDistance
VECTOR_DISTANCE_COSINE: VectorDistance
VECTOR_DISTANCE_L2: VectorDistance
VECTOR_DISTANCE_INNER_PRODUCT: VectorDistance
TEXT_MATCH_UNSPECIFIED: TextMatch
TEXT_MATCH_ANY: TextMatch
TEXT_MATCH_WEB: TextMatch
NAMESPACE_MATCH_UNSPECIFIED: NamespaceMatch
NAMESPACE_MATCH_PREFIX: NamespaceMatch
NAMESPACE_MATCH_SUFFIX: NamespaceMatch
ITEM_VIEW_UNSPECIFIED: ItemView
ITEM_VIEW_WHOLE: ItemView
ITEM_VIEW_WITHOUT_VECTORS: ItemView
ITEM_VIEW_KEYS: ItemView
RESTORE_OUTCOME_UNSPECIFIED: RestoreOutcome
RESTORE_OUTCOME_RESTORED: RestoreOutcome
RESTORE_OUTCOME_SAME: RestoreOutcome
RESTORE_OUTCOME_DIFFERENT: RestoreOutcome
RESTORE_OUTCOME_EXPIRED: RestoreOutcome

class ItemValue(_message.Message):
    __slots__ = ("type", "data", "index")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    type: str
    data: bytes
    index: bytes
    def __init__(self, type: _Optional[str] = ..., data: _Optional[bytes] = ..., index: _Optional[bytes] = ...) -> None: ...

class Item(_message.Message):
    __slots__ = ("namespace", "key", "value", "created_at", "updated_at", "version", "expires_at")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    namespace: _containers.RepeatedScalarFieldContainer[str]
    key: str
    value: ItemValue
    created_at: _timestamp_pb2.Timestamp
    updated_at: _timestamp_pb2.Timestamp
    version: int
    expires_at: _timestamp_pb2.Timestamp
    def __init__(self, namespace: _Optional[_Iterable[str]] = ..., key: _Optional[str] = ..., value: _Optional[_Union[ItemValue, _Mapping]] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., version: _Optional[int] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ItemWord(_message.Message):
    __slots__ = ("lexeme", "positions")
    LEXEME_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    lexeme: str
    positions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, lexeme: _Optional[str] = ..., positions: _Optional[_Iterable[int]] = ...) -> None: ...

class WholeItem(_message.Message):
    __slots__ = ("item", "ttl", "vectors", "vectors_left_out", "has_words", "words")
    ITEM_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    HAS_WORDS_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    item: Item
    ttl: _duration_pb2.Duration
    vectors: _containers.RepeatedCompositeFieldContainer[ItemVector]
    vectors_left_out: bool
    has_words: bool
    words: _containers.RepeatedCompositeFieldContainer[ItemWord]
    def __init__(self, item: _Optional[_Union[Item, _Mapping]] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., vectors: _Optional[_Iterable[_Union[ItemVector, _Mapping]]] = ..., vectors_left_out: bool = ..., has_words: bool = ..., words: _Optional[_Iterable[_Union[ItemWord, _Mapping]]] = ...) -> None: ...

class ItemVector(_message.Message):
    __slots__ = ("path", "values")
    PATH_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    path: str
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, path: _Optional[str] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class ItemText(_message.Message):
    __slots__ = ("texts", "language")
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    texts: _containers.RepeatedScalarFieldContainer[str]
    language: str
    def __init__(self, texts: _Optional[_Iterable[str]] = ..., language: _Optional[str] = ...) -> None: ...

class GetItemRequest(_message.Message):
    __slots__ = ("namespace", "key", "refresh_ttl")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    REFRESH_TTL_FIELD_NUMBER: _ClassVar[int]
    namespace: _containers.RepeatedScalarFieldContainer[str]
    key: str
    refresh_ttl: bool
    def __init__(self, namespace: _Optional[_Iterable[str]] = ..., key: _Optional[str] = ..., refresh_ttl: bool = ...) -> None: ...

class GetItemResponse(_message.Message):
    __slots__ = ("item",)
    ITEM_FIELD_NUMBER: _ClassVar[int]
    item: Item
    def __init__(self, item: _Optional[_Union[Item, _Mapping]] = ...) -> None: ...

class PutItemRequest(_message.Message):
    __slots__ = ("namespace", "key", "value", "vectors", "text", "ttl_minutes", "if_version_match", "request_id")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TTL_MINUTES_FIELD_NUMBER: _ClassVar[int]
    IF_VERSION_MATCH_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    namespace: _containers.RepeatedScalarFieldContainer[str]
    key: str
    value: ItemValue
    vectors: _containers.RepeatedCompositeFieldContainer[ItemVector]
    text: ItemText
    ttl_minutes: float
    if_version_match: int
    request_id: bytes
    def __init__(self, namespace: _Optional[_Iterable[str]] = ..., key: _Optional[str] = ..., value: _Optional[_Union[ItemValue, _Mapping]] = ..., vectors: _Optional[_Iterable[_Union[ItemVector, _Mapping]]] = ..., text: _Optional[_Union[ItemText, _Mapping]] = ..., ttl_minutes: _Optional[float] = ..., if_version_match: _Optional[int] = ..., request_id: _Optional[bytes] = ...) -> None: ...

class PutItemResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...

class DeleteItemRequest(_message.Message):
    __slots__ = ("namespace", "key", "if_version_match")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    IF_VERSION_MATCH_FIELD_NUMBER: _ClassVar[int]
    namespace: _containers.RepeatedScalarFieldContainer[str]
    key: str
    if_version_match: int
    def __init__(self, namespace: _Optional[_Iterable[str]] = ..., key: _Optional[str] = ..., if_version_match: _Optional[int] = ...) -> None: ...

class DeleteItemResponse(_message.Message):
    __slots__ = ("deleted",)
    DELETED_FIELD_NUMBER: _ClassVar[int]
    deleted: bool
    def __init__(self, deleted: bool = ...) -> None: ...

class VectorQuery(_message.Message):
    __slots__ = ("values", "distance", "exact")
    VALUES_FIELD_NUMBER: _ClassVar[int]
    DISTANCE_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    distance: VectorDistance
    exact: bool
    def __init__(self, values: _Optional[_Iterable[float]] = ..., distance: _Optional[_Union[VectorDistance, str]] = ..., exact: bool = ...) -> None: ...

class TextQuery(_message.Message):
    __slots__ = ("query", "language", "match")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    MATCH_FIELD_NUMBER: _ClassVar[int]
    query: str
    language: str
    match: TextMatch
    def __init__(self, query: _Optional[str] = ..., language: _Optional[str] = ..., match: _Optional[_Union[TextMatch, str]] = ...) -> None: ...

class SearchItemsRequest(_message.Message):
    __slots__ = ("namespace_prefix", "filter", "filter_json", "limit", "offset", "refresh_ttl", "vector", "text")
    NAMESPACE_PREFIX_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    FILTER_JSON_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    REFRESH_TTL_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    namespace_prefix: _containers.RepeatedScalarFieldContainer[str]
    filter: bytes
    filter_json: str
    limit: int
    offset: int
    refresh_ttl: bool
    vector: VectorQuery
    text: TextQuery
    def __init__(self, namespace_prefix: _Optional[_Iterable[str]] = ..., filter: _Optional[bytes] = ..., filter_json: _Optional[str] = ..., limit: _Optional[int] = ..., offset: _Optional[int] = ..., refresh_ttl: bool = ..., vector: _Optional[_Union[VectorQuery, _Mapping]] = ..., text: _Optional[_Union[TextQuery, _Mapping]] = ...) -> None: ...

class FoundItem(_message.Message):
    __slots__ = ("item", "score")
    ITEM_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    item: Item
    score: float
    def __init__(self, item: _Optional[_Union[Item, _Mapping]] = ..., score: _Optional[float] = ...) -> None: ...

class SearchItemsResponse(_message.Message):
    __slots__ = ("items", "truncated")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[FoundItem]
    truncated: bool
    def __init__(self, items: _Optional[_Iterable[_Union[FoundItem, _Mapping]]] = ..., truncated: bool = ...) -> None: ...

class CountItemsRequest(_message.Message):
    __slots__ = ("namespace_prefix", "filter", "filter_json")
    NAMESPACE_PREFIX_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    FILTER_JSON_FIELD_NUMBER: _ClassVar[int]
    namespace_prefix: _containers.RepeatedScalarFieldContainer[str]
    filter: bytes
    filter_json: str
    def __init__(self, namespace_prefix: _Optional[_Iterable[str]] = ..., filter: _Optional[bytes] = ..., filter_json: _Optional[str] = ...) -> None: ...

class CountItemsResponse(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class NamespaceCondition(_message.Message):
    __slots__ = ("match", "path")
    MATCH_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    match: NamespaceMatch
    path: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, match: _Optional[_Union[NamespaceMatch, str]] = ..., path: _Optional[_Iterable[str]] = ...) -> None: ...

class ListNamespacesRequest(_message.Message):
    __slots__ = ("conditions", "max_depth", "limit", "offset")
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_DEPTH_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    conditions: _containers.RepeatedCompositeFieldContainer[NamespaceCondition]
    max_depth: int
    limit: int
    offset: int
    def __init__(self, conditions: _Optional[_Iterable[_Union[NamespaceCondition, _Mapping]]] = ..., max_depth: _Optional[int] = ..., limit: _Optional[int] = ..., offset: _Optional[int] = ...) -> None: ...

class StoreNamespace(_message.Message):
    __slots__ = ("labels",)
    LABELS_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, labels: _Optional[_Iterable[str]] = ...) -> None: ...

class ListNamespacesResponse(_message.Message):
    __slots__ = ("namespaces",)
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    namespaces: _containers.RepeatedCompositeFieldContainer[StoreNamespace]
    def __init__(self, namespaces: _Optional[_Iterable[_Union[StoreNamespace, _Mapping]]] = ...) -> None: ...

class ItemPosition(_message.Message):
    __slots__ = ("namespace", "key")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    namespace: _containers.RepeatedScalarFieldContainer[str]
    key: str
    def __init__(self, namespace: _Optional[_Iterable[str]] = ..., key: _Optional[str] = ...) -> None: ...

class ListItemsRequest(_message.Message):
    __slots__ = ("namespace_prefix", "after", "page_size", "view")
    NAMESPACE_PREFIX_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    namespace_prefix: _containers.RepeatedScalarFieldContainer[str]
    after: ItemPosition
    page_size: int
    view: ItemView
    def __init__(self, namespace_prefix: _Optional[_Iterable[str]] = ..., after: _Optional[_Union[ItemPosition, _Mapping]] = ..., page_size: _Optional[int] = ..., view: _Optional[_Union[ItemView, str]] = ...) -> None: ...

class ListItemsResponse(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[WholeItem]
    def __init__(self, items: _Optional[_Iterable[_Union[WholeItem, _Mapping]]] = ...) -> None: ...

class RestoreItemsRequest(_message.Message):
    __slots__ = ("items", "replace")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[WholeItem]
    replace: bool
    def __init__(self, items: _Optional[_Iterable[_Union[WholeItem, _Mapping]]] = ..., replace: bool = ...) -> None: ...

class RestoreItemsResponse(_message.Message):
    __slots__ = ("outcomes",)
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedScalarFieldContainer[RestoreOutcome]
    def __init__(self, outcomes: _Optional[_Iterable[_Union[RestoreOutcome, str]]] = ...) -> None: ...

class StoreOperation(_message.Message):
    __slots__ = ("get", "put", "delete", "search", "list_namespaces", "count")
    GET_FIELD_NUMBER: _ClassVar[int]
    PUT_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    LIST_NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    get: GetItemRequest
    put: PutItemRequest
    delete: DeleteItemRequest
    search: SearchItemsRequest
    list_namespaces: ListNamespacesRequest
    count: CountItemsRequest
    def __init__(self, get: _Optional[_Union[GetItemRequest, _Mapping]] = ..., put: _Optional[_Union[PutItemRequest, _Mapping]] = ..., delete: _Optional[_Union[DeleteItemRequest, _Mapping]] = ..., search: _Optional[_Union[SearchItemsRequest, _Mapping]] = ..., list_namespaces: _Optional[_Union[ListNamespacesRequest, _Mapping]] = ..., count: _Optional[_Union[CountItemsRequest, _Mapping]] = ...) -> None: ...

class BatchRequest(_message.Message):
    __slots__ = ("operations",)
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    operations: _containers.RepeatedCompositeFieldContainer[StoreOperation]
    def __init__(self, operations: _Optional[_Iterable[_Union[StoreOperation, _Mapping]]] = ...) -> None: ...

class StoreResult(_message.Message):
    __slots__ = ("get", "put", "delete", "search", "list_namespaces", "count", "failure")
    GET_FIELD_NUMBER: _ClassVar[int]
    PUT_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    LIST_NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    get: GetItemResponse
    put: PutItemResponse
    delete: DeleteItemResponse
    search: SearchItemsResponse
    list_namespaces: ListNamespacesResponse
    count: CountItemsResponse
    failure: _operation_failure_pb2.OperationFailure
    def __init__(self, get: _Optional[_Union[GetItemResponse, _Mapping]] = ..., put: _Optional[_Union[PutItemResponse, _Mapping]] = ..., delete: _Optional[_Union[DeleteItemResponse, _Mapping]] = ..., search: _Optional[_Union[SearchItemsResponse, _Mapping]] = ..., list_namespaces: _Optional[_Union[ListNamespacesResponse, _Mapping]] = ..., count: _Optional[_Union[CountItemsResponse, _Mapping]] = ..., failure: _Optional[_Union[_operation_failure_pb2.OperationFailure, _Mapping]] = ...) -> None: ...

class BatchResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[StoreResult]
    def __init__(self, results: _Optional[_Iterable[_Union[StoreResult, _Mapping]]] = ...) -> None: ...
