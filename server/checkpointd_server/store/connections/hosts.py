"""The hosts that a database URL names: which of them to connect to, and in what order."""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import asyncpg

from checkpointd_server.store.connections.watchdog import keep_alive
from checkpointd_server.store.errors import HostUnreachable

_NEXT_HOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TargetServerAttributeNotMatched,
)
"""Errors after which another host is tried, besides failed connections. All others, such as a wrong password, are
final."""


class Hosts:
    """Connects to hosts, and remembers which of them couldn't be reached."""

    def __init__(self) -> None:
        self._unreachable: dict[str, None] = {}

    async def connect(self, dsn: str, **arguments: Any) -> Any:
        """Connects to the first suitable host in the URL.

        Each host has its own timeout: the driver's is for all together, and a host that was cut off would use it up. If
        the URL says which host is wanted (such as the primary), one that couldn't be reached is tried last from then
        on: otherwise each connection would wait for its timeout first.

        Args:
            dsn: The URL.
            arguments: Arguments of `asyncpg.connect`.

        Raises:
            HostUnreachable: No host fits, and at least one couldn't be reached.
            Exception: What the driver raised: of the first host if none fits, else at once.
        """
        urls = urls_of_hosts(dsn)
        if "target_session_attrs=" in dsn:
            urls.sort(key=lambda url: list(self._unreachable).index(url) if url in self._unreachable else -1)
        failure: Exception | None = None
        for url in urls:
            try:
                connection = await asyncpg.connect(url, **arguments)
            except OSError as error:  # TimeoutError too
                # An unreachable host is the more useful error than another one that is a standby.
                failure = HostUnreachable(host_of(url), error)
                self._unreachable.pop(url, None)
                self._unreachable[url] = None
            except _NEXT_HOST as error:
                failure = failure or error
            else:
                self._unreachable.pop(url, None)
                keep_alive(connection)
                return connection
        assert failure is not None
        raise failure


def urls_of_hosts(dsn: str) -> list[str]:
    """Parses a URL that may name several hosts, in either of the places where the driver looks for them."""
    url = _split(dsn)
    login, at, hosts = url.netloc.rpartition("@")
    if hosts:
        return [urlunsplit(url._replace(netloc=f"{login}{at}{host}")) for host in hosts.split(",")]
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    names, ports = query.get("host", "").split(","), query.get("port", "").split(",")
    if len(names) == 1 or len(ports) not in (1, len(names)):
        return [dsn]  # the driver reports what is wrong with it
    ports = ports * len(names) if len(ports) == 1 else ports
    queries = [query | {"host": name, "port": port} for name, port in zip(names, ports, strict=True)]
    return [urlunsplit(url._replace(query=urlencode(each))) for each in queries]


def host_of(dsn: str) -> str:
    """Returns the host of a URL that names one, and nothing else: the rest may contain a password."""
    url = _split(dsn)
    address = url.netloc.rpartition("@")[2]
    host = re.sub(r":[^:\]]*$", "", address).strip("[]")
    return host or dict(parse_qsl(url.query)).get("host") or "the driver's default"


def database_of(dsn: str) -> str:
    """Describes a URL's database and host, without user and password."""
    url = _split(dsn)
    query = dict(parse_qsl(url.query))
    given = [unquote(host) for host in url.netloc.rpartition("@")[2].split(",") if host]
    port = query.get("port") or os.environ.get("PGPORT") or "5432"
    # The driver takes what the URL lacks from the same places as psql.
    hosts = given or [query.get("host") or os.environ.get("PGHOST") or "the driver's default host"]
    where = ",".join(host if re.search(r":[0-9]*$", host) and given else f"{host}:{port}" for host in hosts)
    database = unquote(url.path[1:]) or query.get("dbname") or query.get("database") or os.environ.get("PGDATABASE")
    return f"database {database} at {where}" if database else f"the user's own database at {where}"


def _split(dsn: str) -> SplitResult:
    """Splits a URL. Patched Pythons refuse several hosts of which one but the first is an IPv6 address."""
    found = re.match(r"([^:/?#]+://)([^/?#]*)", dsn)
    if found is None:
        return urlsplit(dsn)
    return urlsplit(found[1] + dsn[found.end() :])._replace(netloc=found[2])
