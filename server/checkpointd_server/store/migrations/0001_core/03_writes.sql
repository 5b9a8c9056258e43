-- Puts and task writes: what commit_writes (04_commits.sql) does when inserting isn't enough.

-- The arguments of commit_writes: groups, and their contents. of_group: the number of the group.

CREATE TYPE __schema__.group_to_store AS (
    -- From 1.
    number integer,
    thread uuid,
    thread_id text,
    ns text,
    -- The writer's lease token; 0: none.
    lease bigint,
    -- The precondition. Null: not compared.
    if_version bigint,
    if_writer bytea,
    if_last text,
    -- Whether it is accepted if the namespace is empty.
    may_be_first boolean,
    -- Whether it is one call.
    is_single boolean,
    -- How many puts it has; the id, writer and request of the last one; and the bytewise least of the parents that are outside
    -- the group.
    puts integer,
    last text,
    writer bytea,
    request bytea,
    least_parent text,
    -- The size of its rows, in bytes.
    bytes bigint,
    -- For the root namespace: the signal of its last put's task writes (threads.signal), and the fingerprint of that put's
    -- metadata (threads.fingerprint), null without one. 0: no put of the group has labels.
    signal smallint,
    fingerprint bigint,
    -- The first put's request.
    first_request bytea,
    -- The family of the serializer of its writes (threads.serializer). Null: unknown from the writes.
    serializer smallint
);

CREATE TYPE __schema__.put_to_store AS (
    of_group integer,
    -- How many puts of its group come after it.
    following integer,
    id text,
    parent text,
    request bytea,
    body bytea,
    channels text[],
    versions text[],
    metadata_type text,
    metadata bytea,
    metadata_index jsonb,
    run_id text,
    size integer
);

-- A value that changed.
CREATE TYPE __schema__.value_to_store AS (
    of_group integer,
    channel text,
    version text,
    type text,
    data bytea,
    size bigint,
    crc32 bigint,
    base text,
    sealed boolean,
    -- The chain of patches that leads to the value: the version from before the group that it builds on, null if the chain begins
    -- in the group; how many patches of the group follow; and the size and checksum that base_outside must have, if not null.
    base_outside text,
    hops integer,
    reach bigint,
    base_crc32 bigint,
    upload bytea,
    upload_size bigint
);

-- A value that became empty.
CREATE TYPE __schema__.emptied_to_store AS (of_group integer, channel text, version text);

-- A task write. No two special ones of a group have the same key.
CREATE TYPE __schema__.write_to_store AS (
    of_group integer,
    id text,
    task_id text,
    idx integer,
    task_path text,
    channel text,
    type text,
    data bytea,
    request bytea,
    upload bytea,
    upload_size bigint,
    -- Of a patch, as in values.
    base text,
    size bigint,
    crc32 bigint,
    sealed boolean,
    base_outside text,
    hops integer,
    reach bigint,
    base_crc32 bigint
);

-- Removes the value of a version, to replace or delete it. A value that patches build on is kept under a name that no checkpoint
-- refers to; patches of the versions p_own don't count: they build on the new value.
CREATE FUNCTION __schema__.set_value_aside(
    p_thread uuid, p_ns text, p_channel text, p_version text, p_put_version bigint, p_new_upload bytea, p_own text[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    x_aside text := p_version || E'\x1f' || p_put_version;
    x_upload bytea;
    x_is_base boolean;
BEGIN
    UPDATE __schema__.task_writes AS w SET base_version = x_aside
    WHERE w.thread = p_thread AND w.checkpoint_ns = p_ns AND w.channel = p_channel AND w.base_version = p_version;
    x_is_base := FOUND;
    UPDATE __schema__.channel_values AS v SET base_version = x_aside
    WHERE v.thread = p_thread AND v.checkpoint_ns = p_ns AND v.channel = p_channel AND v.base_version = p_version
        AND v.version <> ALL (p_own);
    IF FOUND OR x_is_base THEN
        UPDATE __schema__.channel_values AS v SET version = x_aside
        WHERE v.thread = p_thread AND v.checkpoint_ns = p_ns AND v.channel = p_channel AND v.version = p_version;
    ELSE
        DELETE FROM __schema__.channel_values AS v
        WHERE v.thread = p_thread AND v.checkpoint_ns = p_ns AND v.channel = p_channel AND v.version = p_version
        RETURNING v.upload_id INTO x_upload;
        IF x_upload <> p_new_upload OR p_new_upload IS NULL THEN
            DELETE FROM __schema__.value_parts AS p WHERE p.thread = p_thread AND p.upload_id = x_upload;
        END IF;
    END IF;
END
$$;

-- Removes existing values that differ from the new ones at their versions. Returns whether there were any.
CREATE FUNCTION __schema__.set_values_aside(
    p_thread uuid[], p_ns text[], p_version bigint[], p_is_stored boolean[], p_values __schema__.value_to_store[]
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM __schema__.set_value_aside(
        s.thread, s.checkpoint_ns, s.channel, s.version, p_version[v.of_group], v.upload,
        -- Patches of the group itself build on the new value, not on the old one.
        ARRAY(
            SELECT own.version
            FROM unnest(p_values) AS own
            WHERE own.of_group = v.of_group AND own.channel = v.channel AND own.base = v.version
                AND own.base_outside IS DISTINCT FROM v.version
        )
    )
    FROM unnest(p_values) AS v
    CROSS JOIN LATERAL (
        SELECT s.*
        FROM __schema__.channel_values AS s
        WHERE s.thread = p_thread[v.of_group] AND s.checkpoint_ns = p_ns[v.of_group]
            AND s.channel = v.channel AND s.version = v.version
        LIMIT 1
    ) AS s
    WHERE p_is_stored[v.of_group]
        AND (s.type, s.size, s.base_version, s.crc32, s.sealed, s.upload_id, s.data)
            IS DISTINCT FROM (v.type, v.size, v.base, v.crc32, v.sealed, v.upload, v.data);
    RETURN FOUND;
END
$$;

-- The number of patches up to each task write, including those of the group. Null: it is whole, or its base is missing.
CREATE FUNCTION __schema__.depths_of_writes(p_thread uuid[], p_ns text[], p_writes __schema__.write_to_store[]) RETURNS integer[]
LANGUAGE sql VOLATILE AS $$
    SELECT array_agg(
        CASE
            WHEN w.base_outside IS NULL THEN w.hops
            ELSE (
                SELECT b.depth + w.hops
                FROM __schema__.channel_values AS b
                WHERE b.thread = $1[w.of_group] AND b.checkpoint_ns = $2[w.of_group]
                    AND b.channel = w.channel AND b.version = w.base_outside AND b.size >= w.reach
                    AND (w.base_crc32 IS NULL OR b.crc32 = w.base_crc32)
            )
        END
    )
    FROM unnest($3) AS w
$$;

-- The size of a checkpoint's task writes without their data, in bytes: their own names, and those of the rows that they build
-- on, which are read with them.
CREATE FUNCTION __schema__.written_bytes(p_thread uuid, p_ns text, p_checkpoint_id text) RETURNS bigint
LANGUAGE sql VOLATILE AS $$
    SELECT (
        SELECT sum(
            octet_length(s.task_id) + octet_length(s.task_path) + octet_length(s.channel) + octet_length(s.type)
            + coalesce(octet_length(s.base_version), 0) + 64
        )
        FROM __schema__.task_writes AS s
        WHERE s.thread = $1 AND s.checkpoint_ns = $2 AND s.checkpoint_id = $3
    ) + (
        SELECT coalesce(sum(base.bytes), 0)
        FROM (
            SELECT max(s.depth * (octet_length(s.channel) + octet_length(s.type) + 320)) AS bytes
            FROM __schema__.task_writes AS s
            WHERE s.thread = $1 AND s.checkpoint_ns = $2 AND s.checkpoint_id = $3 AND s.base_version IS NOT NULL
            GROUP BY s.channel, s.base_version
        ) AS base
    )
$$;

-- Removes existing task writes that special ones replace, except where the call was replaced before. Remembers the calls whose
-- writes were removed. Returns whether there were any.
CREATE FUNCTION __schema__.set_writes_aside(
    p_thread uuid[], p_ns text[], p_is_stored boolean[], p_writes __schema__.write_to_store[]
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    x_write record;
    x_any boolean := false;
BEGIN
    FOR x_write IN
        SELECT s.*, w.upload AS new_upload
        FROM unnest(p_writes) AS w
        CROSS JOIN LATERAL (
            SELECT
                s.thread, s.checkpoint_ns, s.checkpoint_id, s.task_id, s.idx, s.tenant, s.request_id, s.upload_id
            FROM __schema__.task_writes AS s
            WHERE s.thread = p_thread[w.of_group] AND s.checkpoint_ns = p_ns[w.of_group] AND s.checkpoint_id = w.id
                AND s.task_id = w.task_id AND s.idx = w.idx AND s.request_id IS DISTINCT FROM w.request
                AND (
                    SELECT true
                    FROM __schema__.replaced_writes AS r
                    WHERE r.thread = s.thread AND r.checkpoint_ns = s.checkpoint_ns
                        AND r.checkpoint_id = s.checkpoint_id AND r.task_id = s.task_id AND r.idx = s.idx
                        AND r.request_id = w.request
                    LIMIT 1
                ) IS NULL
            LIMIT 1
        ) AS s
        WHERE w.idx < 0 AND p_is_stored[w.of_group]
    LOOP
        DELETE FROM __schema__.task_writes AS w
        WHERE w.thread = x_write.thread AND w.checkpoint_ns = x_write.checkpoint_ns
            AND w.checkpoint_id = x_write.checkpoint_id AND w.task_id = x_write.task_id AND w.idx = x_write.idx;
        IF x_write.request_id IS NOT NULL THEN
            INSERT INTO __schema__.replaced_writes AS r (
                thread, checkpoint_ns, checkpoint_id, task_id, idx, request_id, tenant
            )
            VALUES (
                x_write.thread, x_write.checkpoint_ns, x_write.checkpoint_id, x_write.task_id, x_write.idx,
                x_write.request_id, x_write.tenant
            )
            ON CONFLICT DO NOTHING;
        END IF;
        IF x_write.upload_id IS DISTINCT FROM x_write.new_upload THEN
            DELETE FROM __schema__.value_parts AS p
            WHERE p.thread = x_write.thread AND p.upload_id = x_write.upload_id;
        END IF;
        x_any := true;
    END LOOP;
    RETURN x_any;
END
$$;

-- Handles puts whose checkpoints already exist. If the same put stored the checkpoint, its group is repeated: what was stored of
-- it just now is undone, and the function returns a row for it, with the version of the first time. If another put did, the
-- checkpoint is replaced.
CREATE FUNCTION __schema__.replace_checkpoints(
    p_thread uuid[], p_ns text[], p_version bigint[], p_is_stored boolean[], p_puts __schema__.put_to_store[]
) RETURNS TABLE (o_group integer, o_version bigint) LANGUAGE plpgsql AS $$
DECLARE
    x_repeated integer[] := '{}';
BEGIN
    FOR o_group, o_version IN
        SELECT p.of_group, c.version
        FROM unnest(p_puts) AS p
        CROSS JOIN LATERAL (
            SELECT c.version
            FROM __schema__.checkpoints AS c
            WHERE c.thread = p_thread[p.of_group] AND c.checkpoint_ns = p_ns[p.of_group] AND c.checkpoint_id = p.id
                AND c.request_id = p.request AND c.version <> p_version[p.of_group] - p.following
            LIMIT 1
        ) AS c
        WHERE p_is_stored[p.of_group]
    LOOP
        x_repeated := x_repeated || o_group;
        RETURN NEXT;
    END LOOP;

    DELETE FROM __schema__.checkpoints AS c
    USING unnest(p_puts) AS p
    WHERE p.of_group = ANY (x_repeated)
        AND c.thread = p_thread[p.of_group] AND c.checkpoint_ns = p_ns[p.of_group] AND c.checkpoint_id = p.id
        AND c.request_id = p.request AND c.version = p_version[p.of_group] - p.following;

    WITH replaced AS (
        UPDATE __schema__.checkpoints AS c SET
            parent_checkpoint_id = p.parent,
            version = p_version[p.of_group] - p.following,
            request_id = p.request,
            body = p.body,
            channels = p.channels,
            channel_versions = p.versions,
            metadata_type = p.metadata_type,
            metadata = p.metadata,
            metadata_index = p.metadata_index,
            run_id = p.run_id,
            size = p.size
        FROM unnest(p_puts) AS p
        WHERE p_is_stored[p.of_group] AND p.of_group <> ALL (x_repeated)
            AND c.thread = p_thread[p.of_group] AND c.checkpoint_ns = p_ns[p.of_group] AND c.checkpoint_id = p.id
            AND c.request_id IS DISTINCT FROM p.request
        RETURNING c.thread
    )
    UPDATE __schema__.threads AS t SET
        checkpoints = t.checkpoints - (SELECT count(*) FROM replaced WHERE replaced.thread = t.thread)
    -- An array instead of a join: a join planned while the table was tiny would scan all of it.
    WHERE t.thread = ANY (ARRAY (SELECT replaced.thread FROM replaced));
END
$$;

-- Returns whether an upload exists, isn't named yet, and has exactly this many bytes without a gap.
CREATE FUNCTION __schema__.upload_is_whole(p_thread uuid, p_upload_id bytea, p_size bigint) RETURNS boolean
LANGUAGE sql VOLATILE AS $$
    SELECT
        EXISTS (SELECT FROM __schema__.uploads AS u WHERE u.thread = $1 AND u.upload_id = $2)
        AND (
            SELECT coalesce(bool_and(part.part_offset = part.bytes_before) AND sum(part.bytes) = $3, false)
            FROM (
                SELECT
                    p.part_offset, octet_length(p.data) AS bytes,
                    coalesce(
                        sum(octet_length(p.data)) OVER (
                            ORDER BY p.part_offset ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                        ),
                        0
                    ) AS bytes_before
                FROM __schema__.value_parts AS p
                WHERE p.thread = $1 AND p.upload_id = $2
            ) AS part
        )
$$;

-- Assigns the parts of uploads to the values and task writes that name them. If a task write wasn't stored because its key was
-- taken, its parts are left to garbage collection.
CREATE FUNCTION __schema__.claim_uploads(
    p_thread uuid[], p_ns text[], p_is_stored boolean[], p_values __schema__.value_to_store[],
    p_writes __schema__.write_to_store[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM __schema__.uploads AS u
    WHERE (u.thread, u.upload_id) IN (
        SELECT p_thread[v.of_group], v.upload FROM unnest(p_values) AS v WHERE v.upload IS NOT NULL AND p_is_stored[v.of_group]
        UNION ALL
        SELECT s.thread, s.upload_id
        FROM unnest(p_writes) AS w
        CROSS JOIN LATERAL (
            SELECT s.thread, s.upload_id
            FROM __schema__.task_writes AS s
            WHERE s.thread = p_thread[w.of_group] AND s.checkpoint_ns = p_ns[w.of_group] AND s.checkpoint_id = w.id
                AND s.task_id = w.task_id AND s.idx = w.idx AND s.upload_id = w.upload
            LIMIT 1
        ) AS s
        WHERE p_is_stored[w.of_group]
    );
END
$$;
