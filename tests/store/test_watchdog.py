"""A silent database is noticed long before a call's deadline."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from checkpointd_server.domain.checkpoints import Namespace
from checkpointd_server.domain.errors import DatabaseUnavailable, SetupError
from checkpointd_server.store import PostgresStore, StoreOptions, migrate, open_store
from tests.support.blocker import blocked
from tests.support.flaky_link import FlakyLink
from tests.support.tenant import Tenant, a_connection
from tests.support.until import auntil

BACKENDS = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'checkpointd'"

PATIENCE = 0.5
"""The stores' watch interval, in seconds."""


@pytest.fixture
def link(own_options: StoreOptions) -> Iterator[FlakyLink]:
    """A network between the store and its database."""
    where = parse_qs(urlsplit(own_options.dsn).query)
    with FlakyLink(f"unix:{where['host'][0]}/.s.PGSQL.{where['port'][0]}") as link:
        yield link


def through(link: FlakyLink, options: StoreOptions) -> StoreOptions:
    """The options of a store on the far side of the link, with shorter timeouts than servers have."""
    url = urlsplit(options.dsn)
    return replace(
        options,
        dsn=f"postgresql://postgres@{link.target}{url.path}",
        connect_timeout=0.5,
        pool_max_size=3,
        watch_interval=PATIENCE,
    )


@pytest.fixture
async def linked(own_options: StoreOptions, link: FlakyLink) -> AsyncIterator[PostgresStore]:
    """A store on the far side of the link."""
    async with open_store(through(link, own_options)) as store:
        yield store


async def until_logged(caplog: pytest.LogCaptureFixture, text: str) -> None:
    await auntil(lambda: caplog.text, lambda log: text in log)


async def test_a_network_that_swallows_everything_ends_in_unavailability_not_in_the_callers_deadline(
    linked: PostgresStore, link: FlakyLink
) -> None:
    tenant = Tenant(linked, "tenant")
    await tenant.put("1")
    link.stall()
    begun = time.monotonic()
    with pytest.raises(DatabaseUnavailable):
        await linked.get_checkpoint(Namespace("tenant", "t", ""), None, timeout=60)
    assert time.monotonic() - begun < 30
    link.resume()
    await tenant.put("2")
    assert await tenant.ids() == ["1", "2"]


async def test_a_call_that_a_short_stall_met_goes_through_when_it_is_over(
    linked: PostgresStore, link: FlakyLink, caplog: pytest.LogCaptureFixture
) -> None:
    tenant = Tenant(linked, "tenant")
    await tenant.put("1")
    link.stall()
    puts = [asyncio.create_task(tenant.put(str(number))) for number in range(2, 6)]
    await until_logged(caplog, "giving up")
    link.resume()
    versions = await asyncio.gather(*puts)
    assert len(set(versions)) == 4
    assert await tenant.ids() == ["1", "2", "3", "4", "5"]


async def test_a_session_that_the_database_has_lost_is_not_waited_for(
    linked: PostgresStore, link: FlakyLink, own_options: StoreOptions
) -> None:
    """The network has lost the connection, but new ones work: a failover behind an unchanged address."""
    tenant = Tenant(linked, "tenant")
    await tenant.put("1")
    async with blocked(own_options.dsn):
        put = asyncio.create_task(tenant.put("2"))
        await asyncio.sleep(0.2)
        link.forget()
    begun = time.monotonic()
    await put
    assert time.monotonic() - begun < 30
    assert await tenant.ids() == ["1", "2"]


async def test_a_statement_that_is_merely_slow_is_left_alone(
    own_options: StoreOptions, link: FlakyLink, caplog: pytest.LogCaptureFixture
) -> None:
    # Time enough to check whether the database answers.
    async with open_store(replace(through(link, own_options), connect_timeout=20.0)) as store:
        await wait_for_a_lock(Tenant(store, "tenant"), own_options)
    assert "giving up" not in caplog.text


async def wait_for_a_lock(tenant: Tenant, own_options: StoreOptions) -> None:
    """Lets a put wait for a lock much longer than the store would wait for a silent database."""
    await tenant.put("1")
    admin = await asyncpg.connect(own_options.dsn)
    waiting = f"SELECT pid {BACKENDS} AND wait_event_type = 'Lock'"
    async with blocked(own_options.dsn):
        put = asyncio.create_task(tenant.put("2"))
        session = await auntil(lambda: admin.fetchval(waiting))
        await asyncio.sleep(5 * PATIENCE)
        # It waits for the lock a second at a time.
        assert await auntil(lambda: admin.fetchval(waiting)) == session
    await put
    await admin.close()


async def test_the_system_asks_whether_the_other_side_is_there(linked: PostgresStore) -> None:
    async with a_connection(linked) as connection:
        transport_socket = connection._transport.get_extra_info("socket")
        assert transport_socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        for name in ("TCP_KEEPIDLE", "TCP_USER_TIMEOUT"):
            if hasattr(socket, name):
                assert transport_socket.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) > 0


@pytest.mark.parametrize("host", ["no-such-host.invalid", "127.0.0.1:1", "/no/such/folder"])
async def test_the_host_that_can_not_be_reached_is_named(host: str, caplog: pytest.LogCaptureFixture) -> None:
    dsn = f"postgresql://me:secret@/db?host={host}" if host.startswith("/") else f"postgresql://me:secret@{host}/db"
    name = host.partition(":")[0]
    with pytest.raises(SetupError, match=rf"\({re.escape(name)}: .+\)") as raised:
        await migrate(StoreOptions(dsn=dsn, startup_timeout=0))
    with caplog.at_level(logging.WARNING):
        trying = asyncio.create_task(migrate(StoreOptions(dsn=dsn, startup_timeout=60)))
        await until_logged(caplog, f"{name}: ")
        trying.cancel()
        await asyncio.gather(trying, return_exceptions=True)
    assert "secret" not in str(raised.value) + caplog.text
