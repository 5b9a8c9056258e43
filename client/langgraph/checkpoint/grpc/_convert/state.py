"""Application of state hooks, before states are stored and after they are loaded."""

from __future__ import annotations

import copy
import inspect
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from hashlib import blake2b
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.grpc._convert.arguments import checkpoint_id, namespace
from langgraph.checkpoint.grpc.state_errors import InvalidStateError, StateMigrationError, StateVersionError
from langgraph.checkpoint.grpc.state_hooks import VERSION_KEY, StateHooks, StatePlace, is_reserved
from langgraph.checkpoint.serde.types import TASKS, _DeltaSnapshot

_START = "__start__"
_NO_WRITES = "__no_writes__"
"""The channel to which LangGraph writes for a task without writes, so it counts as done."""
_MARK = "~s"
"""Separates the original version from the suffix in the version of a migrated channel value."""
_NO_VERSION = f"{0:032}.{0:017}"
MAX_CURRENT = 10_000
"""Number of checkpoints that are remembered as being of the current version."""


class StateFilter:
    """Applies a saver's hooks.

    A state that was migrated when it was loaded is stored with the run's first put. Until then its values are only in
    memory, so their channels get new versions when they are loaded. LangGraph passes these on from checkpoint to
    checkpoint, and a put on a parent that isn't known to be of the current version stores them.

    Args:
        hooks: The hooks.
    """

    def __init__(self, hooks: StateHooks) -> None:
        self._hooks = hooks
        self._exclude = frozenset(hooks.exclude)
        self._current: OrderedDict[tuple[str, str, str], None] = OrderedDict()
        self._lock = threading.Lock()

    # To the server.

    def outgoing(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> tuple[Checkpoint, CheckpointMetadata, ChannelVersions]:
        """Returns what to store of a put. Raises InvalidStateError."""
        key = namespace(config)
        values, versions = checkpoint.get("channel_values") or {}, checkpoint.get("channel_versions") or {}
        if self._hooks.version:
            metadata = cast(CheckpointMetadata, {**metadata, VERSION_KEY: self._hooks.version})
            if self._hooks.migrate is not None:
                if not self._is_current((*key, checkpoint_id(config))):
                    new_versions = {**new_versions, **made_by_migration(versions)}
                self._note_current((*key, checkpoint.get("id", "")))
        self.check(config, checkpoint, new_versions)
        if self._exclude:
            values = {
                channel: self._stripped(channel, value)
                for channel, value in values.items()
                if channel not in self._exclude
            }
            checkpoint = cast(Checkpoint, {**checkpoint, "channel_values": values})
        return checkpoint, metadata, new_versions

    def check(self, config: RunnableConfig, checkpoint: Checkpoint, new_versions: ChannelVersions) -> None:
        """Raises InvalidStateError if a value of these channels may not be stored."""
        if self._hooks.validate is not None:
            values = checkpoint.get("channel_values") or {}
            for channel in new_versions:
                if channel in values:
                    self._validate(namespace(config), channel, values[channel])

    def outgoing_writes(self, config: RunnableConfig, writes: Sequence[tuple[str, Any]]) -> Sequence[tuple[str, Any]]:
        """Returns what to store of a task's writes. Raises InvalidStateError."""
        if self._hooks.validate is not None:
            key = namespace(config)
            for channel, value in writes:
                self._validate(key, channel, value)
        if not self._exclude:
            return writes
        left = [(channel, self._stripped(channel, value)) for channel, value in writes if channel not in self._exclude]
        # Otherwise the task would count as not run.
        return left if left or not writes else [(_NO_WRITES, None)]

    def _validate(self, key: tuple[str, str], channel: str, value: Any) -> None:
        validate = self._hooks.validate
        assert validate is not None
        if channel == _START:
            for name, item in (_fields(value) or {}).items():
                self._validate(key, str(name), item)
        elif not is_reserved(channel) and channel not in self._exclude:
            try:
                validate(channel, value)
            except Exception as error:
                raise InvalidStateError(
                    thread_id=key[0], checkpoint_ns=key[1], channel=channel, reason=type(error).__name__
                ) from error

    def _stripped(self, channel: str, value: Any) -> Any:
        """Returns a value of one of LangGraph's own channels without parts of excluded channels."""
        if channel == _START:
            return self._without(value)
        if channel == TASKS:
            return [self._sent(item) for item in value] if isinstance(value, list | tuple) else self._sent(value)
        return value

    def _sent(self, send: Any) -> Any:
        if not hasattr(send, "arg"):
            return send
        argument = self._without(send.arg)
        if argument is send.arg:
            return send
        stripped = copy.copy(send)
        stripped.arg = argument
        return stripped

    def _without(self, state: Any) -> Any:
        fields = _fields(state)
        if fields is None or self._exclude.isdisjoint(fields):
            return state
        return {name: item for name, item in fields.items() if name not in self._exclude}

    # From the server.

    def loaded(self, saved: CheckpointTuple) -> CheckpointTuple:
        """Returns a checkpoint with its state in the current version. Raises StateVersionError, StateMigrationError."""
        today = self._hooks.version
        if not today:
            return saved
        key = namespace(saved.config)
        own_id, found = saved.checkpoint["id"], version_of(saved.metadata)
        if found == today or (self._hooks.migrate is None and found < today):
            self._note_current((*key, own_id))
            return saved
        if found > today:
            raise StateVersionError(thread_id=key[0], checkpoint_id=own_id, version=found, known=today)
        return self._migrated(
            saved,
            StatePlace(
                thread_id=key[0],
                checkpoint_ns=key[1],
                checkpoint_id=own_id,
                version=found,
                metadata=saved.metadata,
            ),
        )

    async def aloaded(self, found: AsyncIterator[CheckpointTuple]) -> AsyncIterator[CheckpointTuple]:
        """Yields what `loaded` makes of checkpoints."""
        async for saved in found:
            yield self.loaded(saved)

    def _migrated(self, saved: CheckpointTuple, place: StatePlace) -> CheckpointTuple:
        assert self._hooks.migrate is not None
        checkpoint = saved.checkpoint
        values, versions = checkpoint["channel_values"], checkpoint["channel_versions"]
        state = {channel: value for channel, value in values.items() if _is_state(channel, value)}
        given = frozenset(state)
        try:
            made = dict(self._hooks.migrate(state, place))
            if wrong := next((name for name in made if not isinstance(name, str) or is_reserved(name)), None):
                raise ValueError(f"{wrong!r} is no channel of a state")
        except Exception as error:
            raise StateMigrationError(
                thread_id=place.thread_id,
                checkpoint_id=place.checkpoint_id,
                version=place.version,
                reason=type(error).__name__,
            ) from error
        mark = f"{_MARK}{self._hooks.version}-{blake2b(place.checkpoint_id.encode(), digest_size=6).hexdigest()}"
        # Versions of other types can't be compared with those made here: then all become texts.
        all_texts = all(isinstance(version, str) for version in versions.values())
        renamed: dict[str, dict[Any, Any]] = {}
        new_versions: dict[str, Any] = {}
        for channel, version in versions.items():
            if channel in made or (channel not in given and not all_texts):
                renamed[channel] = {version: f"{_text(version)}{mark}"}
                version = renamed[channel][version]
            if channel in made or channel not in given:
                new_versions[channel] = version
        for channel in made:
            new_versions.setdefault(channel, f"{_NO_VERSION}{mark}")
        migrated = cast(
            Checkpoint,
            {
                **checkpoint,
                "channel_values": {name: item for name, item in values.items() if name not in given} | made,
                "channel_versions": new_versions,
                "versions_seen": _seen(checkpoint["versions_seen"], renamed, new_versions, all_texts),
            },
        )
        return saved._replace(checkpoint=migrated)

    def _is_current(self, place: tuple[str, str, str]) -> bool:
        with self._lock:
            return place in self._current

    def _note_current(self, place: tuple[str, str, str]) -> None:
        with self._lock:
            self._current[place] = None
            if len(self._current) > MAX_CURRENT:
                self._current.popitem(last=False)


def version_of(metadata: Mapping[str, Any]) -> int:
    """Returns the version of the state that a checkpoint with this metadata has; 0: none."""
    found = metadata.get(VERSION_KEY)
    return found if type(found) is int and found > 0 else 0


def _is_state(channel: str, value: Any) -> bool:
    """Returns whether a value is migrated. A delta channel's isn't: it consists of writes, which aren't changed."""
    return not is_reserved(channel) and not isinstance(value, _DeltaSnapshot)


def made_by_migration(versions: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the channels with migrated values, with their versions."""
    return {channel: version for channel, version in versions.items() if isinstance(version, str) and _MARK in version}


def _text(version: Any) -> str:
    """Returns the prefix of a new version: a text that sorts like the old version."""
    if isinstance(version, str):
        return version.partition(_MARK)[0]
    return f"{int(version):032}.{0:017}"


def _seen(
    seen: Mapping[str, Any], renamed: Mapping[str, Mapping[Any, Any]], versions: Mapping[str, Any], all_texts: bool
) -> dict[str, Any]:
    """Returns the versions that each node has seen, updated so the migration triggers no node."""
    result: dict[str, Any] = {}
    for node, found in seen.items():
        result[node] = of_node = {}
        for channel, version in found.items():
            other = version if all_texts else _text(version)
            of_node[channel] = renamed.get(channel, {}).get(version, other)
        if of_node:
            of_node.update(
                (channel, version)
                for channel, version in versions.items()
                if channel not in found and version.startswith(_NO_VERSION)
            )
    return result


def _fields(state: Any) -> Mapping[str, Any] | None:
    """Returns a state's values by channel. None: unknown."""
    if isinstance(state, Mapping):
        return state
    names = [name for kind in type(state).__mro__ for name in inspect.get_annotations(kind)]
    names += getattr(type(state), "model_fields", ())
    if not names:
        return None
    given: Collection[str] = getattr(state, "model_fields_set", ())
    return {
        name: item for name in dict.fromkeys(names) if (item := getattr(state, name, None)) is not None or name in given
    }
