-- What an operator wants to know of the database.

-- name: measure_tables
-- Each of our tables: its size with indexes and TOAST, in bytes, and its rows as the last ANALYZE or VACUUM estimated them.
SELECT c.relname::text AS name, pg_catalog.pg_total_relation_size(c.oid) AS bytes, c.reltuples::bigint AS rows
FROM pg_catalog.pg_class AS c
WHERE c.relkind IN ('r', 'p') AND c.relnamespace = (
    SELECT n.relnamespace FROM pg_catalog.pg_class AS n WHERE n.oid = '__schema__.namespaces'::regclass
)
