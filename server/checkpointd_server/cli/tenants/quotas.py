"""`checkpointd quotas`."""

from __future__ import annotations

from typing import Any

import click

from checkpointd_server.cli.option_types import Whole, json_option
from checkpointd_server.cli.remote import Remote, remote_options
from checkpointd_server.cli.rendering.json import print_json
from checkpointd_server.cli.rendering.tables import byte_size, printable, table
from checkpointd_server.cli.tenants.stats import list_tenants, unknown_tenant

_NAMES = ("max_bytes", "max_threads", "max_calls_per_second")


@click.group()
def quotas() -> None:
    """Show and set the quotas of tenants: bytes, threads, and calls per second. Needs the scope "operator".

    \b
    Examples:
        checkpointd quotas list
        checkpointd quotas set acme --threads 10000 --calls 200
        checkpointd quotas set acme --reset
    """


@quotas.command("list")
@click.argument("name", required=False, default="")
@json_option
@remote_options()
def list_quotas(remote: Remote, name: str, as_json: bool) -> None:
    """List the usage and quotas of all tenants, or of the tenant NAME.

    Quotas set for the tenant itself have a *; the others come from the options of the server that answers.

    \b
    Examples:
        checkpointd quotas list
        checkpointd quotas list acme --json
    """
    found = remote.ask(lambda channel: list(list_tenants(channel, remote, name)))
    if name and not found:
        raise click.ClickException(unknown_tenant(name))
    if as_json:
        told = [
            {
                "tenant": tenant.tenant_name,
                "used": {"bytes": tenant.bytes, "threads": tenant.threads},
                "quotas": _json(tenant.effective_quotas),
                "set": [field for field in _NAMES if tenant.quotas.HasField(field)],
            }
            for tenant in found
        ]
        print_json({"tenants": told})
        return
    rows = [
        (
            printable(tenant.tenant_name),
            byte_size(tenant.bytes),
            _limit(tenant, "max_bytes"),
            tenant.threads,
            _limit(tenant, "max_threads"),
            _limit(tenant, "max_calls_per_second"),
        )
        for tenant in found
    ]
    header = ("TENANT", "BYTES", "MAX BYTES", "THREADS", "MAX THREADS", "MAX CALLS/S")
    click.echo("\n".join(table(header, rows, right=header[1:])))


def _limit(tenant: Any, name: str) -> str:
    limit = getattr(tenant.effective_quotas, name)
    mark = "*" if tenant.quotas.HasField(name) else ""
    return f"{byte_size(limit) if name == 'max_bytes' and limit else limit or '-'}{mark}"


def _json(message: Any) -> dict[str, int | None]:
    return {name: getattr(message, name) or None for name in _NAMES}


@quotas.command("set")
@click.argument("name")
@click.option("--bytes", "max_bytes", type=Whole(min=0), help="Maximum size of its rows, in bytes. 0 sets no limit.")
@click.option("--threads", "max_threads", type=Whole(min=0), help="Maximum number of threads. 0 sets no limit.")
@click.option(
    "--calls",
    "max_calls_per_second",
    type=Whole(min=0),
    help="Maximum number of calls and operations per second, in each process of each server. 0 sets no limit.",
)
@click.option("--reset", is_flag=True, help="Remove the quotas set before: the servers' options apply then.")
@click.option("--new", is_flag=True, help="NAME may be a tenant that hasn't called yet.")
@json_option
@remote_options()
def set_quotas(
    remote: Remote,
    name: str,
    max_bytes: int | None,
    max_threads: int | None,
    max_calls_per_second: int | None,
    reset: bool,
    new: bool,
    as_json: bool,
) -> None:
    """Set quotas of the tenant NAME. Quotas that aren't given stay unchanged.

    They apply at once on the server that answers, and within seconds on others. A tenant is known once it has called;
    for one that hasn't, give --new, which guards against misspelled names.

    \b
    Examples:
        checkpointd quotas set acme --bytes 10000000000
        checkpointd quotas set acme --threads 10000 --calls 200 --json
        checkpointd quotas set coming-soon --new --threads 100
    """
    from checkpointd.v1 import tenant_service_pb2 as pb
    from checkpointd.v1.tenant_service_pb2_grpc import TenantServiceStub

    if max_bytes is max_threads is max_calls_per_second is None and not reset:
        raise click.UsageError("give at least one of --bytes, --threads, --calls and --reset")
    wanted = pb.Quotas(max_bytes=max_bytes, max_threads=max_threads, max_calls_per_second=max_calls_per_second)
    request = pb.SetQuotasRequest(tenant_name=name, quotas=wanted, reset=reset)

    def ask(channel: Any) -> Any:
        if not new and not any(list_tenants(channel, remote, name)):
            raise click.UsageError(f"{unknown_tenant(name)}: --new sets quotas for a tenant that hasn't called yet")
        return TenantServiceStub(channel).SetQuotas(request, timeout=remote.timeout)

    effective = remote.ask(ask).effective_quotas
    if as_json:
        print_json({"tenant": name, "quotas": _json(effective)})
        return
    click.echo(f"tenant        {printable(name)}")
    click.echo(f"bytes         {byte_size(effective.max_bytes) if effective.max_bytes else 'any number'}")
    click.echo(f"threads       {effective.max_threads or 'any number'}")
    click.echo(f"calls/s       {effective.max_calls_per_second or 'any number'}")
