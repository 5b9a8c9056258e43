"""The embedded PostgreSQL: its folder, its lock, and what is left after a crash."""

from __future__ import annotations

import asyncpg


async def test_each_test_has_an_empty_database(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    await connection.execute("CREATE TABLE public.a (b int)")
    await connection.close()


async def test_no_test_sees_the_tables_of_another(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    await connection.close()
