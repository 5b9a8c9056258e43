"""Environment variables that look as if they were meant for checkpointd, and that nothing reads."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import click
import structlog

_PREFIX = "CHECKPOINTD_"
_OF_TESTS = ("CHECKPOINTD_TEST_", "CHECKPOINTD_FUZZ_")
"""How the variables begin that checkpointd's own tests read."""
_SERVICE_HOST = "_SERVICE_HOST"

_log = structlog.get_logger(__name__)


def variables_of(commands: Iterable[click.Command]) -> set[str]:
    """Returns the environment variables that these commands read, and the commands below them."""
    found: set[str] = set()
    for command in commands:
        for option in command.params:
            found.update([option.envvar] if isinstance(option.envvar, str) else option.envvar or ())
        if isinstance(command, click.Group):
            found |= variables_of(command.commands.values())
    return found


def known_variables() -> set[str]:
    """Returns the environment variables that the command under way and those beside it read."""
    return variables_of([click.get_current_context().find_root().command])


def warn_of_unknown(present: Iterable[str], known: Iterable[str]) -> None:
    """Logs each variable that begins as ours do and that nothing knows: by its name, never with its value.

    Args:
        present: The names of the environment.
        known: The names that some command reads.
    """
    present = sorted(set(present))
    # Kubernetes describes each service to all pods beside it. One may well be called checkpointd.
    services = [name.removesuffix(_SERVICE_HOST) for name in present if name.endswith(_SERVICE_HOST)]
    described = tuple(f"{service}_{part}" for service in services for part in ("SERVICE_", "PORT"))
    by_ending = {name.removeprefix(_PREFIX): name for name in known}
    for name in present:
        if not name.startswith(_PREFIX) or name.startswith((*_OF_TESTS, *described)) or name in by_ending.values():
            continue
        # All begin alike: what they have in common would make any two of them look close.
        close = difflib.get_close_matches(name.removeprefix(_PREFIX), by_ending, n=1)
        hint = {"did_you_mean": by_ending[close[0]]} if close else {}
        _log.warning("an environment variable has no effect: checkpointd doesn't know it", variable=name, **hint)
