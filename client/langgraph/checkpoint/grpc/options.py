"""Options of the connections to a server."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from langgraph.checkpoint.grpc._transport.proxies import is_local, proxy_variable
from langgraph.checkpoint.grpc._transport.tuning import Tuning
from langgraph.checkpoint.grpc.errors import InvalidArgumentError
from langgraph.checkpoint.grpc.tls import TlsOptions

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

Concurrency = Literal["optimistic", "last_write_wins"]
"""The rule for two runs that write to one thread: the later one is refused, or it overwrites the other."""

DEFAULT_TARGET = "127.0.0.1:50051"
"""The address of a server that was started without options."""

DEFAULT_CACHE_BYTES = 32 * 1024 * 1024
"""How much of large states a saver keeps, in bytes."""


LONGEST = 24 * 86_400.0
"""The longest time that can be given, in seconds: grpc counts milliseconds in 31 bits."""

_SCHEMES = re.compile(r"(unix|unix-abstract|vsock|dns|ipv4|ipv6|xds|google-c2p):.")
"""How the targets begin that grpc resolves by themselves."""
_SENDABLE = re.compile(r"[ -~]*")
"""The characters that a header can hold."""
_TRUE, _FALSE = {"1", "true", "t", "yes", "y", "on"}, {"", "0", "false", "f", "no", "n", "off"}
"""Accepted values of an environment variable: those of the commands."""


@dataclass(frozen=True, kw_only=True)
class ClientOptions:
    """Options of the connections to a server. Every field but `tuning` can be given to GrpcSaver by its name."""

    target: str
    """The server: "host:port", "unix:path", or any other name that grpc resolves. Several of them, separated by commas,
    are replicas: calls go round, and past those that are away."""
    token: str | Callable[[], str] | None = field(default=None, repr=False)
    """Sent as `authorization: Bearer ...` with each call. A callable is asked before each call, so it can refresh."""
    insecure_token: bool = False
    """True if a token may leave the machine in plain text. Never through a proxy of the environment."""
    tls: bool | TlsOptions = False
    """True for TLS with the authorities that grpc trusts, TlsOptions for others, False for plain text."""
    timeout: float = 30.0
    """How long one attempt of a call may take, in seconds."""
    retry_budget: float = 30.0
    """How long calls are tried again while the server is unavailable, in seconds; 0: not at all."""
    keepalive: float = 20.0
    """How often a connection with calls under way is pinged, in seconds; a dead one is noticed this much later. The
    server accepts pings every 10 seconds and more seldom."""
    cache_bytes: int = DEFAULT_CACHE_BYTES
    """How much of large states is kept in memory, so that what was sent or received once needn't be received again."""
    tracing: bool | TracerProvider = False
    """True if calls are traced by OpenTelemetry: with its global tracer provider, or this one."""
    concurrency: Concurrency = "optimistic"
    """"optimistic": a run that was overtaken gets VersionConflictError. "last_write_wins": it overwrites."""
    tuning: Tuning = field(default=Tuning(), repr=False)
    """Times and bounds that GrpcSaver takes from its class."""

    def __post_init__(self) -> None:
        self._check_target()
        if not isinstance(self.tls, bool | TlsOptions):
            raise InvalidArgumentError(
                f"tls: must be True, False or TlsOptions, not {type(self.tls).__name__}; a file of authorities goes "
                "into TlsOptions(root_certificates=Path(...).read_bytes())",
                field="tls",
            )
        for name in ("timeout", "keepalive"):
            self._check_number(name, "a number of seconds")
            if not 0 < getattr(self, name) <= LONGEST:
                raise InvalidArgumentError(
                    f"{name}: must be more than 0 seconds and at most {LONGEST:g} ({LONGEST / 86_400:g} days)",
                    field=name,
                )
        self._check_number("retry_budget", "a number of seconds")
        if not self.retry_budget >= 0:
            raise InvalidArgumentError("retry_budget: must be 0 seconds or more", field="retry_budget")
        self._check_number("cache_bytes", "a number of bytes")
        if not self.cache_bytes >= 0:
            raise InvalidArgumentError("cache_bytes: must be 0 bytes or more", field="cache_bytes")
        if self.concurrency not in ("optimistic", "last_write_wins"):
            raise InvalidArgumentError(
                f'concurrency: {self.concurrency!r} is neither "optimistic" nor "last_write_wins"', field="concurrency"
            )
        if not callable(self.token):
            object.__setattr__(self, "token", _usable(self.token, "a text, or a callable that returns one"))
        if not isinstance(self.insecure_token, bool):
            raise InvalidArgumentError(
                f"insecure_token: must be True or False, not {type(self.insecure_token).__name__}",
                field="insecure_token",
            )
        for target in self.targets:
            self.check_token(target)

    @property
    def exposes_token(self) -> bool:
        """True if the token leaves the machine in plain text, as the user has allowed."""
        return bool(self.token) and not self.tls and not all(is_local(target) for target in self.targets)

    def check_token(self, target: str) -> None:
        """Raises InvalidArgumentError if the token would go where it must not: off the machine, or through a proxy."""
        if not self.token or self.tls or is_local(target):
            return
        if not self.insecure_token:
            raise InvalidArgumentError(
                f"token: would be sent in plain text to {target}; set tls=True, or insecure_token=True "
                "(CHECKPOINTD_INSECURE_TOKEN) if something else protects the network, such as a service mesh",
                field="token",
            )
        if (variable := proxy_variable(target)) is not None:
            raise InvalidArgumentError(
                f"token: would be sent in plain text through the proxy of the environment variable {variable}; "
                f"set tls=True, or add the host of {target} to no_proxy",
                field="token",
            )

    def _check_target(self) -> None:
        if not isinstance(self.target, str):
            raise InvalidArgumentError(
                f"target: must be a text like {DEFAULT_TARGET}, not {type(self.target).__name__}", field="target"
            )
        wrong = next((target for target in self.targets if not _is_address(target)), None)
        if wrong is not None:
            # What looks like a URL may hold a password.
            given = "what was given" if "@" in wrong or "?" in wrong else repr(wrong)
            raise InvalidArgumentError(
                f"target: {given} is not an address of a checkpointd; give host:port, like {DEFAULT_TARGET}, with a "
                "port up to 65535, or unix:path, or several of them, separated by commas",
                field="target",
            )

    def _check_number(self, name: str, what: str) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidArgumentError(f"{name}: must be {what}, not {type(value).__name__}", field=name)

    @property
    def targets(self) -> tuple[str, ...]:
        """The servers, each by itself."""
        if self.target.startswith(("ipv4:", "ipv6:")):
            # A list of addresses that grpc takes as it is.
            return (self.target,)
        return tuple(target.strip() for target in self.target.split(","))

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Returns what goes beside the next call. Raises InvalidArgumentError."""
        token = self.bearer()
        return (("authorization", f"Bearer {token}"),) if token else ()

    def bearer(self) -> str | None:
        """Returns the token for the next call, None for none. Raises InvalidArgumentError."""
        return _usable(self.token(), "a text, as what the callable returns") if callable(self.token) else self.token


def default_target() -> str:
    """Returns the target of a saver that was built without one: CHECKPOINTD_TARGET, or the server's default."""
    return os.environ.get("CHECKPOINTD_TARGET") or DEFAULT_TARGET


def default_token() -> str | None:
    """Returns the token of a saver that was built without one: CHECKPOINTD_TOKEN, or none."""
    return os.environ.get("CHECKPOINTD_TOKEN") or None


def default_insecure_token() -> bool:
    """Returns whether a saver that wasn't told may send its token in plain text: CHECKPOINTD_INSECURE_TOKEN, or no.

    Raises InvalidArgumentError if the variable is neither true nor false.
    """
    given = os.environ.get("CHECKPOINTD_INSECURE_TOKEN", "").strip().lower()
    if given not in _TRUE | _FALSE:
        raise InvalidArgumentError(
            "insecure_token: CHECKPOINTD_INSECURE_TOKEN must be true or false", field="insecure_token"
        )
    return given in _TRUE


def may_have_several_addresses(target: str) -> bool:
    """Returns whether one target can stand for several servers: a name may, and a list does."""
    if target.startswith(("ipv4:", "ipv6:")):
        return "," in target
    if target.startswith(("unix:", "unix-abstract:")):
        return False
    try:
        ipaddress.ip_address(urlsplit(f"//{target}").hostname or "")
    except ValueError:
        return True
    return False


def _usable(token: object, wanted: str) -> str | None:
    """Returns a token without the white space around it: a file ends in a newline. No message repeats any of it."""
    if token is None:
        return None
    if not isinstance(token, str):
        raise InvalidArgumentError(f"token: must be {wanted}, not {type(token).__name__}", field="token")
    token = token.strip()
    if not _SENDABLE.fullmatch(token):
        raise InvalidArgumentError(
            "token: holds a character that can't be sent, such as a line break; a token is one line of ASCII",
            field="token",
        )
    return token


def _is_address(target: str) -> bool:
    """Returns whether a target can be meant for grpc: a name with a scheme of grpc's, or host:port.

    grpc would take a name without a port for one with 443, and 65537 for 1.
    """
    if _SCHEMES.match(target):
        return "@" not in target
    match = re.fullmatch(r"(?:\[[0-9A-Fa-f:.%]+\]|[^:/@\s]+):([0-9]{1,5})", target)
    return match is not None and int(match[1]) <= 65535
