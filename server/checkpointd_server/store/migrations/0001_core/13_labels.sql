-- Labels, by which lists find threads. Writes update them at almost no cost; changes beyond writes compute them again.

-- Returns the position in lists of a thread that is written to now: its old one, if that is recent.
CREATE FUNCTION __schema__.listed_now(p_listed_at timestamptz, p_now timestamptz) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN $1 > $2 - interval '2 seconds' THEN $1 ELSE $2 END
$$;

-- Returns the entries of metadata that LangGraph changes in every step: they have no labels.
-- (domain/threads.py has the same list, for fingerprints.)
CREATE FUNCTION __schema__.volatile_keys() RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT ARRAY[
        'source', 'step', 'parents', 'run_id', 'counters_since_delta_snapshot', 'delta_writes_versioned', 'writes',
        'thread_id', 'checkpoint_id', 'checkpoint_ns', 'langgraph_step', 'langgraph_node', 'langgraph_triggers',
        'langgraph_path', 'langgraph_checkpoint_ns', 'run_attempt'
    ]
$$;

-- Returns the label of one entry.
CREATE FUNCTION __schema__.label_of(p_tenant text, p_path text, p_value jsonb) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT hashtextextended($2 COLLATE "C", jsonb_hash_extended($3, hashtextextended($1 COLLATE "C", 0)))
$$;

-- Returns the labels of everything in an object: any object that contains it has at least these. p_kind distinguishes metadata
-- and tags. An object with more than a hundred entries has the single label "many", or none with p_is_filter.
CREATE FUNCTION __schema__.labels_of(p_tenant text, p_kind text, p_object jsonb, p_is_filter boolean) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    x_labels bigint[];
BEGIN
    -- Most metadata has volatile entries only.
    IF p_object = '{}' OR p_kind = 'metadata' AND p_object - __schema__.volatile_keys() = '{}' THEN
        RETURN '{}';
    END IF;
    WITH RECURSIVE part AS (
        SELECT p_kind || E'\x1f' || entry.key AS path, entry.value
        FROM jsonb_each(p_object) AS entry (key, value)
        WHERE p_kind <> 'metadata' OR entry.key <> ALL (__schema__.volatile_keys())
        UNION ALL
        SELECT part.path || inner_part.path, inner_part.value
        FROM part
        CROSS JOIN LATERAL (
            SELECT E'\x1f' || entry.key AS path, entry.value
            FROM jsonb_each(CASE jsonb_typeof(part.value) WHEN 'object' THEN part.value ELSE '{}' END) AS entry (key, value)
            UNION ALL
            SELECT E'\x1f', item.value
            FROM jsonb_array_elements(CASE jsonb_typeof(part.value) WHEN 'array' THEN part.value ELSE '[]' END) AS item (value)
        ) AS inner_part
    ),
    leaf AS (
        SELECT part.path, part.value
        FROM part
        WHERE jsonb_typeof(part.value) NOT IN ('object', 'array')
        LIMIT 101
    )
    SELECT coalesce(array_agg(DISTINCT __schema__.label_of(p_tenant, leaf.path, leaf.value)), '{}') INTO x_labels FROM leaf;
    IF cardinality(x_labels) > 100 THEN
        RETURN CASE WHEN p_is_filter THEN '{}' ELSE ARRAY[__schema__.label_of(p_tenant, 'many', 'true')] END;
    END IF;
    RETURN x_labels;
END
$$;

-- Sets the labels of a thread to those of its present contents.
CREATE FUNCTION __schema__.set_labels(p_tenant text, p_thread uuid, p_metadata jsonb, p_tags jsonb, p_signal smallint)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    x_labels bigint[] := __schema__.labels_of(p_tenant, 'metadata', coalesce(p_metadata, '{}'), false)
        || __schema__.labels_of(p_tenant, 'tag', p_tags, false)
        || CASE WHEN p_signal IS NULL THEN '{}' ELSE ARRAY[__schema__.label_of(p_tenant, 'signal', to_jsonb(p_signal))] END;
BEGIN
    DELETE FROM __schema__.thread_labels AS l WHERE l.thread = p_thread AND l.label <> ALL (x_labels);
    IF cardinality(x_labels) > 0 THEN
        INSERT INTO __schema__.thread_labels AS l (thread, label, tenant)
        SELECT p_thread, label, p_tenant FROM unnest(x_labels) AS label
        ON CONFLICT (thread, label) DO NOTHING;
    END IF;
END
$$;

-- Returns the signal of a root checkpoint's task writes (threads.signal).
CREATE FUNCTION __schema__.signal_of(p_thread uuid, p_checkpoint_id text) RETURNS smallint LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT max(CASE w.channel WHEN '__error__' THEN 2 WHEN '__interrupt__' THEN 1 END)::smallint
        FROM __schema__.task_writes AS w
        WHERE w.thread = p_thread AND w.checkpoint_ns = '' AND w.checkpoint_id = p_checkpoint_id
    );
END
$$;

-- Updates labels and signal after a write to the root namespace of a locked thread.
--
--   p_last         The checkpoint that was put. Null: none.
--   p_signal       The signal of task writes, whose checkpoint may arrive later.
--   p_fingerprint  The fingerprint of the put's metadata.
CREATE FUNCTION __schema__.note_root(
    p_tenant text, p_thread uuid, p_last text, p_signal smallint, p_fingerprint bigint
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    x_head record;
    x_tags jsonb;
BEGIN
    SELECT c.checkpoint_id, c.metadata_index INTO x_head
    FROM __schema__.checkpoints AS c
    WHERE c.thread = p_thread AND c.checkpoint_ns = ''
    ORDER BY c.checkpoint_id DESC
    LIMIT 1;
    p_signal := coalesce(__schema__.signal_of(p_thread, x_head.checkpoint_id), p_signal);
    UPDATE __schema__.threads AS t SET
        signal = p_signal,
        -- The labels are those of the latest checkpoint, which is not always the one put last.
        fingerprint = CASE
            WHEN p_fingerprint IS NULL THEN t.fingerprint
            WHEN x_head.checkpoint_id = p_last THEN p_fingerprint
        END
    WHERE t.thread = p_thread
    RETURNING t.tags INTO x_tags;
    PERFORM __schema__.set_labels(p_tenant, p_thread, x_head.metadata_index, x_tags, p_signal);
END
$$;

-- Subtracts what locking their threads (p_is_locked) has counted for groups that were not stored. A thread that is empty is removed
-- from lists, and has no serializer.
CREATE FUNCTION __schema__.uncount_groups(p_groups __schema__.group_to_store[], p_is_stored boolean[], p_is_locked boolean[])
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE __schema__.threads AS t SET
        checkpoints = t.checkpoints - of_thread.puts,
        bytes = t.bytes - of_thread.bytes,
        listed_at = CASE WHEN t.checkpoints > of_thread.puts OR t.bytes > of_thread.bytes THEN t.listed_at END,
        serializer = CASE WHEN t.checkpoints > of_thread.puts OR t.bytes > of_thread.bytes THEN t.serializer END
    FROM (
        SELECT g.thread, sum(g.puts)::bigint AS puts, sum(g.bytes)::bigint AS bytes
        FROM unnest(p_groups) AS g
        WHERE p_is_locked[g.number] AND NOT p_is_stored[g.number]
        GROUP BY g.thread
    ) AS of_thread
    WHERE t.thread = of_thread.thread;
END
$$;

-- Computes counts, labels and signal of a locked thread again, after a change beyond a write.
CREATE FUNCTION __schema__.refresh_thread(p_tenant text, p_thread uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    x_checkpoints bigint;
    x_bytes bigint;
    x_more bigint;
    x_head record;
    x_signal smallint;
    x_tags jsonb;
BEGIN
    SELECT count(*), coalesce(sum(c.size), 0) INTO x_checkpoints, x_bytes
    FROM __schema__.checkpoints AS c
    WHERE c.thread = p_thread;
    SELECT coalesce(sum(octet_length(v.data) + coalesce(v.upload_size, 0)), 0) INTO x_more
    FROM __schema__.channel_values AS v
    WHERE v.thread = p_thread;
    x_bytes := x_bytes + x_more;
    SELECT coalesce(sum(octet_length(w.data) + coalesce(w.upload_size, 0)), 0) INTO x_more
    FROM __schema__.task_writes AS w
    WHERE w.thread = p_thread;
    x_bytes := x_bytes + x_more;
    SELECT c.checkpoint_id, c.metadata_index INTO x_head
    FROM __schema__.checkpoints AS c
    WHERE c.thread = p_thread AND c.checkpoint_ns = ''
    ORDER BY c.checkpoint_id DESC
    LIMIT 1;
    x_signal := __schema__.signal_of(p_thread, x_head.checkpoint_id);
    UPDATE __schema__.threads AS t SET
        checkpoints = x_checkpoints,
        bytes = x_bytes,
        signal = x_signal,
        fingerprint = NULL,
        listed_at = CASE
            WHEN x_checkpoints > 0 OR x_bytes > 0 THEN coalesce(t.listed_at, t.active_at)
        END,
        serializer = CASE WHEN x_checkpoints > 0 OR x_bytes > 0 THEN t.serializer END
    WHERE t.thread = p_thread
    RETURNING t.tags INTO x_tags;
    PERFORM __schema__.set_labels(p_tenant, p_thread, x_head.metadata_index, x_tags, x_signal);
END
$$;
