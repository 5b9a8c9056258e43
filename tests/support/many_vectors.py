"""Very many items with vectors, for tests and benchmarks of vector search."""

from __future__ import annotations

from typing import Any

from checkpointd_server.store.items.names import encode
from checkpointd_server.store.items.vectors import vector_sql
from checkpointd_server.store.statements import with_schema

DIMS, FACTORS = 384, 24
PREFIX = ("many",)
"""The namespace of all items."""


class Embeddings:
    """Vectors like those of texts: they have many dimensions, but differ mostly in few directions."""

    def __init__(self, seed: int) -> None:
        import numpy

        self._random = numpy.random.default_rng(seed)
        self._factors = self._random.standard_normal((FACTORS, DIMS))

    def make(self, count: int) -> Any:
        """Returns this many vectors, as rows of a matrix."""
        hidden = self._random.standard_normal((count, FACTORS))
        noise = self._random.standard_normal((count, DIMS))
        return (hidden @ self._factors + 0.5 * noise).astype("float32")


async def load(connection: Any, tenant: str, vectors: Any) -> None:
    """Stores an item for each of these vectors, faster than by puts, and creates the index afterwards."""
    await connection.execute("DROP INDEX checkpointd.item_vectors_384_cosine")
    await connection.execute("SET maintenance_work_mem = '512MB'")
    await connection.execute(
        """
        INSERT INTO checkpointd.items (
            tenant, namespace, key, version, type, data, doc, vectors, created_at, updated_at
        )
        SELECT $1, $2, n::text, n, 'json', '{}', jsonb_build_object('n', n), 1, now(), now()
        FROM generate_series(0, $3 - 1) AS n
        """,
        tenant,
        encode(PREFIX),
        len(vectors),
    )
    for start in range(0, len(vectors), 2000):
        part = vectors[start : start + 2000]
        await connection.execute(
            """
            INSERT INTO checkpointd.item_vectors
            SELECT $1, $2, n::text, 1, '', $4, ($5::real[])[(n - $3) * $4 + 1 : (n - $3 + 1) * $4]::vector
            FROM generate_series($3::integer, $3 + $6 - 1) AS n
            """,
            tenant,
            encode(PREFIX),
            start,
            DIMS,
            part.ravel().tolist(),
            len(part),
        )
    await connection.execute(with_schema(vector_sql(["384:cosine"]), "checkpointd"))
    await connection.execute("ANALYZE checkpointd.items, checkpointd.item_vectors")
