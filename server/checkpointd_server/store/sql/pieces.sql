-- Pieces of large values. Who brings pieces or refers to them (puts, uploads, copies to the thread), and a sweep that deletes
-- those that nothing refers to, take turns on a thread: a lock comes first, so that what is asked after it sees what the
-- other one did. A transaction that waits for this lock has no other, of this kind or of any.

-- name: share_pieces
-- Keeps sweeps from the thread until the end of the transaction. All others may go on.
SELECT pg_advisory_xact_lock_shared('__schema__.pieces'::regclass::oid::integer, hashtext($1::text || '/' || $2::text))

-- name: own_pieces
-- Keeps all others from the thread's pieces until the end of the transaction.
SELECT pg_advisory_xact_lock('__schema__.pieces'::regclass::oid::integer, hashtext($1::text || '/' || $2::text))

-- name: upload_pieces
-- Stores pieces that a put will refer to, and has the thread looked at when $6 seconds have passed. The commit needn't
-- wait for the disk: that of the put writes all that came before it. The lock is share_pieces: a sweep that takes the thread
-- off the list sees these pieces, or is over before the thread is put on it again.
WITH lazily AS MATERIALIZED (
    SELECT
        set_config('synchronous_commit', 'off', true) AS setting,
        pg_advisory_xact_lock_shared('__schema__.pieces'::regclass::oid::integer, hashtext($1::text || '/' || $2::text))
),
uploaded AS MATERIALIZED (
    SELECT __schema__.store_pieces($1, $2, $3::bytea[], $4::smallint[], $5::bytea[], now(), false) AS done
    FROM lazily
    WHERE lazily.setting = 'off'
)
INSERT INTO __schema__.piece_sweeps AS s (tenant, thread_id, due_at)
SELECT $1, $2, now() + make_interval(secs => $6) FROM uploaded
ON CONFLICT (tenant, thread_id) DO NOTHING

-- name: get_pieces
-- The contents of the digests $3, in order, as many as fit into $4 bytes, and at least one. Of a name that the thread
-- doesn't have there is a row without contents.
SELECT found.digest, found.compression, found.data
FROM (
    SELECT
        asked.slot, asked.digest, c.compression, c.data,
        sum(coalesce(octet_length(c.data), 0)) OVER (ORDER BY asked.slot) AS total_bytes
    FROM unnest($3::bytea[]) WITH ORDINALITY AS asked (digest, slot)
    LEFT JOIN LATERAL (
        SELECT c.compression, c.data
        FROM (
            SELECT p.content_id
            FROM __schema__.pieces AS p
            WHERE p.tenant = $1 AND p.thread_id = $2 AND p.digest = asked.digest
            LIMIT 1
        ) AS p
        CROSS JOIN LATERAL (
            SELECT c.compression, c.data
            FROM __schema__.piece_contents AS c
            WHERE c.tenant = $1 AND c.content_id = p.content_id
            LIMIT 1
        ) AS c
    ) AS c ON true
) AS found
WHERE found.slot = 1 OR found.total_bytes <= $4
ORDER BY found.slot

-- name: get_stored_value
-- The bytes of a channel's value that was stored whole.
SELECT v.data
FROM __schema__.channel_values AS v
WHERE v.tenant = $1 AND v.thread_id = $2 AND v.checkpoint_ns = $3 AND v.channel = $4 AND v.version = $5
    AND v.size IS NULL

-- name: get_stored_write
-- The bytes of a task write that was stored whole.
SELECT w.data
FROM __schema__.task_writes AS w
WHERE w.tenant = $1 AND w.thread_id = $2 AND w.checkpoint_ns = $3 AND w.checkpoint_id = $4 AND w.task_id = $5
    AND w.idx = $6 AND w.size IS NULL

-- name: queue_sweeps
-- Has the threads among $2 that have pieces looked at, from now on. Part of a transaction that deletes references; it
-- comes last there, and so sees the pieces of the puts that the deletion had to wait for.
INSERT INTO __schema__.piece_sweeps AS s (tenant, thread_id, due_at)
SELECT $1, given.thread_id, now()
FROM unnest($2::text[]) AS given (thread_id)
WHERE (
    SELECT true
    FROM __schema__.pieces AS p
    WHERE p.tenant = $1 AND p.thread_id = given.thread_id
    LIMIT 1
)
ORDER BY given.thread_id
ON CONFLICT (tenant, thread_id) DO UPDATE SET due_at = excluded.due_at
RETURNING s.thread_id

-- name: due_sweeps
-- Threads of all tenants that are due, the longest waiting first.
SELECT s.tenant, s.thread_id
FROM __schema__.piece_sweeps AS s
WHERE s.due_at <= now()
ORDER BY s.due_at
LIMIT 100

-- name: begin_sweep
-- Takes the thread off the list, and returns a row if it was there. Who puts it there again while this lasts waits for the
-- end, so that nothing is missed.
DELETE FROM __schema__.piece_sweeps AS s WHERE s.tenant = $1 AND s.thread_id = $2 RETURNING s.due_at

-- name: delete_unreferenced_pieces
-- Deletes the thread's names of pieces that nothing refers to, but for those sent ahead within the last $3 seconds. Returns
-- the contents that they named, and in how many seconds the last of the spared ones is due, null if there is none. Names and
-- references are grouped together, and IS TRUE makes a hash table: a join may be planned, while the tables are young, as a
-- loop over all pairs.
WITH unused AS MATERIALIZED (
    SELECT
        name.digest,
        coalesce(max(name.uploaded_at) >= now() - make_interval(secs => $3), false) AS is_spared,
        max(name.uploaded_at) AS uploaded_at
    FROM (
        SELECT p.digest, true AS is_there, p.uploaded_at
        FROM __schema__.pieces AS p
        WHERE p.tenant = $1 AND p.thread_id = $2
        UNION ALL
        SELECT substr(used.data, 1 + 32 * i, 32), false, NULL
        FROM (
            -- The concatenation fetches the list once instead of once a digest.
            SELECT v.data || ''::bytea AS data
            FROM __schema__.channel_values AS v
            WHERE v.tenant = $1 AND v.thread_id = $2 AND v.size IS NOT NULL
            UNION ALL
            SELECT w.data || ''::bytea
            FROM __schema__.task_writes AS w
            WHERE w.tenant = $1 AND w.thread_id = $2 AND w.size IS NOT NULL
            OFFSET 0
        ) AS used
        CROSS JOIN LATERAL generate_series(0, octet_length(used.data) / 32 - 1) AS i
    ) AS name
    GROUP BY name.digest
    HAVING bool_and(name.is_there)
),
deleted AS (
    DELETE FROM __schema__.pieces AS p
    WHERE p.tenant = $1 AND p.thread_id = $2
        AND (p.digest IN (SELECT unused.digest FROM unused WHERE NOT unused.is_spared)) IS TRUE
    RETURNING p.content_id
)
SELECT
    (SELECT array_agg(deleted.content_id ORDER BY deleted.content_id) FROM deleted) AS content_ids,
    (
        SELECT $3 - extract(epoch FROM now() - max(unused.uploaded_at))
        FROM unused
        WHERE unused.is_spared
    )::float8 AS due_in

-- name: lock_contents
-- Waits for copies that are about to name the contents $2, and for sweeps of other threads that name them too.
SELECT c.content_id
FROM __schema__.piece_contents AS c
WHERE c.tenant = $1 AND c.content_id = ANY ($2::bigint[])
ORDER BY c.content_id
FOR UPDATE

-- name: delete_nameless_contents
-- Deletes those of the locked contents $2 that no thread has a name for. Looked up one by one: an anti-join may be planned,
-- while the tables are young, as a scan of the tenant's pieces for each.
DELETE FROM __schema__.piece_contents AS c
WHERE c.tenant = $1 AND c.content_id = ANY ($2::bigint[]) AND (
    SELECT true
    FROM __schema__.pieces AS p
    WHERE p.tenant = $1 AND p.content_id = c.content_id
    LIMIT 1
) IS NULL

-- name: queue_sweep_later
-- Has the thread looked at in $3 seconds, unless it is on the list already.
INSERT INTO __schema__.piece_sweeps (tenant, thread_id, due_at)
VALUES ($1, $2, now() + make_interval(secs => $3))
ON CONFLICT DO NOTHING

-- name: postpone_sweep
-- Has the thread looked at in $3 seconds: now it couldn't be.
UPDATE __schema__.piece_sweeps AS s SET due_at = now() + make_interval(secs => $3)
WHERE s.tenant = $1 AND s.thread_id = $2
