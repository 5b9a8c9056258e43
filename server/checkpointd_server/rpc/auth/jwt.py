"""JSON Web Tokens: verification, and the identity of a token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jwt

from checkpointd_server.domain.access import Identity, JwtOptions, Scope
from checkpointd_server.domain.errors import SetupError
from checkpointd_server.rpc.auth.api_keys import read_tenant
from checkpointd_server.rpc.auth.jwks import JwksUrl
from checkpointd_server.rpc.auth.public_keys import ALGORITHMS, PublicKey, matching, parse_public_keys
from checkpointd_server.rpc.auth.scopes import KeysUnavailable, Unauthenticated
from checkpointd_server.rpc.auth.watched_file import WatchedFile

MAX_REMEMBERED = 4096
"""Number of verified tokens that are cached."""

_SUBJECT_CHARACTERS = 200

_NOT_A_TOKEN = (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
"""Errors that PyJWT raises for an invalid token, including unintended ones: for deeply nested JSON, numbers of
thousands of digits, lists and objects in place of text."""

_REFUSED: Mapping[type[jwt.PyJWTError], str] = {
    jwt.ExpiredSignatureError: "the token has expired",
    jwt.ImmatureSignatureError: "the token isn't valid yet",
    jwt.InvalidIssuedAtError: "the token says that it was issued in the future",
    jwt.InvalidIssuerError: "the token is from another issuer than this server believes",
    jwt.InvalidAudienceError: "the token is meant for another audience than this server",
    jwt.MissingRequiredClaimError: "the token lacks one of the claims exp, iss and aud",
    jwt.InvalidSignatureError: "the token's signature is wrong",
}


class Tokens:
    """Verifies tokens, and caches valid ones until they expire or the keys change.

    Raises:
        SetupError: An option can't be used.
    """

    def __init__(self, options: JwtOptions) -> None:
        if options.keys_file is None and options.jwks_url is None:
            raise SetupError("tokens need keys to be checked with: give --jwt-keys or --jwt-jwks-url")
        if not options.issuer or not options.audiences:
            raise SetupError(
                "tokens need --jwt-issuer and --jwt-audience: tokens made for other services must not be accepted"
            )
        self._options = options
        self._file: WatchedFile[list[PublicKey]] | None = None
        self._url: JwksUrl | None = None
        if options.keys_file is not None:
            self._file = WatchedFile(options.keys_file, "the file of --jwt-keys", parse_public_keys)
        if options.jwks_url is not None:
            self._url = JwksUrl(
                options.jwks_url,
                self._forget,
                refresh=options.jwks_refresh,
                pause=options.jwks_pause,
                timeout=options.jwks_timeout,
            )
        self._believed: dict[str, tuple[Identity, float]] = {}

    async def start(self) -> None:
        """Starts fetching keys, if they come from a URL."""
        if self._url is not None:
            await self._url.start()

    async def stop(self) -> None:
        """Stops fetching."""
        if self._url is not None:
            await self._url.stop()

    def refresh(self) -> None:
        """Reads the file again if it has changed."""
        if self._file is not None and self._file.refresh():
            self._forget()

    def _forget(self) -> None:
        self._believed.clear()

    def known(self, token: str, now: float) -> Identity | None:
        """Returns the identity of a cached token. None: it must be verified."""
        found = self._believed.get(token)
        if found is None:
            return None
        identity, expires_at = found
        if now < expires_at:
            return identity
        del self._believed[token]
        return None

    async def verify(self, token: str) -> Identity:
        """Returns a token's identity.

        Raises:
            Unauthenticated: It is invalid. The message says why, without quoting it.
            KeysUnavailable: It can't be verified now.
        """
        kid, algorithm = _read_header(token)
        keys = self._matching(kid, algorithm)
        if not keys and self._url is not None:
            await self._url.refresh_for_token()
            keys = self._matching(kid, algorithm)
            if not keys and self._url.failing:
                raise KeysUnavailable()
        if not keys:
            raise Unauthenticated("the token is signed with a key that this server doesn't know")
        claims = self._decode(token, algorithm, keys)
        identity = self._identity(claims)
        try:
            expires_at = float(claims["exp"])
        except (TypeError, ValueError, OverflowError) as error:
            raise Unauthenticated("the token's claim exp is not a time") from error
        if len(self._believed) >= MAX_REMEMBERED:
            del self._believed[next(iter(self._believed))]
        self._believed[token] = identity, expires_at + self._options.leeway
        return identity

    def _matching(self, kid: str | None, algorithm: str) -> list[PublicKey]:
        keys: list[PublicKey] = []
        if self._file is not None:
            keys += matching(self._file.content, kid, algorithm)
        if self._url is not None:
            keys += matching(self._url.keys, kid, algorithm)
        return keys

    def _decode(self, token: str, algorithm: str, keys: list[PublicKey]) -> dict[str, Any]:
        options = self._options
        failure: Exception = jwt.InvalidSignatureError()
        for key in keys:
            try:
                claims: dict[str, Any] = jwt.decode(
                    token,
                    key.key,
                    algorithms=[algorithm],
                    audience=list(options.audiences),
                    issuer=options.issuer,
                    leeway=options.leeway,
                    options={"require": ["exp", "iss", "aud"]},
                )
            except jwt.InvalidSignatureError:
                continue
            except _NOT_A_TOKEN as error:
                failure = error
                break
            return claims
        words = next((words for kind, words in _REFUSED.items() if isinstance(failure, kind)), "the token is malformed")
        raise Unauthenticated(words) from failure

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        options = self._options
        try:
            tenant = read_tenant(claims.get(options.tenant_claim))
        except ValueError:
            raise Unauthenticated(f"the token names no tenant in its claim {options.tenant_claim!r}") from None
        given = claims.get(options.scope_claim, ())
        words = given.split() if isinstance(given, str) else given if isinstance(given, list | tuple) else ()
        subject = claims.get("sub")
        return Identity(
            tenant=tenant,
            subject=subject[:_SUBJECT_CHARACTERS] if isinstance(subject, str) else "",
            # The issuer may have other scopes, which are ignored.
            scopes=frozenset(Scope(word) for word in words if word in list(Scope)),
        )


def _read_header(token: str) -> tuple[str | None, str]:
    """Returns the key id and algorithm that a token claims, unverified."""
    try:
        header = jwt.get_unverified_header(token)
    except _NOT_A_TOKEN as error:
        raise Unauthenticated("the token is neither an API key nor a JSON Web Token") from error
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise Unauthenticated(f"the token's algorithm is none of {', '.join(sorted(ALGORITHMS))}")
    if "crit" in header:
        raise Unauthenticated("the token demands an extension that this server doesn't know")
    return kid if isinstance(kid, str) else None, algorithm
