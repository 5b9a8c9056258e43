-- Walks from a checkpoint through its ancestors.

-- Returns which of the channels p_asked have a stored value at a checkpoint, and at which version.
CREATE FUNCTION __schema__.stored_at(
    p_thread uuid, p_ns text, p_channels text[], p_versions text[], p_asked text[],
    OUT o_channels text[], OUT o_versions text[]
) LANGUAGE plpgsql STABLE AS $$
BEGIN
    SELECT coalesce(array_agg(v.channel), '{}'), coalesce(array_agg(v.version), '{}')
    INTO o_channels, o_versions
    FROM generate_subscripts(p_channels, 1) AS i
    CROSS JOIN LATERAL (
        SELECT v.channel, v.version
        FROM __schema__.channel_values AS v
        WHERE v.thread = p_thread AND v.checkpoint_ns = p_ns AND v.channel = p_channels[i] AND v.version = p_versions[i]
        LIMIT 1
    ) AS v
    WHERE p_channels[i] IN (SELECT asked.channel COLLATE "C" FROM unnest(p_asked) AS asked (channel));
END
$$;

CREATE FUNCTION __schema__.without(p_all text[], p_some text[]) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(array_agg($1[i]), '{}')
    FROM generate_subscripts($1, 1) AS i
    WHERE $1[i] NOT IN (SELECT gone.name FROM unnest($2) AS gone (name))
$$;

-- Returns a page of the walk from the checkpoint p_checkpoint_id (null: the latest) to its ancestors: for each channel, the
-- ancestors' task writes to it, up to the nearest ancestor that has a stored value of it, the seed, and including its writes.
--
--   p_channels    The channels whose seed isn't found yet.
--   p_from        The ancestor that the previous page ended with, null on the first page. p_after_path, p_after_task,
--                 p_after_idx: the last of its writes on that page; null: it had all of them, and its seeds.
--   p_mark, p_steps
--                 For parents in a cycle: an ancestor that the walk would reach again, and the number of steps so far.
--   p_page_bytes  The maximum size of writes and seeds on the page, in bytes; it has at least one write. p_max_steps: the maximum
--                 number of ancestors.
--   p_max_bytes   The maximum size of a write, and of all of v_ in one row, in bytes; larger data is left out.
--
-- Each ancestor that has anything is a row: its writes (w_), the channels that have their seed there, and the values that seeds
-- and patches among the writes build on (v_), each once. A last row without o_checkpoint_id has the namespace's version, and the
-- arguments of the next page; if o_from is null there is none. o_is_gone: the ancestor p_from has been deleted.
CREATE FUNCTION __schema__.get_delta_history(
    p_tenant text, p_thread uuid, p_ns text, p_checkpoint_id text, p_channels text[],
    p_from text, p_after_path text, p_after_task text, p_after_idx integer, p_mark text, p_steps bigint,
    p_page_bytes bigint, p_max_steps integer, p_max_bytes bigint
) RETURNS TABLE (
    o_checkpoint_id text, o_seed_channels text[], o_seed_versions text[],
    v_channel text[], v_version text[], v_type text[], v_data bytea[], v_bytes bigint[],
    v_base text[], v_size bigint[], v_crc32 bigint[], v_sealed boolean[],
    w_task_id text[], w_task_path text[], w_idx integer[], w_channel text[], w_type text[],
    w_data bytea[], w_bytes bigint[],
    w_base text[], w_size bigint[], w_crc32 bigint[], w_sealed boolean[],
    o_version bigint, o_is_gone boolean,
    o_from text, o_after_path text, o_after_task text, o_after_idx integer, o_mark text, o_steps bigint
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_next text;
    x_remaining text[] := p_channels;
    x_left bigint := p_page_bytes;
    x_ancestor record;
    x_found bigint;
    x_taken bigint;
    x_bytes bigint;
    x_names bigint;
    x_is_patched boolean;
    -- The values on the page, for patches that build on them.
    x_sent_channel text[] := '{}';
    x_sent_version text[] := '{}';
    x_sent_crc32 bigint[] := '{}';
BEGIN
    o_is_gone := false;
    o_mark := p_mark;
    o_steps := p_steps;
    IF p_from IS NULL AND p_checkpoint_id IS NULL THEN
        SELECT c.checkpoint_id, c.parent_checkpoint_id INTO x_ancestor
        FROM __schema__.checkpoints AS c
        WHERE c.thread = p_thread AND c.checkpoint_ns = p_ns
        ORDER BY c.checkpoint_id DESC
        LIMIT 1;
    ELSE
        SELECT c.checkpoint_id, c.parent_checkpoint_id INTO x_ancestor
        FROM __schema__.checkpoints AS c
        WHERE c.thread = p_thread AND c.checkpoint_ns = p_ns AND c.checkpoint_id = coalesce(p_from, p_checkpoint_id);
    END IF;
    IF FOUND THEN
        x_next := CASE WHEN p_after_task IS NULL THEN x_ancestor.parent_checkpoint_id ELSE p_from END;
        o_after_path := p_after_path;
        o_after_task := p_after_task;
        o_after_idx := p_after_idx;
    ELSE
        o_is_gone := p_from IS NOT NULL;
    END IF;

    FOR x_step IN 1..p_max_steps LOOP
        EXIT WHEN x_next IS NULL OR x_left <= 0;
        SELECT c.checkpoint_id, c.parent_checkpoint_id, c.channels, c.channel_versions INTO x_ancestor
        FROM __schema__.checkpoints AS c
        WHERE c.thread = p_thread AND c.checkpoint_ns = p_ns AND c.checkpoint_id = x_next;
        IF NOT FOUND OR (x_next = o_mark AND o_after_task IS NULL) THEN
            x_next := NULL;
            EXIT;
        END IF;
        -- Brent's algorithm finds cycles: the mark moves each time the number of steps has doubled.
        IF o_after_task IS NULL THEN
            IF o_steps & (o_steps - 1) = 0 THEN
                o_mark := x_next;
            END IF;
            o_steps := o_steps + 1;
        END IF;
        o_checkpoint_id := x_next;

        SELECT
            array_agg(w.task_id), array_agg(w.task_path), array_agg(w.idx), array_agg(w.channel), array_agg(w.type),
            array_agg(CASE WHEN w.counts THEN w.data END), array_agg(w.bytes),
            array_agg(w.base_version), array_agg(w.size), array_agg(w.crc32), array_agg(w.sealed),
            coalesce(max(w.found), 0), count(*), x_left - coalesce(sum(w.costs), 0),
            coalesce(bool_or(w.base_version IS NOT NULL), false)
        INTO
            w_task_id, w_task_path, w_idx, w_channel, w_type, w_data, w_bytes, w_base, w_size, w_crc32, w_sealed, x_found,
            x_taken, x_left, x_is_patched
        FROM (
            SELECT
                w.*, count(*) OVER () AS found,
                sum(w.costs) OVER (ORDER BY w.task_path, w.task_id, w.idx) - w.costs AS costs_before
            FROM (
                SELECT
                    w.*, coalesce(w.upload_size, octet_length(w.data)) AS bytes,
                    octet_length(w.task_id) + octet_length(w.task_path) + octet_length(w.channel) + 64
                        + coalesce(octet_length(w.base_version), 0)
                        + CASE WHEN w.counts THEN octet_length(w.data) ELSE 0 END AS costs
                FROM (
                    SELECT
                        w.task_id, w.task_path, w.idx, w.channel, w.type, w.data, w.upload_size, w.base_version, w.size,
                        w.crc32, w.sealed, w.upload_id IS NULL AND octet_length(w.data) <= p_max_bytes AS counts
                    FROM __schema__.task_writes AS w
                    WHERE w.thread = p_thread AND w.checkpoint_ns = p_ns AND w.checkpoint_id = x_next
                        AND w.channel IN (SELECT asked.channel COLLATE "C" FROM unnest(x_remaining) AS asked (channel))
                        AND (
                            o_after_task IS NULL
                            OR (w.task_path, w.task_id, w.idx) > (o_after_path, o_after_task, o_after_idx)
                        )
                ) AS w
            ) AS w
            ORDER BY w.task_path, w.task_id, w.idx
        ) AS w
        WHERE w.costs_before < x_left;
        o_after_task := NULL;
        IF x_taken < x_found THEN
            o_after_path := w_task_path[x_taken];
            o_after_task := w_task_id[x_taken];
            o_after_idx := w_idx[x_taken];
            o_seed_channels := '{}';
            o_seed_versions := '{}';
        ELSE
            SELECT s.o_channels, s.o_versions INTO o_seed_channels, o_seed_versions
            FROM __schema__.stored_at(
                p_thread, p_ns, x_ancestor.channels, x_ancestor.channel_versions, x_remaining
            ) AS s;
        END IF;
        IF x_is_patched OR cardinality(o_seed_channels) > 0 THEN
            SELECT v.* INTO
                v_channel, v_version, v_type, v_data, v_bytes, v_base, v_size, v_crc32, v_sealed, x_bytes, x_names
            FROM __schema__.read_bases(
                p_thread, p_ns, w_channel || o_seed_channels, w_base || o_seed_versions, x_sent_channel, x_sent_version,
                x_sent_crc32, p_max_bytes
            ) AS v;
            x_left := x_left - x_bytes - x_names;
            x_sent_channel := x_sent_channel || v_channel;
            x_sent_version := x_sent_version || v_version;
            x_sent_crc32 := x_sent_crc32 || v_crc32;
        END IF;
        IF x_taken > 0 OR cardinality(o_seed_channels) > 0 THEN
            RETURN NEXT;
            v_channel := NULL;
        END IF;
        EXIT WHEN x_taken < x_found;
        x_remaining := __schema__.without(x_remaining, o_seed_channels);
        x_next := CASE WHEN cardinality(x_remaining) > 0 THEN x_ancestor.parent_checkpoint_id END;
    END LOOP;

    o_from := CASE WHEN x_next IS NOT NULL THEN o_checkpoint_id END;
    o_checkpoint_id := NULL;
    v_data := NULL;
    w_data := NULL;
    SELECT n.version INTO o_version
    FROM __schema__.namespaces AS n
    WHERE n.thread = p_thread AND n.checkpoint_ns = p_ns;
    o_version := coalesce(o_version, 0);
    RETURN NEXT;
END
$$;
