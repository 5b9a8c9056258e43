-- Puts and task writes: one call for all that shares a commit.

-- Makes room for another value of the version, or for none. What patches are built on stays, under a name that no checkpoint
-- knows; not for the versions p_own, which are built on the new one.
CREATE FUNCTION __schema__.set_value_aside(
    p_thread uuid, p_ns text, p_channel text, p_version text, p_put_version bigint, p_new_upload bytea, p_own text[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    x_aside text := p_version || E'\x1f' || p_put_version;
    x_upload bytea;
BEGIN
    UPDATE __schema__.channel_values AS v SET base_version = x_aside
    WHERE v.thread = p_thread AND v.checkpoint_ns = p_ns AND v.channel = p_channel AND v.base_version = p_version
        AND v.version <> ALL (p_own);
    IF FOUND THEN
        UPDATE __schema__.channel_values AS v SET version = x_aside
        WHERE v.thread = p_thread AND v.checkpoint_ns = p_ns AND v.channel = p_channel AND v.version = p_version;
    ELSE
        DELETE FROM __schema__.channel_values AS v
        WHERE v.thread = p_thread AND v.checkpoint_ns = p_ns AND v.channel = p_channel AND v.version = p_version
        RETURNING v.upload_id INTO x_upload;
        IF x_upload <> p_new_upload OR p_new_upload IS NULL THEN
            DELETE FROM __schema__.value_parts AS p WHERE p.thread = p_thread AND p.upload_id = x_upload;
        END IF;
    END IF;
END
$$;

-- Makes room for another special task write, and remembers the call whose write was there.
CREATE FUNCTION __schema__.set_write_aside(
    p_thread uuid, p_ns text, p_checkpoint_id text, p_task_id text, p_idx integer, p_new_upload bytea
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    x_write record;
BEGIN
    DELETE FROM __schema__.task_writes AS w
    WHERE w.thread = p_thread AND w.checkpoint_ns = p_ns AND w.checkpoint_id = p_checkpoint_id AND w.task_id = p_task_id
        AND w.idx = p_idx
    RETURNING w.tenant, w.request_id, w.upload_id INTO x_write;
    IF x_write.request_id IS NOT NULL THEN
        INSERT INTO __schema__.replaced_writes AS r (
            thread, checkpoint_ns, checkpoint_id, task_id, idx, request_id, tenant
        )
        VALUES (p_thread, p_ns, p_checkpoint_id, p_task_id, p_idx, x_write.request_id, x_write.tenant)
        ON CONFLICT DO NOTHING;
    END IF;
    IF x_write.upload_id <> p_new_upload OR p_new_upload IS NULL THEN
        DELETE FROM __schema__.value_parts AS p WHERE p.thread = p_thread AND p.upload_id = x_write.upload_id;
    END IF;
END
$$;

-- Whether an upload is there, named by nothing yet, and has so many bytes without a gap.
CREATE FUNCTION __schema__.upload_is_whole(p_thread uuid, p_upload_id bytea, p_size bigint) RETURNS boolean
LANGUAGE sql VOLATILE AS $$
    SELECT
        EXISTS (SELECT FROM __schema__.uploads AS u WHERE u.thread = $1 AND u.upload_id = $2)
        AND (
            SELECT bool_and(part.part_offset = part.bytes_before) AND sum(part.bytes) = $3
            FROM (
                SELECT
                    p.part_offset, octet_length(p.data) AS bytes,
                    coalesce(
                        sum(octet_length(p.data)) OVER (
                            ORDER BY p.part_offset ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                        ),
                        0
                    ) AS bytes_before
                FROM __schema__.value_parts AS p
                WHERE p.thread = $1 AND p.upload_id = $2
            ) AS part
        )
$$;

-- Makes the parts of an upload those of the value that names it.
CREATE FUNCTION __schema__.claim_upload(p_thread uuid, p_upload_id bytea) RETURNS void LANGUAGE sql VOLATILE AS $$
    DELETE FROM __schema__.uploads AS u WHERE u.thread = $1 AND u.upload_id = $2
$$;

-- Stores writes of one tenant. They come as groups: the writes of one namespace that build on each other, so that one check
-- decides on them. A group is stored whole or not at all, whatever becomes of the others. The result is one row of arrays,
-- with an entry for each group:
--
--   outcome     "ok", or why nothing of the group was stored:
--               "busy"       a transaction that takes longer has the thread: send it again, alone. Where a call is about one
--                            thread alone, it waits.
--               "repeated"   some of it was stored before
--               "held", "lost"
--                            the lease
--               "conflict", "predecessor"
--                            the precondition
--               "base", "chain"
--                            a value: its base or its upload is not there, or too many patches follow one another
--   version     The namespace's. For "ok": after the group. For "repeated", where the group is one call: what its put was
--               given then, null if its request id is that of another checkpoint, or 0 for task writes.
--   previous    The namespace's version before.
--   last_id     The checkpoint put last.
--   remaining   How long the lease in force lives, in seconds.
--   channel     Whose value it is, for "base" and "chain". Null where there are none.
--
-- The parameters are arrays; those with the same prefix belong together:
--
--   t_  The threads, each once. may_be_new: what is written may be the first there.
--   g_  The groups. if_version (null: not compared), if_writer, if_last: the precondition. least_parent: the bytewise least
--       of the parents that are not in the group, null: not looked at. first_put, puts: which of the puts are its own. last,
--       writer, request: of its last put. only_writes: it is one call of task writes, and nothing else.
--   p_  The puts, by group, in order. number: which put of its group it is, from 0. channels_to: where its part of
--       all_channels and all_versions ends.
--   v_  The values that changed. base_outside: of the chain of patches that leads to the value, the version that was there
--       before the group, null if the chain begins in it; hops: how many patches of the group follow. reach: how many bytes
--       base_outside must have.
--   e_  The values that became empty.
--   w_  The task writes. No two special ones of a group have the same place.
CREATE FUNCTION __schema__.commit_writes(
    p_tenant text, p_max_chain integer, p_has_patches boolean, p_has_uploads boolean,
    t_thread uuid[], t_thread_id text[], t_may_be_new boolean[],
    g_thread uuid[], g_ns text[], g_lease bigint[], g_if_version bigint[], g_if_writer bytea[], g_if_last text[],
    g_least_parent text[], g_first_put integer[], g_puts integer[], g_last text[], g_writer bytea[], g_request bytea[],
    g_only_writes boolean[],
    p_group integer[], p_number integer[], p_id text[], p_parent text[], p_request bytea[], p_body bytea[],
    p_metadata_type text[], p_metadata bytea[], p_metadata_index text[], p_run_id text[], p_size integer[],
    p_channels_to integer[], all_channels text[], all_versions text[],
    v_group integer[], v_channel text[], v_version text[], v_type text[], v_data bytea[], v_size bigint[],
    v_base text[], v_crc32 bigint[], v_sealed boolean[], v_base_outside text[], v_hops integer[], v_reach bigint[],
    v_upload bytea[], v_upload_size bigint[],
    e_group integer[], e_channel text[], e_version text[],
    w_group integer[], w_id text[], w_task_id text[], w_idx integer[], w_task_path text[], w_channel text[],
    w_type text[], w_data bytea[], w_request bytea[], w_upload bytea[], w_upload_size bigint[],
    OUT o_outcome text[], OUT o_version bigint[], OUT o_previous bigint[], OUT o_last_id text[], OUT o_remaining float8[],
    OUT o_channel text[]
) LANGUAGE plpgsql AS $$
DECLARE
    x_setting text;
    x_thread uuid;
    x_locked uuid[] := '{}';
    x_made uuid[];
    x_now bigint;
    x_depth integer[];
    x_refused boolean;
    x_again boolean;
    x_rows bigint;
    x_row record;
BEGIN
    x_setting := set_config('checkpointd.tenant', p_tenant, true);

    -- The lock. What is asked after it sees what those did who had it before.
    IF cardinality(t_thread) = 1 THEN
        x_thread := t_thread[1];
        UPDATE __schema__.threads AS t SET updated_at = clock_timestamp() WHERE t.thread = x_thread;
        IF FOUND THEN
            x_locked := t_thread;
        ELSIF t_may_be_new[1] THEN
            INSERT INTO __schema__.threads AS t (thread, tenant, thread_id) VALUES (x_thread, p_tenant, t_thread_id[1])
            -- An UPDATE, and not NOTHING: somebody else may have made it meanwhile.
            ON CONFLICT (thread) DO UPDATE SET updated_at = clock_timestamp();
            x_locked := t_thread;
        END IF;
    ELSE
        -- Nobody waits here, but for the instant in which somebody else makes the same thread: in one order, therefore.
        WITH free AS MATERIALIZED (
            SELECT found.thread
            FROM generate_subscripts(t_thread, 1) AS i
            CROSS JOIN LATERAL (
                SELECT t.thread FROM __schema__.threads AS t WHERE t.thread = t_thread[i] FOR NO KEY UPDATE SKIP LOCKED
            ) AS found
        ),
        locked AS (
            UPDATE __schema__.threads AS t SET updated_at = clock_timestamp()
            FROM free
            WHERE t.thread = free.thread
            RETURNING t.thread
        )
        SELECT coalesce(array_agg(locked.thread), '{}') INTO x_locked FROM locked;
        IF cardinality(x_locked) < cardinality(t_thread) THEN
            WITH made AS (
                INSERT INTO __schema__.threads AS t (thread, tenant, thread_id)
                SELECT t_thread[i], p_tenant, t_thread_id[i]
                FROM generate_subscripts(t_thread, 1) AS i
                WHERE t_may_be_new[i] AND NOT EXISTS (SELECT FROM __schema__.threads AS t WHERE t.thread = t_thread[i])
                ORDER BY t_thread[i]
                ON CONFLICT (thread) DO NOTHING
                RETURNING t.thread
            )
            SELECT array_agg(made.thread) INTO x_made FROM made;
            x_locked := x_locked || x_made;
        END IF;
    END IF;
    x_now := extract(epoch FROM clock_timestamp()) * 1000000;

    SELECT
        array_agg(judged.outcome),
        array_agg(
            CASE
                WHEN judged.outcome = 'repeated' THEN judged.known_version
                WHEN judged.outcome = 'ok' AND g_puts[judged.i] > 0
                THEN greatest(judged.version + 1, judged.floor + 1, x_now) + g_puts[judged.i] - 1
                ELSE coalesce(judged.version, 0)
            END
        ),
        array_agg(coalesce(judged.version, 0)), array_agg(judged.last_checkpoint_id), array_agg(judged.remaining),
        bool_or(judged.outcome <> 'ok')
    INTO o_outcome, o_version, o_previous, o_last_id, o_remaining, x_refused
    FROM (
        SELECT
            i, n.version, n.last_checkpoint_id, t.floor, t.remaining, known.version AS known_version,
            CASE
                -- Without a thread there is nothing to lock, and what builds on something is refused anyway.
                WHEN g_thread[i] <> ALL (x_locked)
                    AND (t.thread IS NOT NULL OR coalesce(g_if_version[i] = 0, g_if_writer[i] IS NULL))
                THEN 'busy'
                WHEN known.found THEN 'repeated'
                WHEN coalesce(t.token, 0) <> g_lease[i] THEN CASE WHEN g_lease[i] = 0 THEN 'held' ELSE 'lost' END
                WHEN g_if_version[i] IS NULL AND g_if_writer[i] IS NULL THEN 'ok'
                WHEN g_least_parent[i] < n.pruned_below THEN 'conflict'
                WHEN coalesce(n.version, 0) = g_if_version[i] THEN 'ok'
                WHEN n.last_writer = g_if_writer[i]
                THEN CASE WHEN n.last_checkpoint_id <> g_if_last[i] THEN 'predecessor' ELSE 'ok' END
                ELSE 'conflict'
            END AS outcome
        FROM generate_subscripts(g_thread, 1) AS i
        LEFT JOIN LATERAL (
            SELECT
                t.thread, t.floor,
                CASE WHEN t.lease_expires_at > clock_timestamp() THEN t.lease_token END AS token,
                extract(epoch FROM t.lease_expires_at - clock_timestamp()) AS remaining
            FROM __schema__.threads AS t
            WHERE t.thread = g_thread[i]
            LIMIT 1
        ) AS t ON true
        LEFT JOIN LATERAL (
            SELECT n.*
            FROM __schema__.namespaces AS n
            WHERE n.thread = g_thread[i] AND n.checkpoint_ns = g_ns[i]
            LIMIT 1
        ) AS n ON true
        LEFT JOIN LATERAL (
            -- Its checkpoint may have been pruned since. Then the head knows it, as long as nothing was put after it.
            SELECT
                true AS found,
                coalesce(c.version, CASE WHEN n.last_checkpoint_id = p_id[j] THEN n.version END) AS version
            FROM generate_series(g_first_put[i], g_first_put[i] + g_puts[i] - 1) AS j
            LEFT JOIN LATERAL (
                SELECT c.version
                FROM __schema__.checkpoints AS c
                WHERE c.thread = g_thread[i] AND c.checkpoint_ns = g_ns[i] AND c.checkpoint_id = p_id[j]
                    AND c.request_id = p_request[j]
                LIMIT 1
            ) AS c ON true
            WHERE c.version IS NOT NULL OR n.last_request_id = p_request[j]
            LIMIT 1
        ) AS known ON true
    ) AS judged;

    IF x_refused AND cardinality(w_group) > 0 THEN
        -- A call of task writes was stored before if one of its places knows it, and each of them holds something.
        FOR x_row IN
            SELECT w_group[k] AS at
            FROM generate_subscripts(w_group, 1) AS k
            LEFT JOIN LATERAL (
                SELECT
                    w.request_id = w_request[k] OR EXISTS (
                        SELECT FROM __schema__.replaced_writes AS r
                        WHERE r.thread = w.thread AND r.checkpoint_ns = w.checkpoint_ns
                            AND r.checkpoint_id = w.checkpoint_id AND r.task_id = w.task_id AND r.idx = w.idx
                            AND r.request_id = w_request[k]
                    ) AS knows_it
                FROM __schema__.task_writes AS w
                WHERE w.thread = g_thread[w_group[k]] AND w.checkpoint_ns = g_ns[w_group[k]]
                    AND w.checkpoint_id = w_id[k] AND w.task_id = w_task_id[k] AND w.idx = w_idx[k]
                LIMIT 1
            ) AS w ON true
            WHERE g_only_writes[w_group[k]] AND o_outcome[w_group[k]] NOT IN ('ok', 'busy')
            GROUP BY w_group[k]
            HAVING bool_and(w.knows_it IS NOT NULL) AND bool_or(w.knows_it)
        LOOP
            o_outcome[x_row.at] := 'repeated';
            o_version[x_row.at] := 0;
        END LOOP;
    END IF;

    IF p_has_patches OR p_has_uploads THEN
        o_channel := array_fill(NULL::text, ARRAY[cardinality(g_thread)]);
    END IF;
    IF p_has_patches THEN
        SELECT
            array_agg(
                CASE
                    WHEN v_base[k] IS NULL THEN 0
                    WHEN v_base_outside[k] IS NULL THEN v_hops[k]
                    ELSE (
                        SELECT v.depth + v_hops[k]
                        FROM __schema__.channel_values AS v
                        WHERE v.thread = g_thread[v_group[k]] AND v.checkpoint_ns = g_ns[v_group[k]]
                            AND v.channel = v_channel[k] AND v.version = v_base_outside[k] AND v.size >= v_reach[k]
                    )
                END
            )
        INTO x_depth
        FROM generate_subscripts(v_group, 1) AS k;
        FOR k IN 1..cardinality(x_depth) LOOP
            IF o_outcome[v_group[k]] = 'ok' AND (x_depth[k] <= p_max_chain) IS NOT TRUE THEN
                o_outcome[v_group[k]] := CASE WHEN x_depth[k] IS NULL THEN 'base' ELSE 'chain' END;
                o_channel[v_group[k]] := v_channel[k];
                x_refused := true;
            END IF;
        END LOOP;
    END IF;

    IF p_has_uploads THEN
        FOR x_row IN
            SELECT given.at, given.channel
            FROM (
                SELECT
                    v_group[k] AS at, v_channel[k] AS channel, v_upload[k] AS upload, v_upload_size[k] AS size,
                    EXISTS (
                        SELECT FROM __schema__.channel_values AS v
                        WHERE v.thread = g_thread[v_group[k]] AND v.checkpoint_ns = g_ns[v_group[k]]
                            AND v.channel = v_channel[k] AND v.version = v_version[k] AND v.upload_id = v_upload[k]
                    ) AS is_own
                FROM generate_subscripts(v_upload, 1) AS k
                UNION ALL
                SELECT
                    w_group[k], w_channel[k], w_upload[k], w_upload_size[k],
                    EXISTS (
                        SELECT FROM __schema__.task_writes AS w
                        WHERE w.thread = g_thread[w_group[k]] AND w.checkpoint_ns = g_ns[w_group[k]]
                            AND w.checkpoint_id = w_id[k] AND w.task_id = w_task_id[k] AND w.idx = w_idx[k]
                            AND w.upload_id = w_upload[k]
                    )
                FROM generate_subscripts(w_upload, 1) AS k
            ) AS given
            WHERE given.upload IS NOT NULL AND o_outcome[given.at] = 'ok'
                AND NOT (
                    given.is_own
                    OR __schema__.upload_is_whole(g_thread[given.at], given.upload, given.size)
                )
        LOOP
            o_outcome[x_row.at] := 'base';
            o_channel[x_row.at] := x_row.channel;
            x_refused := true;
        END LOOP;
    END IF;

    IF cardinality(p_group) > 0 THEN
        INSERT INTO __schema__.namespaces AS n (
            thread, checkpoint_ns, tenant, version, last_checkpoint_id, last_writer, last_request_id
        )
        SELECT g_thread[i], g_ns[i], p_tenant, o_version[i], g_last[i], g_writer[i], g_request[i]
        FROM generate_subscripts(g_thread, 1) AS i
        WHERE g_puts[i] > 0 AND o_outcome[i] = 'ok'
        ON CONFLICT (thread, checkpoint_ns) DO UPDATE SET
            version = excluded.version,
            last_checkpoint_id = excluded.last_checkpoint_id,
            last_writer = excluded.last_writer,
            last_request_id = excluded.last_request_id,
            pruned_below = NULL;

        INSERT INTO __schema__.checkpoints AS c (
            thread, checkpoint_ns, checkpoint_id, tenant, parent_checkpoint_id, version, request_id, body,
            channels, channel_versions, metadata_type, metadata, metadata_index, run_id, size
        )
        SELECT
            g_thread[p_group[j]], g_ns[p_group[j]], p_id[j], p_tenant, p_parent[j],
            o_version[p_group[j]] - g_puts[p_group[j]] + 1 + p_number[j], p_request[j], p_body[j],
            CASE
                WHEN cardinality(p_group) = 1 THEN all_channels
                ELSE all_channels[coalesce(p_channels_to[j - 1], 0) + 1:p_channels_to[j]]
            END,
            CASE
                WHEN cardinality(p_group) = 1 THEN all_versions
                ELSE all_versions[coalesce(p_channels_to[j - 1], 0) + 1:p_channels_to[j]]
            END,
            p_metadata_type[j], p_metadata[j], p_metadata_index[j]::jsonb, p_run_id[j], p_size[j]
        FROM generate_subscripts(p_group, 1) AS j
        WHERE o_outcome[p_group[j]] = 'ok'
        ON CONFLICT (thread, checkpoint_ns, checkpoint_id) DO UPDATE SET
            parent_checkpoint_id = excluded.parent_checkpoint_id,
            version = excluded.version,
            request_id = excluded.request_id,
            body = excluded.body,
            channels = excluded.channels,
            channel_versions = excluded.channel_versions,
            metadata_type = excluded.metadata_type,
            metadata = excluded.metadata,
            metadata_index = excluded.metadata_index,
            run_id = excluded.run_id,
            size = excluded.size;
    END IF;

    IF cardinality(v_group) > 0 THEN
        FOR x_try IN 1..2 LOOP
            INSERT INTO __schema__.channel_values AS v (
                thread, checkpoint_ns, channel, version, tenant, type, data, size, base_version, crc32, sealed, depth,
                upload_id, upload_size
            )
            SELECT
                g_thread[v_group[k]], g_ns[v_group[k]], v_channel[k], v_version[k], p_tenant, v_type[k], v_data[k],
                v_size[k], v_base[k], v_crc32[k], v_sealed[k], coalesce(x_depth[k], 0), v_upload[k], v_upload_size[k]
            FROM generate_subscripts(v_group, 1) AS k
            WHERE o_outcome[v_group[k]] = 'ok'
            ON CONFLICT (thread, checkpoint_ns, channel, version) DO NOTHING;
            GET DIAGNOSTICS x_rows = ROW_COUNT;
            EXIT WHEN x_rows = cardinality(v_group);
            -- Some were there. Those that are something else now make room.
            x_again := false;
            FOR x_row IN
                SELECT v.thread, v.checkpoint_ns, v.channel, v.version, k
                FROM generate_subscripts(v_group, 1) AS k
                CROSS JOIN LATERAL (
                    SELECT v.*
                    FROM __schema__.channel_values AS v
                    WHERE v.thread = g_thread[v_group[k]] AND v.checkpoint_ns = g_ns[v_group[k]]
                        AND v.channel = v_channel[k] AND v.version = v_version[k]
                    LIMIT 1
                ) AS v
                WHERE o_outcome[v_group[k]] = 'ok'
                    AND (v.type, v.size, v.base_version, v.crc32, v.sealed, v.upload_id, v.data)
                        IS DISTINCT FROM
                        (v_type[k], v_size[k], v_base[k], v_crc32[k], v_sealed[k], v_upload[k], v_data[k])
            LOOP
                PERFORM __schema__.set_value_aside(
                    x_row.thread, x_row.checkpoint_ns, x_row.channel, x_row.version, o_version[v_group[x_row.k]],
                    v_upload[x_row.k],
                    -- What the group itself builds on the new value is not about the old one.
                    ARRAY(
                        SELECT v_version[own]
                        FROM generate_subscripts(v_group, 1) AS own
                        WHERE v_group[own] = v_group[x_row.k] AND v_channel[own] = x_row.channel
                            AND v_base[own] = x_row.version AND v_base_outside[own] IS DISTINCT FROM x_row.version
                    )
                );
                x_again := true;
            END LOOP;
            EXIT WHEN NOT x_again;
        END LOOP;
    END IF;

    IF cardinality(e_group) > 0 THEN
        -- Most often nothing is there.
        FOR x_row IN
            SELECT v.thread, v.checkpoint_ns, v.channel, v.version, e_group[k] AS at
            FROM generate_subscripts(e_group, 1) AS k
            CROSS JOIN LATERAL (
                SELECT v.thread, v.checkpoint_ns, v.channel, v.version
                FROM __schema__.channel_values AS v
                WHERE v.thread = g_thread[e_group[k]] AND v.checkpoint_ns = g_ns[e_group[k]]
                    AND v.channel = e_channel[k] AND v.version = e_version[k]
                LIMIT 1
            ) AS v
            WHERE o_outcome[e_group[k]] = 'ok'
        LOOP
            PERFORM __schema__.set_value_aside(
                x_row.thread, x_row.checkpoint_ns, x_row.channel, x_row.version, o_version[x_row.at], NULL, '{}'
            );
        END LOOP;
    END IF;

    IF cardinality(w_group) > 0 THEN
        FOR x_try IN 1..2 LOOP
            INSERT INTO __schema__.task_writes AS w (
                thread, checkpoint_ns, checkpoint_id, task_id, idx, tenant, task_path, channel, type, data,
                upload_id, upload_size, request_id
            )
            SELECT
                g_thread[w_group[k]], g_ns[w_group[k]], w_id[k], w_task_id[k], w_idx[k], p_tenant, w_task_path[k],
                w_channel[k], w_type[k], w_data[k], w_upload[k], w_upload_size[k], w_request[k]
            FROM generate_subscripts(w_group, 1) AS k
            WHERE o_outcome[w_group[k]] = 'ok'
            ON CONFLICT (thread, checkpoint_ns, checkpoint_id, task_id, idx) DO NOTHING;
            GET DIAGNOSTICS x_rows = ROW_COUNT;
            EXIT WHEN x_rows = cardinality(w_group);
            -- Some were there. Special ones make room, but not for a call that was here before.
            x_again := false;
            FOR x_row IN
                SELECT w.*, w_upload[k] AS new_upload
                FROM generate_subscripts(w_group, 1) AS k
                CROSS JOIN LATERAL (
                    SELECT w.thread, w.checkpoint_ns, w.checkpoint_id, w.task_id, w.idx
                    FROM __schema__.task_writes AS w
                    WHERE w.thread = g_thread[w_group[k]] AND w.checkpoint_ns = g_ns[w_group[k]]
                        AND w.checkpoint_id = w_id[k] AND w.task_id = w_task_id[k] AND w.idx = w_idx[k]
                        AND w.request_id IS DISTINCT FROM w_request[k]
                        AND NOT EXISTS (
                            SELECT FROM __schema__.replaced_writes AS r
                            WHERE r.thread = w.thread AND r.checkpoint_ns = w.checkpoint_ns
                                AND r.checkpoint_id = w.checkpoint_id AND r.task_id = w.task_id AND r.idx = w.idx
                                AND r.request_id = w_request[k]
                        )
                    LIMIT 1
                ) AS w
                WHERE w_idx[k] < 0 AND o_outcome[w_group[k]] = 'ok'
            LOOP
                PERFORM __schema__.set_write_aside(
                    x_row.thread, x_row.checkpoint_ns, x_row.checkpoint_id, x_row.task_id, x_row.idx, x_row.new_upload
                );
                x_again := true;
            END LOOP;
            EXIT WHEN NOT x_again;
        END LOOP;
    END IF;

    IF p_has_uploads THEN
        -- From now on the parts belong to the values. Those of task writes that were there already are collected.
        PERFORM __schema__.claim_upload(g_thread[v_group[k]], v_upload[k])
        FROM generate_subscripts(v_upload, 1) AS k
        WHERE v_upload[k] IS NOT NULL AND o_outcome[v_group[k]] = 'ok';
        PERFORM __schema__.claim_upload(w.thread, w.upload_id)
        FROM generate_subscripts(w_upload, 1) AS k
        CROSS JOIN LATERAL (
            SELECT w.thread, w.upload_id
            FROM __schema__.task_writes AS w
            WHERE w.thread = g_thread[w_group[k]] AND w.checkpoint_ns = g_ns[w_group[k]]
                AND w.checkpoint_id = w_id[k] AND w.task_id = w_task_id[k] AND w.idx = w_idx[k]
            LIMIT 1
        ) AS w
        WHERE w_upload[k] = w.upload_id AND o_outcome[w_group[k]] = 'ok';
    END IF;
END
$$;
