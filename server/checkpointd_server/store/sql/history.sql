-- The way back from a checkpoint through its parents.

-- fragment: walk
-- From `target` to the nearest stored value of each channel of its `asked`, or to the root. A row holds the channels
-- that were asked for on arrival, and of those the ones with a stored value there: these are asked for no further.
-- UNION drops rows seen before, so that the walk ends even where parents go in a circle.
walk AS (
    SELECT
        true AS is_target, target.checkpoint_id, target.parent_checkpoint_id,
        NULL::text[] AS asked, target.asked AS remaining, NULL::text[] AS seeds, NULL::text[] AS seed_versions
    FROM target
    UNION
    SELECT
        false, c.checkpoint_id, c.parent_checkpoint_id,
        walk.remaining, step.remaining, step.seeds, step.seed_versions
    FROM walk
    CROSS JOIN LATERAL (
        SELECT c.checkpoint_id, c.parent_checkpoint_id, c.channels, c.channel_versions
        FROM __schema__.checkpoints AS c
        WHERE c.tenant = $1 AND c.thread_id = $2 AND c.checkpoint_ns = $3
            AND c.checkpoint_id = walk.parent_checkpoint_id
        LIMIT 1
    ) AS c
    CROSS JOIN LATERAL (
        SELECT
            array_agg(a.channel) FILTER (WHERE stored.version IS NULL) AS remaining,
            array_agg(a.channel) FILTER (WHERE stored.version IS NOT NULL) AS seeds,
            array_agg(stored.version::text COLLATE "default") FILTER (WHERE stored.version IS NOT NULL) AS seed_versions
        FROM unnest(walk.remaining) AS a (channel)
        LEFT JOIN LATERAL (
            SELECT v.version
            FROM __schema__.channel_values AS v
            WHERE v.tenant = $1 AND v.thread_id = $2 AND v.checkpoint_ns = $3
                AND v.channel = a.channel AND v.version = c.channel_versions[array_position(c.channels, a.channel)]
            LIMIT 1
        ) AS stored ON true
    ) AS step
    WHERE walk.remaining IS NOT NULL
)

-- name: get_delta_history
-- The ancestors of the checkpoint $4 (null: of the latest), in no order, with their writes to the channels $5 that were
-- still asked for there, and the seeds. There is always a row, for the version; the target's own has no writes.
WITH RECURSIVE target AS (
    SELECT c.checkpoint_id, c.parent_checkpoint_id, $5::text[] AS asked
    FROM __schema__.checkpoints AS c
    WHERE c.tenant = $1 AND c.thread_id = $2 AND c.checkpoint_ns = $3
        AND c.checkpoint_id >= (SELECT coalesce($4, '')) AND ($4 IS NULL OR c.checkpoint_id = $4)
    ORDER BY c.checkpoint_id DESC
    LIMIT 1
),
-- include: walk
SELECT
    -- include: namespace_version
    AS version,
    walk.is_target, walk.checkpoint_id, walk.parent_checkpoint_id,
    walk.seeds, walk.seed_versions, found.types AS seed_types, found.data AS seed_data, found.sizes AS seed_sizes,
    written.task_ids, written.task_paths, written.idxs, written.channels, written.types, written.data, written.sizes
FROM (SELECT) AS one
LEFT JOIN walk ON true
LEFT JOIN LATERAL (
    SELECT
        array_agg(v.type ORDER BY seed.slot) AS types, array_agg(v.data ORDER BY seed.slot) AS data,
        array_agg(v.size ORDER BY seed.slot) AS sizes
    FROM unnest(walk.seeds, walk.seed_versions) WITH ORDINALITY AS seed (channel, version, slot)
    CROSS JOIN LATERAL (
        SELECT v.type, v.data, v.size
        FROM __schema__.channel_values AS v
        WHERE v.tenant = $1 AND v.thread_id = $2 AND v.checkpoint_ns = $3
            AND v.channel = seed.channel AND v.version = seed.version
        LIMIT 1
    ) AS v
) AS found ON walk.seeds IS NOT NULL
LEFT JOIN LATERAL (
    SELECT
        array_agg(w.task_id) AS task_ids, array_agg(w.task_path) AS task_paths, array_agg(w.idx) AS idxs,
        array_agg(w.channel) AS channels, array_agg(w.type) AS types, array_agg(w.data) AS data,
        array_agg(w.size) AS sizes
    FROM (
        SELECT w.task_id, w.task_path, w.idx, w.channel, w.type, w.data, w.size
        FROM __schema__.task_writes AS w
        WHERE w.tenant = $1 AND w.thread_id = $2 AND w.checkpoint_ns = $3 AND w.checkpoint_id = walk.checkpoint_id
            AND w.channel = ANY (walk.asked)
        ORDER BY w.task_path, w.task_id, w.idx
        OFFSET 0
    ) AS w
) AS written ON NOT walk.is_target

-- name: lowest_ancestor
-- The least id on the way back from the checkpoint $4 to the nearest stored values of the channels $5.
WITH RECURSIVE target AS (
    SELECT c.checkpoint_id, c.parent_checkpoint_id, $5::text[] AS asked
    FROM __schema__.checkpoints AS c
    WHERE c.tenant = $1 AND c.thread_id = $2 AND c.checkpoint_ns = $3 AND c.checkpoint_id = $4
),
-- include: walk
SELECT min(walk.checkpoint_id) FROM walk
