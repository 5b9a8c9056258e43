"""`checkpointd health`."""

from __future__ import annotations

import sys

import click

from checkpointd_server.cli.remote import NoAnswer, Remote, remote_options


@click.command()
@click.option(
    "--service",
    default="",
    help="Service to check, e.g. checkpointd.v1.CheckpointService.  [default: the whole server]",
)
@remote_options("CHECKPOINTD_HEALTH_LISTEN", "CHECKPOINTD_LISTEN")
def health(remote: Remote, service: str) -> None:
    """Check a server's health. Prints SERVING and exits with 0, or prints another status and exits with 1.

    If --target names several servers, each is checked, and all must be serving.

    A server is serving while it reaches its database and isn't shutting down. Without --target and CHECKPOINTD_TARGET,
    the server on this machine at CHECKPOINTD_HEALTH_LISTEN or CHECKPOINTD_LISTEN is checked.

    \b
    Examples:
        checkpointd health
        checkpointd health --target agents.internal:50051 --service checkpointd.v1.CheckpointService
    """
    targets = remote.targets
    if len(targets) == 1:
        statuses = [_status(remote, targets[0], service)]
        click.echo(statuses[0])
    else:
        statuses = []
        for one in targets:
            try:
                status = _status(remote, one, service)
            except NoAnswer as error:
                click.echo(error.where, err=True)  # standard output has only the statuses, for scripts
                status = "UNAVAILABLE"
            statuses.append(status)
            click.echo(f"{one} {status}")
    sys.exit(0 if set(statuses) == {"SERVING"} else 1)


def _status(remote: Remote, target: str, service: str) -> str:
    """Returns the health status of one server. Raises NoAnswer."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with remote.open_channel(target) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            response = health_pb2_grpc.HealthStub(channel).Check(request, timeout=remote.timeout)
            return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            return "SERVICE_UNKNOWN"
