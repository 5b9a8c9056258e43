"""Rewrites stored threads: `python -m langgraph.checkpoint.grpc.migrate package.module:saver`.

It needs the code that defines the states, so run it where the agents run.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from langgraph.checkpoint.grpc.errors import CheckpointdError
from langgraph.checkpoint.grpc.saver import GrpcSaver
from langgraph.checkpoint.grpc.state_hooks import StateHooks
from langgraph.checkpoint.grpc.thread_migration import OUTCOMES


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Returns:
        0 if all threads have the current version or can be migrated to it; 1 if some were skipped or failed; 2 if it
        could not begin.
    """
    given = _parser().parse_args(arguments)
    try:
        with _saver(given.saver) as saver:
            return _migrate(saver, given)
    except (CheckpointdError, ImportError, AttributeError, TypeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m langgraph.checkpoint.grpc.migrate",
        description="Brings the states of stored threads to today's version, with the hook `migrate` of your code. "
        "Without --apply nothing is changed: hooks are tried, and what would be done is told.",
    )
    parser.add_argument(
        "saver",
        metavar="MODULE:NAME",
        help="a GrpcSaver, a callable that returns one, or StateHooks (then the server is CHECKPOINTD_TARGET's)",
    )
    parser.add_argument("--prefix", default="", help="only threads whose ids begin with this")
    parser.add_argument("--thread", action="append", metavar="ID", help="only this thread; may be given several times")
    parser.add_argument("--apply", action="store_true", help="rewrite the threads")
    return parser


def _saver(name: str) -> GrpcSaver:
    module, _, attribute = name.partition(":")
    if not attribute:
        raise TypeError(f"{name!r} names nothing in a module; use package.module:name")
    found: Any = importlib.import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    if isinstance(found, StateHooks):
        return GrpcSaver(hooks=found)
    saver = found if isinstance(found, GrpcSaver) else found() if callable(found) else found
    if not isinstance(saver, GrpcSaver):
        raise TypeError(f"{name!r} is neither a GrpcSaver, nor returns one, nor is it StateHooks")
    return saver


def _migrate(saver: GrpcSaver, given: argparse.Namespace) -> int:
    outcomes: Counter[str] = Counter()
    checkpoints = 0
    for thread in saver.threads.migrate(prefix=given.prefix, thread_ids=given.thread, dry_run=not given.apply):
        outcomes[thread.outcome] += 1
        checkpoints += thread.checkpoints
        if thread.outcome != "current":
            told = f": {thread.error}" if thread.error is not None else ""
            print(f"{thread.outcome:8}  {thread.checkpoints:5}  {thread.thread_id}{told}")
    counts = ", ".join(f"{outcomes[outcome]} {outcome}" for outcome in OUTCOMES if outcomes[outcome])
    print(f"threads: {counts or 'none'}; checkpoints: {checkpoints}")
    if outcomes["pending"]:
        print("nothing was changed; --apply rewrites them")
    return 1 if outcomes.keys() & {"busy", "archived", "failed"} else 0


if __name__ == "__main__":
    sys.exit(main())
