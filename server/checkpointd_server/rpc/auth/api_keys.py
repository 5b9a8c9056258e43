"""The file of API keys, and of certificates that are identities.

    [[key]]
    tenant = "acme"
    scopes = ["read", "write"]
    name = "agents"                      # the name of its owner in the log
    sha256 = "..."                       # of the key; `checkpointd keys new` prints it
    expires = 2027-01-01T00:00:00Z       # optional

    [[certificate]]
    tenant = "acme"
    scopes = ["read"]
    name = "spiffe://acme/reporting"     # a subject alternative name; the common name where the certificate has none

A key has 256 random bits, so it can't be guessed from its hash, and a fast hash without salt is enough. (For passwords
it wouldn't be; there are none here.)
"""

from __future__ import annotations

import difflib
import hashlib
import hmac
import re
import secrets
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from checkpointd_server.domain.access import Identity, Scope
from checkpointd_server.domain.limits import Limits
from checkpointd_server.rpc.auth.scopes import Unauthenticated

KEY_PREFIX = "ckd_"
"""The prefix of every API key: secret scanners find it, and it distinguishes keys from JSON Web Tokens."""
_PREFIX_BYTES = 8
_KNOWN_FIELDS = {
    "key": {"tenant", "scopes", "name", "sha256", "expires"},
    "certificate": {"tenant", "scopes", "name", "expires"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An identity, and when it expires."""

    identity: Identity
    digest: bytes
    """A key's hash; empty for a certificate."""
    expires_at: float | None
    """On the wall clock; None: never."""

    def authenticate(self, now: float) -> Identity:
        """Returns the identity. Raises Unauthenticated if it has expired."""
        if self.expires_at is not None and now >= self.expires_at:
            raise Unauthenticated("this key or certificate has expired")
        return self.identity


class KeyFile:
    """The keys and certificates of a file."""

    def __init__(self, keys: Iterable[Entry], certificates: Mapping[str, Entry]) -> None:
        self._keys: dict[bytes, list[Entry]] = {}
        for entry in keys:
            self._keys.setdefault(entry.digest[:_PREFIX_BYTES], []).append(entry)
        self._certificates = certificates

    @property
    def is_empty(self) -> bool:
        """True if it has no entries: then it authenticates nobody."""
        return not self._keys and not self._certificates

    @property
    def names_certificates(self) -> bool:
        """True if certificates may be identities."""
        return bool(self._certificates)

    def by_key(self, key: str, now: float) -> Identity:
        """Returns a key's identity. Raises Unauthenticated."""
        digest = hashlib.sha256(key.encode()).digest()
        for entry in self._keys.get(digest[:_PREFIX_BYTES], ()):
            # In constant time: response times must not reveal a stored hash.
            if hmac.compare_digest(entry.digest, digest):
                return entry.authenticate(now)
        raise Unauthenticated("this server doesn't know this API key")

    def by_certificate(self, names: Sequence[str], now: float) -> Identity:
        """Returns the identity of a certificate that has these names. Raises Unauthenticated."""
        found = [self._certificates[name] for name in names if name in self._certificates]
        if len(found) != 1:
            problem = "none" if not found else "more than one"
            raise Unauthenticated(f"no token was sent, and {problem} of the names of the client's certificate is known")
        return found[0].authenticate(now)


def parse_key_file(content: bytes) -> KeyFile:
    """Reads a file of keys. Raises ValueError."""
    try:
        document = tomllib.loads(content.decode())
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        # Only the position at the message's end: the rest could quote a key that was pasted into the file.
        found = re.search(r"\(at .*\)$", str(error))
        raise ValueError(f"it is not TOML {found[0] if found else ''}".rstrip()) from None
    for number, part in enumerate(document, 1):
        if part not in _KNOWN_FIELDS:
            raise ValueError(
                f"it has {_unknown(part, number, _KNOWN_FIELDS)}, which is neither [[key]] nor [[certificate]]"
            )
    keys: list[Entry] = []
    certificates: dict[str, Entry] = {}
    for place, table in _tables(document, "key"):
        digest = table.get("sha256")
        if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
            raise ValueError(f"{place}: sha256 must be the key's SHA-256, 64 hexadecimal digits")
        keys.append(_entry(place, table, bytes.fromhex(digest)))
    for place, table in _tables(document, "certificate"):
        entry = _entry(place, table, b"")
        if certificates.setdefault(table["name"], entry) is not entry:
            raise ValueError(f"{place}: another one has the same name")
    if len({entry.digest for entry in keys}) < len(keys):
        raise ValueError("two keys have the same sha256")
    return KeyFile(keys, certificates)


def new_key(tenant: str, scopes: Sequence[Scope], name: str, *, expires: datetime | None = None) -> tuple[str, str]:
    """Returns a new key, and its entry for the file.

    Args:
        tenant: The tenant that it gives access to.
        scopes: The scopes that it has.
        name: The name of its owner in the log.
        expires: When it expires, with a time zone. None: never.

    Raises:
        ValueError: The entry would be invalid.
    """
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    quoted = ", ".join(f'"{scope.value}"' for scope in scopes)
    text = (
        f"[[key]]\ntenant = {_quoted(tenant)}\nscopes = [{quoted}]\nname = {_quoted(name)}\n"
        f'sha256 = "{hashlib.sha256(key.encode()).hexdigest()}"\n'
    )
    if expires is not None:
        text += f"expires = {expires.astimezone(UTC).isoformat(timespec='seconds').replace('+00:00', 'Z')}\n"
    parse_key_file(text.encode())
    return key, text


def read_tenant(value: object) -> str:
    """Returns a tenant's name, from a file or a token. Raises ValueError."""
    limit = Limits().max_tenant_bytes
    if not isinstance(value, str) or not 1 <= len(value.encode(errors="replace")) <= limit or not value.isprintable():
        raise ValueError(f"a tenant is a text of 1 to {limit} bytes without control characters")
    return value


def _tables(document: Mapping[str, Any], kind: str) -> Iterable[tuple[str, dict[str, Any]]]:
    tables = document.get(kind, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ValueError(f"write [[{kind}]] with two brackets on each side")
    for number, table in enumerate(tables, 1):
        place = f"{kind} {number}"
        known = _KNOWN_FIELDS[kind]
        for position, field in enumerate(table, 1):
            if field not in known:
                raise ValueError(
                    f"{place}: has {_unknown(field, position, known)}, which is none of {', '.join(sorted(known))}"
                )
        yield place, table


def _unknown(field: str, position: int, known: Iterable[str]) -> str:
    """Describes an unknown field. Quotes its name only if it resembles a known one: it could be a pasted key."""
    close = difflib.get_close_matches(field, known, n=1, cutoff=0.7)
    return f"{field!r} (did you mean {close[0]!r}?)" if close else f"a field, number {position} in it"


def _entry(place: str, table: Mapping[str, Any], digest: bytes) -> Entry:
    try:
        tenant = read_tenant(table.get("tenant"))
    except ValueError as error:
        raise ValueError(f"{place}: tenant: {error}") from None
    name = table.get("name")
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ValueError(f"{place}: name is required, a text without control characters")
    scopes = table.get("scopes")
    if not isinstance(scopes, list) or not all(scope in list(Scope) for scope in scopes):
        raise ValueError(f"{place}: scopes must be a list of some of {', '.join(scope.value for scope in Scope)}")
    expires = table.get("expires")
    if expires is not None and not (isinstance(expires, datetime) and expires.tzinfo is not None):
        raise ValueError(f"{place}: expires must be a date and time with its zone, like 2027-01-01T00:00:00Z")
    identity = Identity(tenant=tenant, subject=name, scopes=frozenset(Scope(scope) for scope in scopes))
    expires_at = None if expires is None else expires.astimezone(UTC).timestamp()
    return Entry(identity=identity, digest=digest, expires_at=expires_at)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
