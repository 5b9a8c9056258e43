"""The checkpoint store on PostgreSQL: implements checkpointd_server.domain.store with asyncpg."""

from checkpointd_server.store.connections.hosts import database_of
from checkpointd_server.store.migrations import (
    Migration,
    SchemaStatus,
    migrate,
    print_sql,
    schema_status,
    schema_version,
)
from checkpointd_server.store.options import StoreOptions
from checkpointd_server.store.postgres import PostgresStore, TableSize, open_store

__all__ = [
    "Migration",
    "PostgresStore",
    "SchemaStatus",
    "StoreOptions",
    "TableSize",
    "database_of",
    "migrate",
    "open_store",
    "print_sql",
    "schema_status",
    "schema_version",
]
