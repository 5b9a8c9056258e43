-- Reading one checkpoint, and the bytes of one value. The functions are STABLE: all their statements see the snapshot of the
-- calling statement. Rows are looked up one by one through primary keys: LIMIT keeps the planner from turning the look-ups into
-- joins, and a cached plan would keep those after the tables have grown.

-- Returns the rows that values of one namespace consist of: each pair of p_channels and p_versions that isn't known, and
-- everything that it builds on, down to what is known. A pair without a row is left out.
--
--   p_known_channels, p_known_versions, p_known_crc32
--                Values that the caller has, if their checksums are these; 0: no checksum is stored.
--   p_max_bytes  The maximum size of the result's data, in bytes. Beyond it, data is left out, the largest first, and so is
--                uploaded data: it is null then, and v_bytes has its size.
--
-- x_total: the bytes of data. x_names: those of everything else.
CREATE FUNCTION __schema__.read_values(
    p_thread uuid, p_ns text, p_channels text[], p_versions text[], p_known_channels text[], p_known_versions text[],
    p_known_crc32 bigint[], p_max_bytes bigint,
    OUT v_channel text[], OUT v_version text[], OUT v_type text[], OUT v_data bytea[], OUT v_bytes bigint[],
    OUT v_base text[], OUT v_size bigint[], OUT v_crc32 bigint[], OUT v_sealed boolean[], OUT x_total bigint,
    OUT x_names bigint
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_knows_any boolean := cardinality(p_known_channels) > 0;
    x_is_patched boolean;
    x_base record;
BEGIN
    SELECT
        array_agg(v.channel), array_agg(v.version), array_agg(v.type),
        array_agg(CASE WHEN v.counts AND v.total <= p_max_bytes THEN v.data END),
        array_agg(v.bytes), array_agg(v.base_version), array_agg(v.size), array_agg(v.crc32), array_agg(v.sealed),
        coalesce(sum(v.bytes) FILTER (WHERE v.counts AND v.total <= p_max_bytes), 0), coalesce(sum(v.names), 0), bool_or(v.base_version IS NOT NULL)
    INTO v_channel, v_version, v_type, v_data, v_bytes, v_base, v_size, v_crc32, v_sealed, x_total, x_names, x_is_patched
    FROM (
        SELECT v.*, sum(CASE WHEN v.counts THEN v.bytes END) OVER (ORDER BY v.bytes ROWS UNBOUNDED PRECEDING) AS total
        FROM generate_subscripts(p_channels, 1) AS i
        CROSS JOIN LATERAL (
            SELECT
                v.channel, v.version, v.type, v.data, v.base_version, v.size, v.crc32, v.sealed,
                coalesce(v.upload_size, octet_length(v.data)) AS bytes,
                v.upload_id IS NULL AND octet_length(v.data) <= p_max_bytes AS counts,
                octet_length(v.channel) + octet_length(v.version) + octet_length(v.type) + 64 AS names
            FROM __schema__.channel_values AS v
            WHERE v.thread = p_thread AND v.checkpoint_ns = p_ns AND v.channel = p_channels[i] AND v.version = p_versions[i]
            LIMIT 1
        ) AS v
        WHERE NOT x_knows_any OR (v.channel, v.version, coalesce(v.crc32, 0)) NOT IN (
            SELECT known.channel, known.version, known.crc32
            FROM unnest(p_known_channels, p_known_versions, p_known_crc32) AS known (channel, version, crc32)
        )
    ) AS v;

    IF x_is_patched THEN
        WITH RECURSIVE base AS (
            SELECT v.*
            FROM generate_subscripts(v_base, 1) AS i
            CROSS JOIN LATERAL (
                SELECT
                    v.channel, v.version, v.type, v.data, v.base_version, v.size, v.crc32, v.sealed, v.upload_id,
                    v.upload_size
                FROM __schema__.channel_values AS v
                WHERE v.thread = p_thread AND v.checkpoint_ns = p_ns AND v.channel = v_channel[i] AND v.version = v_base[i]
                LIMIT 1
            ) AS v
            WHERE v_base[i] IS NOT NULL AND (
                NOT x_knows_any OR (v.channel, v.version, coalesce(v.crc32, 0)) NOT IN (
                    SELECT known.channel, known.version, known.crc32
                    FROM unnest(p_known_channels, p_known_versions, p_known_crc32) AS known (channel, version, crc32)
                )
            )
            UNION ALL
            SELECT v.*
            FROM base
            CROSS JOIN LATERAL (
                SELECT
                    v.channel, v.version, v.type, v.data, v.base_version, v.size, v.crc32, v.sealed, v.upload_id,
                    v.upload_size
                FROM __schema__.channel_values AS v
                WHERE v.thread = p_thread AND v.checkpoint_ns = p_ns AND v.channel = base.channel
                    AND v.version = base.base_version
                LIMIT 1
            ) AS v
            WHERE base.base_version IS NOT NULL AND (
                NOT x_knows_any OR (v.channel, v.version, coalesce(v.crc32, 0)) NOT IN (
                    SELECT known.channel, known.version, known.crc32
                    FROM unnest(p_known_channels, p_known_versions, p_known_crc32) AS known (channel, version, crc32)
                )
            )
        )
        SELECT
            array_agg(v.channel) AS channel, array_agg(v.version) AS version, array_agg(v.type) AS type,
            array_agg(CASE WHEN v.counts AND v.total <= p_max_bytes THEN v.data END) AS data,
            array_agg(v.bytes) AS bytes, array_agg(v.base_version) AS base, array_agg(v.size) AS size,
            array_agg(v.crc32) AS crc32, array_agg(v.sealed) AS sealed, x_total + coalesce(sum(v.bytes) FILTER (WHERE v.counts AND v.total <= p_max_bytes), 0) AS total,
            coalesce(sum(v.names), 0) AS names
        INTO x_base
        FROM (
            SELECT
                v.*, x_total + sum(CASE WHEN v.counts THEN v.bytes END) OVER (ORDER BY v.bytes ROWS UNBOUNDED PRECEDING) AS total
            FROM (
                SELECT
                    base.*, coalesce(base.upload_size, octet_length(base.data)) AS bytes,
                    base.upload_id IS NULL AND octet_length(base.data) <= p_max_bytes AS counts,
                    octet_length(base.channel) + octet_length(base.version) + octet_length(base.type) + 64 AS names
                FROM base
            ) AS v
        ) AS v;
        v_channel := v_channel || x_base.channel;
        v_version := v_version || x_base.version;
        v_type := v_type || x_base.type;
        v_data := v_data || x_base.data;
        v_bytes := v_bytes || x_base.bytes;
        v_base := v_base || x_base.base;
        v_size := v_size || x_base.size;
        v_crc32 := v_crc32 || x_base.crc32;
        v_sealed := v_sealed || x_base.sealed;
        x_total := x_base.total;
        x_names := x_names + x_base.names;
    END IF;
END
$$;

-- Returns the values that task writes build on, as read_values does: p_versions is null for a whole write, p_known_crc32 if there
-- is no checksum.
CREATE FUNCTION __schema__.read_bases(
    p_thread uuid, p_ns text, p_channels text[], p_versions text[], p_known_channels text[], p_known_versions text[],
    p_known_crc32 bigint[], p_max_bytes bigint,
    OUT v_channel text[], OUT v_version text[], OUT v_type text[], OUT v_data bytea[], OUT v_bytes bigint[],
    OUT v_base text[], OUT v_size bigint[], OUT v_crc32 bigint[], OUT v_sealed boolean[], OUT x_total bigint,
    OUT x_names bigint
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_channels text[];
    x_versions text[];
    x_crc32 bigint[];
BEGIN
    SELECT array_agg(base.channel), array_agg(base.version) INTO x_channels, x_versions
    FROM (
        SELECT DISTINCT built.channel, built.version
        FROM unnest(p_channels, p_versions) AS built (channel, version)
        WHERE built.version IS NOT NULL
    ) AS base;
    SELECT coalesce(array_agg(coalesce(known.crc32, 0)), '{}') INTO x_crc32 FROM unnest(p_known_crc32) AS known (crc32);
    SELECT v.* INTO
        v_channel, v_version, v_type, v_data, v_bytes, v_base, v_size, v_crc32, v_sealed, x_total, x_names
    FROM __schema__.read_values(
        p_thread, p_ns, x_channels, x_versions, p_known_channels, p_known_versions, x_crc32, p_max_bytes
    ) AS v;
END
$$;

-- Returns a checkpoint with the values and task writes that the caller needs: one row. Without a checkpoint, everything but the
-- version is null.
--
--   p_checkpoint_id  Null: the greatest id.
--   p_known_channels, p_known_versions, p_known_crc32
--                    Values that the caller has, if their checksums are these; 0: no checksum is stored.
--   p_max_bytes      The maximum size of the row's values and task writes, in bytes. Beyond it, data is left out, and so is
--                    uploaded data: it is null then, and v_bytes or w_bytes have its size. Null: return none.
--
-- o_bytes is the total size, with names. The values (v_) are those of the checkpoint that aren't known, and everything that they
-- and its task writes build on, down to what is known.
CREATE FUNCTION __schema__.get_checkpoint(
    p_tenant text, p_thread uuid, p_ns text, p_checkpoint_id text,
    p_known_channels text[], p_known_versions text[], p_known_crc32 bigint[], p_max_bytes bigint,
    OUT o_version bigint, OUT o_checkpoint_id text, OUT o_parent text, OUT o_body bytea, OUT o_channels text[],
    OUT o_versions text[], OUT o_metadata_type text, OUT o_metadata bytea, OUT o_bytes bigint,
    OUT v_channel text[], OUT v_version text[], OUT v_type text[], OUT v_data bytea[], OUT v_bytes bigint[],
    OUT v_base text[], OUT v_size bigint[], OUT v_crc32 bigint[], OUT v_sealed boolean[],
    OUT w_task_id text[], OUT w_task_path text[], OUT w_idx integer[], OUT w_channel text[], OUT w_type text[],
    OUT w_data bytea[], OUT w_bytes bigint[],
    OUT w_base text[], OUT w_size bigint[], OUT w_crc32 bigint[], OUT w_sealed boolean[]
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_setting text;
    x_total bigint;
    x_names bigint;
    x_written bigint;
    x_is_patched boolean;
    x_bases record;
BEGIN
    x_setting := set_config('checkpointd.tenant', p_tenant, true);
    SELECT n.version INTO o_version
    FROM __schema__.namespaces AS n
    WHERE n.thread = p_thread AND n.checkpoint_ns = p_ns;
    o_version := coalesce(o_version, 0);

    IF p_checkpoint_id IS NULL THEN
        SELECT
            c.checkpoint_id, c.parent_checkpoint_id, c.body, c.channels, c.channel_versions, c.metadata_type, c.metadata,
            c.size
        INTO o_checkpoint_id, o_parent, o_body, o_channels, o_versions, o_metadata_type, o_metadata, o_bytes
        FROM __schema__.checkpoints AS c
        WHERE c.thread = p_thread AND c.checkpoint_ns = p_ns
        ORDER BY c.checkpoint_id DESC
        LIMIT 1;
    ELSE
        SELECT
            c.checkpoint_id, c.parent_checkpoint_id, c.body, c.channels, c.channel_versions, c.metadata_type, c.metadata,
            c.size
        INTO o_checkpoint_id, o_parent, o_body, o_channels, o_versions, o_metadata_type, o_metadata, o_bytes
        FROM __schema__.checkpoints AS c
        WHERE c.thread = p_thread AND c.checkpoint_ns = p_ns AND c.checkpoint_id = p_checkpoint_id;
    END IF;
    IF o_checkpoint_id IS NULL OR p_max_bytes IS NULL THEN
        RETURN;
    END IF;

    SELECT v.* INTO
        v_channel, v_version, v_type, v_data, v_bytes, v_base, v_size, v_crc32, v_sealed, x_total, x_names
    FROM __schema__.read_values(
        p_thread, p_ns, o_channels, o_versions, p_known_channels, p_known_versions, p_known_crc32, p_max_bytes
    ) AS v;

    SELECT
        array_agg(w.task_id), array_agg(w.task_path), array_agg(w.idx), array_agg(w.channel), array_agg(w.type),
        array_agg(CASE WHEN w.is_sent THEN w.data END), array_agg(w.bytes),
        array_agg(w.base_version), array_agg(w.size), array_agg(w.crc32), array_agg(w.sealed),
        x_names + coalesce(sum(w.names), 0), coalesce(sum(w.bytes) FILTER (WHERE w.is_sent), 0),
        coalesce(bool_or(w.base_version IS NOT NULL), false)
    INTO
        w_task_id, w_task_path, w_idx, w_channel, w_type, w_data, w_bytes, w_base, w_size, w_crc32, w_sealed, x_names,
        x_written, x_is_patched
    FROM (
        SELECT w.*, w.counts AND w.total <= p_max_bytes AS is_sent
        FROM (
            SELECT w.*, x_total + sum(CASE WHEN w.counts THEN w.bytes END) OVER (ORDER BY w.bytes ROWS UNBOUNDED PRECEDING) AS total
            FROM (
                SELECT
                    w.task_id, w.task_path, w.idx, w.channel, w.type, w.data, w.base_version, w.size, w.crc32, w.sealed,
                    coalesce(w.upload_size, octet_length(w.data)) AS bytes,
                    w.upload_id IS NULL AND octet_length(w.data) <= p_max_bytes AS counts,
                    octet_length(w.task_id) + octet_length(w.task_path) + octet_length(w.channel)
                        + octet_length(w.type) + coalesce(octet_length(w.base_version), 0) + 64 AS names
                FROM __schema__.task_writes AS w
                WHERE w.thread = p_thread AND w.checkpoint_ns = p_ns AND w.checkpoint_id = o_checkpoint_id
            ) AS w
        ) AS w
        ORDER BY w.task_path, w.task_id, w.idx
    ) AS w;

    IF x_is_patched THEN
        -- Mostly they build on values of the checkpoint's channels, which are read already, or known.
        SELECT v.* INTO x_bases
        FROM __schema__.read_bases(
            p_thread, p_ns, w_channel, w_base, p_known_channels || v_channel, p_known_versions || v_version,
            p_known_crc32 || v_crc32, p_max_bytes - x_total - x_written
        ) AS v;
        v_channel := v_channel || x_bases.v_channel;
        v_version := v_version || x_bases.v_version;
        v_type := v_type || x_bases.v_type;
        v_data := v_data || x_bases.v_data;
        v_bytes := v_bytes || x_bases.v_bytes;
        v_base := v_base || x_bases.v_base;
        v_size := v_size || x_bases.v_size;
        v_crc32 := v_crc32 || x_bases.v_crc32;
        v_sealed := v_sealed || x_bases.v_sealed;
        x_total := x_total + x_bases.x_total;
        x_names := x_names + x_bases.x_names;
    END IF;
    o_bytes := o_bytes + x_names + x_total + x_written;
END
$$;

-- Returns a range of a value's bytes, or of a patch's instructions: at most p_max_bytes from p_offset. No row: no such value.
CREATE FUNCTION __schema__.read_bytes(p_thread uuid, p_data bytea, p_upload_id bytea, p_offset bigint, p_max_bytes bigint)
RETURNS bytea LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN $3 IS NULL THEN substr($2, least($4, 2147483646)::integer + 1, $5::integer)
        ELSE (
            SELECT coalesce(
                string_agg(
                    substr(
                        p.data, greatest($4 - p.part_offset, 0)::integer + 1,
                        least($4 + $5 - greatest($4, p.part_offset), 2147483646)::integer
                    ),
                    ''::bytea ORDER BY p.part_offset
                ),
                ''
            )
            FROM __schema__.value_parts AS p
            WHERE p.thread = $1 AND p.upload_id = $3 AND p.part_offset < $4 + $5
                -- No part is larger than a message, so earlier parts need not be read.
                AND p.part_offset > $4 - 67108864 AND p.part_offset + octet_length(p.data) > $4
        )
    END
$$;

CREATE FUNCTION __schema__.get_channel_value(
    p_tenant text, p_thread uuid, p_ns text, p_channel text, p_version text, p_offset bigint, p_max_bytes bigint
) RETURNS TABLE (
    data bytea, bytes bigint, channel text, type text, base_version text, size bigint, crc32 bigint, sealed boolean
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
BEGIN
    RETURN QUERY
    SELECT
        __schema__.read_bytes(p_thread, v.data, v.upload_id, p_offset, p_max_bytes),
        coalesce(v.upload_size, octet_length(v.data)), p_channel, v.type, v.base_version::text, v.size, v.crc32, v.sealed
    FROM __schema__.channel_values AS v
    WHERE v.thread = p_thread AND v.checkpoint_ns = p_ns AND v.channel = p_channel AND v.version = p_version;
END
$$;

CREATE FUNCTION __schema__.get_task_write(
    p_tenant text, p_thread uuid, p_ns text, p_checkpoint_id text, p_task_id text, p_idx integer, p_offset bigint,
    p_max_bytes bigint
) RETURNS TABLE (
    data bytea, bytes bigint, channel text, type text, base_version text, size bigint, crc32 bigint, sealed boolean
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
BEGIN
    RETURN QUERY
    SELECT
        __schema__.read_bytes(p_thread, w.data, w.upload_id, p_offset, p_max_bytes),
        coalesce(w.upload_size, octet_length(w.data)), w.channel::text, w.type, w.base_version::text, w.size, w.crc32,
        w.sealed
    FROM __schema__.task_writes AS w
    WHERE w.thread = p_thread AND w.checkpoint_ns = p_ns AND w.checkpoint_id = p_checkpoint_id AND w.task_id = p_task_id
        AND w.idx = p_idx;
END
$$;
