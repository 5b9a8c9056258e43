-- Which threads to check, announced deletions, and times to live of threads.

-- Returns the next threads of a tenant that retention must check, among the next p_scan that aren't archived.
--
--   p_changed_at       When the tenant's policies last changed. Null: return all, even if they were checked before.
--   p_after_at, p_after  Start after this one.
--   o_after_at, o_after  Where to continue. Null: there are no more.
CREATE FUNCTION __schema__.find_to_retain(
    p_tenant text, p_changed_at timestamptz, p_after_at timestamptz, p_after uuid, p_scan integer,
    OUT o_threads uuid[], OUT o_thread_ids text[], OUT o_after_at timestamptz, OUT o_after uuid
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_scanned bigint;
BEGIN
    SELECT
        coalesce(array_agg(t.thread) FILTER (WHERE t.is_wanted), '{}'),
        coalesce(array_agg(t.thread_id) FILTER (WHERE t.is_wanted), '{}'),
        count(*), max(t.listed_at),
        (array_agg(t.thread ORDER BY t.listed_at DESC, t.thread DESC))[1]
    INTO o_threads, o_thread_ids, x_scanned, o_after_at, o_after
    FROM (
        SELECT
            t.thread, t.thread_id::text, t.listed_at,
            NOT t.is_pinned AND (
                p_changed_at IS NULL OR t.has_garbage OR t.retained_at IS NULL OR t.retained_at < t.active_at
                OR t.retained_at < p_changed_at OR t.retention_due_at <= clock_timestamp()
            ) AS is_wanted
        FROM __schema__.threads AS t
        WHERE t.tenant = p_tenant AND t.is_archived = false AND (t.listed_at, t.thread) > (p_after_at, p_after)
        ORDER BY t.listed_at, t.thread
        LIMIT p_scan
    ) AS t;
    IF x_scanned < p_scan THEN
        o_after_at := NULL;
        o_after := NULL;
    END IF;
END
$$;

-- Returns announced deletions that aren't acknowledged, earliest deadline first, at most p_limit after a given one.
CREATE FUNCTION __schema__.list_expiring(p_tenant text, p_after_at timestamptz, p_after uuid, p_limit integer)
RETURNS TABLE (
    o_thread uuid, o_thread_id text, o_policy text, o_reason text, o_is_whole boolean, o_below text, o_checkpoints bigint,
    o_deadline_at timestamptz, o_held_by text
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
BEGIN
    RETURN QUERY
    SELECT
        h.thread, t.thread_id, h.policy::text, h.reason, h.below IS NULL, h.below::text, h.checkpoints, h.deadline_at,
        h.held_by::text
    FROM __schema__.retention_holds AS h
    CROSS JOIN LATERAL (
        SELECT t.thread_id::text
        FROM __schema__.threads AS t
        WHERE t.thread = h.thread AND t.listed_at IS NOT NULL AND NOT t.is_archived AND NOT t.is_pinned
            AND (h.below IS NOT NULL OR greatest(t.active_at, t.read_at) = h.idle_since)
        LIMIT 1
    ) AS t
    WHERE h.tenant = p_tenant AND NOT h.is_acknowledged AND (h.deadline_at, h.thread) > (p_after_at, p_after)
    ORDER BY h.deadline_at, h.thread
    LIMIT p_limit;
END
$$;

-- Acknowledges an announced deletion if it is still the same. Returns whether it is.
CREATE FUNCTION __schema__.acknowledge_expiring(p_tenant text, p_thread uuid, p_below text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_idle_since timestamptz;
BEGIN
    UPDATE __schema__.threads AS t SET retained_at = NULL WHERE t.thread = p_thread AND t.listed_at IS NOT NULL
    RETURNING greatest(t.active_at, t.read_at) INTO x_idle_since;
    UPDATE __schema__.retention_holds AS h SET is_acknowledged = true
    WHERE h.thread = p_thread AND h.below IS NOT DISTINCT FROM p_below AND (h.below IS NOT NULL OR h.idle_since = x_idle_since);
    RETURN FOUND AND x_idle_since IS NOT NULL;
END
$$;

-- Removes announcements of threads that were deleted, or used since, and returns how many there were.
CREATE FUNCTION __schema__.clean_expiring(p_tenant text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_rows bigint;
BEGIN
    DELETE FROM __schema__.retention_holds AS h
    WHERE h.tenant = p_tenant AND (
        SELECT h.below IS NOT NULL OR greatest(t.active_at, t.read_at) = h.idle_since
        FROM __schema__.threads AS t
        WHERE t.thread = h.thread AND t.listed_at IS NOT NULL
        LIMIT 1
    ) IS NOT TRUE;
    GET DIAGNOSTICS x_rows = ROW_COUNT;
    RETURN x_rows;
END
$$;

-- Sets a thread's time to live, which a put carries. It is called before the put, so the thread may not exist yet. If the time is
-- set already, it changes and locks nothing.
CREATE FUNCTION __schema__.set_ttl(p_tenant text, p_thread uuid, p_thread_id text, p_ttl_seconds bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
BEGIN
    UPDATE __schema__.threads AS t SET ttl_seconds = nullif(p_ttl_seconds, 0), retained_at = NULL
    WHERE t.thread = p_thread AND t.ttl_seconds IS DISTINCT FROM nullif(p_ttl_seconds, 0);
    IF NOT FOUND AND NOT EXISTS (SELECT FROM __schema__.threads AS t WHERE t.thread = p_thread) THEN
        INSERT INTO __schema__.threads AS t (thread, tenant, thread_id, ttl_seconds)
        VALUES (p_thread, p_tenant, p_thread_id, nullif(p_ttl_seconds, 0))
        ON CONFLICT (thread) DO UPDATE SET ttl_seconds = excluded.ttl_seconds;
        -- The put may be refused.
        PERFORM __schema__.queue_gc(p_tenant, p_thread, 3600);
    END IF;
END
$$;

-- Records that a thread was read by a call that counts as use.
CREATE FUNCTION __schema__.note_read(p_tenant text, p_thread uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
BEGIN
    UPDATE __schema__.threads AS t SET read_at = clock_timestamp()
    WHERE t.thread = (
        SELECT s.thread
        FROM __schema__.threads AS s
        WHERE s.thread = p_thread AND s.listed_at IS NOT NULL
        FOR NO KEY UPDATE SKIP LOCKED
    );
END
$$;
