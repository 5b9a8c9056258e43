"""`checkpointd retention set`, `list`, `get` and `delete`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from checkpointd_server.cli.destruction import confirm, destructive
from checkpointd_server.cli.option_types import ByteSize, Duration, Whole, json_option
from checkpointd_server.cli.progress import counting
from checkpointd_server.cli.remote import Remote, remote_options
from checkpointd_server.cli.rendering.json import print_json
from checkpointd_server.cli.rendering.tables import printable, table
from checkpointd_server.cli.threads.filters import read_metadata
from checkpointd_server.domain.retention import MAX_HOLD_SECONDS, MAX_KEEP_NEWEST, MAX_THREAD_BYTES
from checkpointd_server.domain.thread_lists import MAX_TTL_SECONDS


@click.command("set")
@click.argument("name")
@click.option(
    "--prefix", default="", metavar="TEXT", help="Apply to threads whose ids begin with this.  [default: all]"
)
@click.option(
    "--metadata",
    multiple=True,
    metavar="KEY=VALUE",
    help="Apply to threads whose latest checkpoint has this metadata. VALUE is JSON, else text. May be given several "
    "times.",
)
@click.option(
    "--max-idle",
    type=Duration(most=MAX_TTL_SECONDS),
    help="Delete threads that have been idle for longer than this: 90d, 12h, 30m, 45s.",
)
@click.option("--interrupted", is_flag=True, help="With --max-idle: delete interrupted threads, too.")
@click.option(
    "--max-age", type=Duration(most=MAX_TTL_SECONDS), help="Delete checkpoints older than this, except the newest."
)
@click.option(
    "--keep-newest",
    type=Whole(min=1, max=MAX_KEEP_NEWEST),
    help="Delete all but this number of the newest checkpoints.",
)
@click.option("--keep-last-of-run", is_flag=True, help="Delete all checkpoints of a run except its last.")
@click.option(
    "--max-bytes",
    type=ByteSize(most=MAX_THREAD_BYTES),
    help="Delete the oldest checkpoints of threads larger than this: 5MiB.",
)
@click.option(
    "--hold",
    type=Duration(most=MAX_HOLD_SECONDS),
    help="Announce deletions from these threads, by whatever policy, this long before; acknowledging deletes earlier.",
)
@destructive
@json_option
@remote_options()
def set_policy(
    remote: Remote,
    name: str,
    prefix: str,
    metadata: Sequence[str],
    max_idle: int | None,
    interrupted: bool,
    max_age: int | None,
    keep_newest: int | None,
    keep_last_of_run: bool,
    max_bytes: int | None,
    hold: int | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Store a policy, replacing the one with the same name. Servers apply it from their next sweep on.

    Before it asks for confirmation, it shows what this policy alone would delete now.

    \b
    Examples:
        checkpointd retention set old-chats --prefix chat: --max-idle 90d
        checkpointd retention set small --keep-newest 50 --max-bytes 20MiB --dry-run
    """
    from checkpointd.v1 import retention_service_pb2 as pb
    from checkpointd.v1.retention_service_pb2_grpc import RetentionServiceStub
    from checkpointd_server.cli.rendering.retention import policy_json, split_json, summary_of, tables_of
    from checkpointd_server.cli.retention.runs import look

    if max_idle is max_age is keep_newest is max_bytes is None and not keep_last_of_run:
        alone = "--hold" if hold else "--interrupted" if interrupted else None
        raise click.UsageError(
            f"the policy has no limit{f', and {alone} alone deletes nothing' if alone else ''}: give --max-idle, "
            "--max-age, --keep-newest, --keep-last-of-run or --max-bytes"
        )
    policy = pb.RetentionPolicy(
        name=name,
        thread_id_prefix=prefix,
        metadata=read_metadata(metadata),
        max_idle_seconds=max_idle,
        delete_interrupted=interrupted,
        max_age_seconds=max_age,
        keep_newest=keep_newest,
        keep_last_of_run=keep_last_of_run,
        max_bytes=max_bytes,
        hold_seconds=hold or 0,
    )

    def store(channel: Any) -> Any:
        stub = RetentionServiceStub(channel)
        stub.SetPolicy(pb.SetPolicyRequest(policy=policy), timeout=remote.timeout)
        return stub.GetPolicy(pb.GetPolicyRequest(name=name), timeout=remote.timeout).policy

    if dry_run or not yes:
        with counting("looking at threads") as bar:
            effects = look(remote, policy, bar)
        if dry_run:
            if as_json:
                print_json(split_json(effects))
            else:
                for line in tables_of(effects):
                    click.echo(line)
                click.echo(f"would delete {summary_of(effects)}")
            return
        confirm(
            f"Store {printable(name)} at {remote.where}? By itself it would delete {summary_of(effects)} now.", yes=yes
        )
    stored = remote.ask(store)
    if as_json:
        print_json(policy_json(stored))
    else:
        click.echo(f"{printable(name)}: stored")


@click.command("list")
@json_option
@remote_options()
def list_policies(remote: Remote, as_json: bool) -> None:
    """List the policies.

    \b
    Example:
        checkpointd retention list --json
    """
    from checkpointd.v1 import retention_service_pb2 as pb
    from checkpointd.v1.retention_service_pb2_grpc import RetentionServiceStub
    from checkpointd_server.cli.rendering.retention import limits_of, policy_json, target_of

    def ask(channel: Any) -> Any:
        return RetentionServiceStub(channel).ListPolicies(pb.ListPoliciesRequest(), timeout=remote.timeout)

    found = remote.ask(ask).policies
    if as_json:
        print_json([policy_json(policy) for policy in found])
        return
    rows = [(printable(policy.name), target_of(policy), limits_of(policy)) for policy in found]
    for line in table(("POLICY", "THREADS", "LIMITS"), rows):
        click.echo(line)


@click.command("get")
@click.argument("name")
@json_option
@remote_options()
def get_policy(remote: Remote, name: str, as_json: bool) -> None:
    """Show a policy.

    \b
    Example:
        checkpointd retention get old-chats
    """
    from checkpointd.v1 import retention_service_pb2 as pb
    from checkpointd.v1.retention_service_pb2_grpc import RetentionServiceStub
    from checkpointd_server.cli.rendering.retention import limits_of, policy_json, target_of
    from checkpointd_server.cli.rendering.threads import when

    def ask(channel: Any) -> Any:
        return RetentionServiceStub(channel).GetPolicy(pb.GetPolicyRequest(name=name), timeout=remote.timeout)

    found = remote.ask(ask).policy
    if as_json:
        print_json(policy_json(found))
        return
    click.echo(f"policy   {printable(found.name)}")
    click.echo(f"threads  {target_of(found)}")
    click.echo(f"limits   {limits_of(found)}")
    click.echo(f"set      {when(found.updated_at)}")


@click.command("delete")
@click.argument("name")
@destructive
@json_option
@remote_options()
def delete_policy(remote: Remote, name: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Delete a policy. No thread is deleted by that.

    \b
    Example:
        checkpointd retention delete old-chats
    """
    from checkpointd.v1 import retention_service_pb2 as pb
    from checkpointd.v1.retention_service_pb2_grpc import RetentionServiceStub

    def look(channel: Any) -> Any:
        return RetentionServiceStub(channel).GetPolicy(pb.GetPolicyRequest(name=name), timeout=remote.timeout)

    def ask(channel: Any) -> Any:
        return RetentionServiceStub(channel).DeletePolicy(pb.DeletePolicyRequest(name=name), timeout=remote.timeout)

    remote.ask(look)
    if dry_run:
        if as_json:
            print_json({"would_delete": name})
        else:
            click.echo(f"would delete the policy {printable(name)} at {remote.where}")
        return
    confirm(f"Delete the policy {printable(name)} at {remote.where}?", yes=yes)
    remote.ask(ask)
    if as_json:
        print_json({"deleted": name})
    else:
        click.echo(f"{printable(name)}: deleted")
