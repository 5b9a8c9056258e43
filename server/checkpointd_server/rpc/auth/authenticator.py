"""Authentication of every call: from its token or certificate to an identity."""

from __future__ import annotations

import asyncio
from time import time
from typing import TYPE_CHECKING

import grpc.aio
import structlog

from checkpointd_server.domain.access import ANYBODY, AccessOptions, Identity
from checkpointd_server.domain.errors import SetupError
from checkpointd_server.rpc.auth.api_keys import KEY_PREFIX, KeyFile, parse_key_file
from checkpointd_server.rpc.auth.scopes import Unauthenticated
from checkpointd_server.rpc.auth.watched_file import WatchedFile

if TYPE_CHECKING:
    from checkpointd_server.rpc.auth.jwt import Tokens

POLL_SECONDS = 0.5
"""How often files are checked for changes, in seconds. A change takes effect once two checks have found it the same."""

_NO_TOKEN = "this server asks for a token: send it as `authorization: Bearer ...`"  # noqa: S105  # not a secret

_log = structlog.get_logger("checkpointd.auth")


class Authenticator:
    """Authenticates callers.

    Args:
        options: The accepted tokens and certificates.

    Raises:
        SetupError: A file is unusable, or options contradict each other.
    """

    def __init__(self, options: AccessOptions) -> None:
        self.is_open = not options.asks_who_calls
        """True if calls need no authentication."""
        self._keys: WatchedFile[KeyFile] | None = None
        self._tokens: Tokens | None = None
        self._certificates = options.tls is not None and options.tls.client_ca is not None
        if self._certificates:
            from checkpointd_server.rpc.auth.certificate_names import CertificateNames

            self._names = CertificateNames()
        self._watching: asyncio.Task[None] | None = None
        if options.keys_file is not None:
            self._keys = WatchedFile(options.keys_file, "the keys file", parse_key_file)
            if self._keys.content.names_certificates and not self._certificates:
                raise SetupError("the keys file names certificates, but without --tls-client-ca no client shows one")
        if options.jwt is not None:
            # Imported here because cryptography is slow to import, and only servers with tokens need it.
            from checkpointd_server.rpc.auth.jwt import Tokens

            self._tokens = Tokens(options.jwt)

    async def start(self) -> None:
        """Fetches keys from a URL, if any, and starts watching the files."""
        self._warn_if_empty()
        if self._tokens is not None:
            await self._tokens.start()
        if not self.is_open:
            self._watching = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Stops fetching and watching."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._tokens is not None:
            await self._tokens.stop()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            if self._keys is not None and self._keys.refresh():
                self._warn_if_empty()
            if self._tokens is not None:
                self._tokens.refresh()

    def _warn_if_empty(self) -> None:
        if self._keys is not None and self._keys.content.is_empty:
            _log.warning("the keys file holds no key and no certificate: it lets nobody in", file=str(self._keys.path))

    async def authenticate(self, context: grpc.aio.ServicerContext) -> Identity:
        """Returns the identity of a call. Raises Unauthenticated, KeysUnavailable."""
        if self.is_open:
            return ANYBODY
        now = time()
        token = _bearer(context)
        if token is None:
            return self._by_certificate(context, now)
        if token.startswith(KEY_PREFIX):
            if self._keys is None:
                raise Unauthenticated("this server takes no API keys")
            return self._keys.content.by_key(token, now)
        if self._tokens is None:
            raise Unauthenticated("this server doesn't know this API key")
        return self._tokens.known(token, now) or await self._tokens.verify(token)

    def _by_certificate(self, context: grpc.aio.ServicerContext, now: float) -> Identity:
        if self._keys is None or not self._keys.content.names_certificates or not self._certificates:
            raise Unauthenticated(_NO_TOKEN)
        shown = context.auth_context()
        shown_certificates = shown.get("x509_pem_cert") or ()
        if not shown_certificates:  # a Unix socket, which has no certificates
            raise Unauthenticated(_NO_TOKEN)
        return self._keys.content.by_certificate(self._names.of(bytes(shown_certificates[0])), now)


def _bearer(context: grpc.aio.ServicerContext) -> str | None:
    """Returns the token of a call, or None."""
    found = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
    if not found:
        return None
    scheme, _, token = found[0].partition(" ")
    if len(found) > 1 or scheme.lower() != "bearer" or not token or not token.isascii():
        raise Unauthenticated("authorization must be given once, as `Bearer ` and the token")
    return str(token)
