-- What retention does to a thread: in small steps that each leave it consistent, so nobody waits long for the thread. It doesn't
-- wait for locked threads either.

-- Makes one step. If there is more to do, the next call makes the next step.
--
--   p_batch       About how many checkpoints to delete at most.
--   p_checkpoints, p_below, p_cut, p_inner_ns, p_inner_ids
--                 The results of plan_retention without a lock. The ids are a part of them. p_is_last: it is the last part.
--   o_outcome     "none": nothing is left to do; "busy": the thread is locked; "held": announced, and held back; "trimmed",
--                 "deleted"
--   o_is_complete Whether this was the last step.
--   o_until, o_held_by
--                 For "held": until when, and by which policy.
CREATE FUNCTION __schema__.retain_thread(
    p_tenant text, p_thread uuid, p_batch integer, p_checkpoints bigint, p_below text, p_cut text, p_inner_ns text[],
    p_inner_ids text[], p_is_last boolean,
    OUT o_outcome text, OUT o_reason text, OUT o_policy text, OUT o_checkpoints bigint, OUT o_is_complete boolean,
    OUT o_until timestamptz, OUT o_held_by text
) LANGUAGE plpgsql AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_plan record;
    x_hold record;
    x_ns text;
    x_ids text[];
    x_bytes bigint := 0;
    x_more bigint;
    x_rows bigint;
BEGIN
    o_checkpoints := 0;
    o_is_complete := true;
    UPDATE __schema__.threads AS t SET updated_at = t.updated_at
    WHERE t.thread = (
        SELECT s.thread FROM __schema__.threads AS s WHERE s.thread = p_thread FOR NO KEY UPDATE SKIP LOCKED
    );
    IF NOT FOUND THEN
        o_outcome := 'busy';
        RETURN;
    END IF;
    SELECT r.* INTO x_plan FROM __schema__.plan_retention(
        p_tenant, p_thread, p_batch, NULL, p_cut, p_inner_ns, p_inner_ids, NULL
    ) AS r;
    SELECT h.* INTO x_hold
    FROM __schema__.hold_of_plan(p_thread, x_plan.o_action, x_plan.o_hold, x_plan.o_idle_since) AS h;
    o_until := x_hold.o_until;
    IF x_hold.o_is_new THEN
        IF (x_plan.o_action = 'trim') <> (p_below IS NOT NULL) THEN
            -- It has changed since the plan.
            o_outcome := 'busy';
            RETURN;
        END IF;
        INSERT INTO __schema__.retention_holds AS h (
            thread, tenant, policy, reason, below, checkpoints, idle_since, held_by, deadline_at
        )
        VALUES (
            p_thread, p_tenant, coalesce(x_plan.o_policy, ''), x_plan.o_reason,
            p_below, p_checkpoints, x_plan.o_idle_since, x_plan.o_hold_by, o_until
        )
        ON CONFLICT (thread) DO UPDATE SET
            policy = excluded.policy, reason = excluded.reason, below = excluded.below,
            checkpoints = excluded.checkpoints, idle_since = excluded.idle_since, held_by = excluded.held_by,
            deadline_at = excluded.deadline_at, is_acknowledged = false;
    ELSIF x_hold.o_below IS NOT NULL THEN
        SELECT r.* INTO x_plan
        FROM __schema__.plan_retention(
            p_tenant, p_thread, p_batch, NULL, p_cut, p_inner_ns, p_inner_ids, x_hold.o_below
        ) AS r;
    END IF;
    o_reason := x_plan.o_reason;
    o_policy := x_plan.o_policy;
    IF o_until IS NOT NULL THEN
        o_outcome := 'held';
        o_held_by := x_plan.o_hold_by;
        RETURN;
    END IF;
    IF x_plan.o_action = 'none' THEN
        DELETE FROM __schema__.retention_holds AS h WHERE h.thread = p_thread AND p_is_last;
        o_outcome := 'none';
        RETURN;
    END IF;
    IF x_plan.o_action = 'delete' AND x_plan.o_ids = '{}' AND x_plan.o_whole = '{}' THEN
        IF x_plan.o_checkpoints = 0 OR x_plan.o_bytes > 1048576 THEN
            o_checkpoints := __schema__.delete_unless_awaited(p_tenant, p_thread, p_batch);
            IF o_checkpoints IS NULL THEN
                o_checkpoints := 0;
                o_outcome := 'busy';
                RETURN;
            END IF;
        ELSE
            SELECT d.o_checkpoints INTO o_checkpoints FROM __schema__.delete_thread(p_tenant, p_thread, 0) AS d;
        END IF;
        DELETE FROM __schema__.retention_holds AS h WHERE h.thread = p_thread;
        o_outcome := 'deleted';
        RETURN;
    END IF;

    FOREACH x_ns IN ARRAY x_plan.o_whole LOOP
        EXIT WHEN o_checkpoints >= p_batch;
        SELECT array_agg(c.checkpoint_id) INTO x_ids
        FROM (
            SELECT c.checkpoint_id
            FROM __schema__.checkpoints AS c
            WHERE c.thread = p_thread AND c.checkpoint_ns = x_ns
            ORDER BY c.checkpoint_id
            LIMIT p_batch + 1
        ) AS c;
        IF cardinality(x_ids) > p_batch THEN
            x_bytes := x_bytes + __schema__.bytes_of_checkpoints(p_thread, x_ns, x_ids[1:p_batch]);
            PERFORM __schema__.delete_checkpoints(p_thread, x_ns, x_ids[1:p_batch]);
            o_checkpoints := o_checkpoints + p_batch;
        ELSE
            x_bytes := x_bytes + __schema__.bytes_of_checkpoints(p_thread, x_ns, x_ids);
            SELECT coalesce(sum(octet_length(v.data) + coalesce(v.upload_size, 0)), 0) INTO x_more
            FROM __schema__.channel_values AS v
            WHERE v.thread = p_thread AND v.checkpoint_ns = x_ns;
            x_bytes := x_bytes + x_more;
            o_checkpoints := o_checkpoints + __schema__.delete_namespaces(p_thread, ARRAY[x_ns]);
        END IF;
    END LOOP;
    -- A root checkpoint is kept as long as a call that belongs to it exists.
    IF o_checkpoints < p_batch THEN
        FOR x_ns, x_ids IN
            SELECT part.ns, array_agg(part.id ORDER BY part.id COLLATE "C")
            FROM unnest(x_plan.o_ns, x_plan.o_ids) AS part (ns, id)
            GROUP BY part.ns
        LOOP
            x_bytes := x_bytes + __schema__.bytes_of_checkpoints(p_thread, x_ns, x_ids);
            PERFORM __schema__.delete_checkpoints(p_thread, x_ns, x_ids);
            o_checkpoints := o_checkpoints + cardinality(x_ids);
            -- A run that read one of these must not build on it. Runs that continue from kept ones are undisturbed.
            UPDATE __schema__.namespaces AS n SET
                pruned_below = greatest(n.pruned_below, x_ids[cardinality(x_ids)] || E'\x01')
            WHERE n.thread = p_thread AND n.checkpoint_ns = x_ns;
            -- References to deleted parents are cleared, but not for encrypted metadata, which is bound to its parent's id.
            UPDATE __schema__.checkpoints AS c SET parent_checkpoint_id = NULL
            WHERE c.thread = p_thread AND c.checkpoint_ns = x_ns AND c.parent_checkpoint_id = ANY (x_ids)
                AND c.metadata_type NOT LIKE '%+%';
        END LOOP;
    END IF;
    UPDATE __schema__.threads AS t SET
        checkpoints = greatest(t.checkpoints - o_checkpoints, 0), bytes = greatest(t.bytes - x_bytes, 0), has_garbage = true
    WHERE t.thread = p_thread;
    o_outcome := 'trimmed';
    o_is_complete := x_plan.o_action = 'trim' AND o_checkpoints >= x_plan.o_checkpoints;
    IF o_is_complete AND p_is_last THEN
        DELETE FROM __schema__.retention_holds AS h WHERE h.thread = p_thread;
    END IF;
END
$$;

-- Deletes a large locked thread, and returns how many checkpoints it had. Null: another transaction waits for it, and nothing was
-- deleted.
--
-- A large thread is deleted in one piece if no part of it can be deleted earlier: the newest checkpoint needs the entire history
-- of a delta channel, which the server can't turn into a value. Half a history must not be visible, so it takes one transaction,
-- of which nobody waits for more than a part.
CREATE FUNCTION __schema__.delete_unless_awaited(
    p_tenant text, p_thread uuid, p_batch integer, OUT o_checkpoints bigint
) LANGUAGE plpgsql AS $$
DECLARE
    x_rows tid[];
BEGIN
    o_checkpoints := 0;
    FOR x_rows IN
        SELECT array_agg(r.ctid)
        FROM (
            SELECT r.ctid, (row_number() OVER () - 1) / p_batch AS part FROM __schema__.task_writes AS r WHERE r.thread = p_thread
        ) AS r
        GROUP BY r.part
    LOOP
        PERFORM __schema__.raise_if_awaited();
        DELETE FROM __schema__.task_writes AS r WHERE r.ctid = ANY (x_rows);
    END LOOP;
    FOR x_rows IN
        SELECT array_agg(r.ctid)
        FROM (
            SELECT r.ctid, (row_number() OVER () - 1) / p_batch AS part FROM __schema__.value_parts AS r WHERE r.thread = p_thread
        ) AS r
        GROUP BY r.part
    LOOP
        PERFORM __schema__.raise_if_awaited();
        DELETE FROM __schema__.value_parts AS r WHERE r.ctid = ANY (x_rows);
    END LOOP;
    FOR x_rows IN
        SELECT array_agg(r.ctid)
        FROM (
            SELECT r.ctid, (row_number() OVER () - 1) / p_batch AS part FROM __schema__.channel_values AS r WHERE r.thread = p_thread
        ) AS r
        GROUP BY r.part
    LOOP
        PERFORM __schema__.raise_if_awaited();
        DELETE FROM __schema__.channel_values AS r WHERE r.ctid = ANY (x_rows);
    END LOOP;
    FOR x_rows IN
        SELECT array_agg(r.ctid)
        FROM (
            SELECT r.ctid, (row_number() OVER () - 1) / p_batch AS part FROM __schema__.replaced_writes AS r WHERE r.thread = p_thread
        ) AS r
        GROUP BY r.part
    LOOP
        PERFORM __schema__.raise_if_awaited();
        DELETE FROM __schema__.replaced_writes AS r WHERE r.ctid = ANY (x_rows);
    END LOOP;
    FOR x_rows IN
        SELECT array_agg(r.ctid)
        FROM (
            SELECT r.ctid, (row_number() OVER () - 1) / p_batch AS part FROM __schema__.checkpoints AS r WHERE r.thread = p_thread
        ) AS r
        GROUP BY r.part
    LOOP
        PERFORM __schema__.raise_if_awaited();
        DELETE FROM __schema__.checkpoints AS r WHERE r.ctid = ANY (x_rows);
        o_checkpoints := o_checkpoints + cardinality(x_rows);
    END LOOP;
    PERFORM __schema__.delete_thread(p_tenant, p_thread, 0);
EXCEPTION
    WHEN SQLSTATE 'CKD01' THEN
        o_checkpoints := NULL;
END
$$;

-- Raises CKD01 if another transaction waits for a lock of this one.
CREATE FUNCTION __schema__.raise_if_awaited() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM pg_catalog.pg_locks AS l
        WHERE l.locktype = 'transactionid' AND l.transactionid = pg_current_xact_id()::xid AND NOT l.granted
    ) THEN
        RAISE SQLSTATE 'CKD01';
    END IF;
END
$$;

-- Returns the size of a namespace's checkpoints with their task writes, without values, in bytes.
CREATE FUNCTION __schema__.bytes_of_checkpoints(p_thread uuid, p_ns text, p_ids text[]) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT (coalesce((
        SELECT sum(c.size)
        FROM __schema__.checkpoints AS c
        WHERE c.thread = $1 AND c.checkpoint_ns = $2 AND c.checkpoint_id = ANY ($3)
    ), 0) + coalesce((
        SELECT sum(octet_length(w.data) + coalesce(w.upload_size, 0))
        FROM __schema__.task_writes AS w
        WHERE w.thread = $1 AND w.checkpoint_ns = $2 AND w.checkpoint_id = ANY ($3)
    ), 0))::bigint
$$;

-- Returns the values of a thread that nothing refers to (as in free_values), patches before their bases, with each namespace's
-- current version. The search takes long for large threads, so nothing is locked.
CREATE FUNCTION __schema__.find_garbage(p_tenant text, p_thread uuid)
RETURNS TABLE (o_ns text, o_version bigint, o_channels text[], o_versions text[]) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
BEGIN
    RETURN QUERY
    WITH RECURSIVE used AS (
        (
            SELECT c.checkpoint_ns AS ns, part.channel COLLATE "C" AS channel, part.version COLLATE "C" AS version
            FROM __schema__.checkpoints AS c
            CROSS JOIN LATERAL unnest(c.channels, c.channel_versions) AS part (channel, version)
            WHERE c.thread = p_thread
            UNION ALL
            SELECT w.checkpoint_ns, w.channel, w.base_version
            FROM __schema__.task_writes AS w
            WHERE w.thread = p_thread AND w.base_version IS NOT NULL
        )
        UNION
        SELECT used.ns, v.channel, v.base_version
        FROM used
        CROSS JOIN LATERAL (
            SELECT v.channel, v.base_version
            FROM __schema__.channel_values AS v
            WHERE v.thread = p_thread AND v.checkpoint_ns = used.ns AND v.channel = used.channel AND v.version = used.version
                AND v.base_version IS NOT NULL
            LIMIT 1
        ) AS v
    ),
    garbage AS (
        SELECT v.checkpoint_ns AS ns, v.channel, v.version FROM __schema__.channel_values AS v WHERE v.thread = p_thread
        EXCEPT
        SELECT used.ns, used.channel, used.version FROM used
    )
    SELECT
        n.checkpoint_ns::text, n.version, array_agg(v.channel::text ORDER BY v.depth DESC),
        array_agg(v.version::text ORDER BY v.depth DESC)
    FROM garbage
    CROSS JOIN LATERAL (
        SELECT v.channel, v.version, v.depth
        FROM __schema__.channel_values AS v
        WHERE v.thread = p_thread AND v.checkpoint_ns = garbage.ns AND v.channel = garbage.channel
            AND v.version = garbage.version
        LIMIT 1
    ) AS v
    CROSS JOIN LATERAL (
        SELECT n.checkpoint_ns, n.version
        FROM __schema__.namespaces AS n
        WHERE n.thread = p_thread AND n.checkpoint_ns = garbage.ns
        LIMIT 1
    ) AS n
    GROUP BY n.checkpoint_ns, n.version;
END
$$;

-- Deletes values that find_garbage has found. False: they may not be garbage any more, because the thread is locked, or got a
-- checkpoint or task writes that build on one of them.
CREATE FUNCTION __schema__.free_garbage(
    p_tenant text, p_thread uuid, p_ns text, p_version bigint, p_channels text[], p_versions text[]
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_bytes bigint;
BEGIN
    UPDATE __schema__.threads AS t SET updated_at = t.updated_at
    WHERE t.thread = (
        SELECT s.thread FROM __schema__.threads AS s WHERE s.thread = p_thread FOR NO KEY UPDATE SKIP LOCKED
    );
    IF NOT FOUND OR NOT EXISTS (
        SELECT FROM __schema__.namespaces AS n
        WHERE n.thread = p_thread AND n.checkpoint_ns = p_ns AND n.version = p_version
    ) OR EXISTS (
        SELECT
        FROM unnest(p_channels, p_versions) AS given (channel, version)
        CROSS JOIN LATERAL (
            SELECT
            FROM __schema__.task_writes AS w
            WHERE w.thread = p_thread AND w.checkpoint_ns = p_ns AND w.channel = given.channel COLLATE "C"
                AND w.base_version = given.version COLLATE "C"
            LIMIT 1
        ) AS w
    ) THEN
        RETURN false;
    END IF;
    WITH gone AS (
        DELETE FROM __schema__.channel_values AS v
        WHERE v.ctid = ANY (ARRAY (
            SELECT stored.ctid
            FROM unnest(p_channels, p_versions) AS given (channel, version)
            CROSS JOIN LATERAL (
                SELECT v.ctid
                FROM __schema__.channel_values AS v
                WHERE v.thread = p_thread AND v.checkpoint_ns = p_ns AND v.channel = given.channel COLLATE "C"
                    AND v.version = given.version COLLATE "C"
                LIMIT 1
            ) AS stored
        ))
        RETURNING v.upload_id, octet_length(v.data) + coalesce(v.upload_size, 0) AS bytes
    ),
    parts AS (
        DELETE FROM __schema__.value_parts AS p
        WHERE p.thread = p_thread AND p.upload_id IN (SELECT gone.upload_id FROM gone WHERE gone.upload_id IS NOT NULL)
    )
    SELECT coalesce(sum(gone.bytes), 0) INTO x_bytes FROM gone;
    UPDATE __schema__.threads AS t SET bytes = greatest(t.bytes - x_bytes, 0) WHERE t.thread = p_thread;
    RETURN true;
END
$$;

-- Records that retention has checked a thread and left only announced deletions (p_is_held), unless it was written to in the
-- meantime.
CREATE FUNCTION __schema__.note_retained(
    p_tenant text, p_thread uuid, p_active_at timestamptz, p_looked_at timestamptz, p_due_at timestamptz, p_is_held boolean
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
BEGIN
    UPDATE __schema__.threads AS t SET
        retained_at = p_looked_at, retention_due_at = p_due_at, has_garbage = false
    WHERE t.thread = (
        SELECT s.thread
        FROM __schema__.threads AS s
        WHERE s.thread = p_thread AND s.active_at = p_active_at
        FOR NO KEY UPDATE SKIP LOCKED
    );
    IF FOUND AND NOT p_is_held THEN
        DELETE FROM __schema__.retention_holds AS h WHERE h.thread = p_thread;
    END IF;
END
$$;
