-- Purges: deletions that leave nothing, not even the row that outlives a deleted thread for an hour.

-- Purges a thread, even if it is leased or archived: later writes find nothing there, and the lease is lost.
--
--   p_takes_pinned  Whether to purge it even if it is pinned.
--   o_is_pinned     Whether it was kept because it is pinned.
--   o_tables, o_rows  The number of rows deleted from each table.
CREATE FUNCTION __schema__.purge_thread(
    p_tenant text, p_thread uuid, p_takes_pinned boolean,
    OUT o_is_pinned boolean, OUT o_is_listed boolean, OUT o_checkpoints bigint, OUT o_bytes bigint,
    OUT o_tables text[], OUT o_rows bigint[]
) LANGUAGE plpgsql AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_rows bigint;
BEGIN
    UPDATE __schema__.threads AS t SET updated_at = clock_timestamp() WHERE t.thread = p_thread
    RETURNING t.is_pinned AND NOT p_takes_pinned, t.listed_at IS NOT NULL, t.checkpoints, t.bytes
    INTO o_is_pinned, o_is_listed, o_checkpoints, o_bytes;
    o_tables := '{}';
    o_rows := '{}';
    IF o_is_pinned THEN
        RETURN;
    END IF;
    DELETE FROM __schema__.thread_labels AS l WHERE l.thread = p_thread AND l.tenant = p_tenant;
    GET DIAGNOSTICS x_rows = ROW_COUNT;
    o_tables := o_tables || 'thread_labels'::text;
    o_rows := o_rows || x_rows;
    DELETE FROM __schema__.namespaces AS n WHERE n.thread = p_thread AND n.tenant = p_tenant;
    GET DIAGNOSTICS x_rows = ROW_COUNT;
    o_tables := o_tables || 'namespaces'::text;
    o_rows := o_rows || x_rows;
    DELETE FROM __schema__.checkpoints AS c WHERE c.thread = p_thread AND c.tenant = p_tenant;
    GET DIAGNOSTICS x_rows = ROW_COUNT;
    o_tables := o_tables || 'checkpoints'::text;
    o_rows := o_rows || x_rows;
    DELETE FROM __schema__.channel_values AS v WHERE v.thread = p_thread AND v.tenant = p_tenant;
    GET DIAGNOSTICS x_rows = ROW_COUNT;
    o_tables := o_tables || 'channel_values'::text;
    o_rows := o_rows || x_rows;
    DELETE FROM __schema__.task_writes AS w WHERE w.thread = p_thread AND w.tenant = p_tenant;
    GET DIAGNOSTICS x_rows = ROW_COUNT;
    o_tables := o_tables || 'task_writes'::text;
    o_rows := o_rows || x_rows;
    DELETE FROM __schema__.replaced_writes AS r WHERE r.thread = p_thread AND r.tenant = p_tenant;
    GET DIAGNOSTICS x_rows = ROW_COUNT;
    o_tables := o_tables || 'replaced_writes'::text;
    o_rows := o_rows || x_rows;
    DELETE FROM __schema__.value_parts AS p WHERE p.thread = p_thread AND p.tenant = p_tenant;
    GET DIAGNOSTICS x_rows = ROW_COUNT;
    o_tables := o_tables || 'value_parts'::text;
    o_rows := o_rows || x_rows;
    DELETE FROM __schema__.uploads AS u WHERE u.thread = p_thread AND u.tenant = p_tenant;
    GET DIAGNOSTICS x_rows = ROW_COUNT;
    o_tables := o_tables || 'uploads'::text;
    o_rows := o_rows || x_rows;
    DELETE FROM __schema__.lease_waiters AS w WHERE w.thread = p_thread AND w.tenant = p_tenant;
    GET DIAGNOSTICS x_rows = ROW_COUNT;
    o_tables := o_tables || 'lease_waiters'::text;
    o_rows := o_rows || x_rows;
    DELETE FROM __schema__.gc_queue AS q WHERE q.thread = p_thread AND q.tenant = p_tenant;
    GET DIAGNOSTICS x_rows = ROW_COUNT;
    o_tables := o_tables || 'gc_queue'::text;
    o_rows := o_rows || x_rows;
    DELETE FROM __schema__.retention_holds AS h WHERE h.thread = p_thread AND h.tenant = p_tenant;
    GET DIAGNOSTICS x_rows = ROW_COUNT;
    o_tables := o_tables || 'retention_holds'::text;
    o_rows := o_rows || x_rows;
    DELETE FROM __schema__.threads AS t WHERE t.thread = p_thread AND t.tenant = p_tenant;
    GET DIAGNOSTICS x_rows = ROW_COUNT;
    o_tables := o_tables || 'threads'::text;
    o_rows := o_rows || x_rows;
END
$$;

-- Returns threads of a tenant, empty or not, that existed at a time, at most p_limit. Purged threads aren't returned again.
--
--   p_before  The time. Null: now; the rows have it, to pass it to the next call.
CREATE FUNCTION __schema__.threads_to_purge(
    p_tenant text, p_takes_pinned boolean, p_before timestamptz, p_limit integer
) RETURNS TABLE (o_thread uuid, o_before timestamptz) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_before timestamptz := coalesce(p_before, clock_timestamp());
BEGIN
    RETURN QUERY
    SELECT t.thread, x_before
    FROM __schema__.threads AS t
    WHERE t.tenant = p_tenant AND t.created_at <= x_before AND (p_takes_pinned OR NOT t.is_pinned)
    LIMIT p_limit;
END
$$;

-- Returns the keys of threads that match a filter (find_threads), with what a purge would delete. If the page ended early, the last
-- row has a null thread.
CREATE FUNCTION __schema__.find_to_purge(
    p_tenant text, p_is_archived boolean, p_prefix text, p_prefix_end text, p_metadata jsonb, p_tags jsonb,
    p_statuses text[], p_created_from timestamptz, p_created_to timestamptz, p_active_from timestamptz,
    p_active_to timestamptz, p_after_at timestamptz, p_after uuid, p_limit integer, p_budget integer
) RETURNS TABLE (o_thread uuid, o_active_at timestamptz, o_is_pinned boolean, o_checkpoints bigint, o_bytes bigint)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
BEGIN
    RETURN QUERY
    SELECT f.o_thread, f.o_active_at, t.is_pinned, t.checkpoints, t.bytes
    FROM __schema__.find_threads(
        p_tenant, p_is_archived, p_prefix, p_prefix_end, p_metadata, p_tags, p_statuses, p_created_from, p_created_to,
        p_active_from, p_active_to, p_after_at, p_after, p_limit, p_budget
    ) AS f
    LEFT JOIN LATERAL (
        SELECT t.is_pinned, t.checkpoints, t.bytes FROM __schema__.threads AS t WHERE t.thread = f.o_thread LIMIT 1
    ) AS t ON true;
END
$$;

-- Purges a tenant's items of long-term memory, at most p_limit, and returns how many there were.
CREATE FUNCTION __schema__.purge_items(p_tenant text, p_limit integer) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_rows bigint;
    x_vectors bigint;
    x_namespaces text[];
    x_keys text[];
BEGIN
    WITH gone AS (
        DELETE FROM __schema__.items AS i
        WHERE i.ctid = ANY (ARRAY(SELECT o.ctid FROM __schema__.items AS o WHERE o.tenant = p_tenant LIMIT p_limit))
        RETURNING i.namespace, i.key, i.vectors
    )
    SELECT count(*), sum(gone.vectors), array_agg(gone.namespace), array_agg(gone.key)
    INTO x_rows, x_vectors, x_namespaces, x_keys
    FROM gone;
    -- Without vectors the table may not exist.
    IF x_vectors > 0 THEN
        DELETE FROM __schema__.item_vectors AS v
        USING unnest(x_namespaces, x_keys) AS gone (namespace, key)
        WHERE v.tenant = p_tenant AND v.namespace = gone.namespace AND v.key = gone.key;
    END IF;
    RETURN x_rows;
END
$$;

-- Purges what a tenant has besides threads and items. Every table with a tenant is in this function or in one above.
CREATE FUNCTION __schema__.purge_tenant(p_tenant text, OUT o_tables text[], OUT o_rows bigint[]) LANGUAGE plpgsql AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_rows bigint;
BEGIN
    DELETE FROM __schema__.gc_queue AS q WHERE q.tenant = p_tenant;
    GET DIAGNOSTICS x_rows = ROW_COUNT;
    o_tables := ARRAY['gc_queue'::text];
    o_rows := ARRAY[x_rows];
    DELETE FROM __schema__.item_sweeps AS s WHERE s.tenant = p_tenant;
    GET DIAGNOSTICS x_rows = ROW_COUNT;
    o_tables := o_tables || 'item_sweeps'::text;
    o_rows := o_rows || x_rows;
    DELETE FROM __schema__.retention_policies AS p WHERE p.tenant = p_tenant;
    GET DIAGNOSTICS x_rows = ROW_COUNT;
    o_tables := o_tables || 'retention_policies'::text;
    o_rows := o_rows || x_rows;
    DELETE FROM __schema__.retention_tenants AS r WHERE r.tenant = p_tenant;
    GET DIAGNOSTICS x_rows = ROW_COUNT;
    o_tables := o_tables || 'retention_tenants'::text;
    o_rows := o_rows || x_rows;
    DELETE FROM __schema__.tenants AS t WHERE t.tenant = p_tenant;
    GET DIAGNOSTICS x_rows = ROW_COUNT;
    o_tables := o_tables || 'tenants'::text;
    o_rows := o_rows || x_rows;
END
$$;
