-- Reads: migrations/0001_core/05_reads.sql, 06_lists.sql and 07_history.sql.

-- name: get_checkpoint
-- One checkpoint, or its absence, and the namespace's version, in one row.
SELECT * FROM __schema__.get_checkpoint($1, $2, $3, $4, $5, $6, $7, $8)

-- name: list_checkpoints
-- A page of checkpoints, and a row about the page.
SELECT * FROM __schema__.list_checkpoints($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)

-- name: get_delta_history
-- A page of the walk to a checkpoint's ancestors, and a row about the page.
SELECT * FROM __schema__.get_delta_history($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)

-- name: get_channel_value
-- A range of a channel's value.
SELECT * FROM __schema__.get_channel_value($1, $2, $3, $4, $5, $6, $7)

-- name: get_task_write
-- A range of a task write.
SELECT * FROM __schema__.get_task_write($1, $2, $3, $4, $5, $6, $7, $8)

-- name: check
-- Whether the database answers, and the tables are there.
SELECT n.version FROM __schema__.namespaces AS n LIMIT 0

-- name: row_security_binds
-- Whether row-level security binds the role that the server has.
SELECT NOT (r.rolsuper OR r.rolbypassrls) FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user
