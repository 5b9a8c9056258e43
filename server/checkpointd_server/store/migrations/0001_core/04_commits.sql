-- Puts and task writes: one call for everything in a commit.

-- Decides whether a group may be stored, by the rows of its thread and its namespace, whose columns are null if they don't exist.
-- The state of a thread that isn't locked may be out of date; if there is no row to lock (p_is_there), a group that builds on
-- something is refused anyway.
CREATE FUNCTION __schema__.judge(
    p_group __schema__.group_to_store, p_is_locked boolean, p_is_there boolean, p_lease bigint, p_version bigint, p_last text,
    p_writer bytea, p_request bytea, p_pruned_below text, p_serializer smallint
) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN NOT $2 AND ($3 OR ($1).may_be_first) THEN 'busy'
        WHEN $8 IN (($1).request, ($1).first_request) THEN 'repeated'
        WHEN $10 <> ($1).serializer AND 3 NOT IN ($10, ($1).serializer) THEN 'serializer'
        WHEN coalesce($4, 0) <> ($1).lease THEN CASE WHEN ($1).lease = 0 THEN 'held' ELSE 'lost' END
        WHEN ($1).if_version IS NULL AND ($1).if_writer IS NULL THEN 'ok'
        WHEN ($1).least_parent COLLATE "C" < $9 THEN 'conflict'
        WHEN coalesce($5, 0) = ($1).if_version THEN 'ok'
        WHEN $7 = ($1).if_writer THEN CASE WHEN $6 <> ($1).if_last THEN 'predecessor' ELSE 'ok' END
        ELSE 'conflict'
    END
$$;

-- Returns which of the refused single calls were stored before: a put, by its checkpoint; task writes, if one of their keys has
-- the call's request id, and each of them has a row.
CREATE FUNCTION __schema__.find_repeated(
    p_groups __schema__.group_to_store[], p_puts __schema__.put_to_store[], p_writes __schema__.write_to_store[],
    p_outcome text[]
) RETURNS TABLE (o_group integer, o_version bigint) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY
    SELECT g.number, c.version
    FROM unnest(p_groups) AS g
    JOIN unnest(p_puts) AS p ON p.of_group = g.number
    CROSS JOIN LATERAL (
        SELECT c.version
        FROM __schema__.checkpoints AS c
        WHERE c.thread = g.thread AND c.checkpoint_ns = g.ns AND c.checkpoint_id = p.id AND c.request_id = p.request
        LIMIT 1
    ) AS c
    WHERE g.is_single AND p_outcome[g.number] NOT IN ('ok', 'busy', 'repeated')
    UNION ALL
    SELECT g.number, 0::bigint
    FROM unnest(p_groups) AS g
    JOIN unnest(p_writes) AS w ON w.of_group = g.number
    LEFT JOIN LATERAL (
        SELECT
            t.request_id = w.request OR (
                SELECT true
                FROM __schema__.replaced_writes AS r
                WHERE r.thread = g.thread AND r.checkpoint_ns = g.ns AND r.checkpoint_id = w.id
                    AND r.task_id = w.task_id AND r.idx = w.idx AND r.request_id = w.request
                LIMIT 1
            ) AS knows_it
        FROM __schema__.task_writes AS t
        WHERE t.thread = g.thread AND t.checkpoint_ns = g.ns AND t.checkpoint_id = w.id AND t.task_id = w.task_id
            AND t.idx = w.idx
        LIMIT 1
    ) AS place ON true
    WHERE g.is_single AND g.puts = 0 AND p_outcome[g.number] NOT IN ('ok', 'busy')
    GROUP BY g.number
    -- The request id of a copied write is null.
    HAVING bool_and(place IS DISTINCT FROM NULL) AND bool_or(coalesce(place.knows_it, false));
END
$$;

-- Returns a namespace's version after this many puts: greater than all earlier versions, including those of deleted namespaces.
-- Without a put, it stays.
CREATE FUNCTION __schema__.next_version(p_version bigint, p_floor bigint, p_puts integer) RETURNS bigint
LANGUAGE sql VOLATILE AS $$
    SELECT CASE
        WHEN $3 = 0 THEN coalesce($1, 0)
        ELSE greatest($1 + 1, $2 + 1, (date_part('epoch', clock_timestamp()) * 1000000)::bigint) + $3 - 1
    END
$$;

-- Stores writes of one tenant. They come as groups: the writes of one namespace that build on each other, so that one check
-- decides on all of them. Groups of one thread have one serializer. A group is stored as a whole or not at all, independently
-- of the others. The result is one row of arrays with an entry for each group:
--
--   o_outcome    "ok", or why nothing of the group was stored:
--                "busy"       another transaction has locked the thread: call again with p_waits
--                "repeated"   some of it was stored before
--                "serializer" the thread was written with another one
--                "held", "lost"
--                             the lease
--                "conflict", "predecessor"
--                             the precondition
--                "base", "chain"
--                             a value or a task write: its base or its upload is missing, or its chain of patches is too
--                             long
--                "full"       the checkpoint has as many task writes as can be read
--   o_version    The namespace's version. For "ok": after the group. For "repeated", if the group is one call: the version
--                its put got the first time, null if its request id belongs to another checkpoint, or 0 for task writes.
--   o_previous   The namespace's version before.
--   o_last_id    The checkpoint put last.
--   o_remaining  Remaining time of the lease in force, in seconds.
--   o_serializer The family of the thread's serializer (threads.serializer).
--   o_channel    For "base" and "chain": the channel of the value or task write. Null if no group has these.
--
--   p_waits        Whether to wait for the thread, if all groups are of one.
--   p_max_written  The maximum size of a checkpoint's task writes, with what they build on but without their data, in bytes.
--                  Null: not checked.
--   p_has_patches, p_has_patched_writes, p_has_uploads
--                  Whether any value or task write is a patch, whether any task write is, and whether any of them names an upload.
CREATE FUNCTION __schema__.commit_writes(
    p_tenant text, p_waits boolean, p_max_chain integer, p_max_written bigint, p_has_patches boolean,
    p_has_patched_writes boolean, p_has_uploads boolean,
    p_groups __schema__.group_to_store[], p_puts __schema__.put_to_store[], p_values __schema__.value_to_store[],
    p_emptied __schema__.emptied_to_store[], p_writes __schema__.write_to_store[],
    OUT o_outcome text[], OUT o_version bigint[], OUT o_previous bigint[], OUT o_last_id text[], OUT o_remaining float8[],
    OUT o_serializer smallint[], OUT o_channel text[]
) LANGUAGE plpgsql AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_now timestamptz := clock_timestamp();
    -- By the number of the group.
    x_is_locked boolean[];
    x_thread uuid[];
    x_ns text[];
    x_is_stored boolean[];
    -- By value, and by task write.
    x_depth integer[];
    x_written_depth integer[];
    x_puts bigint := cardinality(p_puts);
    x_rows bigint;
    x_is_refused boolean := false;
    x_row record;
    x_group __schema__.group_to_store;
    x_head record;
    x_has_lock boolean;
    x_outcome text;
    x_are_fine boolean;
    -- The numbers of the groups with which anything but counts and times changes for lists.
    x_news integer[];
    -- Whether existing threads get their serializer.
    x_is_told boolean := false;
BEGIN
    -- The lock comes first: what is read of a namespace later is what the thread's previous holders committed. Statements for one
    -- group each cost less than plans for all. Threads have an order, because creating one waits while another transaction creates
    -- the same.
    FOR x_group IN SELECT g.* FROM unnest(p_groups) AS g ORDER BY g.thread LOOP
        IF p_waits THEN
            UPDATE __schema__.threads AS t SET
                active_at = greatest(t.active_at, x_now), listed_at = __schema__.listed_now(t.listed_at, x_now),
                checkpoints = t.checkpoints + x_group.puts, bytes = t.bytes + x_group.bytes
            WHERE t.thread = x_group.thread
            RETURNING t.floor, t.signal, t.fingerprint, t.serializer, t.lease_token, t.lease_expires_at INTO x_row;
        ELSE
            -- As in commit_group.
            UPDATE __schema__.threads AS t SET
                active_at = greatest(t.active_at, x_now), listed_at = __schema__.listed_now(t.listed_at, x_now),
                checkpoints = t.checkpoints + x_group.puts, bytes = t.bytes + x_group.bytes
            WHERE t.thread = (
                SELECT s.thread FROM __schema__.threads AS s WHERE s.thread = x_group.thread FOR NO KEY UPDATE SKIP LOCKED
            )
            RETURNING t.floor, t.signal, t.fingerprint, t.serializer, t.lease_token, t.lease_expires_at INTO x_row;
        END IF;
        IF NOT FOUND AND x_group.may_be_first THEN
            INSERT INTO __schema__.threads AS t (
                thread, tenant, thread_id, active_at, listed_at, checkpoints, bytes, serializer, fingerprint
            )
            SELECT
                x_group.thread, p_tenant, x_group.thread_id, x_now, x_now, x_group.puts, x_group.bytes, x_group.serializer,
                CASE WHEN x_group.fingerprint = 0 AND x_group.signal IS NULL THEN 0 END
            WHERE (SELECT true FROM __schema__.threads AS t WHERE t.thread = x_group.thread LIMIT 1) IS NULL
            ON CONFLICT (thread) DO NOTHING
            RETURNING t.floor, t.signal, t.fingerprint, t.serializer, t.lease_token, t.lease_expires_at INTO x_row;
        END IF;
        x_has_lock := FOUND;
        IF NOT x_has_lock THEN
            SELECT t.floor, t.signal, t.fingerprint, t.serializer, t.lease_token, t.lease_expires_at INTO x_row
            FROM __schema__.threads AS t
            WHERE t.thread = x_group.thread;
        END IF;
        SELECT n.version, n.last_checkpoint_id, n.last_writer, n.last_request_id, n.pruned_below INTO x_head
        FROM __schema__.namespaces AS n
        WHERE n.thread = x_group.thread AND n.checkpoint_ns = x_group.ns;
        x_outcome := __schema__.judge(
            x_group, x_has_lock, x_row.floor IS NOT NULL,
            CASE WHEN x_row.lease_expires_at > clock_timestamp() THEN x_row.lease_token END,
            x_head.version, x_head.last_checkpoint_id, x_head.last_writer, x_head.last_request_id, x_head.pruned_below,
            x_row.serializer
        );
        x_is_locked[x_group.number] := x_has_lock;
        x_thread[x_group.number] := x_group.thread;
        x_ns[x_group.number] := x_group.ns;
        x_is_stored[x_group.number] := x_outcome = 'ok';
        o_outcome[x_group.number] := x_outcome;
        o_version[x_group.number] := __schema__.next_version(x_head.version, x_row.floor, x_group.puts);
        o_previous[x_group.number] := coalesce(x_head.version, 0);
        o_last_id[x_group.number] := x_head.last_checkpoint_id;
        o_remaining[x_group.number] := date_part('epoch', x_row.lease_expires_at - clock_timestamp());
        o_serializer[x_group.number] := x_row.serializer;
        IF x_outcome <> 'ok' THEN
            x_is_refused := true;
        ELSIF x_row.serializer IS NULL AND x_group.serializer IS NOT NULL THEN
            x_is_told := true;
        END IF;
        IF x_group.signal IS NOT NULL
            OR x_group.fingerprint IS NOT NULL
                AND (x_row.signal IS NOT NULL OR x_row.fingerprint IS DISTINCT FROM x_group.fingerprint)
        THEN
            x_news := array_append(x_news, x_group.number);
        END IF;
    END LOOP;

    IF x_is_refused THEN
        FOR i IN 1..cardinality(o_outcome) LOOP
            IF o_outcome[i] = 'repeated' AND o_last_id[i] <> p_groups[i].last THEN
                o_version[i] := NULL;
            ELSIF o_outcome[i] <> 'ok' THEN
                o_version[i] := o_previous[i];
            END IF;
        END LOOP;
        FOR x_row IN SELECT f.* FROM __schema__.find_repeated(p_groups, p_puts, p_writes, o_outcome) AS f LOOP
            o_outcome[x_row.o_group] := 'repeated';
            o_version[x_row.o_group] := x_row.o_version;
        END LOOP;
    END IF;

    IF p_has_patches OR p_has_uploads THEN
        o_channel := array_fill(NULL::text, ARRAY[cardinality(p_groups)]);
    END IF;
    IF p_has_patches THEN
        SELECT array_agg(v.depth), coalesce(bool_and(coalesce(v.depth <= p_max_chain, false)), true)
        INTO x_depth, x_are_fine
        FROM (
            SELECT
                CASE
                    WHEN v.base IS NULL THEN 0
                    WHEN v.base_outside IS NULL THEN v.hops
                    ELSE (
                        SELECT b.depth + v.hops
                        FROM __schema__.channel_values AS b
                        WHERE b.thread = x_thread[v.of_group] AND b.checkpoint_ns = x_ns[v.of_group]
                            AND b.channel = v.channel AND b.version = v.base_outside AND b.size >= v.reach
                            AND (v.base_crc32 IS NULL OR b.crc32 = v.base_crc32)
                            AND v.base <> v.version
                    )
                END AS depth
            FROM unnest(p_values) AS v
            OFFSET 0
        ) AS v;
        IF p_has_patched_writes THEN
            x_written_depth := __schema__.depths_of_writes(x_thread, x_ns, p_writes);
        END IF;
        IF p_has_patched_writes OR NOT x_are_fine THEN
            FOR x_row IN
                SELECT v.of_group, v.channel, x_depth[v.ordinality] IS NULL AS is_missing
                FROM unnest(p_values) WITH ORDINALITY AS v
                WHERE (x_depth[v.ordinality] <= p_max_chain) IS NOT TRUE AND o_outcome[v.of_group] = 'ok'
                UNION ALL
                SELECT w.of_group, w.channel, x_written_depth[w.ordinality] IS NULL
                FROM unnest(p_writes) WITH ORDINALITY AS w
                WHERE w.base IS NOT NULL AND (x_written_depth[w.ordinality] <= p_max_chain) IS NOT TRUE
                    AND o_outcome[w.of_group] = 'ok'
            LOOP
                o_outcome[x_row.of_group] := CASE WHEN x_row.is_missing THEN 'base' ELSE 'chain' END;
                x_is_stored[x_row.of_group] := false;
                o_channel[x_row.of_group] := x_row.channel;
                x_is_refused := true;
            END LOOP;
        END IF;
    END IF;
    IF p_has_uploads THEN
        FOR x_row IN
            SELECT given.of_group, given.channel
            FROM (
                SELECT
                    v.of_group, v.channel, v.upload, v.upload_size,
                    (
                        SELECT true
                        FROM __schema__.channel_values AS s
                        WHERE s.thread = x_thread[v.of_group] AND s.checkpoint_ns = x_ns[v.of_group]
                            AND s.channel = v.channel AND s.version = v.version AND s.upload_id = v.upload
                        LIMIT 1
                    ) AS is_own
                FROM unnest(p_values) AS v
                UNION ALL
                SELECT
                    w.of_group, w.channel, w.upload, w.upload_size,
                    (
                        SELECT true
                        FROM __schema__.task_writes AS s
                        WHERE s.thread = x_thread[w.of_group] AND s.checkpoint_ns = x_ns[w.of_group]
                            AND s.checkpoint_id = w.id AND s.task_id = w.task_id AND s.idx = w.idx
                            AND s.upload_id = w.upload
                        LIMIT 1
                    )
                FROM unnest(p_writes) AS w
            ) AS given
            WHERE given.upload IS NOT NULL AND o_outcome[given.of_group] = 'ok'
                AND given.is_own IS NULL
                AND NOT __schema__.upload_is_whole(x_thread[given.of_group], given.upload, given.upload_size)
        LOOP
            o_outcome[x_row.of_group] := 'base';
            x_is_stored[x_row.of_group] := false;
            o_channel[x_row.of_group] := x_row.channel;
            x_is_refused := true;
        END LOOP;
    END IF;

    IF p_max_written IS NOT NULL THEN
        FOR x_row IN
            SELECT w.of_group
            FROM (SELECT DISTINCT w.of_group, w.id FROM unnest(p_writes) AS w) AS w
            WHERE x_is_stored[w.of_group]
                AND __schema__.written_bytes(x_thread[w.of_group], x_ns[w.of_group], w.id) > p_max_written
        LOOP
            o_outcome[x_row.of_group] := 'full';
            x_is_stored[x_row.of_group] := false;
            x_is_refused := true;
        END LOOP;
    END IF;

    IF x_puts > 0 THEN
        IF x_is_refused THEN
            SELECT count(*) INTO x_puts FROM unnest(p_puts) AS p WHERE x_is_stored[p.of_group];
        END IF;
        INSERT INTO __schema__.checkpoints AS c (
            thread, checkpoint_ns, checkpoint_id, tenant, parent_checkpoint_id, version, request_id, body,
            channels, channel_versions, metadata_type, metadata, metadata_index, run_id, size
        )
        SELECT
            x_thread[p.of_group], x_ns[p.of_group], p.id, p_tenant, p.parent, o_version[p.of_group] - p.following, p.request,
            p.body, p.channels, p.versions, p.metadata_type, p.metadata, p.metadata_index, p.run_id, p.size
        FROM unnest(p_puts) AS p
        WHERE x_is_stored[p.of_group]
        ON CONFLICT (thread, checkpoint_ns, checkpoint_id) DO NOTHING;
        GET DIAGNOSTICS x_rows = ROW_COUNT;
        IF x_rows < x_puts THEN
            -- Some checkpoints already exist, stored by these puts or by others.
            FOR x_row IN
                SELECT f.* FROM __schema__.replace_checkpoints(x_thread, x_ns, o_version, x_is_stored, p_puts) AS f
            LOOP
                o_outcome[x_row.o_group] := 'repeated';
                o_version[x_row.o_group] := x_row.o_version;
                x_is_stored[x_row.o_group] := false;
                x_is_refused := true;
            END LOOP;
        END IF;

        INSERT INTO __schema__.namespaces AS n (
            thread, checkpoint_ns, tenant, version, last_checkpoint_id, last_writer, last_request_id
        )
        SELECT g.thread, g.ns, p_tenant, o_version[g.number], g.last, g.writer, g.request
        FROM unnest(p_groups) AS g
        WHERE g.puts > 0 AND x_is_stored[g.number]
        ON CONFLICT (thread, checkpoint_ns) DO UPDATE SET
            version = excluded.version,
            last_checkpoint_id = excluded.last_checkpoint_id,
            last_writer = excluded.last_writer,
            last_request_id = excluded.last_request_id,
            pruned_below = NULL;
    END IF;

    IF cardinality(p_values) > 0 THEN
        FOR x_try IN 1..2 LOOP
            INSERT INTO __schema__.channel_values AS v (
                thread, checkpoint_ns, channel, version, tenant, type, data, size, base_version, crc32, sealed, depth,
                upload_id, upload_size
            )
            SELECT
                x_thread[v.of_group], x_ns[v.of_group], v.channel, v.version, p_tenant, v.type, v.data, v.size, v.base,
                v.crc32, v.sealed, coalesce(x_depth[v.ordinality], 0), v.upload, v.upload_size
            FROM unnest(p_values) WITH ORDINALITY AS v
            WHERE x_is_stored[v.of_group]
            ON CONFLICT (thread, checkpoint_ns, channel, version) DO NOTHING;
            GET DIAGNOSTICS x_rows = ROW_COUNT;
            -- Existing values that differ are removed. This can be done only once: afterwards patches name their bases by other
            -- names than the group does.
            EXIT WHEN x_try = 2 OR x_rows = cardinality(p_values)
                OR NOT __schema__.set_values_aside(x_thread, x_ns, o_version, x_is_stored, p_values);
        END LOOP;
    END IF;
    IF cardinality(p_emptied) > 0 THEN
        -- Usually none exist yet.
        PERFORM __schema__.set_value_aside(v.thread, v.checkpoint_ns, v.channel, v.version, o_version[e.of_group], NULL, '{}')
        FROM unnest(p_emptied) AS e
        CROSS JOIN LATERAL (
            SELECT v.thread, v.checkpoint_ns, v.channel, v.version
            FROM __schema__.channel_values AS v
            WHERE v.thread = x_thread[e.of_group] AND v.checkpoint_ns = x_ns[e.of_group]
                AND v.channel = e.channel AND v.version = e.version
            LIMIT 1
        ) AS v
        WHERE x_is_stored[e.of_group];
    END IF;

    IF cardinality(p_writes) > 0 THEN
        FOR x_try IN 1..2 LOOP
            INSERT INTO __schema__.task_writes AS w (
                thread, checkpoint_ns, checkpoint_id, task_id, idx, tenant, task_path, channel, type, data,
                upload_id, upload_size, request_id, base_version, size, crc32, sealed, depth
            )
            SELECT
                x_thread[w.of_group], x_ns[w.of_group], w.id, w.task_id, w.idx, p_tenant, w.task_path, w.channel, w.type,
                w.data, w.upload, w.upload_size, w.request, w.base, w.size, w.crc32, w.sealed, x_written_depth[w.ordinality]
            FROM unnest(p_writes) WITH ORDINALITY AS w
            WHERE x_is_stored[w.of_group]
            ON CONFLICT (thread, checkpoint_ns, checkpoint_id, task_id, idx) DO NOTHING;
            GET DIAGNOSTICS x_rows = ROW_COUNT;
            -- Special writes replace existing ones.
            EXIT WHEN x_try = 2 OR x_rows = cardinality(p_writes)
                OR NOT __schema__.set_writes_aside(x_thread, x_ns, x_is_stored, p_writes);
        END LOOP;
    END IF;

    IF p_has_uploads THEN
        PERFORM __schema__.claim_uploads(x_thread, x_ns, x_is_stored, p_values, p_writes);
    END IF;

    -- Update what lists show of the threads.
    IF x_news IS NOT NULL THEN
        FOREACH x_group IN ARRAY p_groups LOOP
            IF x_group.number = ANY (x_news) AND x_is_stored[x_group.number] THEN
                PERFORM __schema__.note_root(p_tenant, x_group.thread, x_group.last, x_group.signal, x_group.fingerprint);
            END IF;
        END LOOP;
    END IF;
    IF x_is_told THEN
        UPDATE __schema__.threads AS t SET serializer = g.serializer
        FROM unnest(p_groups) AS g
        WHERE t.thread = g.thread AND t.serializer IS NULL AND g.serializer IS NOT NULL
            AND x_is_stored[g.number];
    END IF;
    IF x_is_refused THEN
        PERFORM __schema__.uncount_groups(p_groups, x_is_stored, x_is_locked);
    END IF;
END
$$;
