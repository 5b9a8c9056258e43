"""Scopes: one table of what each RPC needs, and the refusal of callers who lack it.

The tenant of a call comes only from its identity. Only TenantService's requests name tenants; it needs the operator's
scope.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from google.protobuf.descriptor import MethodDescriptor

from checkpointd_server.domain.access import Identity, Scope
from checkpointd_server.domain.errors import CheckpointdError


class CallScope(Enum):
    """Marks an RPC whose operations need different scopes."""

    PER_OPERATION = "operation"


Needed = Scope | CallScope | None
"""The scope that an RPC needs. None: any identity may call it."""

NEEDED: Mapping[str, Needed] = {
    "checkpointd.v1.CheckpointService.GetCheckpoint": Scope.READ,
    "checkpointd.v1.CheckpointService.GetDeltaChannelHistory": Scope.READ,
    "checkpointd.v1.CheckpointService.ListCheckpoints": Scope.READ,
    "checkpointd.v1.CheckpointService.Pipeline": CallScope.PER_OPERATION,
    "checkpointd.v1.CheckpointService.PutCheckpoint": Scope.WRITE,
    "checkpointd.v1.CheckpointService.PutWrites": Scope.WRITE,
    "checkpointd.v1.InfoService.GetServerInfo": None,
    "checkpointd.v1.LeaseService.AcquireLease": Scope.WRITE,
    "checkpointd.v1.LeaseService.GetLease": Scope.READ,
    "checkpointd.v1.LeaseService.ReleaseLease": Scope.WRITE,
    "checkpointd.v1.LeaseService.RenewLease": Scope.WRITE,
    "checkpointd.v1.StatsService.GetActivity": Scope.READ,
    "checkpointd.v1.StatsService.GetServerActivity": Scope.OPERATOR,
    "checkpointd.v1.StatsService.GetStats": Scope.READ,
    "checkpointd.v1.StoreService.Batch": CallScope.PER_OPERATION,
    "checkpointd.v1.StoreService.CountItems": Scope.STORE_READ,
    "checkpointd.v1.StoreService.DeleteItem": Scope.STORE_WRITE,
    "checkpointd.v1.StoreService.GetItem": Scope.STORE_READ,
    "checkpointd.v1.StoreService.ListItems": Scope.STORE_READ,
    "checkpointd.v1.StoreService.ListNamespaces": Scope.STORE_READ,
    "checkpointd.v1.StoreService.PutItem": Scope.STORE_WRITE,
    "checkpointd.v1.StoreService.RestoreItems": Scope.STORE_WRITE,
    "checkpointd.v1.StoreService.SearchItems": Scope.STORE_READ,
    "checkpointd.v1.RetentionService.AcknowledgeExpiring": Scope.DELETE,
    "checkpointd.v1.RetentionService.DeletePolicy": Scope.ADMIN,
    "checkpointd.v1.RetentionService.GetPolicy": Scope.READ,
    "checkpointd.v1.RetentionService.ListExpiring": Scope.READ,
    "checkpointd.v1.RetentionService.ListPolicies": Scope.READ,
    "checkpointd.v1.RetentionService.PreviewRetention": Scope.READ,
    "checkpointd.v1.RetentionService.RunRetention": Scope.DELETE,
    "checkpointd.v1.RetentionService.SetPolicy": Scope.ADMIN,
    "checkpointd.v1.TenantService.ListTenants": Scope.OPERATOR,
    "checkpointd.v1.TenantService.PurgeTenant": Scope.OPERATOR,
    "checkpointd.v1.TenantService.SetQuotas": Scope.OPERATOR,
    "checkpointd.v1.ThreadService.ArchiveThread": Scope.WRITE,
    "checkpointd.v1.ThreadService.CopyThread": Scope.WRITE,
    "checkpointd.v1.ThreadService.CountThreads": Scope.READ,
    "checkpointd.v1.ThreadService.DeleteRuns": Scope.DELETE,
    "checkpointd.v1.ThreadService.DeleteThread": Scope.DELETE,
    "checkpointd.v1.ThreadService.DiffCheckpoints": Scope.READ,
    "checkpointd.v1.ThreadService.GetThread": Scope.READ,
    "checkpointd.v1.ThreadService.GetThreadTree": Scope.READ,
    "checkpointd.v1.ThreadService.ListThreads": Scope.READ,
    "checkpointd.v1.ThreadService.PruneThreads": Scope.DELETE,
    "checkpointd.v1.ThreadService.PurgeThreads": Scope.ADMIN,
    "checkpointd.v1.ThreadService.ShowCheckpoint": Scope.READ,
    "checkpointd.v1.ThreadService.UpdateThread": Scope.WRITE,
    "checkpointd.v1.ValueService.GetValue": Scope.READ,
    "checkpointd.v1.ValueService.PutPart": Scope.WRITE,
}
"""The scope that each RPC needs, by its full name. An RPC that is missing here is not served."""

OPERATIONS: Mapping[str, Needed] = {
    "get_checkpoint": Scope.READ,
    "put_checkpoint": Scope.WRITE,
    "put_writes": Scope.WRITE,
    "store_batch": CallScope.PER_OPERATION,
}
"""The scope that each operation of a pipeline needs, by its field."""

STORE_OPERATIONS: Mapping[str, Scope] = {
    "count": Scope.STORE_READ,
    "delete": Scope.STORE_WRITE,
    "get": Scope.STORE_READ,
    "list_namespaces": Scope.STORE_READ,
    "put": Scope.STORE_WRITE,
    "search": Scope.STORE_READ,
}
"""The scope that each operation of a batch of the store needs, by its field."""


class Unauthenticated(CheckpointdError):
    """The call has no valid token or certificate. The message never quotes a token."""


class PermissionDenied(CheckpointdError):
    """The identity lacks the scope that the call needs.

    Attributes:
        scope: The scope.
    """

    def __init__(self, scope: Scope, identity: Identity) -> None:
        has = ", ".join(sorted(identity.scopes)) or "none"
        super().__init__(f"this call needs the scope {scope.value!r}; its token has {has}")
        self.scope = scope


class KeysUnavailable(CheckpointdError):
    """The issuer's keys are unavailable, so its tokens can't be verified. Safe to retry."""

    def __init__(self) -> None:
        super().__init__("the keys that tokens are checked with are unavailable; try again")


def needed(method: MethodDescriptor) -> Needed:
    """Returns what an RPC needs. Raises KeyError for one that isn't in the table."""
    return NEEDED[method.full_name]


def check_scope(identity: Identity, needed: Needed) -> None:
    """Raises PermissionDenied if the identity lacks the scope that is needed."""
    if isinstance(needed, Scope) and not identity.may(needed):
        raise PermissionDenied(needed, identity)


def only_reads(needed: Needed, request: Any) -> bool:
    """Returns whether a call changes nothing, so its answer may be refused: it can be made again.

    Args:
        needed: What its RPC needs.
        request: Its request; looked at if that depends on its operations, as with a batch of the store.
    """
    if needed is CallScope.PER_OPERATION:
        kinds = [operation.WhichOneof("operation") for operation in request.operations]
        return all(STORE_OPERATIONS.get(kind, Scope.STORE_READ) is Scope.STORE_READ for kind in kinds)
    return needed in (Scope.READ, Scope.STORE_READ)
