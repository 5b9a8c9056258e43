-- Copying and forking threads.

-- Creates the row of a thread if it is missing, by itself: nobody has to wait for a long transaction that creates it.
CREATE FUNCTION __schema__.make_thread(p_tenant text, p_thread uuid, p_thread_id text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
BEGIN
    INSERT INTO __schema__.threads AS t (thread, tenant, thread_id) VALUES (p_thread, p_tenant, p_thread_id)
    ON CONFLICT (thread) DO NOTHING;
    IF FOUND THEN
        PERFORM __schema__.queue_gc(p_tenant, p_thread, 3600);
    END IF;
END
$$;

-- Copies the thread p_source to p_target, whole or up to the checkpoint p_checkpoint_id of its root namespace: that one, its
-- ancestors, and the checkpoints of subgraphs that their steps created. If the next step was completed, that is, if the
-- checkpoint has a child, that step's checkpoints and task writes are left out. p_target must have a row (make_thread).
--
--   o_outcome      "ok"; "held", "lost": the lease on the target; "exists": the target isn't empty; "not_found": there is no such
--                  checkpoint
--   o_checkpoints  How many were copied, now or when the same copy was sent before.
CREATE FUNCTION __schema__.copy_thread(
    p_tenant text, p_source uuid, p_target uuid, p_checkpoint_id text, p_request_id bytea, p_lease bigint,
    OUT o_outcome text, OUT o_remaining float8, OUT o_checkpoints bigint
) LANGUAGE plpgsql AS $$
DECLARE
    x_is_there boolean;
    x_target record;
    x_has_checkpoints boolean;
    x_has_writes boolean;
BEGIN
    SELECT l.* INTO o_outcome, o_remaining, x_is_there
    FROM __schema__.lock_thread(p_tenant, p_target, p_lease) AS l;
    SELECT t.floor, t.copy_request_id, t.copied_checkpoints INTO x_target
    FROM __schema__.threads AS t
    WHERE t.thread = p_target;
    IF x_target.copy_request_id = p_request_id THEN
        o_outcome := 'ok';
        o_checkpoints := x_target.copied_checkpoints;
        RETURN;
    END IF;
    o_checkpoints := 0;
    IF o_outcome <> 'ok' THEN
        RETURN;
    END IF;
    x_has_checkpoints := EXISTS (SELECT FROM __schema__.checkpoints AS c WHERE c.thread = p_source);
    x_has_writes := EXISTS (SELECT FROM __schema__.task_writes AS w WHERE w.thread = p_source);
    IF NOT x_has_checkpoints AND NOT x_has_writes THEN
        RETURN;
    END IF;
    IF p_source = p_target
        OR EXISTS (SELECT FROM __schema__.checkpoints AS c WHERE c.thread = p_target)
        OR x_has_checkpoints AND EXISTS (SELECT FROM __schema__.task_writes AS w WHERE w.thread = p_target)
        -- Rows without a checkpoint: the values that task writes build on.
        OR EXISTS (SELECT FROM __schema__.channel_values AS v WHERE v.thread = p_target)
    THEN
        o_outcome := 'exists';
        RETURN;
    END IF;

    -- One statement sees one snapshot of the source, even if others write to it.
    WITH RECURSIVE root AS (
        SELECT c.checkpoint_id, c.parent_checkpoint_id
        FROM __schema__.checkpoints AS c
        WHERE c.thread = p_source AND c.checkpoint_ns = '' AND c.checkpoint_id = p_checkpoint_id
        UNION
        SELECT c.checkpoint_id, c.parent_checkpoint_id
        FROM root
        CROSS JOIN LATERAL (
            SELECT c.checkpoint_id, c.parent_checkpoint_id
            FROM __schema__.checkpoints AS c
            WHERE c.thread = p_source AND c.checkpoint_ns = '' AND c.checkpoint_id = root.parent_checkpoint_id
            LIMIT 1
        ) AS c
    ),
    went_on AS MATERIALIZED (
        SELECT EXISTS (
            SELECT FROM __schema__.checkpoints AS c
            WHERE c.thread = p_source AND c.checkpoint_ns = '' AND c.parent_checkpoint_id = p_checkpoint_id
        ) AS answer
    ),
    selected AS MATERIALIZED (
        SELECT c.checkpoint_ns, c.checkpoint_id, c.channels, c.channel_versions
        FROM __schema__.checkpoints AS c
        WHERE c.thread = p_source AND (
            p_checkpoint_id IS NULL
            OR c.checkpoint_ns = '' AND c.checkpoint_id IN (SELECT root.checkpoint_id FROM root)
            OR c.checkpoint_ns > '' AND c.metadata_index -> 'parents' ->> '' IN (
                SELECT root.checkpoint_id
                FROM root, went_on
                WHERE root.checkpoint_id <> p_checkpoint_id OR NOT went_on.answer
            )
        )
    ),
    heads AS (
        INSERT INTO __schema__.namespaces AS n (
            thread, checkpoint_ns, tenant, version, last_checkpoint_id, pruned_below
        )
        SELECT
            p_target, copied.checkpoint_ns, p_tenant,
            greatest(x_target.floor + 1, (date_part('epoch', clock_timestamp()) * 1000000)::bigint),
            CASE WHEN n.last_checkpoint_id = ANY (copied.ids) THEN n.last_checkpoint_id ELSE copied.greatest END,
            n.pruned_below
        FROM (
            SELECT s.checkpoint_ns, max(s.checkpoint_id) AS greatest, array_agg(s.checkpoint_id) AS ids
            FROM selected AS s
            GROUP BY s.checkpoint_ns
        ) AS copied
        LEFT JOIN __schema__.namespaces AS n ON n.thread = p_source AND n.checkpoint_ns = copied.checkpoint_ns
        RETURNING n.checkpoint_ns, n.version
    ),
    copied AS (
        INSERT INTO __schema__.checkpoints AS c (
            thread, checkpoint_ns, checkpoint_id, tenant, parent_checkpoint_id, version, body, channels, channel_versions,
            metadata_type, metadata, metadata_index, run_id, size
        )
        SELECT
            p_target, c.checkpoint_ns, c.checkpoint_id, p_tenant, c.parent_checkpoint_id, heads.version, c.body, c.channels,
            c.channel_versions, c.metadata_type, c.metadata, c.metadata_index, c.run_id, c.size
        FROM selected AS s
        CROSS JOIN LATERAL (
            SELECT c.*
            FROM __schema__.checkpoints AS c
            WHERE c.thread = p_source AND c.checkpoint_ns = s.checkpoint_ns AND c.checkpoint_id = s.checkpoint_id
            LIMIT 1
        ) AS c
        JOIN heads ON heads.checkpoint_ns = c.checkpoint_ns
        RETURNING 1
    ),
    selected_writes AS MATERIALIZED (
        SELECT w.checkpoint_ns, w.checkpoint_id, w.task_id, w.idx, w.channel, w.base_version
        FROM __schema__.task_writes AS w
        WHERE w.thread = p_source AND (
            -- Including those whose checkpoint is missing.
            p_checkpoint_id IS NULL
            OR (w.checkpoint_ns, w.checkpoint_id) IN (SELECT s.checkpoint_ns, s.checkpoint_id FROM selected AS s)
            AND (w.checkpoint_ns <> '' OR w.checkpoint_id <> p_checkpoint_id OR NOT (SELECT went_on.answer FROM went_on))
        )
    ),
    used AS (
        (
            SELECT s.checkpoint_ns, part.channel COLLATE "C" AS channel, part.version COLLATE "C" AS version
            FROM selected AS s
            CROSS JOIN LATERAL unnest(s.channels, s.channel_versions) AS part (channel, version)
            UNION ALL
            SELECT w.checkpoint_ns, w.channel, w.base_version FROM selected_writes AS w WHERE w.base_version IS NOT NULL
        )
        UNION
        SELECT used.checkpoint_ns, used.channel, v.base_version
        FROM used
        CROSS JOIN LATERAL (
            SELECT v.base_version
            FROM __schema__.channel_values AS v
            WHERE v.thread = p_source AND v.checkpoint_ns = used.checkpoint_ns AND v.channel = used.channel
                AND v.version = used.version AND v.base_version IS NOT NULL
            LIMIT 1
        ) AS v
    ),
    copied_values AS (
        INSERT INTO __schema__.channel_values AS v (
            thread, checkpoint_ns, channel, version, tenant, type, data, size, base_version, crc32, sealed, depth, upload_id,
            upload_size
        )
        SELECT
            p_target, v.checkpoint_ns, v.channel, v.version, p_tenant, v.type, v.data, v.size, v.base_version, v.crc32,
            v.sealed, v.depth, v.upload_id, v.upload_size
        FROM used
        CROSS JOIN LATERAL (
            SELECT v.*
            FROM __schema__.channel_values AS v
            WHERE v.thread = p_source AND v.checkpoint_ns = used.checkpoint_ns AND v.channel = used.channel
                AND v.version = used.version
            LIMIT 1
        ) AS v
        RETURNING v.upload_id
    ),
    copied_writes AS (
        INSERT INTO __schema__.task_writes AS w (
            thread, checkpoint_ns, checkpoint_id, task_id, idx, tenant, task_path, channel, type, data, upload_id, upload_size,
            base_version, size, crc32, sealed, depth
        )
        SELECT
            p_target, w.checkpoint_ns, w.checkpoint_id, w.task_id, w.idx, p_tenant, w.task_path, w.channel, w.type, w.data,
            w.upload_id, w.upload_size, w.base_version, w.size, w.crc32, w.sealed, w.depth
        FROM selected_writes AS s
        CROSS JOIN LATERAL (
            SELECT w.*
            FROM __schema__.task_writes AS w
            WHERE w.thread = p_source AND w.checkpoint_ns = s.checkpoint_ns AND w.checkpoint_id = s.checkpoint_id
                AND w.task_id = s.task_id AND w.idx = s.idx
            LIMIT 1
        ) AS w
        ON CONFLICT DO NOTHING
        RETURNING w.upload_id
    ),
    copied_parts AS (
        INSERT INTO __schema__.value_parts AS p (thread, upload_id, part_offset, tenant, data)
        SELECT p_target, p.upload_id, p.part_offset, p_tenant, p.data
        FROM (
            SELECT copied_values.upload_id FROM copied_values WHERE copied_values.upload_id IS NOT NULL
            UNION
            SELECT copied_writes.upload_id FROM copied_writes WHERE copied_writes.upload_id IS NOT NULL
        ) AS uploads
        JOIN __schema__.value_parts AS p ON p.thread = p_source AND p.upload_id = uploads.upload_id
        RETURNING 1
    )
    SELECT count(*) INTO o_checkpoints FROM copied;

    IF o_checkpoints = 0 AND p_checkpoint_id IS NOT NULL THEN
        o_outcome := 'not_found';
    ELSE
        UPDATE __schema__.threads AS t SET copy_request_id = p_request_id, copied_checkpoints = o_checkpoints
        WHERE t.thread = p_target;
    END IF;
    IF o_outcome = 'ok' THEN
        UPDATE __schema__.threads AS t SET
            active_at = clock_timestamp(),
            serializer = coalesce(
                t.serializer, (SELECT s.serializer FROM __schema__.threads AS s WHERE s.thread = p_source)
            )
        WHERE t.thread = p_target;
        PERFORM __schema__.refresh_thread(p_tenant, p_target);
    END IF;
END
$$;
