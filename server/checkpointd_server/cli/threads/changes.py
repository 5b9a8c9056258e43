"""`checkpointd threads tag`, `archive`, `unarchive`, `copy`, `fork` and `delete`."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import click

from checkpointd_server.cli.destruction import confirm, destructive
from checkpointd_server.cli.option_types import Whole, json_option
from checkpointd_server.cli.progress import track
from checkpointd_server.cli.remote import Remote, remote_options
from checkpointd_server.cli.rendering.json import print_json
from checkpointd_server.cli.rendering.tables import byte_size, printable
from checkpointd_server.cli.threads.filters import read_pairs
from checkpointd_server.domain.thread_lists import MAX_TTL_SECONDS


@click.command()
@click.argument("thread_id")
@click.argument("tags", nargs=-1, metavar="[NAME=TEXT]...")
@click.option("--remove", multiple=True, metavar="NAME", help="Tag to remove. May be given several times.")
@click.option(
    "--pin/--unpin", "pinned", default=None, help="Protect the thread from any deletion (legal hold), or stop doing so."
)
@click.option(
    "--ttl",
    "ttl_seconds",
    type=Whole(min=0, max=MAX_TTL_SECONDS),
    help="How long it is kept after its last use, in seconds. 0 removes this setting.",
)
@json_option
@remote_options()
def tag(
    remote: Remote,
    thread_id: str,
    tags: Sequence[str],
    remove: Sequence[str],
    pinned: bool | None,
    ttl_seconds: int | None,
    as_json: bool,
) -> None:
    """Tag or pin a thread, or set its time to live. Its checkpoints don't change. Lists can filter by tags.

    \b
    Examples:
        checkpointd threads tag support-42 customer=acme ticket=1234
        checkpointd threads tag support-42 --remove ticket --pin
    """
    from checkpointd.v1 import thread_service_pb2 as pb
    from checkpointd.v1.thread_service_pb2_grpc import ThreadServiceStub
    from checkpointd_server.cli.rendering.threads import json_of, lines_of

    request = pb.UpdateThreadRequest(thread_id=thread_id, remove_tags=remove, ttl_seconds=ttl_seconds)
    if pinned is not None:
        request.pinned = pinned
    for name, text in read_pairs(tags, "tag").items():
        request.set_tags.add(name=name, text=text)

    def ask(channel: Any) -> Any:
        return ThreadServiceStub(channel).UpdateThread(request, timeout=remote.timeout)

    thread = remote.ask(ask).thread
    if as_json:
        print_json(json_of(thread))
    else:
        click.echo("\n".join(lines_of(thread)))


@click.command()
@click.argument("thread_ids", nargs=-1, required=True)
@json_option
@remote_options()
def archive(remote: Remote, thread_ids: Sequence[str], as_json: bool) -> None:
    """Make threads read-only and hide them from lists. They can still be read and copied, and be unarchived.

    \b
    Example:
        checkpointd threads archive support-42
    """
    _archive(remote, thread_ids, as_json, unarchive=False)


@click.command()
@click.argument("thread_ids", nargs=-1, required=True)
@json_option
@remote_options()
def unarchive(remote: Remote, thread_ids: Sequence[str], as_json: bool) -> None:
    """Make archived threads writable and listed again.

    \b
    Example:
        checkpointd threads unarchive support-42
    """
    _archive(remote, thread_ids, as_json, unarchive=True)


def _archive(remote: Remote, thread_ids: Sequence[str], as_json: bool, *, unarchive: bool) -> None:
    from checkpointd.v1 import thread_service_pb2 as pb
    from checkpointd.v1.thread_service_pb2_grpc import ThreadServiceStub

    def ask(channel: Any) -> dict[str, bool]:
        stub = ThreadServiceStub(channel)
        done = {}
        for thread_id in track(thread_ids, "unarchiving" if unarchive else "archiving"):
            request = pb.ArchiveThreadRequest(thread_id=thread_id, unarchive=unarchive)
            done[thread_id] = stub.ArchiveThread(request, timeout=remote.timeout).changed
        return done

    done = remote.ask(ask)
    if as_json:
        print_json({"changed": [name for name, changed in done.items() if changed]})
        return
    for thread_id, changed in done.items():
        word = "unarchived" if unarchive else "archived"
        state = "was not archived" if unarchive else "was already archived"
        click.echo(f"{printable(thread_id)}: {word if changed else state}")


@click.command()
@click.argument("thread_id")
@click.argument("new_thread_id")
@json_option
@remote_options()
def copy(remote: Remote, thread_id: str, new_thread_id: str, as_json: bool) -> None:
    """Copy a thread into one that doesn't exist yet.

    The copy of a thread that the client encrypts can't be read, because values are bound to their thread: use
    `saver.copy_thread` for that.

    \b
    Example:
        checkpointd threads copy support-42 support-42-before-the-fix
    """
    _copy(remote, thread_id, new_thread_id, None, as_json)


@click.command()
@click.argument("thread_id")
@click.argument("checkpoint_id")
@click.argument("new_thread_id")
@json_option
@remote_options()
def fork(remote: Remote, thread_id: str, checkpoint_id: str, new_thread_id: str, as_json: bool) -> None:
    """Copy a checkpoint of a thread's root graph, with its ancestors, into a thread that doesn't exist yet.

    \b
    Example:
        checkpointd threads fork support-42 1ef-the-checkpoint support-42-again
    """
    _copy(remote, thread_id, new_thread_id, checkpoint_id, as_json)


def _copy(remote: Remote, source: str, target: str, checkpoint_id: str | None, as_json: bool) -> None:
    from checkpointd.v1 import thread_service_pb2 as pb
    from checkpointd.v1.thread_service_pb2_grpc import ThreadServiceStub

    request = pb.CopyThreadRequest(
        source_thread_id=source,
        target_thread_id=target,
        checkpoint_id=checkpoint_id,
        request_id=secrets.token_bytes(16),
    )

    def ask(channel: Any) -> Any:
        return ThreadServiceStub(channel).CopyThread(request, timeout=remote.timeout)

    copied = remote.ask(ask).copied_checkpoints
    if not copied:
        raise click.ClickException(f"there is no thread {source!r}: nothing was copied")
    if as_json:
        print_json({"thread_id": target, "copied_checkpoints": copied})
    else:
        click.echo(f"{printable(target)}: {copied} checkpoints copied from {printable(source)}")


@click.command()
@click.argument("thread_ids", nargs=-1, required=True)
@destructive
@json_option
@remote_options()
def delete(remote: Remote, thread_ids: Sequence[str], dry_run: bool, yes: bool, as_json: bool) -> None:
    """Delete threads with everything in them. Archived, pinned and leased ones are refused.

    \b
    Examples:
        checkpointd threads delete support-42 --dry-run
        checkpointd threads delete support-42 support-43 --yes
    """
    from checkpointd.v1 import thread_service_pb2 as pb
    from checkpointd.v1.thread_service_pb2_grpc import ThreadServiceStub

    names = list(dict.fromkeys(thread_ids))

    def look(channel: Any) -> list[pb.Thread]:
        import grpc

        stub = ThreadServiceStub(channel)
        found = []
        for thread_id in names:
            try:
                response = stub.GetThread(pb.GetThreadRequest(thread_id=thread_id), timeout=remote.timeout)
                found.append(response.thread)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise
        return found

    def ask(channel: Any) -> dict[str, int]:
        stub = ThreadServiceStub(channel)
        done = {}
        for thread in track(found, "deleting"):
            request = pb.DeleteThreadRequest(thread_id=thread.thread_id)
            done[thread.thread_id] = stub.DeleteThread(request, timeout=remote.timeout).deleted_checkpoints
        return done

    found = remote.ask(look)
    missing = [name for name in names if name not in {thread.thread_id for thread in found}]
    for name in missing:
        click.echo(f"there is no thread {name!r}", err=True)
    if not found:
        raise click.ClickException("nothing to delete")
    total = sum(thread.checkpoints for thread in found)
    size = byte_size(sum(thread.bytes for thread in found))
    what = f"{len(found)} thread{'s' * (len(found) > 1)} with {total} checkpoints, {size}, at {remote.where}"
    if dry_run:
        if as_json:
            print_json({"would_delete": {thread.thread_id: thread.checkpoints for thread in found}, "missing": missing})
        else:
            click.echo(f"would delete {what}")
        return
    confirm(f"Delete {what}?", yes=yes)
    done = remote.ask(ask)
    if as_json:
        print_json({"deleted": done, "missing": missing})
        return
    for thread_id, checkpoints in done.items():
        click.echo(f"{printable(thread_id)}: deleted, {checkpoints} checkpoints")
