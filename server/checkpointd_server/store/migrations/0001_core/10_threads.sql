-- Deletions, one thread per call.

-- Locks a thread, and decides whether a caller with the lease token p_lease (0: none) may change it.
--
--   o_outcome    "ok", "held", "lost", "pinned"
--   o_remaining  Remaining time of the lease in force, in seconds.
--   o_is_there   Whether the thread has a row. Without one it is empty.
CREATE FUNCTION __schema__.lock_thread(
    p_tenant text, p_thread uuid, p_lease bigint, OUT o_outcome text, OUT o_remaining float8, OUT o_is_there boolean
) LANGUAGE plpgsql AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_token bigint;
    x_is_pinned boolean;
BEGIN
    UPDATE __schema__.threads AS t SET updated_at = clock_timestamp() WHERE t.thread = p_thread
    RETURNING t.is_pinned INTO x_is_pinned;
    o_is_there := FOUND;
    SELECT t.lease_token, date_part('epoch', t.lease_expires_at - clock_timestamp()) INTO x_token, o_remaining
    FROM __schema__.threads AS t
    WHERE t.thread = p_thread AND t.lease_expires_at > clock_timestamp();
    o_outcome := CASE
        WHEN coalesce(x_token, 0) = p_lease THEN CASE WHEN x_is_pinned THEN 'pinned' ELSE 'ok' END
        WHEN p_lease = 0 THEN 'held'
        ELSE 'lost'
    END;
END
$$;

-- Returns a row for each of the threads p_threads that a caller with the lease tokens p_leases (0: none) may not delete from.
CREATE FUNCTION __schema__.check_leases(p_tenant text, p_threads uuid[], p_leases bigint[])
RETURNS TABLE (o_thread uuid, o_outcome text, o_remaining float8) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
BEGIN
    RETURN QUERY
    SELECT
        p_threads[i],
        CASE WHEN coalesce(t.token, 0) = p_leases[i] THEN 'pinned' WHEN p_leases[i] = 0 THEN 'held' ELSE 'lost' END,
        t.remaining
    FROM generate_subscripts(p_threads, 1) AS i
    LEFT JOIN LATERAL (
        SELECT
            CASE WHEN t.lease_expires_at > clock_timestamp() THEN t.lease_token END AS token,
            CASE
                WHEN t.lease_expires_at > clock_timestamp()
                THEN date_part('epoch', t.lease_expires_at - clock_timestamp())::float8
            END AS remaining,
            t.is_pinned
        FROM __schema__.threads AS t
        WHERE t.thread = p_threads[i]
        LIMIT 1
    ) AS t ON true
    WHERE coalesce(t.token, 0) <> p_leases[i] OR t.is_pinned;
END
$$;

-- Deletes entire namespaces of a locked thread, and returns how many checkpoints they had.
CREATE FUNCTION __schema__.delete_namespaces(p_thread uuid, p_namespaces text[]) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    x_floor bigint;
    x_checkpoints bigint := 0;
    x_rows bigint;
    x_ns text;
BEGIN
    FOREACH x_ns IN ARRAY p_namespaces LOOP
        DELETE FROM __schema__.namespaces AS n WHERE n.thread = p_thread AND n.checkpoint_ns = x_ns
        RETURNING n.version INTO x_floor;
        UPDATE __schema__.threads AS t SET floor = greatest(t.floor, x_floor) WHERE t.thread = p_thread;
        DELETE FROM __schema__.checkpoints AS c WHERE c.thread = p_thread AND c.checkpoint_ns = x_ns;
        GET DIAGNOSTICS x_rows = ROW_COUNT;
        x_checkpoints := x_checkpoints + x_rows;
        WITH gone AS (
            DELETE FROM __schema__.channel_values AS v WHERE v.thread = p_thread AND v.checkpoint_ns = x_ns
            RETURNING v.upload_id
        ),
        gone_writes AS (
            DELETE FROM __schema__.task_writes AS w WHERE w.thread = p_thread AND w.checkpoint_ns = x_ns
            RETURNING w.upload_id
        )
        DELETE FROM __schema__.value_parts AS p
        WHERE p.thread = p_thread AND p.upload_id IN (
            SELECT gone.upload_id FROM gone UNION ALL SELECT gone_writes.upload_id FROM gone_writes
        );
        DELETE FROM __schema__.replaced_writes AS r WHERE r.thread = p_thread AND r.checkpoint_ns = x_ns;
    END LOOP;
    RETURN x_checkpoints;
END
$$;

-- Deletes a thread, and returns how many checkpoints it had. Its row is kept for a while, with its lease.
CREATE FUNCTION __schema__.delete_thread(
    p_tenant text, p_thread uuid, p_lease bigint, OUT o_outcome text, OUT o_remaining float8, OUT o_checkpoints bigint
) LANGUAGE plpgsql AS $$
DECLARE
    x_is_there boolean;
BEGIN
    SELECT l.* INTO o_outcome, o_remaining, x_is_there
    FROM __schema__.lock_thread(p_tenant, p_thread, p_lease) AS l;
    o_checkpoints := 0;
    IF o_outcome <> 'ok' OR NOT x_is_there THEN
        RETURN;
    END IF;
    UPDATE __schema__.threads AS t SET
        floor = greatest(t.floor, (SELECT max(n.version) FROM __schema__.namespaces AS n WHERE n.thread = p_thread)),
        copy_request_id = NULL,
        listed_at = NULL, checkpoints = 0, bytes = 0, signal = NULL, fingerprint = NULL,
        serializer = NULL,
        ttl_seconds = NULL, read_at = NULL, retained_at = NULL, has_garbage = false, tags = '{}'
    WHERE t.thread = p_thread;
    DELETE FROM __schema__.thread_labels AS l WHERE l.thread = p_thread;
    DELETE FROM __schema__.namespaces AS n WHERE n.thread = p_thread;
    DELETE FROM __schema__.checkpoints AS c WHERE c.thread = p_thread;
    GET DIAGNOSTICS o_checkpoints = ROW_COUNT;
    DELETE FROM __schema__.channel_values AS v WHERE v.thread = p_thread;
    DELETE FROM __schema__.task_writes AS w WHERE w.thread = p_thread;
    DELETE FROM __schema__.replaced_writes AS r WHERE r.thread = p_thread;
    DELETE FROM __schema__.value_parts AS p WHERE p.thread = p_thread;
    DELETE FROM __schema__.uploads AS u WHERE u.thread = p_thread;
    PERFORM __schema__.queue_gc(p_tenant, p_thread, 3600);
END
$$;

-- Deletes checkpoints of a namespace with their task writes. Writes that arrived before their checkpoint are kept.
CREATE FUNCTION __schema__.delete_checkpoints(p_thread uuid, p_ns text, p_ids text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM __schema__.checkpoints AS c
    WHERE c.thread = p_thread AND c.checkpoint_ns = p_ns AND c.checkpoint_id = ANY (p_ids);
    WITH gone AS (
        DELETE FROM __schema__.task_writes AS w
        WHERE w.thread = p_thread AND w.checkpoint_ns = p_ns AND w.checkpoint_id = ANY (p_ids)
        RETURNING w.upload_id
    )
    DELETE FROM __schema__.value_parts AS p
    WHERE p.thread = p_thread AND p.upload_id IN (SELECT gone.upload_id FROM gone WHERE gone.upload_id IS NOT NULL);
    DELETE FROM __schema__.replaced_writes AS r
    WHERE r.thread = p_thread AND r.checkpoint_ns = p_ns AND r.checkpoint_id = ANY (p_ids);
END
$$;

-- Deletes the values of a namespace that no checkpoint refers to, neither directly nor through patches, and that no task write
-- builds on. EXCEPT is never planned as a loop over all pairs.
CREATE FUNCTION __schema__.free_values(p_thread uuid, p_ns text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    WITH RECURSIVE used AS (
        (
            SELECT part.channel COLLATE "C" AS channel, part.version COLLATE "C" AS version
            FROM __schema__.checkpoints AS c
            CROSS JOIN LATERAL unnest(c.channels, c.channel_versions) AS part (channel, version)
            WHERE c.thread = p_thread AND c.checkpoint_ns = p_ns
            UNION ALL
            SELECT w.channel, w.base_version
            FROM __schema__.task_writes AS w
            WHERE w.thread = p_thread AND w.checkpoint_ns = p_ns AND w.base_version IS NOT NULL
        )
        UNION
        SELECT v.channel, v.base_version
        FROM used
        CROSS JOIN LATERAL (
            SELECT v.channel, v.base_version
            FROM __schema__.channel_values AS v
            WHERE v.thread = p_thread AND v.checkpoint_ns = p_ns AND v.channel = used.channel AND v.version = used.version
                AND v.base_version IS NOT NULL
            LIMIT 1
        ) AS v
    ),
    garbage AS (
        SELECT v.channel, v.version
        FROM __schema__.channel_values AS v
        WHERE v.thread = p_thread AND v.checkpoint_ns = p_ns
        EXCEPT
        SELECT used.channel, used.version FROM used
    ),
    gone AS (
        DELETE FROM __schema__.channel_values AS v
        WHERE v.ctid = ANY (ARRAY (
            SELECT stored.ctid
            FROM garbage
            CROSS JOIN LATERAL (
                SELECT v.ctid
                FROM __schema__.channel_values AS v
                WHERE v.thread = p_thread AND v.checkpoint_ns = p_ns
                    AND v.channel = garbage.channel AND v.version = garbage.version
                LIMIT 1
            ) AS stored
        ))
        RETURNING v.upload_id
    )
    DELETE FROM __schema__.value_parts AS p
    WHERE p.thread = p_thread AND p.upload_id IN (SELECT gone.upload_id FROM gone WHERE gone.upload_id IS NOT NULL);
END
$$;

-- Returns the threads that hold checkpoints of the runs p_runs.
CREATE FUNCTION __schema__.threads_of_runs(p_tenant text, p_runs text[])
RETURNS TABLE (o_thread uuid, o_thread_id text) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
BEGIN
    RETURN QUERY
    SELECT of_run.thread, t.thread_id::text
    FROM (
        SELECT DISTINCT c.thread FROM __schema__.checkpoints AS c WHERE c.tenant = p_tenant AND c.run_id = ANY (p_runs)
    ) AS of_run
    CROSS JOIN LATERAL (
        SELECT t.thread_id FROM __schema__.threads AS t WHERE t.thread = of_run.thread LIMIT 1
    ) AS t;
END
$$;

-- Deletes the checkpoints of runs from a thread, with values that no other checkpoint refers to, and returns how many there were.
-- Namespaces that become empty lose their head. The others get a new version and no last writer, so runs in progress conflict.
CREATE FUNCTION __schema__.delete_runs(
    p_tenant text, p_thread uuid, p_lease bigint, p_runs text[],
    OUT o_outcome text, OUT o_remaining float8, OUT o_checkpoints bigint
) LANGUAGE plpgsql AS $$
DECLARE
    x_is_there boolean;
    x_touched record;
    x_last text;
BEGIN
    SELECT l.* INTO o_outcome, o_remaining, x_is_there
    FROM __schema__.lock_thread(p_tenant, p_thread, p_lease) AS l;
    o_checkpoints := 0;
    IF o_outcome <> 'ok' OR NOT x_is_there THEN
        RETURN;
    END IF;
    FOR x_touched IN
        SELECT c.checkpoint_ns, array_agg(c.checkpoint_id) AS ids
        FROM __schema__.checkpoints AS c
        WHERE c.thread = p_thread AND c.tenant = p_tenant AND c.run_id = ANY (p_runs)
        GROUP BY c.checkpoint_ns
    LOOP
        o_checkpoints := o_checkpoints + cardinality(x_touched.ids);
        PERFORM __schema__.delete_checkpoints(p_thread, x_touched.checkpoint_ns, x_touched.ids);
        PERFORM __schema__.free_values(p_thread, x_touched.checkpoint_ns);
        SELECT c.checkpoint_id INTO x_last
        FROM __schema__.checkpoints AS c
        WHERE c.thread = p_thread AND c.checkpoint_ns = x_touched.checkpoint_ns
        ORDER BY c.checkpoint_id DESC
        LIMIT 1;
        IF FOUND THEN
            UPDATE __schema__.namespaces AS n SET
                version = greatest(n.version + 1, (date_part('epoch', clock_timestamp()) * 1000000)::bigint),
                last_checkpoint_id = x_last,
                last_writer = NULL,
                last_request_id = NULL
            WHERE n.thread = p_thread AND n.checkpoint_ns = x_touched.checkpoint_ns;
        ELSE
            WITH gone AS (
                DELETE FROM __schema__.namespaces AS n
                WHERE n.thread = p_thread AND n.checkpoint_ns = x_touched.checkpoint_ns
                RETURNING n.version
            )
            UPDATE __schema__.threads AS t SET floor = greatest(t.floor, gone.version)
            FROM gone
            WHERE t.thread = p_thread;
            PERFORM __schema__.queue_gc(p_tenant, p_thread, 3600);
        END IF;
    END LOOP;
    IF o_checkpoints > 0 THEN
        PERFORM __schema__.refresh_thread(p_tenant, p_thread);
    END IF;
END
$$;
