-- Copying and forking threads. All statements of a copy read one snapshot.

-- name: copied_before
-- How many checkpoints of the thread $2 the copy with the request id $3 made.
SELECT count(*)
FROM __schema__.checkpoints AS c
WHERE c.tenant = $1 AND c.thread_id = $2 AND c.request_id = $3

-- name: thread_holds
-- Whether the thread $2 holds checkpoints, and whether it holds task writes.
SELECT
    EXISTS (SELECT FROM __schema__.checkpoints AS c WHERE c.tenant = $1 AND c.thread_id = $2) AS checkpoints,
    EXISTS (SELECT FROM __schema__.task_writes AS w WHERE w.tenant = $1 AND w.thread_id = $2) AS writes

-- name: select_thread
-- Every checkpoint of the thread $2.
SELECT array_agg(c.checkpoint_ns) AS namespaces, array_agg(c.checkpoint_id) AS checkpoint_ids
FROM __schema__.checkpoints AS c
WHERE c.tenant = $1 AND c.thread_id = $2

-- name: select_fork
-- The checkpoint $3 of the thread's root namespace, its ancestors, and the checkpoints of subgraphs that their steps
-- made. What the step after $3 made is left out if that step was completed, which is when $3 has a child.
WITH RECURSIVE root AS (
    SELECT c.checkpoint_id, c.parent_checkpoint_id
    FROM __schema__.checkpoints AS c
    WHERE c.tenant = $1 AND c.thread_id = $2 AND c.checkpoint_ns = '' AND c.checkpoint_id = $3
    UNION
    SELECT c.checkpoint_id, c.parent_checkpoint_id
    FROM root
    CROSS JOIN LATERAL (
        SELECT c.checkpoint_id, c.parent_checkpoint_id
        FROM __schema__.checkpoints AS c
        WHERE c.tenant = $1 AND c.thread_id = $2 AND c.checkpoint_ns = ''
            AND c.checkpoint_id = root.parent_checkpoint_id
        LIMIT 1
    ) AS c
),
went_on AS MATERIALIZED (
    SELECT EXISTS (
        SELECT FROM __schema__.checkpoints AS c
        WHERE c.tenant = $1 AND c.thread_id = $2 AND c.checkpoint_ns = '' AND c.parent_checkpoint_id = $3
    ) AS answer
),
selected AS (
    SELECT '' COLLATE "C" AS checkpoint_ns, root.checkpoint_id
    FROM root
    UNION ALL
    SELECT c.checkpoint_ns, c.checkpoint_id
    FROM __schema__.checkpoints AS c
    WHERE c.tenant = $1 AND c.thread_id = $2 AND c.checkpoint_ns > ''
        AND c.metadata_index -> 'parents' ->> '' IN (
            SELECT root.checkpoint_id
            FROM root, went_on
            WHERE root.checkpoint_id <> $3 OR NOT went_on.answer
        )
)
SELECT
    array_agg(selected.checkpoint_ns) AS namespaces, array_agg(selected.checkpoint_id) AS checkpoint_ids,
    (SELECT went_on.answer FROM went_on) AS went_on
FROM selected

-- name: copy_heads
-- Heads for the namespaces of the copied checkpoints ($4, $5). A put to the target at the same time makes this fail.
INSERT INTO __schema__.namespaces (
    tenant, thread_id, checkpoint_ns, version, last_checkpoint_id, last_request_id, pruned_below
)
SELECT
    $1, $3, copied.checkpoint_ns, nextval('__schema__.versions'),
    CASE
        WHEN n.last_checkpoint_id = ANY (copied.checkpoint_ids) THEN n.last_checkpoint_id
        ELSE copied.greatest
    END,
    $6, n.pruned_below
FROM (
    SELECT
        c.checkpoint_ns, max(c.checkpoint_id COLLATE "C") AS greatest,
        array_agg(c.checkpoint_id) AS checkpoint_ids
    FROM unnest($4::text[], $5::text[]) AS c (checkpoint_ns, checkpoint_id)
    GROUP BY c.checkpoint_ns
) AS copied
LEFT JOIN __schema__.namespaces AS n
    ON n.tenant = $1 AND n.thread_id = $2 AND n.checkpoint_ns = copied.checkpoint_ns

-- name: copy_checkpoints
-- The checkpoints ($4, $5), with the versions of their new heads. The request id $6 marks them as this copy's.
INSERT INTO __schema__.checkpoints (
    tenant, thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, version, request_id, body,
    channels, channel_versions, metadata_type, metadata, metadata_index, run_id
)
SELECT
    $1, $3, c.checkpoint_ns, c.checkpoint_id, c.parent_checkpoint_id, n.version, $6, c.body,
    c.channels, c.channel_versions, c.metadata_type, c.metadata, c.metadata_index, c.run_id
FROM unnest($4::text[], $5::text[]) AS copied (checkpoint_ns, checkpoint_id)
CROSS JOIN LATERAL (
    SELECT c.*
    FROM __schema__.checkpoints AS c
    WHERE c.tenant = $1 AND c.thread_id = $2 AND c.checkpoint_ns = copied.checkpoint_ns
        AND c.checkpoint_id = copied.checkpoint_id
    LIMIT 1
) AS c
CROSS JOIN LATERAL (
    SELECT n.version
    FROM __schema__.namespaces AS n
    WHERE n.tenant = $1 AND n.thread_id = $3 AND n.checkpoint_ns = c.checkpoint_ns
    LIMIT 1
) AS n

-- name: copy_values
-- The values that the copied checkpoints refer to.
INSERT INTO __schema__.channel_values (tenant, thread_id, checkpoint_ns, channel, version, type, data, size)
SELECT $1, $3, used.checkpoint_ns, used.channel, used.version, v.type, v.data, v.size
FROM (
    SELECT DISTINCT c.checkpoint_ns, part.channel, part.version
    FROM __schema__.checkpoints AS c
    CROSS JOIN LATERAL unnest(c.channels, c.channel_versions) AS part (channel, version)
    WHERE c.tenant = $1 AND c.thread_id = $3
) AS used
CROSS JOIN LATERAL (
    SELECT v.type, v.data, v.size
    FROM __schema__.channel_values AS v
    WHERE v.tenant = $1 AND v.thread_id = $2 AND v.checkpoint_ns = used.checkpoint_ns
        AND v.channel = used.channel AND v.version = used.version
    LIMIT 1
) AS v

-- name: copy_writes
-- The writes beside the copied checkpoints ($4, $5), but not those beside the root's checkpoint $6.
INSERT INTO __schema__.task_writes (
    tenant, thread_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, data, size
)
SELECT $1, $3, w.checkpoint_ns, w.checkpoint_id, w.task_id, w.idx, w.task_path, w.channel, w.type, w.data, w.size
FROM unnest($4::text[], $5::text[]) AS copied (checkpoint_ns, checkpoint_id)
CROSS JOIN LATERAL (
    SELECT w.*
    FROM __schema__.task_writes AS w
    WHERE w.tenant = $1 AND w.thread_id = $2 AND w.checkpoint_ns = copied.checkpoint_ns
        AND w.checkpoint_id = copied.checkpoint_id
    OFFSET 0
) AS w
WHERE copied.checkpoint_ns <> '' OR copied.checkpoint_id IS DISTINCT FROM $6::text

-- name: copy_all_writes
-- The writes of the whole thread, also those whose checkpoint isn't there. A thread that has only such writes leaves no
-- mark in the target, so a repeated copy finds them there.
INSERT INTO __schema__.task_writes (
    tenant, thread_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, data, size
)
SELECT $1, $3, w.checkpoint_ns, w.checkpoint_id, w.task_id, w.idx, w.task_path, w.channel, w.type, w.data, w.size
FROM __schema__.task_writes AS w
WHERE w.tenant = $1 AND w.thread_id = $2
ON CONFLICT DO NOTHING

-- name: copy_pieces
-- Names, in the target, of the contents that its values refer to. The locks keep a sweep of another thread, which has
-- deleted its names, from deleting the contents: it waits, and finds these names. Both lock in one order.
INSERT INTO __schema__.pieces (tenant, thread_id, digest, content_id)
SELECT $1, $3, named.digest, named.content_id
FROM (
    SELECT p.digest, p.content_id
    FROM (
        SELECT DISTINCT substr(used.data, 1 + 32 * i, 32) AS digest
        FROM (
            SELECT v.data || ''::bytea AS data
            FROM __schema__.channel_values AS v
            WHERE v.tenant = $1 AND v.thread_id = $3 AND v.size IS NOT NULL
            UNION ALL
            SELECT w.data || ''::bytea
            FROM __schema__.task_writes AS w
            WHERE w.tenant = $1 AND w.thread_id = $3 AND w.size IS NOT NULL
            OFFSET 0
        ) AS used
        CROSS JOIN LATERAL generate_series(0, octet_length(used.data) / 32 - 1) AS i
    ) AS used
    CROSS JOIN LATERAL (
        SELECT p.digest, p.content_id
        FROM __schema__.pieces AS p
        WHERE p.tenant = $1 AND p.thread_id = $2 AND p.digest = used.digest
        LIMIT 1
    ) AS p
    ORDER BY p.content_id
    OFFSET 0
) AS named
CROSS JOIN LATERAL (
    SELECT
    FROM __schema__.piece_contents AS c
    WHERE c.tenant = $1 AND c.content_id = named.content_id
    FOR KEY SHARE
) AS held
ON CONFLICT DO NOTHING
