"""Vectors, if the database has pgvector: their table, their indexes, and the functions that search them.

They aren't part of the migrations, because a database may get the extension later, and operators choose the indexes.
`install` creates what is missing, and may run any number of times. Only whole numbers and names from tables in this
module are put into its SQL.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import asyncpg

from checkpointd_server.domain.items import Distance, parse_index_name
from checkpointd_server.store.statements import quote_identifier, with_schema

_MAX_FULL_DIMS = 2000
"""Maximum number of components that can be indexed with 32 bits each."""

_OPERATORS = {Distance.COSINE: "<=>", Distance.L2: "<->", Distance.INNER_PRODUCT: "<#>"}
_CLASSES = {Distance.COSINE: "cosine_ops", Distance.L2: "l2_ops", Distance.INNER_PRODUCT: "ip_ops"}
_SCORES = {Distance.COSINE: "1 - n.distance", Distance.L2: "- n.distance", Distance.INNER_PRODUCT: "- n.distance"}

_CAN_CREATE = """
SELECT r.rolsuper OR (v.trusted AND has_database_privilege(current_database(), 'CREATE'))
FROM pg_catalog.pg_roles AS r, pg_catalog.pg_available_extensions AS e
JOIN pg_catalog.pg_available_extension_versions AS v ON v.name = e.name AND v.version = e.default_version
WHERE r.rolname = current_user AND e.name = 'vector'
"""
"""Checks whether the extension is available and the role may create it."""
_IS_OWNER = """
SELECT pg_has_role(c.relowner, 'USAGE') AND has_schema_privilege(c.relnamespace, 'CREATE')
FROM pg_catalog.pg_class AS c WHERE c.oid = to_regclass($1)
"""
_FUNCTIONS = """
SELECT p.proname::text
FROM pg_catalog.pg_proc AS p
WHERE p.pronamespace = to_regnamespace($1) AND starts_with(p.proname, 'near_items_')
    AND to_regtype('vector') IS NOT NULL AND to_regclass($2) IS NOT NULL
"""


def vector_sql(indexes: Sequence[str]) -> str:
    """Returns the SQL that creates table, indexes and functions, with `__schema__` for the schema. It may run again."""
    parts = [_read("tables.sql")]
    parts += [_fill(_read("exact.sql"), distance) for distance in Distance]
    parts += [_fill(_read("indexed.sql"), distance, dims) for dims, distance in map(parse_index_name, indexes)]
    return "\n".join(parts)


async def installed_functions(connection: Any, schema: str) -> tuple[str, ...]:
    """Returns the names of the functions that search vectors; none: the database has no vectors."""
    quoted = quote_identifier(schema)
    rows = await connection.fetch(_FUNCTIONS, quoted, f"{quoted}.item_vectors")
    return tuple(row["proname"] for row in rows)


async def install(connection: Any, schema: str, indexes: Sequence[str]) -> None:
    """Creates missing tables, indexes and functions, if the database has pgvector or can get it.

    Skips what the role isn't allowed to create: then items have no vectors, or searches use no index.
    """
    wanted = {f"near_items_{distance.value}" for distance in Distance}
    wanted |= {f"near_items_{dims}_{distance.value}" for dims, distance in map(parse_index_name, indexes)}
    if wanted <= set(await installed_functions(connection, schema)):
        return
    if not await connection.fetchval(_IS_OWNER, f"{quote_identifier(schema)}.items"):
        return
    if await connection.fetchval("SELECT to_regtype('vector') IS NULL"):
        if not await connection.fetchval(_CAN_CREATE):
            return
        try:
            async with connection.transaction():
                await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except (asyncpg.PostgresError, OSError):
            # Everything else works without vectors.
            return
    await connection.execute(with_schema(vector_sql(indexes), schema))


def _read(name: str) -> str:
    return files(__package__).joinpath("sql", name).read_text(encoding="utf-8")


def _fill(sql: str, distance: Distance, dims: int = 0) -> str:
    # The angle between vectors doesn't depend on their length: with a length of 1, 16 bits a component are enough, and
    # an index of half the size is searched faster.
    by_angle = distance is Distance.COSINE
    kind = "halfvec" if by_angle or dims > _MAX_FULL_DIMS else "vector"
    scaled = "l2_normalize({})" if by_angle else "{}"
    for name, value in (
        ("__indexed__", f"{scaled.format('embedding')}::{kind}({dims})"),
        ("__query__", f"{scaled.format('x_query')}::{kind}({dims})"),
        ("__dims__", str(dims)),
        ("__distance__", distance.value),
        ("__operator__", _OPERATORS[distance]),
        ("__score__", _SCORES[distance]),
        ("__type__", f"{kind}({dims})"),
        ("__class__", f"{kind}_{_CLASSES[distance]}"),
    ):
        sql = sql.replace(name, value)
    return sql
