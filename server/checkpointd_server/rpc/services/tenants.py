"""TenantService: tenants by name, for the server's operators."""

from __future__ import annotations

from collections.abc import Sequence

from checkpointd.v1 import tenant_service_pb2 as pb
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.store import CheckpointStore
from checkpointd_server.domain.tenants import Quotas, TenantQuotas
from checkpointd_server.rpc.conversion.page_tokens import read_position, write_position
from checkpointd_server.rpc.conversion.tenants import (
    read_purge_token,
    read_quotas,
    write_quotas,
    write_report,
    write_tenant,
)
from checkpointd_server.rpc.conversion.threads import read_page_size
from checkpointd_server.rpc.conversion.validation import check_optional_text, check_text
from checkpointd_server.rpc.tenants import Tenants


class TenantServicer:
    """Lists, limits and purges tenants. Each method takes a request and returns the encoded response."""

    def __init__(self, store: CheckpointStore, limits: Limits, tenants: Tenants) -> None:
        self._store = store
        self._limits = limits
        self._tenants = tenants

    async def list_tenants(self, request: pb.ListTenantsRequest, tenant: str, timeout: float | None) -> bytes:
        """Lists a page of tenants."""
        check_optional_text(request.tenant_name, "tenant_name", self._limits.max_tenant_bytes)
        page_size = read_page_size(request.page_size, self._limits.default_page_size, self._limits)
        after = read_position(request, tenant, self._read_name) or ""
        tenants = self._store.tenants
        found: Sequence[TenantQuotas]
        if request.tenant_name:
            found = await tenants.read_quotas([request.tenant_name], timeout=timeout)
        else:
            found = await tenants.list(after=after, limit=page_size + 1, timeout=timeout)
        response = pb.ListTenantsResponse()
        for one in found[:page_size]:
            usage = await tenants.read_usage(one.tenant, timeout=timeout)
            write_tenant(one, usage, self._tenants.defaults, response.tenants.add())
        if len(found) > page_size:
            response.next_page_token = write_position([found[page_size - 1].tenant], request, tenant)
        return response.SerializeToString()

    def _read_name(self, content: list[str]) -> str:
        (name,) = content
        check_text(name, "tenant_name", self._limits.max_tenant_bytes)
        return name

    async def set_quotas(self, request: pb.SetQuotasRequest, tenant: str, timeout: float | None) -> bytes:
        """Sets a tenant's quotas."""
        check_text(request.tenant_name, "tenant_name", self._limits.max_tenant_bytes)
        wanted = read_quotas(request.quotas)
        found = await self._store.tenants.set_quotas(request.tenant_name, wanted, resets=request.reset, timeout=timeout)
        self._put_in_force(request.tenant_name, found.quotas)
        response = pb.SetQuotasResponse()
        write_quotas(found.quotas, response.quotas)
        write_quotas(found.quotas.over(self._tenants.defaults), response.effective_quotas)
        return response.SerializeToString()

    def _put_in_force(self, tenant: str, quotas: Quotas) -> None:
        state = self._tenants.find(tenant)
        if state is not None:
            self._tenants.set_quotas(state, quotas)
            self._tenants.when_new()

    async def purge_tenant(self, request: pb.PurgeTenantRequest, tenant: str, timeout: float | None) -> bytes:
        """Purges a page of everything that a tenant has."""
        name = request.tenant_name
        check_text(name, "tenant_name", self._limits.max_tenant_bytes)
        tenants = self._store.tenants
        report = await tenants.purge_all(
            name,
            start=read_purge_token(request, tenant),
            takes_pinned=request.include_pinned,
            is_dry_run=request.dry_run,
            timeout=timeout,
        )
        if report.next is None and not request.dry_run:
            usage = await tenants.read_usage(name, timeout=timeout)
            if not usage.pinned_threads:
                await tenants.purge_rest(name, report, timeout=timeout)
                self._put_in_force(name, Quotas())
        response = pb.PurgeTenantResponse()
        write_report(report, response, request, tenant)
        return response.SerializeToString()
