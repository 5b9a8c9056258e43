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
    """Everything that those before allow, and what is for a tenant's administrator alone."""
    OPERATOR = "operator"
    """See, limit and purge all tenants, by name, for the operators of the server. None of the others includes it."""


ALL_SCOPES = frozenset(Scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """An authenticated caller."""

    tenant: str
    """The tenant whose threads it works on."""
    subject: str
    """Its name in the log."""
    scopes: frozenset[Scope]
    """Its permissions there. ADMIN stands for all that concerns one tenant."""

    def may(self, scope: Scope) -> bool:
        """Returns whether it may do what needs a scope."""
        return scope in self.scopes or (Scope.ADMIN in self.scopes and scope is not Scope.OPERATOR)


ANYBODY = Identity(tenant=DEFAULT_TENANT, subject="", scopes=ALL_SCOPES)
"""The caller of a server without authentication."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """The files that TLS needs, as PEM. They are read again when they change."""

    cert: Path
    """The server's certificate, and those between it and its authority."""
    key: Path
    """Its private key, not encrypted."""
    client_ca: Path | None = None
    """The authorities of clients' certificates. With it, nobody connects without such a certificate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtOptions:
    """The JSON Web Tokens that are accepted. Keys come from the file, the URL, or both."""

    keys_file: Path | None = None
    """Public keys: a JWKS, or PEM. Read again when it changes."""
    jwks_url: str | None = None
    """The URL of the issuer's keys."""
    jwks_refresh: float = 300.0
    """How often they are fetched from there, in seconds, so that one that was withdrawn is no longer believed."""
    jwks_pause: float = 10.0
    """The shortest time between two fetches, in seconds, however many tokens name a key that isn't known; and how soon
    a fetch that failed is tried again."""
    jwks_timeout: float = 5.0
    """How long each step of a fetch may take, in seconds."""
    issuer: str = ""
    """The required `iss`."""
    audiences: tuple[str, ...] = ()
    """The accepted `aud`: a token must name one of them."""
    tenant_claim: str = "tenant"
    """The claim that holds the tenant."""
    scope_claim: str = "scope"
    """The claim that holds the scopes: words in a text, or a list."""
    leeway: float = 30.0
    """By how much clocks may differ, in seconds."""


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
    """True if health answers those who have no token, too."""
    open_reflection: bool = False
    """True if reflection answers those who have no token, too."""
    insecure_without_tls: bool = False
    """Allow addresses that other machines reach, without TLS."""
    insecure_without_tokens: bool = False
    """Allow addresses that other machines reach, without asking who calls."""

    @property
    def asks_who_calls(self) -> bool:
        """True if a call must say who it comes from, by a token or a certificate."""
        return self.keys_file is not None or self.jwt is not None

    @property
    def keeps_strangers_out(self) -> bool:
        """True if nobody can call who wasn't given a token or a certificate."""
        return self.asks_who_calls or (self.tls is not None and self.tls.client_ca is not None)
