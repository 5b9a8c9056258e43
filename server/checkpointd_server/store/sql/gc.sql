-- Garbage collection: migrations/0001_core/09_uploads.sql.

-- name: claim_gc
-- Claims queued threads of any tenant for a minute, at most $1.
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
-- Collects one thread's garbage.
SELECT * FROM __schema__.collect_thread($1, $2, $3, $4)
