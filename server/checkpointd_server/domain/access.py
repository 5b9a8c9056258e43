"""Identities, scopes, and the server's options for both."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

DEFAULT_TENANT = "default"
"""The tenant of every call to a server without authentication."""


class Scope(StrEnum):
    """A permission of an identity on its tenant's threads and items."""

    READ = "read"
    """Read checkpoints, lists, histories and leases."""
    WRITE = "write"
    """Put checkpoints and task writes, copy threads, take leases."""
    DELETE = "delete"
    """Delete and prune threads and runs."""
    STORE_READ = "store:read"
    """Read and search items of long-term memory."""
    STORE_WRITE = "store:write"
    """Store and delete items of long-term memory."""
    ADMIN = "admin"
    """Everything above, and what only a tenant's administrator may do."""
    OPERATOR = "operator"
    """List, limit and purge all tenants, for the operators of the server. No other scope includes it."""


ALL_SCOPES = frozenset(Scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """An authenticated caller."""

    tenant: str
    """The tenant whose threads it works on."""
    subject: str
    """Its name in the log."""
    scopes: frozenset[Scope]
    """Its scopes. ADMIN includes everything that concerns one tenant."""

    def may(self, scope: Scope) -> bool:
        """Returns whether it has a scope."""
        return scope in self.scopes or (Scope.ADMIN in self.scopes and scope is not Scope.OPERATOR)


ANYBODY = Identity(tenant=DEFAULT_TENANT, subject="", scopes=ALL_SCOPES)
"""The caller of a server without authentication."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """The files for TLS, in PEM. They are reloaded when they change."""

    cert: Path
    """The server's certificate chain."""
    key: Path
    """Its private key, not encrypted."""
    client_ca: Path | None = None
    """The authorities of client certificates. If set, clients need such a certificate to connect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtOptions:
    """The JSON Web Tokens that are accepted. Keys come from the file, the URL, or both."""

    keys_file: Path | None = None
    """Public keys: a JWKS, or PEM. Read again when it changes."""
    jwks_url: str | None = None
    """The URL of the issuer's keys."""
    jwks_refresh: float = 300.0
    """How often they are fetched, in seconds: revoked keys are accepted until then."""
    jwks_pause: float = 10.0
    """The minimum time between two fetches, in seconds, however many tokens have unknown keys; also the pause after a
    failed fetch."""
    jwks_timeout: float = 5.0
    """How long each step of a fetch may take, in seconds."""
    issuer: str = ""
    """The required `iss`."""
    audiences: tuple[str, ...] = ()
    """The accepted `aud`: a token must name one of them."""
    tenant_claim: str = "tenant"
    """The claim with the tenant."""
    scope_claim: str = "scope"
    """The claim with the scopes: words in a text, or a list."""
    leeway: float = 30.0
    """The tolerated clock difference, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessOptions:
    """The callers that are accepted, and their identities."""

    tls: TlsFiles | None = None
    """TLS on every address that isn't a Unix socket. None: plain text."""
    keys_file: Path | None = None
    """API keys, and certificates that are identities. Read again when it changes."""
    jwt: JwtOptions | None = None
    """JSON Web Tokens."""
    open_health: bool = True
    """True if health checks need no token."""
    open_reflection: bool = False
    """True if reflection needs no token."""
    insecure_without_tls: bool = False
    """Allow addresses that other machines can reach, without TLS."""
    insecure_without_tokens: bool = False
    """Allow addresses that other machines can reach, without authentication."""

    @property
    def asks_who_calls(self) -> bool:
        """True if calls need a token or a certificate."""
        return self.keys_file is not None or self.jwt is not None

    @property
    def keeps_strangers_out(self) -> bool:
        """True if nobody can call who wasn't given a token or a certificate."""
        return self.asks_who_calls or (self.tls is not None and self.tls.client_ca is not None)
