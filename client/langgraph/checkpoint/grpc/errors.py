"""Errors of a saver and of a store.

    CheckpointdError
    ├── InvalidArgumentError (ValueError)      an argument can't be used as it is
    ├── WriteConflictError                     another run is in the way of this one
    │   ├── VersionConflictError               it wrote to the thread first
    │   │   └── PredecessorMissingError        what this write builds on was refused, or never arrived
    │   ├── LeaseHeldError                     it holds the lease on the thread
    │   └── LeaseLostError                     the lease that this run held has ended
    ├── ThreadArchivedError                    the thread is read-only until it is brought back
    ├── ThreadPinnedError                      nothing of the thread may be deleted until it is unpinned
    ├── ThreadNotFoundError (LookupError)      there is no such thread
    ├── ThreadExistsError                      the target of a copy holds checkpoints already
    ├── CheckpointNotFoundError (LookupError)  the checkpoint to fork at is not there
    ├── EncryptionError                        a stored value can't be read as what this saver would have written
    │   ├── PlaintextError                     it isn't encrypted, where encryption is required
    │   ├── UnknownKeyError                    it is encrypted with a key that this saver doesn't have
    │   └── TamperedValueError                 it was changed, cut or moved, or the key of that name is another one
    ├── SerializerMismatchError                the thread was written by another serializer than this saver's
    ├── UnportableValueError (TypeError)       PortableSerializer can't carry a value to LangGraph.js
    ├── InvalidStateError (ValueError)         a state hook refuses what is about to be stored
    ├── StateVersionError                      a state is newer than this code
    ├── StateMigrationError                    a state hook failed to bring an old state to today's version
    ├── ItemConflictError                      another writer changed the item of a store
    ├── VectorsUnavailableError                the server's database has no vectors
    ├── CorruptValueError                      a stored value, or an answer, isn't what can have been stored
    ├── BaseMissingError                       what a value builds on is not stored; sent again whole by the saver
    ├── MessageTooLargeError                   a request or an answer doesn't fit into a message
    ├── QuotaExceededError                     the tenant has as many bytes or threads as it may have
    ├── AccessDeniedError (PermissionError)    no token, a wrong one, or one that may not do this
    ├── UnsupportedError (NotImplementedError) the server is too old for this call
    ├── ServerUnavailableError (ConnectionError)  no server answered within the retry budget
    ├── DeadlineExceededError (TimeoutError)   the server didn't answer in time
    └── ServerError                            anything else that the server reports

An absent checkpoint is never an error, and an error is never shown as an absent checkpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class CheckpointdError(Exception):
    """Base of every error that a saver raises on purpose."""


class InvalidArgumentError(CheckpointdError, ValueError):
    """An argument can't be used as it is. Nothing was stored.

    Attributes:
        field: The argument, as the protocol names it, e.g. "thread_id".
        limit: The limit that was exceeded, or None.
    """

    def __init__(self, message: str, *, field: str = "", limit: int | None = None) -> None:
        super().__init__(message)
        self.field = field
        self.limit = limit


class WriteConflictError(CheckpointdError):
    """Another run is in the way of this one: it wrote to the thread, or it has or may have the lease on it.

    Nothing of the refused write was stored, and nothing else is the matter: run the turn again.

    Attributes:
        thread_id: The thread.
    """

    thread_id: str


class VersionConflictError(WriteConflictError):
    """Another run wrote to the thread after this one had read it. Nothing of this run's write was stored.

    Attributes:
        thread_id: The thread.
        checkpoint_ns: The namespace within it; "" is the root graph.
        expected_version: The version that this run had read or made last, 0 if there was nothing.
        current_version: The version that the server found, 0 if the thread was deleted.
        current_checkpoint_id: The checkpoint written last, or None if nothing is there.
    """

    def __init__(
        self,
        *,
        thread_id: str,
        checkpoint_ns: str,
        expected_version: int,
        current_version: int,
        current_checkpoint_id: str | None,
    ) -> None:
        self.thread_id = thread_id
        self.checkpoint_ns = checkpoint_ns
        self.expected_version = expected_version
        self.current_version = current_version
        self.current_checkpoint_id = current_checkpoint_id
        where = f"thread {thread_id!r}" + (f", namespace {checkpoint_ns!r}," if checkpoint_ns else "")
        super().__init__(
            f"{where} {self._happened()} This run's write was not stored. Run the turn again to start from the "
            "thread's present state, hold a lease while a run is under way, or build the saver with "
            'concurrency="last_write_wins" to let runs overwrite each other.'
        )

    def _happened(self) -> str:
        if not self.current_version:
            return f"was deleted while this run was under way (it last saw version {self.expected_version})."
        return (
            f"was written to by another run: this run last saw version {self.expected_version}, the thread is now at "
            f"version {self.current_version} (checkpoint {self.current_checkpoint_id})."
        )

    def __reduce__(self) -> tuple[Callable[..., VersionConflictError], tuple[object, ...]]:
        # Exceptions with keyword-only arguments can't be pickled by default, and nodes may run in other processes.
        return _unpickle_conflict, (
            type(self),
            self.thread_id,
            self.checkpoint_ns,
            self.expected_version,
            self.current_version,
            self.current_checkpoint_id,
        )


class PredecessorMissingError(VersionConflictError):
    """A write builds on one of the same run that was refused, or never arrived. Nothing of it was stored."""

    def _happened(self) -> str:
        return (
            "lacks what this run's write builds on: the write before it was refused, or never arrived (the thread is "
            f"at version {self.current_version}, checkpoint {self.current_checkpoint_id})."
        )


def _unpickle_conflict(
    kind: type[VersionConflictError],
    thread_id: str,
    checkpoint_ns: str,
    expected_version: int,
    current_version: int,
    current_checkpoint_id: str | None,
) -> VersionConflictError:
    return kind(
        thread_id=thread_id,
        checkpoint_ns=checkpoint_ns,
        expected_version=expected_version,
        current_version=current_version,
        current_checkpoint_id=current_checkpoint_id,
    )


class LeaseHeldError(WriteConflictError):
    """Another holds the lease on the thread: a write was not stored, or the lease was not free in time.

    Attributes:
        thread_id: The thread.
        remaining: How long the other's lease lives without a renewal, in seconds; None where that isn't known.
        waited: How long this caller waited for the lease, in seconds; None if it was a write that was refused.
    """

    def __init__(
        self, *, thread_id: str, remaining: float | None = None, waited: float | None = None, here: bool = False
    ) -> None:
        self.thread_id = thread_id
        self.remaining = remaining
        self.waited = waited
        self._here = here
        lives = "" if remaining is None else f", which lives {remaining:.1f} s unless it is renewed"
        if here:
            message = (
                f"this block of code holds the lease on thread {thread_id!r} already: it can't wait for itself. "
                "Take the lease once, around all that should be under it."
            )
        elif waited is not None:
            message = (
                f"the lease on thread {thread_id!r} was not free within {waited:g} s: another holds it{lives}, or is "
                "first in line. Try again later, or wait for longer."
            )
        else:
            message = (
                f"thread {thread_id!r} was not written to: another holds the lease on it{lives}. To write when it is "
                "free, run the turn inside `with saver.lease(thread_id):`, which waits for it."
            )
        super().__init__(message)

    def __reduce__(self) -> tuple[Callable[..., LeaseHeldError], tuple[object, ...]]:
        return _unpickle_held, (self.thread_id, self.remaining, self.waited, self._here)


def _unpickle_held(thread_id: str, remaining: float | None, waited: float | None, here: bool) -> LeaseHeldError:
    return LeaseHeldError(thread_id=thread_id, remaining=remaining, waited=waited, here=here)


class LeaseLostError(WriteConflictError):
    """The lease under which this run writes has ended. The write was not stored.

    Attributes:
        thread_id: The thread.
    """

    def __init__(self, *, thread_id: str) -> None:
        self.thread_id = thread_id
        super().__init__(
            f"the lease on thread {thread_id!r} has ended under this run, which was paused or cut off from the server "
            "for longer than the lease's time to live, or went on after its block. What it wrote since was not stored. "
            "Take the lease again and run the turn again, from the thread's present state."
        )

    def __reduce__(self) -> tuple[Callable[..., LeaseLostError], tuple[object, ...]]:
        return _unpickle_lost, (self.thread_id,)


def _unpickle_lost(thread_id: str) -> LeaseLostError:
    return LeaseLostError(thread_id=thread_id)


class ThreadArchivedError(CheckpointdError):
    """The thread is archived, and so read-only: `saver.threads.unarchive` brings it back. Nothing was stored."""


class ThreadPinnedError(CheckpointdError):
    """The thread is pinned: `saver.threads.unpin` allows deletions again. Nothing was deleted."""


class ThreadNotFoundError(CheckpointdError, LookupError):
    """There is no such thread."""


class ThreadExistsError(CheckpointdError):
    """The target of a copy holds checkpoints already. Nothing was copied."""


class CheckpointNotFoundError(CheckpointdError, LookupError):
    """The checkpoint to fork at is not in the thread. Nothing was copied."""


class EncryptionError(CheckpointdError):
    """A stored value can't be read as what this saver would have written. Nothing of it was returned.

    Attributes:
        thread_id: The thread that it was read from.
        place: What it is, e.g. "channel 'messages'".
    """

    def __init__(self, message: str, *, thread_id: str, place: str) -> None:
        super().__init__(message)
        self.thread_id = thread_id
        self.place = place

    def __reduce__(self) -> tuple[Callable[..., EncryptionError], tuple[object, ...]]:
        return _unpickle_encryption, (type(self), str(self), self.thread_id, self.place)


def _unpickle_encryption(kind: type[EncryptionError], message: str, thread_id: str, place: str) -> EncryptionError:
    return kind(message, thread_id=thread_id, place=place)


class PlaintextError(EncryptionError):
    """A stored value isn't encrypted, and this saver requires that it is."""


class UnknownKeyError(EncryptionError):
    """A stored value is encrypted with a key that this saver doesn't have."""


class TamperedValueError(EncryptionError):
    """A stored value was changed, cut or moved since it was encrypted, or the key of that name is another one."""


class CorruptValueError(CheckpointdError):
    """A stored value can't be read, or an answer isn't what a server can have stored. Nothing of it was returned."""


class BaseMissingError(CheckpointdError):
    """The base of a value is not stored, or may not be built on any further. Nothing was stored.

    The saver sends such a write again, with its values whole.

    Attributes:
        thread_id: The thread written to.
        channel: The channel whose value it is.
    """

    def __init__(self, *, thread_id: str, channel: str) -> None:
        self.thread_id = thread_id
        self.channel = channel
        super().__init__(f"thread {thread_id!r}, channel {channel!r}: what the value builds on is not stored")

    def __reduce__(self) -> tuple[Callable[..., BaseMissingError], tuple[object, ...]]:
        return _unpickle_base, (self.thread_id, self.channel)


def _unpickle_base(thread_id: str, channel: str) -> BaseMissingError:
    return BaseMissingError(thread_id=thread_id, channel=channel)


class MessageTooLargeError(CheckpointdError):
    """A request or an answer doesn't fit into a message. Nothing was stored."""


class QuotaExceededError(CheckpointdError):
    """The tenant has as many bytes or threads as it may have. Nothing was stored; reads and deletions go on.

    Attributes:
        field: What it has too much of: "bytes" or "threads".
        limit: How much it may have.
        used: How much it has.
    """

    def __init__(self, message: str, *, field: str = "", limit: int | None = None, used: int | None = None) -> None:
        super().__init__(message)
        self.field = field
        self.limit = limit
        self.used = used


class AccessDeniedError(CheckpointdError, PermissionError):
    """The server wants a token, doesn't accept this one, or the token doesn't allow the call."""


class UnsupportedError(CheckpointdError, NotImplementedError):
    """The server is too old for this call."""


class ServerUnavailableError(CheckpointdError, ConnectionError):
    """No server answered within the retry budget. A write may or may not have been stored."""


class DeadlineExceededError(CheckpointdError, TimeoutError):
    """The server didn't answer in time. A write may or may not have been stored."""


class ServerError(CheckpointdError):
    """Anything else that the server reports.

    Attributes:
        code: The gRPC status code's name, e.g. "INTERNAL".
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[Callable[..., ServerError], tuple[object, ...]]:
        return _unpickle_server_error, (str(self), self.code)


def _unpickle_server_error(message: str, code: str) -> ServerError:
    return ServerError(message, code=code)


def again(error: CheckpointdError) -> CheckpointdError:
    """Returns a copy of an error, to raise it again without its traceback, whose frames keep objects alive."""
    copied = error.__class__.__new__(error.__class__, *error.args)
    copied.args = error.args
    copied.__dict__.update(error.__dict__)
    return copied
