-- Long-term memory: migrations/0020_store, and items/sql/tables.sql if pgvector is installed.

-- name: change_items
-- Stores and deletes items.
SELECT * FROM __schema__.change_items($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)

-- name: put_items
-- Stores items without preconditions.
SELECT * FROM __schema__.put_items($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)

-- name: get_items
-- Returns items by key.
SELECT * FROM __schema__.get_items($1, $2, $3, $4, $5)

-- name: search_items
-- Returns items by content.
SELECT * FROM __schema__.search_items($1, $2, $3, $4, $5, $6, $7, $8, $9)

-- name: count_items
-- Counts items.
SELECT __schema__.count_items($1, $2, $3, $4)

-- name: list_namespaces
-- Lists the namespaces of items.
SELECT * FROM __schema__.list_namespaces($1, $2, $3, $4, $5, $6, $7)

-- name: list_items
-- Lists items in order: migrations/0021_moving.
SELECT * FROM __schema__.list_items($1, $2, $3, $4, $5, $6, $7, $8, $9)

-- name: restore_items
-- Restores listed items.
SELECT * FROM __schema__.restore_items($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)

-- name: sweep_items
-- Deletes expired items.
SELECT __schema__.sweep_items($1, $2)

-- name: claim_sweeps
-- Claims tenants whose expired items are due, at most $1, for $2 seconds.
UPDATE __schema__.item_sweeps AS s SET due_at = clock_timestamp() + make_interval(secs => $2)
FROM (
    SELECT s.tenant
    FROM __schema__.item_sweeps AS s
    WHERE s.due_at <= clock_timestamp()
    ORDER BY s.due_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
) AS due
WHERE s.tenant = due.tenant
RETURNING s.tenant

-- name: languages
-- Lists the text search configurations that can be named without a schema.
SELECT c.cfgname::text AS name FROM pg_catalog.pg_ts_config AS c WHERE pg_catalog.pg_ts_config_is_visible(c.oid)
