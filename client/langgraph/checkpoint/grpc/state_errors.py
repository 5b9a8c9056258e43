"""Errors of state hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langgraph.checkpoint.grpc.errors import CheckpointdError

if TYPE_CHECKING:
    from collections.abc import Callable


class InvalidStateError(CheckpointdError, ValueError):
    """The hook `validate` refuses a value. Nothing of the save was stored. What the hook raised is the cause.

    Attributes:
        thread_id: The thread written to.
        checkpoint_ns: The namespace within it; "" is the root graph.
        channel: The channel whose value it is.
    """

    def __init__(self, *, thread_id: str, checkpoint_ns: str, channel: str, reason: str) -> None:
        self.thread_id = thread_id
        self.checkpoint_ns = checkpoint_ns
        self.channel = channel
        self._reason = reason
        super().__init__(
            f"thread {thread_id!r}, channel {channel!r}: the value may not be stored: `validate` raised {reason}"
        )

    def __reduce__(self) -> tuple[Callable[..., InvalidStateError], tuple[object, ...]]:
        return _unpickle_invalid_state, (self.thread_id, self.checkpoint_ns, self.channel, self._reason)


def _unpickle_invalid_state(thread_id: str, checkpoint_ns: str, channel: str, reason: str) -> InvalidStateError:
    return InvalidStateError(thread_id=thread_id, checkpoint_ns=checkpoint_ns, channel=channel, reason=reason)


class StateVersionError(CheckpointdError):
    """A state was stored by newer code, and this code doesn't know its version. Nothing of it was returned.

    Attributes:
        thread_id: The thread.
        checkpoint_id: The checkpoint.
        version: The version of its state.
        known: The newest version that this saver's hooks know.
    """

    def __init__(self, *, thread_id: str, checkpoint_id: str, version: int, known: int) -> None:
        self.thread_id = thread_id
        self.checkpoint_id = checkpoint_id
        self.version = version
        self.known = known
        super().__init__(
            f"thread {thread_id!r}, checkpoint {checkpoint_id!r}: its state has version {version}, this code knows "
            f"versions up to {known}: run the newer code"
        )

    def __reduce__(self) -> tuple[Callable[..., StateVersionError], tuple[object, ...]]:
        return _unpickle_state_version, (self.thread_id, self.checkpoint_id, self.version, self.known)


def _unpickle_state_version(thread_id: str, checkpoint_id: str, version: int, known: int) -> StateVersionError:
    return StateVersionError(thread_id=thread_id, checkpoint_id=checkpoint_id, version=version, known=known)


class StateMigrationError(CheckpointdError):
    """The hook `migrate` failed. Nothing of the state was returned. What the hook raised is the cause.

    Attributes:
        thread_id: The thread.
        checkpoint_id: The checkpoint.
        version: The version that its state was stored with, 0 if without one.
    """

    def __init__(self, *, thread_id: str, checkpoint_id: str, version: int, reason: str) -> None:
        self.thread_id = thread_id
        self.checkpoint_id = checkpoint_id
        self.version = version
        self._reason = reason
        super().__init__(
            f"thread {thread_id!r}, checkpoint {checkpoint_id!r}: `migrate` raised {reason} for its state of version "
            f"{version}"
        )

    def __reduce__(self) -> tuple[Callable[..., StateMigrationError], tuple[object, ...]]:
        return _unpickle_migration, (self.thread_id, self.checkpoint_id, self.version, self._reason)


def _unpickle_migration(thread_id: str, checkpoint_id: str, version: int, reason: str) -> StateMigrationError:
    return StateMigrationError(thread_id=thread_id, checkpoint_id=checkpoint_id, version=version, reason=reason)
