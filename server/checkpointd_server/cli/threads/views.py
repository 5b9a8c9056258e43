"""`checkpointd threads get`, `tree` and `diff`."""

from __future__ import annotations

from typing import Any

import click

from checkpointd_server.cli.option_types import json_option
from checkpointd_server.cli.remote import Remote, remote_options
from checkpointd_server.cli.rendering.json import print_json

_MAX_NODES = 10_000


@click.command()
@click.argument("thread_id")
@json_option
@remote_options()
def get(remote: Remote, thread_id: str, as_json: bool) -> None:
    """Print a thread's status, size, times, metadata and tags, without reading its values.

    \b
    Example:
        checkpointd threads get support-42
    """
    from checkpointd.v1 import thread_service_pb2 as pb
    from checkpointd.v1.thread_service_pb2_grpc import ThreadServiceStub
    from checkpointd_server.cli.rendering.threads import json_of, lines_of

    def ask(channel: Any) -> Any:
        return ThreadServiceStub(channel).GetThread(pb.GetThreadRequest(thread_id=thread_id), timeout=remote.timeout)

    thread = remote.ask(ask).thread
    if as_json:
        print_json(json_of(thread))
    else:
        click.echo("\n".join(lines_of(thread)))


@click.command()
@click.argument("thread_id")
@click.option("--ns", "checkpoint_ns", help="Only this namespace; '' is the root graph.  [default: all]")
@json_option
@remote_options()
def tree(remote: Remote, thread_id: str, checkpoint_ns: str | None, as_json: bool) -> None:
    """Print a thread's checkpoints as trees, oldest first: steps, sources, forks, interrupts.

    If there are more than 10000, the newest are shown.

    \b
    Example:
        checkpointd threads tree support-42
    """
    from checkpointd.v1 import thread_service_pb2 as pb
    from checkpointd.v1.thread_service_pb2_grpc import ThreadServiceStub
    from checkpointd_server.cli.rendering.threads import node_json, tree_lines

    def ask(channel: Any) -> tuple[list[pb.CheckpointNode], bool]:
        stub, request = ThreadServiceStub(channel), pb.GetThreadTreeRequest(thread_id=thread_id)
        found: list[pb.CheckpointNode] = []
        while True:
            page = stub.GetThreadTree(request, timeout=remote.timeout)
            found += [node for node in page.nodes if checkpoint_ns in (None, node.checkpoint_ns)]
            request.page_token = page.next_page_token
            if not page.next_page_token or len(found) >= _MAX_NODES:
                return found, bool(page.next_page_token)

    nodes, more = remote.ask(ask)
    if not nodes:
        where = "" if checkpoint_ns is None else f" in namespace {checkpoint_ns!r}"
        raise click.ClickException(f"thread {thread_id!r} has no checkpoint{where}")
    if as_json:
        print_json({"thread_id": thread_id, "checkpoints": [node_json(node) for node in nodes], "more": more})
        return
    if more:
        click.echo("... older checkpoints are left out")
    for line in tree_lines(nodes):
        click.echo(line)


@click.command()
@click.argument("thread_id")
@click.argument("before")
@click.argument("after")
@click.option("--ns", "checkpoint_ns", default="", help="Namespace of both checkpoints.  [default: the root graph's]")
@json_option
@remote_options()
def diff(remote: Remote, thread_id: str, before: str, after: str, checkpoint_ns: str, as_json: bool) -> None:
    """Print the differences between two checkpoints of a thread, given by their ids: values and metadata.

    \b
    Example:
        checkpointd threads diff support-42 1ef-older 1ef-newer
    """
    import json

    from checkpointd.v1 import thread_service_pb2 as pb
    from checkpointd.v1.thread_service_pb2_grpc import ThreadServiceStub
    from checkpointd_server.cli.rendering.differences import difference_lines

    request = pb.DiffCheckpointsRequest(
        thread_id=thread_id, checkpoint_ns=checkpoint_ns, before_checkpoint_id=before, after_checkpoint_id=after
    )

    def ask(channel: Any) -> Any:
        return ThreadServiceStub(channel).DiffCheckpoints(request, timeout=remote.timeout)

    differences = json.loads(remote.ask(ask).json)
    if as_json:
        print_json(differences)
        return
    for line in difference_lines(differences):
        click.echo(line)
