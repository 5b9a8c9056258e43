-- Garbage collection: migrations/0001_core/09_uploads.sql.

-- name: claim_gc
-- The threads that are to be looked at, at most $1, whatever their tenant. For a minute they are nobody else's.
UPDATE __schema__.gc_queue AS q SET due_at = clock_timestamp() + interval '1 minute'
FROM (
    SELECT q.thread
    FROM __schema__.gc_queue AS q
    WHERE q.due_at <= clock_timestamp()
    ORDER BY q.due_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
) AS due
WHERE q.thread = due.thread
RETURNING q.thread, q.tenant

-- name: collect_thread
-- Looks after one thread.
SELECT * FROM __schema__.collect_thread($1, $2, $3, $4)
