-- Metrics of the database.

-- name: measure_tables
-- Returns the size of each of our tables with indexes and TOAST, in bytes, and its rows as estimated by the last ANALYZE or VACUUM.
SELECT c.relname::text AS name, pg_catalog.pg_total_relation_size(c.oid) AS bytes, c.reltuples::bigint AS rows
FROM pg_catalog.pg_class AS c
WHERE c.relkind IN ('r', 'p') AND c.relnamespace = (
    SELECT n.relnamespace FROM pg_catalog.pg_class AS n WHERE n.oid = '__schema__.namespaces'::regclass
)
