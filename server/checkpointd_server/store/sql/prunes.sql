-- Removing history, one thread at a time, under the locks of its heads.

-- name: newest_of_namespaces
-- The newest checkpoint of each namespace of a thread; its parent, and whether that has sends beside it, which up to
-- format 3 are the newest's pending ones (the format is not ours to read); the root's checkpoint that it belongs to and
-- whether that is there; and the channels whose value must be rebuilt from its ancestors.
--
-- LangGraph counts the updates of such delta channels in the metadata. Its loop always does. Updates, copies and inputs
-- by hand didn't up to 1.2.11, and LangGraph.js marks threads by delta_writes_versioned; there, and where the metadata
-- index tells nothing of LangGraph's (it may be kept back), channels count that are empty here and were written to. A
-- channel that is counted and has no version may have been written to by an old LangGraph.js.
SELECT
    newest.checkpoint_ns, newest.checkpoint_id, newest.parent_checkpoint_id, newest.root_id,
    EXISTS (
        SELECT FROM __schema__.task_writes AS w
        WHERE w.tenant = $1 AND w.thread_id = $2 AND w.checkpoint_ns = newest.checkpoint_ns
            AND w.checkpoint_id = newest.parent_checkpoint_id AND w.channel = '__pregel_tasks'
    ) AS has_sends,
    EXISTS (
        SELECT FROM __schema__.checkpoints AS r
        WHERE r.tenant = $1 AND r.thread_id = $2 AND r.checkpoint_ns = '' AND r.checkpoint_id = newest.root_id
    ) AS has_root,
    ARRAY (
        SELECT part.channel
        FROM (
            SELECT versioned.channel, versioned.version, newest.counters ? versioned.channel AS is_counted
            FROM unnest(newest.channels, newest.channel_versions) AS versioned (channel, version)
            UNION ALL
            SELECT counted.channel, NULL, false
            FROM jsonb_object_keys(newest.counters) AS counted (channel)
            WHERE counted.channel <> ALL (newest.channels)
        ) AS part
        WHERE (
            part.is_counted
            OR (part.version IS NULL OR NOT newest.is_loops OR newest.metadata_index ? 'delta_writes_versioned')
            AND part.channel NOT LIKE 'branch:%' AND part.channel NOT LIKE '\_\_%' AND EXISTS (
                SELECT FROM __schema__.task_writes AS w
                WHERE w.tenant = $1 AND w.thread_id = $2 AND w.checkpoint_ns = newest.checkpoint_ns
                    AND w.channel = part.channel AND w.checkpoint_id < newest.checkpoint_id
            )
        )
        AND NOT EXISTS (
            SELECT FROM __schema__.channel_values AS v
            WHERE v.tenant = $1 AND v.thread_id = $2 AND v.checkpoint_ns = newest.checkpoint_ns
                AND v.channel = part.channel AND v.version = part.version
        )
    ) AS delta_channels
FROM (
    SELECT
        latest.*,
        latest.metadata_index -> 'parents' ->> '' AS root_id,
        coalesce(latest.metadata_index ->> 'source' = 'loop', false)
            OR latest.metadata_index ? 'counters_since_delta_snapshot' AS is_loops,
        CASE jsonb_typeof(latest.metadata_index -> 'counters_since_delta_snapshot')
            WHEN 'object' THEN latest.metadata_index -> 'counters_since_delta_snapshot'
            ELSE '{}'
        END AS counters
    FROM __schema__.namespaces AS n
    CROSS JOIN LATERAL (
        SELECT c.*
        FROM __schema__.checkpoints AS c
        WHERE c.tenant = $1 AND c.thread_id = $2 AND c.checkpoint_ns = n.checkpoint_ns
        ORDER BY c.checkpoint_id DESC
        LIMIT 1
    ) AS latest
    WHERE n.tenant = $1 AND n.thread_id = $2
) AS newest
ORDER BY newest.checkpoint_ns

-- name: delete_below
-- Deletes the checkpoints of the namespace $3 whose ids are below $4, with the writes beside them.
WITH deleted AS (
    DELETE FROM __schema__.checkpoints AS c
    WHERE c.tenant = $1 AND c.thread_id = $2 AND c.checkpoint_ns = $3 AND c.checkpoint_id < $4
    RETURNING c.thread_id, c.checkpoint_ns, c.checkpoint_id, c.channels, c.channel_versions
),
-- include: writes_beside_deleted
-- include: freed_values

-- name: mark_pruned
-- Notes what was pruned. A run under way whose last put is gone must not build on it; all others go on undisturbed.
UPDATE __schema__.namespaces AS n SET
    pruned_below = $4,
    last_writer = CASE WHEN n.last_checkpoint_id >= $4 THEN n.last_writer END
WHERE n.tenant = $1 AND n.thread_id = $2 AND n.checkpoint_ns = $3

-- name: forget_parents
-- Nobody finds the parents below $4 any more. Encrypted metadata is bound to the parent's id: there it stays.
UPDATE __schema__.checkpoints AS c SET parent_checkpoint_id = NULL
WHERE c.tenant = $1 AND c.thread_id = $2 AND c.checkpoint_ns = $3 AND c.parent_checkpoint_id < $4
    AND c.metadata_type NOT LIKE '%+%'

-- name: delete_namespaces
-- Deletes the namespaces $3 of a thread whole, and returns how many checkpoints were in them.
WITH deleted AS (
    DELETE FROM __schema__.checkpoints AS c
    WHERE c.tenant = $1 AND c.thread_id = $2 AND c.checkpoint_ns = ANY ($3::text[])
    RETURNING 1
),
deleted_values AS (
    DELETE FROM __schema__.channel_values AS v
    WHERE v.tenant = $1 AND v.thread_id = $2 AND v.checkpoint_ns = ANY ($3::text[])
),
deleted_writes AS (
    DELETE FROM __schema__.task_writes AS w
    WHERE w.tenant = $1 AND w.thread_id = $2 AND w.checkpoint_ns = ANY ($3::text[])
),
deleted_heads AS (
    DELETE FROM __schema__.namespaces AS n
    WHERE n.tenant = $1 AND n.thread_id = $2 AND n.checkpoint_ns = ANY ($3::text[])
)
SELECT count(*) FROM deleted
