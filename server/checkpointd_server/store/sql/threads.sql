-- Work on whole threads and runs. Each verb locks the heads of the namespaces it changes before it looks at what is in
-- them: what it then sees can't change under it, and a put comes wholly before or wholly after it.

-- name: lock_heads
-- Locks the heads of a thread's namespaces.
SELECT n.checkpoint_ns
FROM __schema__.namespaces AS n
WHERE n.tenant = $1 AND n.thread_id = $2
ORDER BY n.checkpoint_ns
FOR UPDATE

-- name: delete_heads
-- Deletes the heads of the threads $2, waiting for the puts that are under way.
WITH locked AS MATERIALIZED (
    SELECT n.tenant, n.thread_id, n.checkpoint_ns
    FROM __schema__.namespaces AS n
    WHERE n.tenant = $1 AND n.thread_id = ANY ($2::text[])
    ORDER BY n.thread_id, n.checkpoint_ns
    FOR UPDATE
)
DELETE FROM __schema__.namespaces AS n
USING locked
WHERE n.tenant = locked.tenant AND n.thread_id = locked.thread_id AND n.checkpoint_ns = locked.checkpoint_ns
    -- Said once more, so that the planner knows that the index has few of them.
    AND n.tenant = $1 AND n.thread_id = ANY ($2::text[])

-- name: delete_headless
-- Deletes what lies in the threads $2, and returns how many checkpoints. A namespace that has a head was made anew
-- since the heads were deleted: it stays.
WITH headed AS MATERIALIZED (
    SELECT n.thread_id, n.checkpoint_ns
    FROM __schema__.namespaces AS n
    WHERE n.tenant = $1 AND n.thread_id = ANY ($2::text[])
),
deleted AS (
    DELETE FROM __schema__.checkpoints AS c
    WHERE c.tenant = $1 AND c.thread_id = ANY ($2::text[])
        AND (c.thread_id, c.checkpoint_ns) NOT IN (SELECT headed.thread_id, headed.checkpoint_ns FROM headed)
    RETURNING 1
),
deleted_values AS (
    DELETE FROM __schema__.channel_values AS v
    WHERE v.tenant = $1 AND v.thread_id = ANY ($2::text[])
        AND (v.thread_id, v.checkpoint_ns) NOT IN (SELECT headed.thread_id, headed.checkpoint_ns FROM headed)
),
deleted_writes AS (
    DELETE FROM __schema__.task_writes AS w
    WHERE w.tenant = $1 AND w.thread_id = ANY ($2::text[])
        AND (w.thread_id, w.checkpoint_ns) NOT IN (SELECT headed.thread_id, headed.checkpoint_ns FROM headed)
)
SELECT count(*) FROM deleted

-- fragment: writes_beside_deleted
-- Deletes the writes beside the checkpoints in `deleted`; writes whose checkpoint is still to come stay.
deleted_writes AS (
    DELETE FROM __schema__.task_writes
    WHERE ctid = ANY (ARRAY (
        SELECT beside.ctid
        FROM deleted
        CROSS JOIN LATERAL (
            SELECT w.ctid
            FROM __schema__.task_writes AS w
            WHERE w.tenant = $1 AND w.thread_id = deleted.thread_id AND w.checkpoint_ns = deleted.checkpoint_ns
                AND w.checkpoint_id = deleted.checkpoint_id
            OFFSET 0
        ) AS beside
    ))
)

-- fragment: freed_values
-- How many checkpoints were `deleted`, and the values that they referred to, as parallel arrays.
SELECT
    (SELECT count(*) FROM deleted) AS checkpoints,
    array_agg(freed.thread_id) AS thread_ids, array_agg(freed.checkpoint_ns) AS namespaces,
    array_agg(freed.channel) AS channels, array_agg(freed.version) AS versions
FROM (
    SELECT DISTINCT deleted.thread_id, deleted.checkpoint_ns, used.channel, used.version
    FROM deleted, unnest(deleted.channels, deleted.channel_versions) AS used (channel, version)
) AS freed

-- name: delete_unreferenced_values
-- Of the values ($2, $3, $4, $5), deletes those that no checkpoint refers to. EXCEPT is never planned as a loop over
-- all pairs.
WITH freed AS MATERIALIZED (
    SELECT
        f.thread_id COLLATE "C" AS thread_id, f.checkpoint_ns COLLATE "C" AS checkpoint_ns,
        f.channel COLLATE "C" AS channel, f.version COLLATE "C" AS version
    FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) AS f (thread_id, checkpoint_ns, channel, version)
),
garbage AS (
    SELECT freed.thread_id, freed.checkpoint_ns, freed.channel, freed.version
    FROM freed
    EXCEPT
    SELECT touched.thread_id, touched.checkpoint_ns, used.channel COLLATE "C", used.version COLLATE "C"
    FROM (SELECT DISTINCT freed.thread_id, freed.checkpoint_ns FROM freed) AS touched
    CROSS JOIN LATERAL (
        SELECT c.channels, c.channel_versions
        FROM __schema__.checkpoints AS c
        WHERE c.tenant = $1 AND c.thread_id = touched.thread_id AND c.checkpoint_ns = touched.checkpoint_ns
        OFFSET 0
    ) AS c
    CROSS JOIN LATERAL unnest(c.channels, c.channel_versions) AS used (channel, version)
)
DELETE FROM __schema__.channel_values
WHERE ctid = ANY (ARRAY (
    SELECT stored.ctid
    FROM garbage
    CROSS JOIN LATERAL (
        SELECT v.ctid
        FROM __schema__.channel_values AS v
        WHERE v.tenant = $1 AND v.thread_id = garbage.thread_id AND v.checkpoint_ns = garbage.checkpoint_ns
            AND v.channel = garbage.channel AND v.version = garbage.version
        LIMIT 1
    ) AS stored
))

-- name: threads_of_runs
-- The threads that hold checkpoints of the runs $2.
SELECT DISTINCT c.thread_id
FROM __schema__.checkpoints AS c
WHERE c.tenant = $1 AND c.run_id = ANY ($2::text[])

-- name: lock_heads_of_runs
-- Locks the heads of the namespaces in the threads $3 that hold checkpoints of the runs $2.
SELECT n.thread_id, n.checkpoint_ns
FROM __schema__.namespaces AS n
WHERE n.tenant = $1 AND (n.thread_id, n.checkpoint_ns) IN (
    SELECT c.thread_id, c.checkpoint_ns
    FROM __schema__.checkpoints AS c
    WHERE c.tenant = $1 AND c.run_id = ANY ($2::text[]) AND c.thread_id = ANY ($3::text[])
)
ORDER BY n.thread_id, n.checkpoint_ns
FOR UPDATE

-- name: delete_runs
-- Deletes the checkpoints of the runs $2 in the locked namespaces ($3, $4), with the writes beside them.
WITH deleted AS (
    DELETE FROM __schema__.checkpoints AS c
    WHERE c.tenant = $1 AND c.run_id = ANY ($2::text[])
        AND (c.thread_id, c.checkpoint_ns) IN (SELECT * FROM unnest($3::text[], $4::text[]))
    RETURNING c.thread_id, c.checkpoint_ns, c.checkpoint_id, c.channels, c.channel_versions
),
-- include: writes_beside_deleted
-- include: freed_values

-- name: renew_heads
-- After a deletion in the namespaces ($2, $3): a namespace that is empty now has no head; the others get a new version
-- and no last writer, so that a run under way there is told.
WITH remaining AS MATERIALIZED (
    SELECT touched.thread_id, touched.checkpoint_ns, latest.checkpoint_id
    FROM unnest($2::text[], $3::text[]) AS touched (thread_id, checkpoint_ns)
    LEFT JOIN LATERAL (
        SELECT c.checkpoint_id
        FROM __schema__.checkpoints AS c
        WHERE c.tenant = $1 AND c.thread_id = touched.thread_id AND c.checkpoint_ns = touched.checkpoint_ns
        ORDER BY c.checkpoint_id DESC
        LIMIT 1
    ) AS latest ON true
),
emptied AS (
    DELETE FROM __schema__.namespaces AS n
    USING remaining
    WHERE n.tenant = $1 AND n.thread_id = remaining.thread_id AND n.checkpoint_ns = remaining.checkpoint_ns
        AND remaining.checkpoint_id IS NULL
)
UPDATE __schema__.namespaces AS n SET
    version = nextval('__schema__.versions'),
    last_checkpoint_id = remaining.checkpoint_id,
    last_writer = NULL,
    last_request_id = NULL
FROM remaining
WHERE n.tenant = $1 AND n.thread_id = remaining.thread_id AND n.checkpoint_ns = remaining.checkpoint_ns
    AND remaining.checkpoint_id IS NOT NULL
