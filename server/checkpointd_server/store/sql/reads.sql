-- Reads: migrations/0001_core/05_reads.sql, 06_lists.sql, 07_history.sql and 14_metadata_index.sql.

-- name: get_checkpoint
-- Returns one checkpoint, if it exists, and the namespace's version, in one row.
SELECT * FROM __schema__.get_checkpoint($1, $2, $3, $4, $5, $6, $7, $8)

-- name: get_metadata_index
-- Returns a checkpoint's metadata index.
SELECT * FROM __schema__.get_metadata_index($1, $2, $3, $4)

-- name: list_checkpoints
-- Returns a page of checkpoints, and a row about the page.
SELECT * FROM __schema__.list_checkpoints($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)

-- name: get_delta_history
-- Returns a page of the walk to a checkpoint's ancestors, and a row about the page.
SELECT * FROM __schema__.get_delta_history($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)

-- name: get_channel_value
-- Returns a range of a channel's value.
SELECT * FROM __schema__.get_channel_value($1, $2, $3, $4, $5, $6, $7)

-- name: get_task_write
-- Returns a range of a task write.
SELECT * FROM __schema__.get_task_write($1, $2, $3, $4, $5, $6, $7, $8)

-- name: check
-- Checks that the database answers and has the tables; returns the rights that the server's role lacks, as GRANT writes them.
SELECT string_agg(lacking.right_on, ', ' ORDER BY lacking.right_on COLLATE "C")
FROM (
    SELECT wanted.privilege || ' ON TABLE ' || quote_ident(c.relname) AS right_on
    FROM pg_catalog.pg_class AS c
    CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS wanted (privilege)
    WHERE c.relnamespace = (
            SELECT n.relnamespace FROM pg_catalog.pg_class AS n WHERE n.oid = '__schema__.namespaces'::regclass
        )
        AND c.relkind IN ('r', 'p') AND (c.relname <> 'migrations' OR wanted.privilege = 'SELECT')
        AND NOT has_table_privilege(c.oid, wanted.privilege)
    UNION ALL
    SELECT 'EXECUTE ON FUNCTION ' || quote_ident(f.proname)
    FROM pg_catalog.pg_proc AS f
    WHERE f.pronamespace = (
            SELECT n.relnamespace FROM pg_catalog.pg_class AS n WHERE n.oid = '__schema__.namespaces'::regclass
        )
        AND NOT has_function_privilege(f.oid, 'EXECUTE')
) AS lacking

-- name: check_room
-- Fails if the database's disk is full.
SELECT __schema__.check_room()

-- name: row_security_binds
-- Returns whether row-level security applies to the server's role.
SELECT NOT (r.rolsuper OR r.rolbypassrls) FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user
