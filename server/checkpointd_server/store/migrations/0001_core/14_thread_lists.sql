-- Lists of threads: first the keys, then the rows of those that fit on the page.

-- Returns the status of a thread, by the latest checkpoint of its root namespace.
--
--   o_status  "interrupted" or "failed": by its task writes; with both, "failed" if it was resumed. "running": it has tasks
--             left, and the thread was written to in the last minute or is leased. Otherwise "idle".
--   o_next    The nodes that run next: channels that trigger them have a value.
CREATE FUNCTION __schema__.state_of_thread(
    p_thread uuid, p_active_at timestamptz, p_lease_expires_at timestamptz,
    OUT o_checkpoint_id text, OUT o_metadata jsonb, OUT o_status text, OUT o_next text[]
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_head record;
    x_signs record;
BEGIN
    SELECT c.checkpoint_id, c.metadata_index, c.channels, c.channel_versions INTO x_head
    FROM __schema__.checkpoints AS c
    WHERE c.thread = p_thread AND c.checkpoint_ns = ''
    ORDER BY c.checkpoint_id DESC
    LIMIT 1;
    o_checkpoint_id := x_head.checkpoint_id;
    o_metadata := x_head.metadata_index;
    SELECT
        bool_or(w.channel = '__interrupt__') AS is_interrupted, bool_or(w.channel = '__error__') AS has_failed,
        bool_or(w.channel = '__resume__') AS is_resumed
    INTO x_signs
    FROM __schema__.task_writes AS w
    WHERE w.thread = p_thread AND w.checkpoint_ns = '' AND w.checkpoint_id = x_head.checkpoint_id;
    SELECT coalesce(array_agg(found.node ORDER BY found.node), '{}') INTO o_next
    FROM (
        SELECT
            CASE WHEN part.channel LIKE 'branch:to:%' THEN substr(part.channel, 11) ELSE part.channel END AS node
        FROM unnest(x_head.channels, x_head.channel_versions) AS part (channel, version)
        CROSS JOIN LATERAL (
            SELECT v.size
            FROM __schema__.channel_values AS v
            WHERE v.thread = p_thread AND v.checkpoint_ns = ''
                AND v.channel = part.channel COLLATE "C" AND v.version = part.version COLLATE "C"
            LIMIT 1
        ) AS v
        -- An empty list of packets has one byte.
        WHERE part.channel LIKE 'branch:to:%' OR part.channel = '__start__'
            OR part.channel = '__pregel_tasks' AND v.size > 1
    ) AS found;
    o_status := CASE
        WHEN x_signs.has_failed AND (NOT x_signs.is_interrupted OR x_signs.is_resumed) THEN 'failed'
        WHEN x_signs.is_interrupted THEN 'interrupted'
        WHEN cardinality(o_next) > 0 AND (
            p_active_at > clock_timestamp() - interval '1 minute' OR p_lease_expires_at > clock_timestamp()
        ) THEN 'running'
        ELSE 'idle'
    END;
END
$$;

-- Returns the threads that have all labels, or whose names begin with a prefix, if one index finds at most 2000. Null: more.
CREATE FUNCTION __schema__.candidate_threads(p_tenant text, p_labels bigint[], p_prefix text, p_prefix_end text)
RETURNS uuid[] LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_label bigint;
    x_many bigint := __schema__.label_of(p_tenant, 'many', 'true');
    x_found uuid[];
    x_best uuid[];
BEGIN
    FOREACH x_label IN ARRAY p_labels LOOP
        SELECT coalesce(array_agg(found.thread), '{}') INTO x_found
        FROM (
            SELECT l.thread
            FROM __schema__.thread_labels AS l
            WHERE l.label IN (x_label, x_many) AND l.tenant = p_tenant
            LIMIT 2001
        ) AS found;
        IF cardinality(x_found) <= 2000 AND (x_best IS NULL OR cardinality(x_found) < cardinality(x_best)) THEN
            x_best := x_found;
            EXIT WHEN cardinality(x_best) <= 100;
        END IF;
    END LOOP;
    IF p_prefix > '' AND (x_best IS NULL OR cardinality(x_best) > 100) THEN
        SELECT coalesce(array_agg(found.thread), '{}') INTO x_found
        FROM (
            SELECT t.thread
            FROM __schema__.threads AS t
            WHERE t.tenant COLLATE "POSIX" = p_tenant AND t.thread_id COLLATE "POSIX" >= p_prefix
                AND t.thread_id COLLATE "POSIX" < p_prefix_end
            LIMIT 2001
        ) AS found;
        IF cardinality(x_found) <= 2000 AND (x_best IS NULL OR cardinality(x_found) < cardinality(x_best)) THEN
            x_best := x_found;
        END IF;
    END IF;
    RETURN x_best;
END
$$;

-- Returns the keys of threads that match all filters, latest activity first, then by key: at most p_limit.
--
--   p_is_archived           Only archived threads, or only the others.
--   p_prefix, p_prefix_end  The range of names, without the end. p_prefix '': all.
--   p_metadata, p_tags      What the metadata of the latest checkpoint and the tags must contain. Null: anything.
--   p_statuses              Null: any.
--   p_..._from, p_..._to    The range of times, without the end.
--   p_after_at, p_after     Start after this one.
--   p_budget                About how many threads to check. If it is used up before the page is full, the last row has a null
--                           thread, and its o_active_at is where to continue.
CREATE FUNCTION __schema__.find_threads(
    p_tenant text, p_is_archived boolean, p_prefix text, p_prefix_end text, p_metadata jsonb, p_tags jsonb,
    p_statuses text[], p_created_from timestamptz, p_created_to timestamptz, p_active_from timestamptz,
    p_active_to timestamptz, p_after_at timestamptz, p_after uuid, p_limit integer, p_budget integer
) RETURNS TABLE (o_thread uuid, o_active_at timestamptz) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_labels bigint[] := __schema__.labels_of(p_tenant, 'metadata', coalesce(p_metadata, '{}'), true)
        || __schema__.labels_of(p_tenant, 'tag', coalesce(p_tags, '{}'), true)
        || CASE
            WHEN p_statuses = '{interrupted}' THEN ARRAY[__schema__.label_of(p_tenant, 'signal', '1')]
            WHEN p_statuses = '{failed}' THEN ARRAY[__schema__.label_of(p_tenant, 'signal', '2')]
            ELSE '{}'
        END;
    x_candidates uuid[];
    x_is_indexed boolean;
    x_needs_state boolean := p_metadata IS NOT NULL OR p_statuses IS NOT NULL;
    x_upper timestamptz := least(p_after_at, p_active_to);
    x_upper_thread uuid := CASE WHEN p_after_at <= p_active_to THEN p_after ELSE '00000000-0000-0000-0000-000000000000' END;
    x_chunk integer := greatest(p_limit, 50);
    x_low timestamptz;
    x_floor timestamptz;
    x_is_last boolean;
    x_scanned integer := 0;
    x_number integer := 0;
    x_row record;
    x_state record;
BEGIN
    IF cardinality(x_labels) > 0 OR p_prefix > '' THEN
        x_candidates := __schema__.candidate_threads(p_tenant, x_labels, p_prefix, p_prefix_end);
    END IF;
    x_is_indexed := x_candidates IS NOT NULL;
    LOOP
        -- A thread's position in the index is up to two seconds before its activity. So all threads that were active at x_floor
        -- or later are among those at x_low or later, and their exact order is known.
        x_is_last := true;
        x_low := '-infinity';
        x_floor := p_active_from;
        IF NOT x_is_indexed THEN
            SELECT t.listed_at INTO x_low
            FROM __schema__.threads AS t
            WHERE t.tenant = p_tenant AND t.is_archived = p_is_archived AND t.listed_at <= x_upper
                AND t.listed_at >= p_active_from - interval '2 seconds'
            ORDER BY t.listed_at DESC
            OFFSET x_chunk
            LIMIT 1;
            IF FOUND THEN
                x_is_last := false;
                x_floor := greatest(x_low + interval '2 seconds', p_active_from);
                IF x_floor >= x_upper THEN
                    x_chunk := x_chunk * 4;
                    CONTINUE;
                END IF;
            ELSE
                x_low := p_active_from - interval '2 seconds';
            END IF;
        END IF;
        FOR x_row IN
            SELECT t.thread, t.active_at, t.lease_expires_at
            FROM __schema__.threads AS t
            WHERE NOT x_is_indexed AND t.tenant = p_tenant AND t.is_archived = p_is_archived
                AND t.listed_at >= x_low AND t.listed_at <= x_upper
                AND t.active_at >= x_floor AND (t.active_at, t.thread) < (x_upper, x_upper_thread)
                AND t.created_at >= p_created_from AND t.created_at < p_created_to
                AND (p_prefix = '' OR t.thread_id >= p_prefix AND t.thread_id < p_prefix_end)
                AND (p_tags IS NULL OR t.tags @> p_tags)
            UNION ALL
            SELECT t.thread, t.active_at, t.lease_expires_at
            FROM (SELECT DISTINCT candidate.thread FROM unnest(x_candidates) AS candidate (thread)) AS candidate
            CROSS JOIN LATERAL (
                SELECT t.*
                FROM __schema__.threads AS t
                WHERE t.thread = candidate.thread
                LIMIT 1
            ) AS t
            WHERE x_is_indexed AND t.tenant = p_tenant AND t.is_archived = p_is_archived
                AND t.listed_at IS NOT NULL
                AND t.active_at >= x_floor AND (t.active_at, t.thread) < (x_upper, x_upper_thread)
                AND t.created_at >= p_created_from AND t.created_at < p_created_to
                AND (p_prefix = '' OR t.thread_id >= p_prefix AND t.thread_id < p_prefix_end)
                AND (p_tags IS NULL OR t.tags @> p_tags)
            ORDER BY 2 DESC, 1 DESC
        LOOP
            IF x_needs_state THEN
                SELECT s.* INTO x_state
                FROM __schema__.state_of_thread(x_row.thread, x_row.active_at, x_row.lease_expires_at) AS s;
                CONTINUE WHEN p_metadata IS NOT NULL AND (x_state.o_metadata @> p_metadata) IS NOT TRUE
                    OR p_statuses IS NOT NULL AND x_state.o_status <> ALL (p_statuses);
            END IF;
            o_thread := x_row.thread;
            o_active_at := x_row.active_at;
            RETURN NEXT;
            x_number := x_number + 1;
            IF x_number >= p_limit THEN
                RETURN;
            END IF;
        END LOOP;
        EXIT WHEN x_is_last OR x_floor <= p_active_from;
        x_scanned := x_scanned + x_chunk;
        x_upper := x_floor;
        x_upper_thread := '00000000-0000-0000-0000-000000000000';
        IF x_scanned >= p_budget THEN
            o_thread := NULL;
            o_active_at := x_upper;
            RETURN NEXT;
            RETURN;
        END IF;
    END LOOP;
END
$$;

-- Returns what lists show of a thread. No row: it is empty or doesn't exist.
--
--   p_max_bytes  The maximum size of an interrupt or error that is returned, in bytes.
--   w_...        The interrupts and errors of the latest checkpoint; w_data is null if it is larger.
CREATE FUNCTION __schema__.describe_thread(p_tenant text, p_thread uuid, p_max_bytes bigint)
RETURNS TABLE (
    o_thread uuid, o_thread_id text, o_active_at timestamptz, o_created_at timestamptz, o_checkpoints bigint, o_bytes bigint,
    o_archived_at timestamptz, o_is_pinned boolean, o_ttl_seconds bigint, o_tags jsonb,
    o_serializer smallint, o_checkpoint_id text, o_metadata jsonb, o_status text, o_next text[],
    w_task_id text[], w_channel text[], w_type text[], w_data bytea[], w_bytes bigint[]
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_lease timestamptz;
    x_is_listed boolean;
BEGIN
    -- With listed_at in the condition, a planner that expects few threads would scan the index of all listed ones.
    SELECT
        t.listed_at IS NOT NULL, t.thread, t.thread_id, t.active_at, t.created_at, t.checkpoints, t.bytes, t.archived_at, t.is_pinned, t.ttl_seconds,
        t.tags, t.serializer, CASE WHEN t.archived_at IS NULL THEN t.lease_expires_at END
    INTO
        x_is_listed, o_thread, o_thread_id, o_active_at, o_created_at, o_checkpoints, o_bytes, o_archived_at, o_is_pinned,
        o_ttl_seconds, o_tags, o_serializer, x_lease
    FROM __schema__.threads AS t
    WHERE t.thread = p_thread;
    IF x_is_listed IS NOT TRUE THEN
        RETURN;
    END IF;
    SELECT s.o_checkpoint_id, s.o_metadata, s.o_status, s.o_next
    INTO o_checkpoint_id, o_metadata, o_status, o_next
    FROM __schema__.state_of_thread(p_thread, o_active_at, x_lease) AS s;
    SELECT
        coalesce(array_agg(w.task_id), '{}'), coalesce(array_agg(w.channel), '{}'), coalesce(array_agg(w.type), '{}'),
        coalesce(array_agg(CASE WHEN w.bytes <= p_max_bytes AND w.is_whole THEN w.data END), '{}'),
        coalesce(array_agg(w.bytes), '{}')
    INTO w_task_id, w_channel, w_type, w_data, w_bytes
    FROM (
        SELECT
            w.task_id, w.channel, w.type, w.data, w.upload_id IS NULL AND w.base_version IS NULL AS is_whole,
            coalesce(w.size, w.upload_size, octet_length(w.data)) AS bytes
        FROM __schema__.task_writes AS w
        WHERE w.thread = p_thread AND w.checkpoint_ns = '' AND w.checkpoint_id = o_checkpoint_id
            AND w.channel IN ('__interrupt__', '__error__')
        ORDER BY w.task_id, w.idx
        LIMIT 16
    ) AS w;
    RETURN NEXT;
END
$$;

-- Returns a page of threads (find_threads), each as describe_thread returns it. If the page ended early, the last row has a null
-- thread, and o_active_at is where to continue; null: after the previous row.
--
--   p_page_bytes  The maximum size of the page, counting only what may be large, in bytes; it has at least one thread.
CREATE FUNCTION __schema__.list_threads(
    p_tenant text, p_is_archived boolean, p_prefix text, p_prefix_end text, p_metadata jsonb, p_tags jsonb,
    p_statuses text[], p_created_from timestamptz, p_created_to timestamptz, p_active_from timestamptz,
    p_active_to timestamptz, p_after_at timestamptz, p_after uuid, p_limit integer, p_budget integer, p_max_bytes bigint,
    p_page_bytes bigint
) RETURNS TABLE (
    o_thread uuid, o_thread_id text, o_active_at timestamptz, o_created_at timestamptz, o_checkpoints bigint, o_bytes bigint,
    o_archived_at timestamptz, o_is_pinned boolean, o_ttl_seconds bigint, o_tags jsonb,
    o_serializer smallint, o_checkpoint_id text, o_metadata jsonb, o_status text, o_next text[],
    w_task_id text[], w_channel text[], w_type text[], w_data bytea[], w_bytes bigint[]
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_key record;
    x_total bigint := 0;
BEGIN
    FOR x_key IN
        SELECT f.o_thread, f.o_active_at
        FROM __schema__.find_threads(
            p_tenant, p_is_archived, p_prefix, p_prefix_end, p_metadata, p_tags, p_statuses, p_created_from, p_created_to,
            p_active_from, p_active_to, p_after_at, p_after, p_limit, p_budget
        ) AS f
    LOOP
        IF x_key.o_thread IS NULL THEN
            o_thread := NULL;
            o_active_at := x_key.o_active_at;
            RETURN NEXT;
        ELSE
            SELECT d.*
            INTO
                o_thread, o_thread_id, o_active_at, o_created_at, o_checkpoints, o_bytes, o_archived_at, o_is_pinned,
                o_ttl_seconds, o_tags, o_serializer, o_checkpoint_id, o_metadata, o_status, o_next,
                w_task_id, w_channel, w_type, w_data, w_bytes
            FROM __schema__.describe_thread(p_tenant, x_key.o_thread, p_max_bytes) AS d;
            IF x_total > p_page_bytes THEN
                o_thread := NULL;
                o_active_at := NULL;
                RETURN NEXT;
                RETURN;
            END IF;
            x_total := x_total + pg_column_size(o_metadata) + pg_column_size(w_data) + 500;
            RETURN NEXT;
        END IF;
    END LOOP;
END
$$;

-- Returns how many threads match all filters (find_threads), up to p_limit.
--
--   o_is_complete  Whether there are no more.
CREATE FUNCTION __schema__.count_threads(
    p_tenant text, p_is_filtered boolean, p_is_archived boolean, p_prefix text, p_prefix_end text, p_metadata jsonb, p_tags jsonb,
    p_statuses text[], p_created_from timestamptz, p_created_to timestamptz, p_active_from timestamptz,
    p_active_to timestamptz, p_limit integer, p_budget integer, OUT o_count bigint, OUT o_is_complete boolean
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
BEGIN
    IF NOT p_is_filtered THEN
        SELECT count(*) INTO o_count
        FROM (
            SELECT
            FROM __schema__.threads AS t
            WHERE t.tenant = p_tenant AND t.is_archived = p_is_archived AND t.listed_at IS NOT NULL
            LIMIT p_limit
        ) AS listed;
        o_is_complete := o_count < p_limit;
        RETURN;
    END IF;
    SELECT count(f.o_thread), count(*) < p_limit AND count(*) = count(f.o_thread) INTO o_count, o_is_complete
    FROM __schema__.find_threads(
        p_tenant, p_is_archived, p_prefix, p_prefix_end, p_metadata, p_tags, p_statuses, p_created_from, p_created_to,
        p_active_from, p_active_to, p_active_to, 'ffffffff-ffff-ffff-ffff-ffffffffffff', p_limit, p_budget
    ) AS f;
END
$$;
