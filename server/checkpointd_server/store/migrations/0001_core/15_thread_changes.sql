-- Changes that users make to a thread: archived, pinned, tags, time to live; and the tree of its checkpoints.

-- Archives or unarchives a thread. o_is_changed: whether that changed it. The lease on an archived thread can't be taken. All
-- writes check leases anyway, so none can change it, at no further cost.
CREATE FUNCTION __schema__.archive_thread(
    p_tenant text, p_thread uuid, p_lease bigint, p_archives boolean,
    OUT o_outcome text, OUT o_remaining float8, OUT o_is_changed boolean
) LANGUAGE plpgsql AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_now timestamptz := clock_timestamp();
    x_thread record;
BEGIN
    UPDATE __schema__.threads AS t SET updated_at = x_now WHERE t.thread = p_thread
    RETURNING t.listed_at, t.archived_at, t.lease_token, date_part('epoch', t.lease_expires_at - x_now) AS remaining, t.floor INTO x_thread;
    o_is_changed := false;
    IF x_thread.listed_at IS NULL THEN
        o_outcome := 'not_found';
    ELSIF (x_thread.archived_at IS NOT NULL) = p_archives THEN
        o_outcome := 'ok';
    ELSIF p_archives AND coalesce(x_thread.remaining, 0) > 0 AND x_thread.lease_token <> p_lease THEN
        o_outcome := CASE WHEN p_lease = 0 THEN 'held' ELSE 'lost' END;
        o_remaining := x_thread.remaining;
    ELSIF p_archives AND coalesce(x_thread.remaining, 0) <= 0 AND p_lease > 0 THEN
        o_outcome := 'lost';
    ELSE
        o_outcome := 'ok';
        o_is_changed := true;
        UPDATE __schema__.threads AS t SET
            archived_at = CASE WHEN p_archives THEN x_now END,
            is_archived = p_archives,
            lease_holder = NULL,
            lease_token = greatest(t.lease_token + 1, t.floor + 1, (date_part('epoch', x_now) * 1000000)::bigint),
            lease_expires_at = CASE WHEN p_archives THEN '9999-01-01 00:00:00+00'::timestamptz END
        WHERE t.thread = p_thread;
    END IF;
END
$$;

-- Changes a thread's tags, pin and time to live. Works on archived threads too, because their contents don't change.
--
--   p_set, p_removed  Tags to set, and names of those to remove.
--   p_is_pinned       Null: unchanged.
--   p_ttl_seconds     Null: unchanged. 0: none.
--   p_max_tags        The maximum number of tags.
--   o_outcome         "ok", "not_found", "full"
CREATE FUNCTION __schema__.update_thread(
    p_tenant text, p_thread uuid, p_set jsonb, p_removed text[], p_is_pinned boolean, p_ttl_seconds bigint, p_max_tags integer
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_tags jsonb;
    x_signal smallint;
    x_listed_at timestamptz;
    x_metadata jsonb;
BEGIN
    UPDATE __schema__.threads AS t SET updated_at = clock_timestamp() WHERE t.thread = p_thread
    RETURNING t.tags, t.signal, t.listed_at INTO x_tags, x_signal, x_listed_at;
    IF x_listed_at IS NULL THEN
        RETURN 'not_found';
    END IF;
    x_tags := (x_tags - p_removed) || p_set;
    IF (SELECT count(*) FROM jsonb_object_keys(x_tags)) > p_max_tags THEN
        RETURN 'full';
    END IF;
    UPDATE __schema__.threads AS t SET
        tags = x_tags,
        is_pinned = coalesce(p_is_pinned, t.is_pinned),
        ttl_seconds = CASE WHEN p_ttl_seconds IS NULL THEN t.ttl_seconds ELSE nullif(p_ttl_seconds, 0) END,
        retained_at = NULL
    WHERE t.thread = p_thread;
    IF p_set = '{}' AND cardinality(p_removed) = 0 THEN
        RETURN 'ok';
    END IF;
    SELECT c.metadata_index INTO x_metadata
    FROM __schema__.checkpoints AS c
    WHERE c.thread = p_thread AND c.checkpoint_ns = ''
    ORDER BY c.checkpoint_id DESC
    LIMIT 1;
    PERFORM __schema__.set_labels(p_tenant, p_thread, x_metadata, x_tags, x_signal);
    RETURN 'ok';
END
$$;

-- Returns the checkpoints of a thread as nodes of trees, without their contents: newest first, at most p_limit, after the one that
-- p_after_id and p_after_ns name.
CREATE FUNCTION __schema__.list_nodes(p_tenant text, p_thread uuid, p_after_id text, p_after_ns text, p_limit integer)
RETURNS TABLE (
    o_ns text, o_checkpoint_id text, o_parent text, o_created_at timestamptz, o_step text, o_source text, o_run_id text,
    o_writes bigint, o_is_interrupted boolean, o_has_failed boolean
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
BEGIN
    RETURN QUERY
    SELECT
        c.checkpoint_ns::text, c.checkpoint_id::text, c.parent_checkpoint_id::text, c.created_at,
        c.metadata_index ->> 'step', c.metadata_index ->> 'source', c.run_id::text,
        beside.writes, coalesce(beside.is_interrupted, false), coalesce(beside.has_failed, false)
    FROM (
        SELECT newest.*
        FROM __schema__.namespaces AS n
        CROSS JOIN LATERAL (
            SELECT c.*
            FROM __schema__.checkpoints AS c
            WHERE c.thread = p_thread AND c.checkpoint_ns = n.checkpoint_ns AND c.checkpoint_id <= p_after_id
                AND (c.checkpoint_id < p_after_id OR c.checkpoint_ns > p_after_ns)
            ORDER BY c.checkpoint_id DESC
            LIMIT p_limit
        ) AS newest
        WHERE n.thread = p_thread
        ORDER BY newest.checkpoint_id DESC, newest.checkpoint_ns
        LIMIT p_limit
    ) AS c
    LEFT JOIN LATERAL (
        SELECT
            count(*) AS writes, bool_or(w.channel = '__interrupt__') AS is_interrupted,
            bool_or(w.channel = '__error__') AS has_failed
        FROM __schema__.task_writes AS w
        WHERE w.thread = p_thread AND w.checkpoint_ns = c.checkpoint_ns AND w.checkpoint_id = c.checkpoint_id
    ) AS beside ON true
    ORDER BY c.checkpoint_id DESC, c.checkpoint_ns;
END
$$;
