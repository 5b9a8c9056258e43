"""The public keys of token issuers: a JWKS (RFC 7517), or PEM."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"},
)
"""The accepted signature algorithms, all asymmetric. With a shared secret (HS256 and so on) this server could forge
tokens too, and `none` is no signature."""
MAX_KEYS = 100
"""Maximum number of keys that are read."""
_LEAST_RSA_BITS = 2048
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A key, and its algorithms."""

    kid: str | None
    """Its id, if it has one."""
    algorithms: frozenset[str]
    """The algorithms of signatures that it may verify."""
    key: Any
    """The key itself."""


def parse_public_keys(content: bytes) -> list[PublicKey]:
    """Reads keys, without those of a JWKS that aren't for signatures. Raises ValueError."""
    keys = list(_from_jwks(content) if content.lstrip().startswith(b"{") else _from_pem(content))
    if not keys:
        raise ValueError("it holds no public key that tokens can be signed for: RSA, EC, Ed25519 or Ed448")
    if len(keys) > MAX_KEYS:
        raise ValueError(f"it holds {len(keys)} keys, {MAX_KEYS} are allowed")
    return keys


def matching(keys: Sequence[PublicKey], kid: str | None, algorithm: str) -> list[PublicKey]:
    """Returns the keys that a token may have been signed with. PEM keys have no id, so they match any."""
    return [key for key in keys if algorithm in key.algorithms and (kid is None or key.kid is None or key.kid == kid)]


def _from_jwks(content: bytes) -> Iterator[PublicKey]:
    try:
        found = json.loads(content)["keys"]
        entries = [entry for entry in found if entry.get("kty") in ("RSA", "EC", "OKP") and entry.get("use") != "enc"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError("it is not a JWKS") from None
    for entry in entries:
        if "d" in entry:
            raise ValueError("it holds a private key: it should hold public ones only")
        try:
            key = jwt.PyJWK(entry).key
            algorithms = _algorithms(key)
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
        if entry.get("alg") is not None:
            algorithms &= {entry["alg"]}
        kid = entry.get("kid")
        if algorithms:
            yield PublicKey(kid=kid if isinstance(kid, str) else None, algorithms=algorithms, key=key)


def _from_pem(content: bytes) -> Iterator[PublicKey]:
    for block in _PEM.finditer(content):
        kind = block[1].decode()
        if "PRIVATE" in kind:
            raise ValueError("it holds a private key: it should hold public ones only")
        try:
            if kind == "CERTIFICATE":
                key: Any = x509.load_pem_x509_certificate(block[0]).public_key()
            else:
                key = load_pem_public_key(block[0])
        except ValueError:
            raise ValueError(f"its {kind} can't be read") from None
        yield PublicKey(kid=None, algorithms=_algorithms(key), key=key)


def _algorithms(key: Any) -> frozenset[str]:
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < _LEAST_RSA_BITS:
            raise ValueError(f"an RSA key has {key.key_size} bits, at least {_LEAST_RSA_BITS} are needed")
        return frozenset(name for name in ALGORITHMS if name.startswith(("RS", "PS")))
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return frozenset({_CURVES[key.curve.name]})
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return frozenset({"EdDSA"})
    raise ValueError("a key is of a kind that tokens aren't signed with")
