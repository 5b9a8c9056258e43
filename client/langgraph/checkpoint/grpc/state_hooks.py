"""State hooks: they exclude parts of a graph's state from being stored, validate states, and migrate old ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from langgraph.checkpoint.grpc.errors import InvalidArgumentError

VERSION_KEY = "state_version"
"""The key of the state's version in a checkpoint's metadata."""
LARGEST_VERSION = 2**31 - 1

_RESERVED = ("__", "branch:to:")
"""Prefixes of the names of LangGraph's own channels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatePlace:
    """The place where a state is stored."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    version: int
    """The version that it was stored with. 0: it was stored without one."""
    metadata: Mapping[str, Any]

    @property
    def path(self) -> tuple[str, ...]:
        """The nodes whose subgraph the state belongs to, outermost first; empty for the root graph."""
        return tuple(name.partition(":")[0] for name in self.checkpoint_ns.split("|") if name)


@dataclass(frozen=True, kw_only=True)
class StateHooks:
    """Hooks that are called when states are stored and loaded.

    Example:
        ```python
        def migrate(state: dict[str, Any], place: StatePlace) -> dict[str, Any]:
            if place.version < 1:
                state["language"] = state.pop("lang", "en")
            return state

        hooks = StateHooks(exclude={"raw_documents"}, version=1, migrate=migrate)
        saver = GrpcSaver("127.0.0.1:50051", hooks=hooks)
        ```
    """

    exclude: Collection[str] = ()
    """Channels whose values are never stored: neither in checkpoints, nor in a run's input, task writes or arguments
    of `Send`. A run has them until it ends; readers of the thread find them empty."""
    validate: Callable[[str, Any], object] | None = None
    """Called with a channel's name and value before the value is stored, and with each value that a task or a run's
    input writes to the channel. If it raises, nothing is saved: InvalidStateError names the channel. Its result is
    ignored."""
    version: int = 0
    """The version of the states that this code writes, 1 or more. 0: states aren't versioned."""
    migrate: Callable[[dict[str, Any], StatePlace], Mapping[str, Any]] | None = None
    """Called with a state of an older version when it is loaded. It returns the state in the current version, and must
    return the same result for the same state. It may change the given dict. If subgraphs have states of their own, it
    must tell them apart by `place.path`."""

    def __post_init__(self) -> None:
        if isinstance(self.exclude, str) or not all(isinstance(name, str) for name in self.exclude):
            raise InvalidArgumentError("exclude: must be a collection of channels' names", field="exclude")
        if reserved := sorted(name for name in self.exclude if is_reserved(name)):
            raise InvalidArgumentError(
                f"exclude: {', '.join(reserved)}: LangGraph can't go on without its own channels", field="exclude"
            )
        object.__setattr__(self, "exclude", frozenset(self.exclude))
        if type(self.version) is not int or not 0 <= self.version <= LARGEST_VERSION:
            raise InvalidArgumentError(
                f"version: must be a whole number from 0 to {LARGEST_VERSION}", field="version", limit=LARGEST_VERSION
            )
        for name in ("validate", "migrate"):
            hook = getattr(self, name)
            if hook is not None and not callable(hook):
                raise InvalidArgumentError(f"{name}: must be callable, not {type(hook).__name__}", field=name)
        if self.migrate is not None and self.version == 0:
            raise InvalidArgumentError("migrate: needs a version to bring states to", field="version")


def is_reserved(channel: str) -> bool:
    """Returns whether a channel is one of LangGraph's own, not part of the user's state."""
    return channel.startswith(_RESERVED)
