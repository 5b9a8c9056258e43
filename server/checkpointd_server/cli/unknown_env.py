"""Warnings about CHECKPOINTD_ environment variables that nothing reads."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import click
import structlog

_PREFIX = "CHECKPOINTD_"
_OF_TESTS = ("CHECKPOINTD_TEST_", "CHECKPOINTD_FUZZ_")
"""Prefixes of variables that checkpointd's own tests read."""
_SERVICE_HOST = "_SERVICE_HOST"

_log = structlog.get_logger(__name__)


def variables_of(commands: Iterable[click.Command]) -> set[str]:
    """Returns the environment variables that these commands and their subcommands read."""
    found: set[str] = set()
    for command in commands:
        for option in command.params:
            found.update([option.envvar] if isinstance(option.envvar, str) else option.envvar or ())
        if isinstance(command, click.Group):
            found |= variables_of(command.commands.values())
    return found


def known_variables() -> set[str]:
    """Returns the environment variables that any command reads."""
    return variables_of([click.get_current_context().find_root().command])


def warn_of_unknown(present: Iterable[str], known: Iterable[str]) -> None:
    """Logs the name, never the value, of each variable that has our prefix and that nothing reads.

    Args:
        present: The names of the environment's variables.
        known: The names of variables that some command reads.
    """
    present = sorted(set(present))
    # Kubernetes sets variables for each service in the namespace, and one may be called checkpointd.
    services = [name.removesuffix(_SERVICE_HOST) for name in present if name.endswith(_SERVICE_HOST)]
    described = tuple(f"{service}_{part}" for service in services for part in ("SERVICE_", "PORT"))
    by_ending = {name.removeprefix(_PREFIX): name for name in known}
    for name in present:
        if not name.startswith(_PREFIX) or name.startswith((*_OF_TESTS, *described)) or name in by_ending.values():
            continue
        # Compared without the prefix, which would make any two of them similar.
        close = difflib.get_close_matches(name.removeprefix(_PREFIX), by_ending, n=1)
        hint = {"did_you_mean": by_ending[close[0]]} if close else {}
        _log.warning("an environment variable has no effect: checkpointd doesn't know it", variable=name, **hint)
