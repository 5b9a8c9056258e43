-- Puts and task writes of one namespace in the usual case: the thread is free, the group is accepted, and nothing of it exists
-- yet. All other cases are left to commit_writes, which stores any groups.

-- Deletes the checkpoints and values that this transaction has inserted of a group, and nothing older.
CREATE FUNCTION __schema__.take_back(
    p_thread uuid, p_ns text, p_id text, p_earlier __schema__.put_to_store[], p_values __schema__.value_to_store[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM __schema__.checkpoints AS c
    WHERE c.thread = p_thread AND c.checkpoint_ns = p_ns
        AND c.checkpoint_id = ANY (ARRAY (SELECT p.id FROM unnest(p_earlier) AS p) || p_id)
        AND c.xmin = pg_current_xact_id()::xid;
    DELETE FROM __schema__.channel_values AS v
    USING unnest(p_values) AS given
    WHERE v.thread = p_thread AND v.checkpoint_ns = p_ns AND v.channel = given.channel AND v.version = given.version
        AND v.xmin = pg_current_xact_id()::xid;
END
$$;

-- Stores a group, and returns the namespace's versions after and before it. Null: nothing was stored, call commit_writes.
-- It checks the same as judge(), but doesn't say what failed. Every expression and statement adds microseconds to a single put:
-- what differs between puts is a parameter of its own, and what is rarely present is null.
--
--   p_lease to p_serializer
--                  As in group_to_store.
--   p_parent to p_size
--                  The last put, as in put_to_store; null if there is none. The others are p_earlier.
--   p_values to p_writes
--                  The contents of the group, without uploads and task writes that are patches. Null: none.
CREATE FUNCTION __schema__.commit_group(
    p_tenant text, p_max_chain integer, p_thread uuid, p_thread_id text, p_ns text, p_lease bigint, p_if_version bigint,
    p_if_writer bytea, p_if_last text, p_may_be_first boolean, p_puts integer, p_id text, p_writer bytea, p_request bytea,
    p_least_parent text, p_bytes bigint, p_signal smallint, p_fingerprint bigint, p_first_request bytea,
    p_serializer smallint, p_parent text, p_body bytea, p_channels text[], p_versions text[], p_metadata_type text, p_metadata bytea, p_metadata_index jsonb,
    p_run_id text, p_size integer, p_earlier __schema__.put_to_store[], p_values __schema__.value_to_store[],
    p_emptied __schema__.emptied_to_store[], p_writes __schema__.write_to_store[]
) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_floor bigint;
    x_lease bigint;
    x_lease_expires_at timestamptz;
    x_previous bigint;
    x_last text;
    x_writer bytea;
    x_request bytea;
    x_pruned_below text COLLATE "C";
    x_version bigint;
    x_rows bigint;
    x_signal smallint;
    x_fingerprint bigint;
    x_serializer smallint;
    x_now timestamptz := clock_timestamp();
BEGIN
    -- The lock comes first: later statements see what its previous holders committed. If it is taken, this doesn't wait, because
    -- other groups would have to wait too.
    UPDATE __schema__.threads AS t SET
        active_at = greatest(t.active_at, x_now), listed_at = __schema__.listed_now(t.listed_at, x_now),
        checkpoints = t.checkpoints + p_puts, bytes = t.bytes + p_bytes
    WHERE t.thread = (
        SELECT s.thread FROM __schema__.threads AS s WHERE s.thread = p_thread FOR NO KEY UPDATE SKIP LOCKED
    )
    RETURNING t.floor, t.lease_token, t.lease_expires_at, t.signal, t.fingerprint, t.serializer
    INTO x_floor, x_lease, x_lease_expires_at, x_signal, x_fingerprint, x_serializer;
    IF NOT FOUND THEN
        IF NOT p_may_be_first THEN
            RETURN NULL;
        END IF;
        INSERT INTO __schema__.threads AS t (
            thread, tenant, thread_id, active_at, listed_at, checkpoints, bytes, serializer, fingerprint
        )
        VALUES (
            p_thread, p_tenant, p_thread_id, x_now, x_now, p_puts, p_bytes, p_serializer,
            CASE WHEN p_fingerprint = 0 AND p_signal IS NULL THEN 0 END
        )
        ON CONFLICT (thread) DO NOTHING
        RETURNING t.fingerprint INTO x_fingerprint;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
        x_serializer := p_serializer;
    END IF;

    <<attempt>>
    BEGIN
        SELECT n.version, n.last_checkpoint_id, n.last_writer, n.last_request_id, n.pruned_below
        INTO x_previous, x_last, x_writer, x_request, x_pruned_below
        FROM __schema__.namespaces AS n
        WHERE n.thread = p_thread AND n.checkpoint_ns = p_ns;
        IF x_request IN (p_request, p_first_request)
            OR x_serializer <> p_serializer AND 3 NOT IN (x_serializer, p_serializer)
            OR p_lease <> (CASE WHEN x_lease_expires_at > clock_timestamp() THEN x_lease ELSE 0 END)
            OR (p_if_version IS NOT NULL OR p_if_writer IS NOT NULL) AND (
                p_least_parent < x_pruned_below
                OR (
                    coalesce(x_previous, 0) = p_if_version
                    OR x_writer = p_if_writer AND (p_if_last IS NULL OR x_last = p_if_last)
                ) IS NOT TRUE
            )
        THEN
            EXIT attempt;
        END IF;

        IF p_emptied IS NOT NULL THEN
            PERFORM FROM unnest(p_emptied) AS e
            CROSS JOIN LATERAL (
                SELECT FROM __schema__.channel_values AS v
                WHERE v.thread = p_thread AND v.checkpoint_ns = p_ns AND v.channel = e.channel AND v.version = e.version
                LIMIT 1
            ) AS v;
            IF FOUND THEN
                EXIT attempt;
            END IF;
        END IF;

        x_version := coalesce(x_previous, 0);
        IF p_puts > 0 THEN
            x_version := greatest(
                x_version, x_floor, (date_part('epoch', clock_timestamp()) * 1000000)::bigint - 1
            ) + p_puts;
            x_rows := 0;
            IF p_earlier IS NOT NULL THEN
                INSERT INTO __schema__.checkpoints AS c (
                    thread, checkpoint_ns, checkpoint_id, tenant, parent_checkpoint_id, version, request_id, body,
                    channels, channel_versions, metadata_type, metadata, metadata_index, run_id, size
                )
                SELECT
                    p_thread, p_ns, p.id, p_tenant, p.parent, x_version - p.following, p.request, p.body, p.channels,
                    p.versions, p.metadata_type, p.metadata, p.metadata_index, p.run_id, p.size
                FROM unnest(p_earlier) AS p
                ON CONFLICT (thread, checkpoint_ns, checkpoint_id) DO NOTHING;
                GET DIAGNOSTICS x_rows = ROW_COUNT;
            END IF;
            INSERT INTO __schema__.checkpoints AS c (
                thread, checkpoint_ns, checkpoint_id, tenant, parent_checkpoint_id, version, request_id, body,
                channels, channel_versions, metadata_type, metadata, metadata_index, run_id, size
            )
            VALUES (
                p_thread, p_ns, p_id, p_tenant, p_parent, x_version, p_request, p_body, p_channels, p_versions,
                p_metadata_type, p_metadata, p_metadata_index, p_run_id, p_size
            )
            ON CONFLICT (thread, checkpoint_ns, checkpoint_id) DO NOTHING;
            IF NOT FOUND OR x_rows < p_puts - 1 THEN
                IF p_puts > 1 THEN
                    PERFORM __schema__.take_back(p_thread, p_ns, p_id, p_earlier, NULL);
                END IF;
                EXIT attempt;
            END IF;
        END IF;

        IF p_values IS NOT NULL THEN
            -- Without those whose base is missing, or whose chain is too long.
            INSERT INTO __schema__.channel_values AS v (
                thread, checkpoint_ns, channel, version, tenant, type, data, size, base_version, crc32, sealed, depth
            )
            SELECT
                p_thread, p_ns, v.channel, v.version, p_tenant, v.type, v.data, v.size, v.base, v.crc32, v.sealed, v.depth
            FROM (
                SELECT
                    v.*,
                    CASE
                        WHEN v.base IS NULL THEN 0
                        WHEN v.base_outside IS NULL THEN v.hops
                        ELSE (
                            SELECT b.depth + v.hops
                            FROM __schema__.channel_values AS b
                            WHERE b.thread = p_thread AND b.checkpoint_ns = p_ns AND b.channel = v.channel
                                AND b.version = v.base_outside AND b.size >= v.reach
                                AND (v.base_crc32 IS NULL OR b.crc32 = v.base_crc32)
                                AND v.base <> v.version
                        )
                    END AS depth
                FROM unnest(p_values) AS v
                OFFSET 0
            ) AS v
            WHERE v.depth <= p_max_chain
            ON CONFLICT (thread, checkpoint_ns, channel, version) DO NOTHING;
            GET DIAGNOSTICS x_rows = ROW_COUNT;
            IF x_rows < cardinality(p_values) THEN
                PERFORM __schema__.take_back(p_thread, p_ns, p_id, p_earlier, p_values);
                EXIT attempt;
            END IF;
        END IF;

        IF p_puts > 0 THEN
            IF x_previous IS NULL THEN
                INSERT INTO __schema__.namespaces AS n (
                    thread, checkpoint_ns, tenant, version, last_checkpoint_id, last_writer, last_request_id
                )
                VALUES (p_thread, p_ns, p_tenant, x_version, p_id, p_writer, p_request);
            ELSE
                UPDATE __schema__.namespaces AS n SET
                    version = x_version,
                    last_checkpoint_id = p_id,
                    last_writer = p_writer,
                    last_request_id = p_request,
                    pruned_below = NULL
                WHERE n.thread = p_thread AND n.checkpoint_ns = p_ns;
            END IF;
        END IF;

        IF p_writes IS NOT NULL THEN
            FOR x_try IN 1..2 LOOP
                INSERT INTO __schema__.task_writes AS w (
                    thread, checkpoint_ns, checkpoint_id, task_id, idx, tenant, task_path, channel, type, data, request_id
                )
                SELECT
                    p_thread, p_ns, w.id, w.task_id, w.idx, p_tenant, w.task_path, w.channel, w.type, w.data, w.request
                FROM unnest(p_writes) AS w
                ON CONFLICT (thread, checkpoint_ns, checkpoint_id, task_id, idx) DO NOTHING;
                GET DIAGNOSTICS x_rows = ROW_COUNT;
                -- Special writes replace existing ones.
                EXIT WHEN x_try = 2 OR x_rows = cardinality(p_writes)
                    OR NOT __schema__.set_writes_aside(ARRAY[p_thread], ARRAY[p_ns], ARRAY[true], p_writes);
            END LOOP;
        END IF;
        -- Update what lists show of the thread.
        IF p_signal IS NOT NULL
            OR p_fingerprint IS NOT NULL AND (x_signal IS NOT NULL OR x_fingerprint IS DISTINCT FROM p_fingerprint)
        THEN
            PERFORM __schema__.note_root(p_tenant, p_thread, p_id, p_signal, p_fingerprint);
        END IF;
        IF x_serializer IS NULL AND p_serializer IS NOT NULL THEN
            UPDATE __schema__.threads AS t SET serializer = p_serializer WHERE t.thread = p_thread;
        END IF;
        RETURN ARRAY[x_version, coalesce(x_previous, 0)];
    END;

    -- The lock has already counted it.
    UPDATE __schema__.threads AS t SET
        checkpoints = t.checkpoints - p_puts, bytes = t.bytes - p_bytes,
        listed_at = CASE WHEN t.checkpoints > p_puts OR t.bytes > p_bytes THEN t.listed_at END,
        serializer = CASE WHEN t.checkpoints > p_puts OR t.bytes > p_bytes THEN t.serializer END
    WHERE t.thread = p_thread;
    RETURN NULL;
END
$$;
