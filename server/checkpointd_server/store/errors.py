"""Failures of PostgreSQL and of the driver: one table from SQLSTATE to the domain's errors.

https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

import errno
import re
import resource
import ssl
from dataclasses import dataclass

import asyncpg

from checkpointd_server.domain.errors import (
    CheckpointdError,
    DatabaseFull,
    DatabaseUnavailable,
    DeadlineExceeded,
    InvalidArgument,
    Overloaded,
    SetupError,
)
from checkpointd_server.store.options import StoreOptions


class HostUnreachable(OSError):
    """A host that the database URL names can't be connected to.

    Attributes:
        host: Its name, address or folder.
        reason: The system's error message.
    """

    def __init__(self, host: str, cause: OSError) -> None:
        reason = "no answer" if isinstance(cause, TimeoutError) else _why_tls_fails(cause) or _words(cause)
        if isinstance(cause, FileNotFoundError) and re.fullmatch(r"[^/ ]+", host):
            # What isn't there is no socket.
            reason = "sslrootcert, or another file that the URL names, is not there"
        super().__init__(f"{host}: {reason}")
        self.host = host
        self.reason = reason
        self.__cause__ = cause


def _words(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _why_tls_fails(error: OSError) -> str | None:
    """Explains a failure of TLS. Returns None for other failures."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not to be trusted, see sslmode and sslrootcert ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"TLS fails ({error.reason})"
    if isinstance(error, ConnectionError) and "rejected SSL" in str(error):
        return "it speaks no TLS, for which the URL's sslmode asks"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The meaning of a failure."""

    error: CheckpointdError
    """The error for the caller if retries fail."""
    again: bool = True
    """True if retrying can help. Everything that the store does is safe to repeat."""
    once: bool = False
    """True to retry at most once."""
    waits: bool = False
    """True if it waited for a lock, and should wait again."""
    reconnect: bool = False
    """True if the connection, and older ones, are unusable."""
    pooled: bool = False
    """True if it reveals a pooler that doesn't support prepared statements."""


_LOST = "the connection to the database was lost"
_COLLIDED = "transactions kept colliding in the database; try again"
_UNPREPARED = "a pooler loses prepared statements: leave --statement-cache-size out, or set it to 0"
_SHORT = "the database is out of resources"

_UNAVAILABLE: dict[str, tuple[str, bool, bool]] = {
    # SQLSTATE or its class: message, again, reconnect.
    "08": (_LOST, True, True),
    "0A000": ("the database's schema was changed under way", True, True),  # a prepared statement's result type changed
    "23505": (_COLLIDED, True, False),  # two copies to one thread; a retry finds the other's rows
    "25006": ("the database is read-only: a standby, or failing over", True, True),
    "25P03": (_LOST, True, True),
    "25P04": ("the database's transaction_timeout is too short", False, True),
    "26000": (_UNPREPARED, True, True),
    "28": ("the database refuses the login", False, False),
    "3D000": ("the database is gone", False, False),
    "40001": (_COLLIDED, True, False),
    "40P01": (_COLLIDED, True, False),
    "42P05": (_UNPREPARED, True, True),
    "53": (_SHORT, False, False),
    "53300": ("the database has no connection left", True, False),
    "55000": ("the database takes no connections just now", False, True),  # ALTER DATABASE ... ALLOW_CONNECTIONS false
    "57P01": (_LOST, True, True),
    "57P02": (_LOST, True, True),
    "57P03": ("the database is starting up or shutting down", True, True),
    "57P04": ("the database is gone", False, True),
    "57P05": (_LOST, True, True),
    "58": ("the database has trouble with its files", False, False),
}

_UNSTORABLE = {"22000", "22003", "22021", "22P02", "22P05", "54000", "54001"}
"""SQLSTATEs of what PostgreSQL can't store: text it doesn't take (22000: the driver won't even send it), too large
numbers, too deep JSON."""


_URL_OPTIONS = {
    "sslmode": "disable, allow, prefer, require, verify-ca, verify-full",
    "sslnegotiation": "postgres, direct",
    "sslrootcert": "",
    "sslcert": "",
    "sslkey": "",
    "ssl_min_protocol_version": "",
    "ssl_max_protocol_version": "",
    "target_session_attrs": "any, primary, standby, prefer-standby, read-write, read-only",
}
"""Options that the driver may reject, and their valid values if these are few."""


_CONNECTION_GONE = re.compile(r"clos(ed|ing)|released|another operation")
"""The driver's errors for an unusable connection. Its other InterfaceErrors mean that we call it wrongly."""


_DENIED = re.compile(r"\b(table|sequence|function|schema) ([\w.]+)")
"""The denied object in PostgreSQL's English messages. In other languages, no object is named."""


def lacking_rights(what: str) -> str:
    """Returns the error that the server's role lacks rights, with advice."""
    return f"the database's role lacks rights ({what}): GRANT them, as docs/deploying.md lists them"


def judge(error: Exception, *, reads: bool = False) -> Verdict | None:
    """Returns the meaning of a failure. None: it isn't the database's, or it is a bug of ours.

    Args:
        error: The failure.
        reads: Whether nothing was to be stored. What a read asks by was looked at before; so what PostgreSQL can't make
            of it is what lies in the database, or our statement, and never the caller's.
    """
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        denied = _DENIED.search(str(error))
        what = f"on {denied[1]} {denied[2]}" if denied else "on a table, sequence or function"
        # Citus raises this occasionally while it moves a shard.
        return Verdict(error=DatabaseUnavailable(lacking_rights(what)), once=True)
    if isinstance(error, asyncpg.PostgresError):
        if reads and error.sqlstate in _UNSTORABLE:
            return None
        return _judge_sqlstate(error.sqlstate or "")
    if isinstance(error, OSError) and no_descriptor_left(error):
        # It isn't the database's failure: it is reachable, and its connections are usable.
        return Verdict(error=Overloaded("descriptors", limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0]))
    if isinstance(error, OSError):  # TimeoutError too: connecting took too long
        return Verdict(error=DatabaseUnavailable("the database can't be reached"), reconnect=True)
    if isinstance(error, asyncpg.InternalClientError):
        return Verdict(error=DatabaseUnavailable(_LOST), reconnect=True)
    if isinstance(error, asyncpg.InterfaceError) and _CONNECTION_GONE.search(str(error)):
        return Verdict(error=DatabaseUnavailable(_LOST), reconnect=True)
    return None


def no_descriptor_left(error: BaseException | None) -> bool:
    """Returns whether this process, or the whole system, has reached its limit of open files."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            return True
        error = error.__cause__
    return False


def _judge_sqlstate(sqlstate: str) -> Verdict | None:
    if sqlstate == "57014":  # statement_timeout, or an operator; our own cancellations never come here
        return Verdict(error=DeadlineExceeded("the database cancelled the statement"), again=False)
    if sqlstate == "55P03":  # our own lock_timeout
        return Verdict(error=DatabaseUnavailable(_COLLIDED), waits=True)
    if sqlstate == "53100":  # also where its quota is
        return Verdict(error=DatabaseFull(), again=False)
    if sqlstate in _UNSTORABLE:
        return Verdict(error=_unstorable(), again=False)
    rule = _UNAVAILABLE.get(sqlstate) or _UNAVAILABLE.get(sqlstate[:2])
    if rule is None:
        return None
    message, again, reconnect = rule
    pooled = message is _UNPREPARED
    return Verdict(error=DatabaseUnavailable(message), again=again, reconnect=reconnect, pooled=pooled)


def _unstorable() -> InvalidArgument:
    return InvalidArgument("request", "holds text, a number or a JSON structure that PostgreSQL can't store")


def is_worth_waiting(error: Exception) -> bool:
    """Returns whether a database that can't be reached at startup may just not be up yet."""
    if isinstance(error, asyncpg.PostgresError):
        return error.sqlstate in ("57P03", "53300") or (error.sqlstate or "").startswith("08")
    return isinstance(error, OSError | asyncpg.TargetServerAttributeNotMatched)


def explain_setup(error: Exception, options: StoreOptions) -> SetupError:
    """Returns an error that says what an operator must fix.

    It keeps only names from the driver's message, never the URL, which may contain a password.
    """
    if isinstance(error, SetupError):
        return error
    if isinstance(error, asyncpg.PostgresError):
        sqlstate = error.sqlstate or ""
        if sqlstate == "3D000":
            return SetupError("the database that the database URL names does not exist: create it, or correct the URL")
        if sqlstate.startswith("28"):
            return SetupError("the database refuses the login: check user and password in the database URL")
        if sqlstate == "42501":
            return SetupError(
                f"the database's user lacks the right to work on schema {options.schema!r}: let the schema's owner "
                "migrate it (`checkpointd migrate`), and GRANT its rights to this user, as docs/deploying.md lists them"
            )
        if sqlstate == "25006":
            return read_only()
        if sqlstate == "53100":
            return SetupError("the database's disk is full: make room, as docs/faults.md says")
        if sqlstate == "53300":
            return SetupError("the database has no connection left: raise its max_connections, or use smaller pools")
        return SetupError(f"the database answered with an error (SQLSTATE {sqlstate})")
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return SetupError("none of the hosts in the database URL is what its target_session_attrs asks for")
    if isinstance(error, OSError):
        return SetupError(
            f"the database can't be reached, tried for {options.startup_timeout:g} s: check host and port in the "
            f"database URL, and that it is up ({_reason(error)})"
        )
    option = _option_at_fault(error)
    if option is not None:
        return SetupError(f"the database URL can't be used: its option {option} is not what it can be")
    return SetupError(
        "the database URL can't be used: it should be postgresql://user:password@host:port/database?option=value, with "
        f"special characters percent-encoded ({type(error).__name__})"
    )


def _reason(error: OSError) -> str:
    if isinstance(error, HostUnreachable):
        return str(error)
    return _why_tls_fails(error) or _words(error)


def _option_at_fault(error: Exception) -> str | None:
    """Returns the URL's option that the driver rejects, without its message, which may quote a value."""
    if isinstance(error, asyncpg.ClientConfigurationError):
        for option, choices in _URL_OPTIONS.items():
            if option in str(error):
                return f"{option} (one of {choices})" if choices else option
    return None


def read_only() -> SetupError:
    """The database is read-only."""
    return SetupError(
        "the database is read-only, it may be a standby: name the primary in the database URL, or all hosts with "
        "target_session_attrs=primary"
    )
