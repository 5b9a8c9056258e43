-- Lists: first the keys, then the rows of those that fit on the page.

-- Returns the keys of the newest checkpoints of a namespace, a thread or a tenant, by checkpoint_id descending, then by thread
-- and namespace: at most p_limit, with the size of each without values and task writes, in bytes.
--
--   p_thread, p_ns   Null: all of them.
--   p_from, p_to     The range of ids, both included; and below p_before.
--   p_filter         What the metadata index must contain. Null: anything.
--   p_after_id, p_after_thread, p_after_ns
--                    Start after this one.
CREATE FUNCTION __schema__.list_keys(
    p_tenant text, p_thread uuid, p_ns text, p_from text, p_to text, p_before text, p_filter jsonb,
    p_after_id text, p_after_thread uuid, p_after_ns text, p_limit integer
) RETURNS TABLE (thread uuid, checkpoint_ns text, checkpoint_id text, size integer) LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    IF p_thread IS NOT NULL AND p_ns IS NOT NULL THEN
        RETURN QUERY
        SELECT c.thread, c.checkpoint_ns::text, c.checkpoint_id::text, c.size
        FROM __schema__.checkpoints AS c
        WHERE c.thread = p_thread AND c.checkpoint_ns = p_ns
            AND c.checkpoint_id >= p_from AND c.checkpoint_id <= p_to AND c.checkpoint_id < p_before
            AND c.checkpoint_id <= p_after_id
            AND (c.checkpoint_id < p_after_id OR (c.thread, c.checkpoint_ns) > (p_after_thread, p_after_ns))
            AND (p_filter IS NULL OR c.metadata_index @> p_filter)
        ORDER BY c.checkpoint_id DESC
        LIMIT p_limit;
    ELSIF p_thread IS NOT NULL THEN
        -- The newest of each namespace, then the newest of all these.
        RETURN QUERY
        SELECT c.thread, c.checkpoint_ns::text, c.checkpoint_id::text, c.size
        FROM __schema__.namespaces AS n
        CROSS JOIN LATERAL (
            SELECT c.thread, c.checkpoint_ns, c.checkpoint_id, c.size
            FROM __schema__.checkpoints AS c
            WHERE c.thread = p_thread AND c.checkpoint_ns = n.checkpoint_ns
                AND c.checkpoint_id >= p_from AND c.checkpoint_id <= p_to AND c.checkpoint_id < p_before
                AND c.checkpoint_id <= p_after_id
                AND (c.checkpoint_id < p_after_id OR (c.thread, c.checkpoint_ns) > (p_after_thread, p_after_ns))
                AND (p_filter IS NULL OR c.metadata_index @> p_filter)
            ORDER BY c.checkpoint_id DESC
            LIMIT p_limit
        ) AS c
        WHERE n.thread = p_thread
        ORDER BY c.checkpoint_id DESC, c.checkpoint_ns
        LIMIT p_limit;
    ELSE
        -- "POSIX" selects the index with that order.
        RETURN QUERY
        SELECT c.thread, c.checkpoint_ns::text, c.checkpoint_id::text, c.size
        FROM __schema__.checkpoints AS c
        WHERE c.tenant COLLATE "POSIX" = p_tenant AND (p_ns IS NULL OR c.checkpoint_ns = p_ns)
            AND c.checkpoint_id COLLATE "POSIX" >= p_from AND c.checkpoint_id COLLATE "POSIX" <= p_to
            AND c.checkpoint_id COLLATE "POSIX" < p_before AND c.checkpoint_id COLLATE "POSIX" <= p_after_id
            AND (c.checkpoint_id < p_after_id OR (c.thread, c.checkpoint_ns) > (p_after_thread, p_after_ns))
            AND (p_filter IS NULL OR c.metadata_index @> p_filter)
        ORDER BY c.checkpoint_id COLLATE "POSIX" DESC, c.thread, c.checkpoint_ns
        LIMIT p_limit;
    END IF;
END
$$;

-- Returns a page of checkpoints, newest first, each a row as get_checkpoint returns it, but with only those values (v_) that no
-- earlier row has. A last row without a checkpoint has o_version, the version of the namespace p_ns, and o_has_more, whether
-- there are more.
--
--   p_page_size, p_page_bytes
--                 The maximum number of checkpoints, and of bytes in all; a page has at least one checkpoint.
--   p_with_parts  Whether to return values and task writes.
--   p_max_bytes   The maximum size of values and task writes in each row, in bytes.
CREATE FUNCTION __schema__.list_checkpoints(
    p_tenant text, p_thread uuid, p_ns text, p_from text, p_to text, p_before text, p_filter jsonb,
    p_after_id text, p_after_thread uuid, p_after_ns text, p_page_size integer, p_page_bytes bigint,
    p_with_parts boolean, p_max_bytes bigint
) RETURNS TABLE (
    o_has_more boolean, o_thread_id text, o_ns text,
    o_version bigint, o_checkpoint_id text, o_parent text, o_body bytea, o_channels text[],
    o_versions text[], o_metadata_type text, o_metadata bytea, o_bytes bigint,
    v_channel text[], v_version text[], v_type text[], v_data bytea[], v_bytes bigint[],
    v_base text[], v_size bigint[], v_crc32 bigint[], v_sealed boolean[],
    w_task_id text[], w_task_path text[], w_idx integer[], w_channel text[], w_type text[],
    w_data bytea[], w_bytes bigint[],
    w_base text[], w_size bigint[], w_crc32 bigint[], w_sealed boolean[]
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_key record;
    x_number integer := 0;
    x_total bigint := 0;
    x_has_more boolean := false;
    -- Namespaces on the page, and the values returned so far, each with the index of its namespace.
    x_places text[] := '{}';
    x_place integer;
    x_sent_place integer[] := '{}';
    x_sent_channel text[] := '{}';
    x_sent_version text[] := '{}';
    x_sent_crc32 bigint[] := '{}';
    x_known_channel text[];
    x_known_version text[];
    x_known_crc32 bigint[];
BEGIN
    FOR x_key IN
        SELECT k.thread, k.checkpoint_ns, k.checkpoint_id, k.size
        FROM __schema__.list_keys(
            p_tenant, p_thread, p_ns, p_from, p_to, p_before, p_filter, p_after_id, p_after_thread, p_after_ns,
            p_page_size + 1
        ) AS k
    LOOP
        x_number := x_number + 1;
        x_has_more := x_number > p_page_size OR x_number > 1 AND x_total + x_key.size > p_page_bytes;
        EXIT WHEN x_has_more;

        IF p_with_parts THEN
            x_place := array_position(x_places, x_key.thread || x_key.checkpoint_ns);
            IF x_place IS NULL THEN
                x_places := x_places || (x_key.thread || x_key.checkpoint_ns);
                x_place := cardinality(x_places);
            END IF;
            SELECT
                coalesce(array_agg(x_sent_channel[i]), '{}'), coalesce(array_agg(x_sent_version[i]), '{}'),
                coalesce(array_agg(coalesce(x_sent_crc32[i], 0)), '{}')
            INTO x_known_channel, x_known_version, x_known_crc32
            FROM generate_subscripts(x_sent_place, 1) AS i
            WHERE x_sent_place[i] = x_place;
        END IF;
        SELECT g.*
        INTO
            o_version, o_checkpoint_id, o_parent, o_body, o_channels, o_versions, o_metadata_type, o_metadata, o_bytes,
            v_channel, v_version, v_type, v_data, v_bytes, v_base, v_size, v_crc32, v_sealed,
            w_task_id, w_task_path, w_idx, w_channel, w_type, w_data, w_bytes, w_base, w_size, w_crc32, w_sealed
        FROM __schema__.get_checkpoint(
            p_tenant, x_key.thread, x_key.checkpoint_ns, x_key.checkpoint_id, x_known_channel, x_known_version,
            x_known_crc32, CASE WHEN p_with_parts THEN p_max_bytes END
        ) AS g;
        x_has_more := x_number > 1 AND x_total + o_bytes > p_page_bytes;
        EXIT WHEN x_has_more;
        x_total := x_total + o_bytes;
        IF v_channel IS NOT NULL THEN
            x_sent_place := x_sent_place || array_fill(x_place, ARRAY[cardinality(v_channel)]);
            x_sent_channel := x_sent_channel || v_channel;
            x_sent_version := x_sent_version || v_version;
            x_sent_crc32 := x_sent_crc32 || v_crc32;
        END IF;
        o_ns := x_key.checkpoint_ns;
        SELECT t.thread_id INTO o_thread_id FROM __schema__.threads AS t WHERE t.thread = x_key.thread;
        RETURN NEXT;
    END LOOP;

    -- Nothing of a checkpoint that doesn't fit is returned.
    o_body := NULL;
    o_metadata := NULL;
    v_data := NULL;
    w_data := NULL;
    o_has_more := x_has_more;
    SELECT n.version INTO o_version
    FROM __schema__.namespaces AS n
    WHERE n.thread = p_thread AND n.checkpoint_ns = p_ns;
    o_version := coalesce(o_version, 0);
    RETURN NEXT;
END
$$;
