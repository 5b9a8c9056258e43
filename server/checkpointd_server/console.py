"""The commands that ask a running server: health, info and show. They speak to it as any client does."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from checkpointd_server.channel import NoAnswer, ask, channel_settings, list_targets, local_target, open_channel
from checkpointd_server.options import Whole
from checkpointd_server.settings import timeout_setting


@click.command()
@channel_settings
@click.option(
    "--service", default="", help="One service, e.g. checkpointd.v1.CheckpointService.  [default: the server]"
)
@timeout_setting
def health(target: str, service: str, timeout: float, **how: Any) -> None:
    """Ask whether the server serves: SERVING, exit code 0; anything else, exit code 1.

    Of several each is asked, and all must serve.

    It serves while it reaches its database and isn't shutting down. Without --target and CHECKPOINTD_TARGET it asks the
    server that CHECKPOINTD_HEALTH_LISTEN or CHECKPOINTD_LISTEN belongs to, on this machine.

    \b
    Examples:
        checkpointd health
        checkpointd health --target agents.internal:50051 --service checkpointd.v1.CheckpointService
    """
    targets = list_targets(local_target("CHECKPOINTD_HEALTH_LISTEN", "CHECKPOINTD_LISTEN") or target)
    if len(targets) == 1:
        statuses = [_status(targets[0], service, timeout, how)]
        click.echo(statuses[0])
    else:
        statuses = []
        for one in targets:
            try:
                status = _status(one, service, timeout, how)
            except NoAnswer as error:
                click.echo(error.where, err=True)  # the statuses alone are for scripts
                status = "UNAVAILABLE"
            statuses.append(status)
            click.echo(f"{one} {status}")
    sys.exit(0 if set(statuses) == {"SERVING"} else 1)


def _status(target: str, service: str, timeout: float, how: dict[str, Any]) -> str:
    """What one server says of its health. Raises NoAnswer."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with open_channel(target, **how) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            response = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout)
            return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            return "SERVICE_UNKNOWN"


@click.command()
@channel_settings
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@timeout_setting
def info(target: str, as_json: bool, timeout: float, **how: Any) -> None:
    """Print the server's version, what it can do, and its limits.

    \b
    Example:
        checkpointd info --target agents.internal:50051
    """
    from checkpointd.v1 import info_service_pb2, info_service_pb2_grpc

    def get_info(channel: Any) -> Any:
        stub = info_service_pb2_grpc.InfoServiceStub(channel)
        return stub.GetServerInfo(info_service_pb2.GetServerInfoRequest(), timeout=timeout)

    response = ask(local_target("CHECKPOINTD_LISTEN") or target, get_info, **how)
    capabilities = [
        info_service_pb2.Capability.Name(capability).removeprefix("CAPABILITY_").lower()
        for capability in response.capabilities
    ]
    limits = {field.name: getattr(response.limits, field.name) for field in response.limits.DESCRIPTOR.fields}
    if as_json:
        click.echo(json.dumps({"version": response.version, "capabilities": capabilities, "limits": limits}, indent=2))
        return
    click.echo(f"version       {response.version}")
    click.echo(f"capabilities  {', '.join(capabilities)}")
    click.echo("limits")
    for name, limit in limits.items():
        click.echo(f"  {name:<26}{limit or 'unknown':>12}")


@click.command()
@click.argument("thread_id")
@channel_settings
@click.option("--ns", "checkpoint_ns", help="Only this namespace; '' is the root graph.  [default: all of them]")
@click.option("--checkpoint-id", help="Only this checkpoint.  [default: the latest, below a list of all]")
@click.option("--limit", type=Whole(min=1), default=20, show_default=True, help="The most checkpoints, newest first.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the values of every checkpoint.")
@timeout_setting
def show(
    thread_id: str,
    target: str,
    checkpoint_ns: str | None,
    checkpoint_id: str | None,
    limit: int,
    as_json: bool,
    timeout: float,
    **how: Any,
) -> None:
    """Print a thread's checkpoints and what they hold, as plain data.

    Nothing of an agent's code is loaded: objects are shown by the names of their types, encrypted and pickled values by
    their size.

    \b
    Examples:
        checkpointd show 42
        checkpointd show 42 --ns '' --json | jq '.checkpoints[0].values'
    """
    from checkpointd_server.thread_view import ThreadView

    def read(channel: Any) -> ThreadView:
        return ThreadView.read(
            channel,
            thread_id=thread_id,
            checkpoint_ns=checkpoint_ns,
            checkpoint_id=checkpoint_id,
            limit=limit,
            values=as_json,
            timeout=timeout,
        )

    view = ask(local_target("CHECKPOINTD_LISTEN") or target, read, **how)
    if not view.checkpoints:
        where = "" if checkpoint_ns is None else f" in namespace {checkpoint_ns!r}"
        what = "checkpoint" if checkpoint_id is None else f"checkpoint {checkpoint_id!r}"
        raise click.ClickException(f"thread {thread_id!r} has no {what}{where}")
    if as_json:
        click.echo(json.dumps(view.as_json(), indent=2))
    else:
        for line in view.as_text():
            click.echo(line)
