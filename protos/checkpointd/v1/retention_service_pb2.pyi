import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RetentionAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RETENTION_ACTION_UNSPECIFIED: _ClassVar[RetentionAction]
    RETENTION_ACTION_DELETE: _ClassVar[RetentionAction]
    RETENTION_ACTION_TRIM: _ClassVar[RetentionAction]

class RetentionOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RETENTION_OUTCOME_UNSPECIFIED: _ClassVar[RetentionOutcome]
    RETENTION_OUTCOME_PLANNED: _ClassVar[RetentionOutcome]
    RETENTION_OUTCOME_DONE: _ClassVar[RetentionOutcome]
    RETENTION_OUTCOME_HELD: _ClassVar[RetentionOutcome]
    RETENTION_OUTCOME_BUSY: _ClassVar[RetentionOutcome]
RETENTION_ACTION_UNSPECIFIED: RetentionAction
RETENTION_ACTION_DELETE: RetentionAction
RETENTION_ACTION_TRIM: RetentionAction
RETENTION_OUTCOME_UNSPECIFIED: RetentionOutcome
RETENTION_OUTCOME_PLANNED: RetentionOutcome
RETENTION_OUTCOME_DONE: RetentionOutcome
RETENTION_OUTCOME_HELD: RetentionOutcome
RETENTION_OUTCOME_BUSY: RetentionOutcome

class RetentionPolicy(_message.Message):
    __slots__ = ("name", "thread_id_prefix", "metadata", "max_idle_seconds", "delete_interrupted", "max_age_seconds", "keep_newest", "keep_last_of_run", "max_bytes", "hold_seconds", "updated_at", "metadata_json")
    NAME_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_PREFIX_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    MAX_IDLE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DELETE_INTERRUPTED_FIELD_NUMBER: _ClassVar[int]
    MAX_AGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    KEEP_NEWEST_FIELD_NUMBER: _ClassVar[int]
    KEEP_LAST_OF_RUN_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    HOLD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    METADATA_JSON_FIELD_NUMBER: _ClassVar[int]
    name: str
    thread_id_prefix: str
    metadata: bytes
    max_idle_seconds: int
    delete_interrupted: bool
    max_age_seconds: int
    keep_newest: int
    keep_last_of_run: bool
    max_bytes: int
    hold_seconds: int
    updated_at: _timestamp_pb2.Timestamp
    metadata_json: str
    def __init__(self, name: _Optional[str] = ..., thread_id_prefix: _Optional[str] = ..., metadata: _Optional[bytes] = ..., max_idle_seconds: _Optional[int] = ..., delete_interrupted: bool = ..., max_age_seconds: _Optional[int] = ..., keep_newest: _Optional[int] = ..., keep_last_of_run: bool = ..., max_bytes: _Optional[int] = ..., hold_seconds: _Optional[int] = ..., updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., metadata_json: _Optional[str] = ...) -> None: ...

class RetentionEffect(_message.Message):
    __slots__ = ("thread_id", "action", "outcome", "reason", "policy", "checkpoints", "held_until", "hold_policy")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    HELD_UNTIL_FIELD_NUMBER: _ClassVar[int]
    HOLD_POLICY_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    action: RetentionAction
    outcome: RetentionOutcome
    reason: str
    policy: str
    checkpoints: int
    held_until: _timestamp_pb2.Timestamp
    hold_policy: str
    def __init__(self, thread_id: _Optional[str] = ..., action: _Optional[_Union[RetentionAction, str]] = ..., outcome: _Optional[_Union[RetentionOutcome, str]] = ..., reason: _Optional[str] = ..., policy: _Optional[str] = ..., checkpoints: _Optional[int] = ..., held_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., hold_policy: _Optional[str] = ...) -> None: ...

class SetPolicyRequest(_message.Message):
    __slots__ = ("policy",)
    POLICY_FIELD_NUMBER: _ClassVar[int]
    policy: RetentionPolicy
    def __init__(self, policy: _Optional[_Union[RetentionPolicy, _Mapping]] = ...) -> None: ...

class SetPolicyResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetPolicyRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetPolicyResponse(_message.Message):
    __slots__ = ("policy",)
    POLICY_FIELD_NUMBER: _ClassVar[int]
    policy: RetentionPolicy
    def __init__(self, policy: _Optional[_Union[RetentionPolicy, _Mapping]] = ...) -> None: ...

class ListPoliciesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListPoliciesResponse(_message.Message):
    __slots__ = ("policies",)
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    policies: _containers.RepeatedCompositeFieldContainer[RetentionPolicy]
    def __init__(self, policies: _Optional[_Iterable[_Union[RetentionPolicy, _Mapping]]] = ...) -> None: ...

class DeletePolicyRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeletePolicyResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PreviewRetentionRequest(_message.Message):
    __slots__ = ("policy", "page_token")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    policy: RetentionPolicy
    page_token: str
    def __init__(self, policy: _Optional[_Union[RetentionPolicy, _Mapping]] = ..., page_token: _Optional[str] = ...) -> None: ...

class PreviewRetentionResponse(_message.Message):
    __slots__ = ("effects", "next_page_token")
    EFFECTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    effects: _containers.RepeatedCompositeFieldContainer[RetentionEffect]
    next_page_token: str
    def __init__(self, effects: _Optional[_Iterable[_Union[RetentionEffect, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class RunRetentionRequest(_message.Message):
    __slots__ = ("page_token",)
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_token: str
    def __init__(self, page_token: _Optional[str] = ...) -> None: ...

class RunRetentionResponse(_message.Message):
    __slots__ = ("effects", "next_page_token")
    EFFECTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    effects: _containers.RepeatedCompositeFieldContainer[RetentionEffect]
    next_page_token: str
    def __init__(self, effects: _Optional[_Iterable[_Union[RetentionEffect, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListExpiringRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ExpiringThread(_message.Message):
    __slots__ = ("thread_id", "action", "reason", "policy", "checkpoints", "below_checkpoint_id", "deadline_at", "hold_policy")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    BELOW_CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_AT_FIELD_NUMBER: _ClassVar[int]
    HOLD_POLICY_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    action: RetentionAction
    reason: str
    policy: str
    checkpoints: int
    below_checkpoint_id: str
    deadline_at: _timestamp_pb2.Timestamp
    hold_policy: str
    def __init__(self, thread_id: _Optional[str] = ..., action: _Optional[_Union[RetentionAction, str]] = ..., reason: _Optional[str] = ..., policy: _Optional[str] = ..., checkpoints: _Optional[int] = ..., below_checkpoint_id: _Optional[str] = ..., deadline_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., hold_policy: _Optional[str] = ...) -> None: ...

class ListExpiringResponse(_message.Message):
    __slots__ = ("threads", "next_page_token")
    THREADS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    threads: _containers.RepeatedCompositeFieldContainer[ExpiringThread]
    next_page_token: str
    def __init__(self, threads: _Optional[_Iterable[_Union[ExpiringThread, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class AcknowledgeExpiringRequest(_message.Message):
    __slots__ = ("thread_id", "below_checkpoint_id")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    BELOW_CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    below_checkpoint_id: str
    def __init__(self, thread_id: _Optional[str] = ..., below_checkpoint_id: _Optional[str] = ...) -> None: ...

class AcknowledgeExpiringResponse(_message.Message):
    __slots__ = ("acknowledged",)
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    acknowledged: bool
    def __init__(self, acknowledged: bool = ...) -> None: ...
