-- What retention would do to a thread.

-- Returns the least id from which on a thread's checkpoints have at most this size in bytes, with their task writes and the values
-- that they refer to; a value counts once, for the newest checkpoint that needs it.
CREATE FUNCTION __schema__.retention_cut(p_thread uuid, p_max_bytes bigint) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_cut text;
BEGIN
    WITH RECURSIVE used AS (
        SELECT c.checkpoint_ns AS ns, part.channel COLLATE "C" AS channel, part.version COLLATE "C" AS version,
            max(c.checkpoint_id) AS newest
        FROM __schema__.checkpoints AS c
        CROSS JOIN LATERAL unnest(c.channels, c.channel_versions) AS part (channel, version)
        WHERE c.thread = p_thread
        GROUP BY 1, 2, 3
        UNION
        SELECT used.ns, v.channel, v.base_version, used.newest
        FROM used
        CROSS JOIN LATERAL (
            SELECT v.channel, v.base_version
            FROM __schema__.channel_values AS v
            WHERE v.thread = p_thread AND v.checkpoint_ns = used.ns AND v.channel = used.channel AND v.version = used.version
                AND v.base_version IS NOT NULL
            LIMIT 1
        ) AS v
    ),
    part AS (
        SELECT needed.newest AS id, v.bytes
        FROM (SELECT used.ns, used.channel, used.version, max(used.newest) AS newest FROM used GROUP BY 1, 2, 3) AS needed
        CROSS JOIN LATERAL (
            SELECT octet_length(v.data) + coalesce(v.upload_size, 0) AS bytes
            FROM __schema__.channel_values AS v
            WHERE v.thread = p_thread AND v.checkpoint_ns = needed.ns AND v.channel = needed.channel
                AND v.version = needed.version
            LIMIT 1
        ) AS v
        UNION ALL
        SELECT c.checkpoint_id, c.size FROM __schema__.checkpoints AS c WHERE c.thread = p_thread
        UNION ALL
        SELECT w.checkpoint_id, octet_length(w.data) + coalesce(w.upload_size, 0)
        FROM __schema__.task_writes AS w
        WHERE w.thread = p_thread
    ),
    running AS (
        SELECT part.id, sum(sum(part.bytes)) OVER (ORDER BY part.id DESC) AS bytes FROM part GROUP BY part.id
    )
    SELECT max(running.id) INTO x_cut FROM running WHERE running.bytes > p_max_bytes;
    -- Above the newest that is too much.
    RETURN x_cut || E'\x01';
END
$$;

-- Returns what retention would do to a thread now. It plans nothing for exempt threads (o_is_exempt): archived, pinned, or with a
-- lease in force.
--
--   p_batch    The maximum number of ids to return.
--   p_extra    A policy to try out: deletions by others, or by the thread's own time to live, are left out.
--   p_cut, p_inner_ns, p_inner_ids
--              The results of a call without a lock (o_cut, o_inner_ns, o_inner_ids), which take long for large threads.
--              p_inner_ids null: compute them.
--   p_below    Delete nothing from this id on. Null: no limit.
--   o_action   "none", "delete": the thread; "trim": checkpoints
--   o_reason, o_policy
--              The limit and its policy. A thread's own time to live has no policy.
--   o_checkpoints
--              How many would be deleted.
--   o_hold, o_hold_by
--              How long before it is announced, in seconds, and the policy with that hold.
--   o_below    For "trim": everything deleted is below this id.
--   o_whole    Namespaces of subgraph calls to delete entirely. o_ns and o_ids: checkpoints of others. The oldest come first.
--   o_due_at   When to check again, even if nothing is written. Null: never.
CREATE FUNCTION __schema__.plan_retention(
    p_tenant text, p_thread uuid, p_batch integer, p_extra jsonb, p_cut text, p_inner_ns text[], p_inner_ids text[],
    p_below text,
    OUT o_is_exempt boolean, OUT o_action text, OUT o_reason text, OUT o_policy text, OUT o_checkpoints bigint,
    OUT o_bytes bigint, OUT o_hold bigint, OUT o_hold_by text, OUT o_below text, OUT o_whole text[], OUT o_ns text[],
    OUT o_ids text[], OUT o_cut text, OUT o_inner_ns text[], OUT o_inner_ids text[], OUT o_due_at timestamptz,
    OUT o_active_at timestamptz, OUT o_idle_since timestamptz, OUT o_has_garbage boolean, OUT o_looked_at timestamptz
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_now timestamptz := clock_timestamp();
    -- Null: no limit.
    x_limit bigint := nullif(p_batch, 0) + 1;
    x_thread record;
    x_metadata jsonb;
    x_is_interrupted boolean;
    x_limits record;
    x_ttl bigint;
    x_ns record;
    x_kept record;
    x_floor text COLLATE "C";
    x_found text COLLATE "C";
    x_low text COLLATE "C";
    x_root_floor text COLLATE "C";
    x_root_goes text[] := '{}';
    x_inner text[];
    x_goes text[];
    x_oldest timestamptz;
    x_reason text;
    x_policy text;
BEGIN
    o_is_exempt := true;
    o_looked_at := x_now;
    o_action := 'none';
    o_checkpoints := 0;
    o_whole := '{}';
    o_ns := '{}';
    o_ids := '{}';
    o_inner_ns := '{}';
    o_inner_ids := '{}';
    SELECT
        t.thread_id, t.active_at, greatest(t.active_at, t.read_at) AS idle_since, t.listed_at, t.is_archived, t.is_pinned,
        t.lease_expires_at, t.ttl_seconds, t.bytes, t.signal, t.has_garbage
    INTO x_thread
    FROM __schema__.threads AS t
    WHERE t.thread = p_thread;
    IF x_thread.listed_at IS NULL OR x_thread.is_archived OR x_thread.is_pinned OR x_thread.lease_expires_at > x_now THEN
        RETURN;
    END IF;
    o_is_exempt := false;
    o_bytes := x_thread.bytes;
    o_active_at := x_thread.active_at;
    o_idle_since := x_thread.idle_since;
    o_has_garbage := x_thread.has_garbage;
    SELECT c.metadata_index INTO x_metadata
    FROM __schema__.checkpoints AS c
    WHERE c.thread = p_thread AND c.checkpoint_ns = ''
    ORDER BY c.checkpoint_id DESC
    LIMIT 1;
    x_is_interrupted := x_thread.signal IS NOT NULL AND (
        SELECT s.o_status = 'interrupted' FROM __schema__.state_of_thread(p_thread, x_now, NULL) AS s
    );
    SELECT l.* INTO x_limits
    FROM __schema__.retention_limits(p_tenant, x_thread.thread_id, x_metadata, x_is_interrupted, p_extra) AS l;
    o_hold := x_limits.o_hold;
    o_hold_by := x_limits.o_hold_by;

    -- The thread.
    x_ttl := CASE
        WHEN p_extra IS NULL AND (NOT x_is_interrupted OR x_limits.o_deletes_interrupted) THEN x_thread.ttl_seconds
    END;
    o_due_at := x_thread.idle_since + make_interval(secs => least(x_ttl, x_limits.o_idle));
    IF o_due_at <= x_now THEN
        o_action := 'delete';
        IF x_ttl <= coalesce(x_limits.o_idle, x_ttl) THEN
            o_reason := 'ttl';
        ELSE
            o_reason := 'max_idle';
            o_policy := x_limits.o_idle_by;
        END IF;
        SELECT count(*) INTO o_checkpoints
        FROM (SELECT FROM __schema__.checkpoints AS c WHERE c.thread = p_thread LIMIT x_limit) AS c;
        IF o_checkpoints <= p_batch OR p_batch = 0 THEN
            RETURN;
        END IF;
        -- Too much for one transaction: first delete all but the newest.
        x_limits.o_newest := 1;
        x_limits.o_run_by := NULL;
        o_checkpoints := 0;
    END IF;

    -- Its history.
    IF x_limits.o_age IS NULL AND x_limits.o_newest IS NULL AND x_limits.o_bytes IS NULL AND x_limits.o_run_by IS NULL THEN
        RETURN;
    END IF;
    IF x_thread.bytes > x_limits.o_bytes THEN
        o_cut := CASE WHEN p_inner_ids IS NULL THEN __schema__.retention_cut(p_thread, x_limits.o_bytes) ELSE p_cut END;
    END IF;
    FOR x_ns IN
        SELECT n.checkpoint_ns, n.last_checkpoint_id, head.checkpoint_id AS head_id, head.parent_checkpoint_id AS parent_id
        FROM __schema__.namespaces AS n
        CROSS JOIN LATERAL (
            SELECT c.checkpoint_id, c.parent_checkpoint_id
            FROM __schema__.checkpoints AS c
            WHERE c.thread = p_thread AND c.checkpoint_ns = n.checkpoint_ns
            ORDER BY c.checkpoint_id DESC
            LIMIT 1
        ) AS head
        WHERE n.thread = p_thread AND position(':' IN n.checkpoint_ns) = 0
        ORDER BY n.checkpoint_ns
    LOOP
        x_floor := '';
        x_reason := NULL;
        IF x_limits.o_newest IS NOT NULL THEN
            SELECT c.checkpoint_id INTO x_found
            FROM __schema__.checkpoints AS c
            WHERE c.thread = p_thread AND c.checkpoint_ns = x_ns.checkpoint_ns
            ORDER BY c.checkpoint_id DESC
            OFFSET x_limits.o_newest - 1
            LIMIT 1;
            IF FOUND THEN
                x_floor := x_found;
                x_reason := 'keep_newest';
                x_policy := x_limits.o_newest_by;
            END IF;
        END IF;
        IF x_limits.o_age IS NOT NULL THEN
            SELECT c.checkpoint_id, c.created_at INTO x_found, x_oldest
            FROM __schema__.checkpoints AS c
            WHERE c.thread = p_thread AND c.checkpoint_ns = x_ns.checkpoint_ns
                AND c.created_at > x_now - make_interval(secs => x_limits.o_age)
            ORDER BY c.checkpoint_id
            LIMIT 1;
            IF FOUND THEN
                o_due_at := least(o_due_at, x_oldest + make_interval(secs => x_limits.o_age));
            ELSE
                x_found := x_ns.head_id;
            END IF;
            IF x_found > x_floor THEN
                x_floor := x_found;
                x_reason := 'max_age';
                x_policy := x_limits.o_age_by;
            END IF;
        END IF;
        IF o_cut COLLATE "C" > x_floor THEN
            x_floor := o_cut;
            x_reason := 'max_bytes';
            x_policy := x_limits.o_bytes_by;
        END IF;
        -- A run in progress continues from the last put. And p_below is the limit that others have announced.
        x_floor := least(x_floor, x_ns.head_id, x_ns.last_checkpoint_id, p_below);
        IF x_ns.parent_id < x_floor AND EXISTS (
            SELECT
            FROM __schema__.task_writes AS w
            WHERE w.thread = p_thread AND w.checkpoint_ns = x_ns.checkpoint_ns AND w.checkpoint_id = x_ns.parent_id
                AND w.channel = '__pregel_tasks'
        ) THEN
            x_floor := x_ns.parent_id;
        END IF;
        -- What is kept must stay readable: the ancestors up to the values of its delta channels are kept, too.
        LOOP
            EXIT WHEN x_floor = '' OR NOT EXISTS (
                SELECT
                FROM __schema__.checkpoints AS c
                WHERE c.thread = p_thread AND c.checkpoint_ns = x_ns.checkpoint_ns AND c.checkpoint_id < x_floor
            );
            SELECT min(__schema__.lowest_ancestor(p_thread, x_ns.checkpoint_ns, c.checkpoint_id, delta.channels) COLLATE "C")
            INTO x_low
            FROM __schema__.checkpoints AS c
            CROSS JOIN LATERAL (
                SELECT __schema__.delta_channels_at(p_thread, x_ns.checkpoint_ns, c.checkpoint_id) AS channels
            ) AS delta
            WHERE c.thread = p_thread AND c.checkpoint_ns = x_ns.checkpoint_ns AND c.checkpoint_id >= x_floor
                AND c.parent_checkpoint_id < x_floor AND cardinality(delta.channels) > 0;
            EXIT WHEN x_low IS NULL OR x_low >= x_floor;
            x_floor := x_low;
        END LOOP;
        SELECT coalesce(array_agg(c.checkpoint_id ORDER BY c.checkpoint_id), '{}') INTO x_goes
        FROM (
            SELECT c.checkpoint_id
            FROM __schema__.checkpoints AS c
            WHERE c.thread = p_thread AND c.checkpoint_ns = x_ns.checkpoint_ns AND c.checkpoint_id < x_floor
            ORDER BY c.checkpoint_id
            LIMIT x_limit
        ) AS c;

        IF x_limits.o_run_by IS NOT NULL THEN
            IF p_inner_ids IS NULL THEN
                x_inner := __schema__.inner_of_runs(
                    p_thread, x_ns.checkpoint_ns, x_floor, ARRAY[x_ns.head_id, x_ns.last_checkpoint_id, x_ns.parent_id], p_below
                );
                o_inner_ids := o_inner_ids || x_inner;
                o_inner_ns := o_inner_ns || array_fill(x_ns.checkpoint_ns::text, ARRAY[cardinality(x_inner)]);
            ELSE
                -- Those that still exist, and that nothing newer needs.
                SELECT coalesce(array_agg(c.checkpoint_id ORDER BY c.checkpoint_id), '{}') INTO x_inner
                FROM unnest(p_inner_ns, p_inner_ids) AS given (ns, id)
                CROSS JOIN LATERAL (
                    SELECT c.checkpoint_id
                    FROM __schema__.checkpoints AS c
                    WHERE c.thread = p_thread AND c.checkpoint_ns = x_ns.checkpoint_ns
                        AND c.checkpoint_id = given.id COLLATE "C" AND c.checkpoint_id >= x_floor
                    LIMIT 1
                ) AS c
                WHERE given.ns = x_ns.checkpoint_ns AND (p_below IS NULL OR given.id COLLATE "C" < p_below)
                    AND given.id <> ALL (
                        array_remove(ARRAY[x_ns.head_id, x_ns.last_checkpoint_id, x_ns.parent_id]::text[], NULL)
                    );
                x_inner := __schema__.without(x_inner, ARRAY (
                    SELECT c.parent_checkpoint_id
                    FROM __schema__.checkpoints AS c
                    WHERE c.thread = p_thread AND c.checkpoint_ns = x_ns.checkpoint_ns
                        AND c.parent_checkpoint_id = ANY (x_inner) AND c.created_at > x_now - interval '1 minute'
                        AND cardinality(__schema__.delta_channels_at(p_thread, x_ns.checkpoint_ns, c.checkpoint_id)) > 0
                ));
            END IF;
            x_goes := x_goes || x_inner;
            IF x_reason IS NULL THEN
                x_reason := 'keep_last_of_run';
                x_policy := x_limits.o_run_by;
            END IF;
        END IF;
        IF x_ns.checkpoint_ns = '' THEN
            x_root_floor := x_floor;
            x_root_goes := x_goes;
        END IF;
        IF cardinality(x_goes) > 0 THEN
            o_checkpoints := o_checkpoints + cardinality(x_goes);
            o_below := greatest(o_below COLLATE "C", x_goes[cardinality(x_goes)] || E'\x01');
            x_goes := x_goes[1:greatest(p_batch - cardinality(o_ids), 0)];
            o_ids := o_ids || x_goes;
            o_ns := o_ns || array_fill(x_ns.checkpoint_ns::text, ARRAY[cardinality(x_goes)]);
            IF o_action <> 'delete' AND o_reason IS NULL THEN
                o_reason := x_reason;
                o_policy := x_policy;
            END IF;
        END IF;
    END LOOP;
    -- Calls of subgraphs are deleted with the root checkpoint that they belong to.
    FOR x_kept IN
        SELECT n.checkpoint_ns::text AS ns, (
            SELECT count(*) FROM __schema__.checkpoints AS c WHERE c.thread = p_thread AND c.checkpoint_ns = n.checkpoint_ns
        ) AS checkpoints
        FROM __schema__.namespaces AS n
        CROSS JOIN LATERAL (
            SELECT c.metadata_index -> 'parents' ->> '' AS root_id
            FROM __schema__.checkpoints AS c
            WHERE c.thread = p_thread AND c.checkpoint_ns = n.checkpoint_ns
            ORDER BY c.checkpoint_id DESC
            LIMIT 1
        ) AS head
        WHERE n.thread = p_thread AND position(':' IN n.checkpoint_ns) > 0
            AND (head.root_id COLLATE "C" < x_root_floor OR head.root_id = ANY (x_root_goes))
    LOOP
        o_checkpoints := o_checkpoints + x_kept.checkpoints;
        IF cardinality(o_whole) < p_batch THEN
            o_whole := o_whole || x_kept.ns;
        END IF;
        o_below := coalesce(o_below, x_root_floor);
    END LOOP;
    IF o_checkpoints = 0 THEN
        o_below := NULL;
    ELSIF o_action = 'none' THEN
        o_action := 'trim';
        o_reason := coalesce(o_reason, x_reason);
        o_policy := coalesce(o_policy, x_policy);
    END IF;
END
$$;

-- Returns the checkpoints of a namespace, from p_floor on and below p_below, that aren't the last of their run, nor in p_kept, nor
-- ancestors of a last one that are needed for the values of its delta channels.
CREATE FUNCTION __schema__.inner_of_runs(p_thread uuid, p_ns text, p_floor text, p_kept text[], p_below text) RETURNS text[]
LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_inner text[];
    x_low text COLLATE "C";
    x_last record;
    x_lasts text[];
BEGIN
    SELECT
        coalesce(array_agg(c.checkpoint_id ORDER BY c.checkpoint_id) FILTER (WHERE c.is_inner), '{}'),
        coalesce(array_agg(c.checkpoint_id) FILTER (WHERE NOT c.is_inner), '{}')
    INTO x_inner, x_lasts
    FROM (
        SELECT
            c.checkpoint_id,
            c.run_id IS NOT NULL AND c.checkpoint_id < max(c.checkpoint_id) OVER (PARTITION BY c.run_id)
                AND (p_below IS NULL OR c.checkpoint_id < p_below)
                AND c.checkpoint_id <> ALL (array_remove(p_kept, NULL)) AS is_inner
        FROM __schema__.checkpoints AS c
        WHERE c.thread = p_thread AND c.checkpoint_ns = p_ns AND c.checkpoint_id >= p_floor
    ) AS c;
    IF cardinality(x_inner) = 0 THEN
        RETURN x_inner;
    END IF;
    FOR x_last IN
        SELECT c.checkpoint_id, delta.channels
        FROM unnest(x_lasts) AS c (checkpoint_id)
        CROSS JOIN LATERAL (SELECT __schema__.delta_channels_at(p_thread, p_ns, c.checkpoint_id) AS channels) AS delta
        WHERE cardinality(delta.channels) > 0
    LOOP
        x_low := __schema__.lowest_ancestor(p_thread, p_ns, x_last.checkpoint_id, x_last.channels);
        SELECT coalesce(array_agg(inner_id ORDER BY inner_id COLLATE "C"), '{}') INTO x_inner
        FROM unnest(x_inner) AS inner_id
        WHERE inner_id COLLATE "C" < x_low OR inner_id COLLATE "C" > x_last.checkpoint_id COLLATE "C";
    END LOOP;
    RETURN x_inner;
END
$$;

-- Returns whether a plan must be announced first, by its action, o_hold and o_idle_since.
--
--   o_is_new  It isn't announced yet, or something else is.
--   o_until   Until when to hold it. Null: it may be deleted,
--   o_below   and for a "trim" only below this id: what has become due since is announced again.
CREATE FUNCTION __schema__.hold_of_plan(
    p_thread uuid, p_action text, p_hold bigint, p_idle_since timestamptz,
    OUT o_is_new boolean, OUT o_until timestamptz, OUT o_below text
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_now timestamptz := clock_timestamp();
    x_hold record;
BEGIN
    o_is_new := false;
    IF p_action = 'none' OR p_hold = 0 THEN
        RETURN;
    END IF;
    SELECT h.* INTO x_hold FROM __schema__.retention_holds AS h WHERE h.thread = p_thread;
    IF NOT FOUND OR (x_hold.below IS NULL) <> (p_action = 'delete')
        OR p_action = 'delete' AND x_hold.idle_since <> p_idle_since
    THEN
        o_is_new := true;
        o_until := x_now + make_interval(secs => p_hold);
    ELSIF NOT x_hold.is_acknowledged AND x_hold.deadline_at > x_now THEN
        o_until := x_hold.deadline_at;
    ELSE
        o_below := x_hold.below;
    END IF;
END
$$;

-- Returns what would be done to a thread if it was checked now, as plan_retention does. o_until: it would be held until then.
CREATE FUNCTION __schema__.preview_retention(
    p_tenant text, p_thread uuid, p_extra jsonb,
    OUT o_action text, OUT o_reason text, OUT o_policy text, OUT o_checkpoints bigint, OUT o_until timestamptz,
    OUT o_hold_by text
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_below text;
    x_plan record;
    x_hold record;
BEGIN
    LOOP
        SELECT r.* INTO x_plan
        FROM __schema__.plan_retention(p_tenant, p_thread, 0, p_extra, NULL, NULL, NULL, x_below) AS r;
        EXIT WHEN x_below IS NOT NULL;
        SELECT h.* INTO x_hold
        FROM __schema__.hold_of_plan(p_thread, x_plan.o_action, x_plan.o_hold, x_plan.o_idle_since) AS h;
        x_below := x_hold.o_below;
        EXIT WHEN x_below IS NULL;
    END LOOP;
    o_action := x_plan.o_action;
    o_reason := x_plan.o_reason;
    o_policy := x_plan.o_policy;
    o_checkpoints := x_plan.o_checkpoints;
    o_until := x_hold.o_until;
    o_hold_by := CASE WHEN o_until IS NOT NULL THEN x_plan.o_hold_by END;
END
$$;
