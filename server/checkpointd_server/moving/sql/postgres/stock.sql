-- The tables of LangGraph's PostgresSaver, as `checkpointd import --from-postgres` reads them and `export --to-postgres`
-- writes them.

-- name: begin_reading
-- All of a thread is read as it is at one moment.
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY

-- name: begin_writing
BEGIN

-- name: commit
COMMIT

-- name: roll_back
ROLLBACK

-- name: columns
-- The columns of a table that the search path finds.
SELECT a.attname::text AS name
FROM pg_catalog.pg_attribute AS a
WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped

-- name: list_threads
-- The threads behind one, at most $2.
SELECT DISTINCT c.thread_id COLLATE "C" AS thread_id
FROM checkpoints AS c
WHERE $1::text IS NULL OR c.thread_id COLLATE "C" > $1::text
ORDER BY 1
LIMIT $2

-- name: find_thread
SELECT 1 FROM checkpoints AS c WHERE c.thread_id = $1 LIMIT 1

-- name: identify
-- Which tables these are.
SELECT
    pg_catalog.current_database()::text AS database, n.nspname::text AS schema,
    s.system_identifier || '/' || d.oid AS system
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_database AS d ON d.datname = pg_catalog.current_database()
CROSS JOIN pg_catalog.pg_control_system() AS s
WHERE c.oid = pg_catalog.to_regclass('checkpoints')

-- name: stamp_thread
-- How many rows a thread has, and by which transactions they were written: whatever changes it changes these. Null: none.
SELECT CASE WHEN c.rows > 0 THEN concat_ws(' ', c.rows, c.last, c.sum, b.rows, b.last, b.sum, w.rows, w.last, w.sum) END AS stamp
FROM (
    SELECT count(*) AS rows, max(c.xmin::text::bigint) AS last, sum(c.xmin::text::bigint) AS sum
    FROM checkpoints AS c WHERE c.thread_id = $1
) AS c, (
    SELECT count(*) AS rows, max(b.xmin::text::bigint) AS last, sum(b.xmin::text::bigint) AS sum
    FROM checkpoint_blobs AS b WHERE b.thread_id = $1
) AS b, (
    SELECT count(*) AS rows, max(w.xmin::text::bigint) AS last, sum(w.xmin::text::bigint) AS sum
    FROM checkpoint_writes AS w WHERE w.thread_id = $1
) AS w

-- name: read_checkpoints
-- The checkpoints of a thread behind (id, namespace), at most $4.
SELECT c.checkpoint_ns, c.checkpoint_id, c.parent_checkpoint_id, c.checkpoint::text, c.metadata::text
FROM checkpoints AS c
WHERE c.thread_id = $1 AND (
    $2::text IS NULL OR (c.checkpoint_id COLLATE "C", c.checkpoint_ns COLLATE "C") > ($2::text, $3::text)
)
ORDER BY c.checkpoint_id COLLATE "C", c.checkpoint_ns COLLATE "C"
LIMIT $4

-- name: read_blobs
-- The values of channels at versions.
SELECT b.channel, b.type, b.blob
FROM unnest($3::text[], $4::text[]) AS wanted (channel, version)
JOIN checkpoint_blobs AS b ON b.channel = wanted.channel AND b.version = wanted.version
WHERE b.thread_id = $1 AND b.checkpoint_ns = $2

-- name: read_writes
-- The task writes beside a checkpoint, in LangGraph's order.
SELECT w.task_id, w.task_path, w.idx, w.channel, w.type, w.blob
FROM checkpoint_writes AS w
WHERE w.thread_id = $1 AND w.checkpoint_ns = $2 AND w.checkpoint_id = $3
ORDER BY w.task_path COLLATE "C", w.task_id COLLATE "C", w.idx

-- name: delete_checkpoints
DELETE FROM checkpoints AS c WHERE c.thread_id = $1

-- name: delete_blobs
DELETE FROM checkpoint_blobs AS b WHERE b.thread_id = $1

-- name: delete_writes
DELETE FROM checkpoint_writes AS w WHERE w.thread_id = $1

-- name: write_checkpoint
INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata)
VALUES ($1, $2, $3, $4, $5::jsonb, $6::jsonb)

-- name: write_blob
INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob) VALUES ($1, $2, $3, $4, $5, $6)

-- name: write_write
INSERT INTO checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
