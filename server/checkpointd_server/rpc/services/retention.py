"""RetentionService: how long threads are kept, and how much of each."""

from __future__ import annotations

from checkpointd.v1 import retention_service_pb2 as pb
from checkpointd_server.domain.errors import PolicyNotFound
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.retention import MAX_POLICY_NAME_BYTES
from checkpointd_server.domain.store import CheckpointStore
from checkpointd_server.rpc.conversion.page_tokens import read_retention_token, write_retention_token
from checkpointd_server.rpc.conversion.retention import read_policy, write_effect, write_expiring, write_policy
from checkpointd_server.rpc.conversion.threads import read_page_size
from checkpointd_server.rpc.conversion.validation import check_optional_text, check_text

_BELOW_SLACK_BYTES = 4
"""How much longer than an id the place just above one is."""


class RetentionServicer:
    """Stores, previews and applies retention policies.

    Each method takes a request and returns the encoded response.
    """

    def __init__(self, store: CheckpointStore, limits: Limits) -> None:
        self._retention = store.retention
        self._limits = limits

    async def set_policy(self, request: pb.SetPolicyRequest, tenant: str, timeout: float | None) -> bytes:
        """Stores a policy."""
        await self._retention.set_policy(tenant, read_policy(request.policy, self._limits), timeout=timeout)
        return pb.SetPolicyResponse().SerializeToString()

    async def get_policy(self, request: pb.GetPolicyRequest, tenant: str, timeout: float | None) -> bytes:
        """Returns a policy."""
        check_text(request.name, "name", MAX_POLICY_NAME_BYTES)
        response = pb.GetPolicyResponse()
        for policy in await self._retention.list_policies(tenant, timeout=timeout):
            if policy.name == request.name:
                write_policy(policy, response.policy)
                return response.SerializeToString()
        raise PolicyNotFound(request.name)

    async def list_policies(self, request: pb.ListPoliciesRequest, tenant: str, timeout: float | None) -> bytes:
        """Returns all policies."""
        response = pb.ListPoliciesResponse()
        for policy in await self._retention.list_policies(tenant, timeout=timeout):
            write_policy(policy, response.policies.add())
        return response.SerializeToString()

    async def delete_policy(self, request: pb.DeletePolicyRequest, tenant: str, timeout: float | None) -> bytes:
        """Deletes a policy."""
        check_text(request.name, "name", MAX_POLICY_NAME_BYTES)
        if not await self._retention.delete_policy(tenant, request.name, timeout=timeout):
            raise PolicyNotFound(request.name)
        return pb.DeletePolicyResponse().SerializeToString()

    async def preview_retention(self, request: pb.PreviewRetentionRequest, tenant: str, timeout: float | None) -> bytes:
        """Returns what would be deleted."""
        policy = read_policy(request.policy, self._limits) if request.HasField("policy") else None
        after = read_retention_token(request, tenant)
        page = await self._retention.preview(tenant, policy, after=after, timeout=timeout)
        response = pb.PreviewRetentionResponse()
        for effect in page.effects:
            write_effect(effect, response.effects.add())
        if page.after is not None:
            response.next_page_token = write_retention_token(page.after, request, tenant)
        return response.SerializeToString()

    async def run_retention(self, request: pb.RunRetentionRequest, tenant: str, timeout: float | None) -> bytes:
        """Applies the policies."""
        after = read_retention_token(request, tenant)
        page = await self._retention.run(tenant, after=after, timeout=timeout)
        response = pb.RunRetentionResponse()
        for effect in page.effects:
            write_effect(effect, response.effects.add())
        if page.after is not None:
            response.next_page_token = write_retention_token(page.after, request, tenant)
        return response.SerializeToString()

    async def list_expiring(self, request: pb.ListExpiringRequest, tenant: str, timeout: float | None) -> bytes:
        """Lists announced deletions."""
        page = await self._retention.list_expiring(
            tenant,
            after=read_retention_token(request, tenant),
            page_size=read_page_size(request.page_size, self._limits.default_page_size, self._limits),
            timeout=timeout,
        )
        response = pb.ListExpiringResponse()
        for entry in page.entries:
            write_expiring(entry, response.threads.add())
        if page.after is not None:
            response.next_page_token = write_retention_token(page.after, request, tenant)
        return response.SerializeToString()

    async def acknowledge_expiring(
        self, request: pb.AcknowledgeExpiringRequest, tenant: str, timeout: float | None
    ) -> bytes:
        """Acknowledges an announced deletion."""
        check_text(request.thread_id, "thread_id", self._limits.max_thread_id_bytes)
        below = request.below_checkpoint_id
        check_optional_text(below, "below_checkpoint_id", self._limits.max_checkpoint_id_bytes + _BELOW_SLACK_BYTES)
        acknowledged = await self._retention.acknowledge(tenant, request.thread_id, below, timeout=timeout)
        return pb.AcknowledgeExpiringResponse(acknowledged=acknowledged).SerializeToString()
