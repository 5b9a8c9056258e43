"""The audit trail: a line for each call that deletes, prunes, copies, archives, or changes how threads are kept.

A line says who did what to which threads, and how many: it has the request's plain fields and the numbers of the
answer, but never values, tokens or bytes. Every successful call is written, whatever the log level. Of failed calls,
only the first ones in ten seconds are, as with all lines that one client can repeat.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import structlog
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from checkpointd.v1.store_service_pb2 import DESCRIPTOR, BatchRequest, DeleteItemRequest
from checkpointd_server.domain.access import ANYBODY, Scope
from checkpointd_server.rpc.auth.scopes import Needed
from checkpointd_server.rpc.calls.log_rate_limit import RateLimitedLog

LOGGER = "checkpointd.audit"
"""The name of the log."""
MOST_NAMES = 20
"""Maximum number of a list's entries that are written. The list's length is always written."""
MOST_CHARACTERS = 1024
"""Maximum length of texts that are written, in characters."""
_BATCH = DESCRIPTOR.services_by_name["StoreService"].methods_by_name["Batch"]
_MOST_DEPTH = 3
_NUMBERS = {FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_INT32}
_UNTOLD = {"lease_token", "leases", "page_token", "request_id", "token"}
"""Fields that don't describe the action, or that must stay secret."""


def is_audited(method: MethodDescriptor, needed: Needed) -> bool:
    """Returns whether a method's calls are audited: those that delete, or change threads, retention or tenants.

    Batches of the store are audited if they delete items.
    """
    service = method.containing_service.name
    if service == "StoreService":
        return method.name in ("DeleteItem", "Batch")
    changes = service in ("ThreadService", "TenantService", "RetentionService") and not method.name.startswith("List")
    return needed is Scope.DELETE or (changes and needed is not Scope.READ)


class AuditTrail:
    """Writes the audit trail."""

    def __init__(self) -> None:
        # Otherwise the level of the whole log would apply. These lines are written at every level, unless it is silent.
        logging.getLogger(LOGGER).setLevel(logging.INFO)
        self._log = structlog.get_logger(LOGGER).bind()
        self._lines = RateLimitedLog(self._log)

    def done(self, call: Any, peer: str, method: MethodDescriptor, response: bytes) -> None:
        """Records a call that succeeded.

        Args:
            call: The call.
            peer: The client, as gRPC names it.
            method: The method.
            response: The encoded answer, whose counts are written.
        """
        if not _is_concerned(call.request):
            return
        answer = GetMessageClass(method.output_type).FromString(response)
        # The rest of the answer describes the thread, and isn't written.
        told = dict(_plain_fields(answer, 0))
        self._log.info("audit", **{**told, **_fields(call, peer, method, "OK")})

    def failed(self, call: Any, peer: str, method: MethodDescriptor, code: str) -> None:
        """Records a call that failed after it had begun, so that part of it may be done.

        Args:
            call: The call.
            peer: The client, as gRPC names it.
            method: The method.
            code: The name of the gRPC status code.
        """
        if not _is_concerned(call.request):
            return
        fields = _fields(call, peer, method, code)
        self._lines.log(logging.INFO, "audit", f"audit {fields['action']}", **fields)

    def batch(self, call: Any, peer: str, outcome: Message | str) -> None:
        """Records a batch of the store that was an operation of a pipeline.

        Args:
            call: The batch.
            peer: The client, as gRPC names it.
            outcome: The answer, or the name of a status code.
        """
        if isinstance(outcome, str):
            self.failed(call, peer, _BATCH, outcome)
        elif _is_concerned(call.request):
            self.done(call, peer, _BATCH, outcome.SerializeToString())

    def stop(self) -> None:
        """Writes how many lines were suppressed."""
        self._lines.flush()


def _fields(call: Any, peer: str, method: MethodDescriptor, outcome: str) -> dict[str, Any]:
    identity = call.identity
    who = {} if identity is ANYBODY else {"tenant": identity.tenant, "subject": identity.subject}
    return {"action": method.name, "outcome": outcome, **who, "peer": peer, **_told(call.request)}


def _is_concerned(request: Message) -> bool:
    """Returns whether a call of an audited method gets a line: a batch that deletes nothing doesn't."""
    return not isinstance(request, BatchRequest) or bool(_deletions(request))


def _deletions(batch: BatchRequest) -> list[DeleteItemRequest]:
    return [operation.delete for operation in batch.operations if operation.HasField("delete")]


def _told(message: Message) -> dict[str, Any]:
    if isinstance(message, BatchRequest):
        deletions = _deletions(message)
        items = [_written_text("/".join((*one.namespace, one.key))) for one in deletions[:MOST_NAMES]]
        return {"deletes": items, "deletes_count": len(deletions), "operations_count": len(message.operations)}
    return dict(_plain_fields(message, _MOST_DEPTH))


def _plain_fields(message: Any, depth: int) -> Iterable[tuple[str, Any]]:
    for field in message.DESCRIPTOR.fields:
        if field.name in _UNTOLD or field.type == FieldDescriptor.TYPE_BYTES:
            continue
        value = getattr(message, field.name)
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            if field.is_repeated:
                if value:
                    yield f"{field.name}_count", len(value)
            elif depth and message.HasField(field.name):
                yield from _plain_fields(value, depth - 1)
        elif field.is_repeated:
            if value:
                yield field.name, [_written(field, one) for one in value[:MOST_NAMES]]
                yield f"{field.name}_count", len(value)
        elif message.HasField(field.name) if field.has_presence else value or field.type in _NUMBERS:
            yield field.name, _written(field, value)


def _written(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type is not None:
        found = field.enum_type.values_by_number.get(value)
        return value if found is None else found.name
    return _written_text(value) if isinstance(value, str) else value


def _written_text(text: str) -> str:
    return text[:MOST_CHARACTERS] + "..." if len(text) > MOST_CHARACTERS else text
