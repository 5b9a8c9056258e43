"""`checkpointd info`."""

from __future__ import annotations

from typing import Any

import click

from checkpointd_server.cli.option_types import json_option
from checkpointd_server.cli.remote import Remote, remote_options
from checkpointd_server.cli.rendering.json import print_json


@click.command()
@json_option
@remote_options()
def info(remote: Remote, as_json: bool) -> None:
    """Print the server's version, identity, capabilities and limits, your tenant, and why it isn't serving.

    \b
    Example:
        checkpointd info --target agents.internal:50051
    """
    from checkpointd.v1 import info_service_pb2, info_service_pb2_grpc

    def get_info(channel: Any) -> Any:
        stub = info_service_pb2_grpc.InfoServiceStub(channel)
        return stub.GetServerInfo(info_service_pb2.GetServerInfoRequest(), timeout=remote.timeout)

    response = remote.ask(get_info)
    capabilities = [
        info_service_pb2.Capability.Name(capability).removeprefix("CAPABILITY_").lower()
        for capability in response.capabilities
    ]
    limits = {field.name: getattr(response.limits, field.name) for field in response.limits.DESCRIPTOR.fields}
    if as_json:
        print_json(
            {
                "version": response.version,
                "server_id": response.server_id,
                "tenant": response.tenant,
                "not_serving_reason": response.not_serving_reason or None,
                "capabilities": capabilities,
                "limits": limits,
            }
        )
        return
    click.echo(f"version       {response.version}")
    click.echo(f"server id     {response.server_id}")
    click.echo(f"tenant        {response.tenant}")
    if response.not_serving_reason:
        click.echo(f"not serving   {response.not_serving_reason}")
    click.echo(f"capabilities  {', '.join(capabilities)}")
    click.echo("limits")
    for name, limit in limits.items():
        click.echo(f"  {name:<26}{limit or 'unknown':>12}")
