"""Keys from an issuer's URL: fetched in threads at a limited rate, and kept while the URL doesn't answer."""

from __future__ import annotations

import asyncio
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import structlog

from checkpointd_server.domain.errors import SetupError
from checkpointd_server.rpc.auth.public_keys import PublicKey, parse_public_keys
from checkpointd_server.rpc.auth.scopes import KeysUnavailable

WAITING_TOKENS = 16
"""Maximum number of tokens waiting for a fetch; for further ones the keys are unavailable. Anybody can make up tokens,
and each that waits is a call in flight."""
WAIT_SECONDS = 5.0
"""How long each of them waits, in seconds."""
MAX_FETCHES = 2
"""Maximum number of concurrent fetches, including abandoned ones."""
MAX_BYTES = 1024 * 1024
"""The largest answer that is accepted, in bytes."""

_log = structlog.get_logger("checkpointd.auth")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Rejects redirects: keys come only from the configured URL."""

    def redirect_request(self, *args: Any) -> None:
        return None


class JwksUrl:
    """The keys behind a URL.

    Args:
        url: Where the issuer publishes them.
        changed: Called when they have changed.
        refresh: How often they are fetched, in seconds.
        pause: The minimum time between two fetches, in seconds.
        timeout: How long each step of a fetch may take, in seconds.

    Raises:
        SetupError: The URL is unencrypted, so others on the network could replace the issuer's keys.
    """

    def __init__(self, url: str, changed: Callable[[], None], *, refresh: float, pause: float, timeout: float) -> None:
        parts = urlsplit(url)
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if parts.scheme != "https" and not (parts.scheme == "http" and local):
            raise SetupError(
                "--jwt-jwks-url must begin with https://, or anybody on the way could substitute other keys"
            )
        self._url = url
        self._changed = changed
        self._refresh = refresh
        self._pause = pause
        self._timeout = timeout
        self._fetched_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._waiting = 0
        self._threads: set[threading.Thread] = set()
        self.keys: list[PublicKey] = []
        self.failing = True
        """True if the last fetch failed: an unknown key may then be the issuer's."""

    async def start(self) -> None:
        """Fetches the keys for the first time, which may fail, and then in the background."""
        await self.refresh()
        self._keeping = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Stops fetching in the background."""
        tasks = [task for task in (self._keeping, self._fetching) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def refresh(self) -> bool:
        """Fetches the keys, sharing the fetch with other waiters. Returns False if they were fetched just now."""
        if self._fetching is None:
            if monotonic() - self._fetched_at < self._pause:
                return False
            self._fetching = asyncio.create_task(self._fetch())
        # A waiter that gives up must not cancel the fetch for others.
        await asyncio.shield(self._fetching)
        return True

    async def refresh_for_token(self) -> None:
        """Fetches the keys for a token with an unknown key id.

        Raises:
            KeysUnavailable: The fetch takes too long, or too many others wait for it.
        """
        if self._waiting >= WAITING_TOKENS:
            raise KeysUnavailable
        self._waiting += 1
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self.refresh()
        except TimeoutError:
            raise KeysUnavailable from None
        finally:
            self._waiting -= 1

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._pause if self.failing else self._refresh)
            await self.refresh()

    async def _fetch(self) -> None:
        failing = self.failing
        try:
            keys = parse_public_keys(
                await self._in_thread(lambda: _download(self._url, self._timeout), 3 * self._timeout)
            )
        except (OSError, ValueError) as error:
            self.failing = True
            if not failing or not self._keeping:
                # Not the error's message, which may quote the answer.
                _log.warning(
                    "the issuer's keys can't be fetched; those known stay in force", error=type(error).__name__
                )
        else:
            self.failing = False
            if failing or _ids(keys) != _ids(self.keys):
                _log.info("fetched the issuer's keys", number=len(keys))
            self.keys = keys
            self._changed()
        finally:
            self._fetched_at = monotonic()
            self._fetching = None

    async def _in_thread(self, work: Callable[[], bytes], timeout: float) -> bytes:
        """Runs work in a daemon thread, and awaits it for at most `timeout` seconds.

        A URL that hangs must not delay the server's shutdown.

        Raises:
            OSError: Too many threads hang already.
        """
        self._threads = {thread for thread in self._threads if thread.is_alive()}
        if len(self._threads) >= MAX_FETCHES:
            raise TimeoutError("earlier fetches have not ended")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bytes] = loop.create_future()

        def settle(result: bytes | None, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result or b"")

        def run() -> None:
            try:
                outcome: tuple[bytes | None, BaseException | None] = (work(), None)
            except BaseException as error:  # whatever it is, the caller gets it
                outcome = (None, error)
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, *outcome)

        thread = threading.Thread(target=run, name="jwks", daemon=True)
        self._threads.add(thread)
        thread.start()
        return await asyncio.wait_for(future, timeout)


def _ids(keys: list[PublicKey]) -> set[str | None]:
    return {key.kid for key in keys}


def _download(url: str, timeout: float) -> bytes:
    opener = urllib.request.build_opener(_NoRedirects)
    request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310  # checked above
    try:
        with opener.open(request, timeout=timeout) as response:
            content, end = b"", monotonic() + 3 * timeout
            while len(content) <= MAX_BYTES and (part := response.read1(64 * 1024)):
                content += part
                if monotonic() > end:
                    raise TimeoutError
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection
        raise
    if len(content) > MAX_BYTES:
        raise ValueError("the answer is too large")
    return content
