-- Reading checkpoints. Values and writes are looked up row by row through primary keys: LIMIT and OFFSET 0 keep the
-- planner from turning the look-ups into joins, which a prepared statement would go on with long after the tables have
-- grown.

-- fragment: checkpoint_parts
-- The values and the writes of the checkpoint c, as parallel arrays; `slots` are positions in its `channels`. What goes
-- beyond 1 MiB of values, or 1 MiB of writes, is left out: its data is null, and its size tells how much it is. What has data and a size
-- is a list of pieces.
LEFT JOIN LATERAL (
    SELECT
        array_agg(stored.slot) AS slots, array_agg(stored.type) AS types,
        array_agg(CASE WHEN stored.total_bytes <= 1048576 OR stored.size > 0 THEN stored.data END) AS data,
        array_agg(
            coalesce(stored.size, CASE WHEN stored.total_bytes > 1048576 THEN octet_length(stored.data) END)
        ) AS sizes
    FROM (
        SELECT
            part.slot, v.type, v.data, v.size,
            sum(CASE WHEN v.size IS NULL THEN octet_length(v.data) ELSE 0 END) OVER (
                ROWS UNBOUNDED PRECEDING
            ) AS total_bytes
        FROM unnest(c.channels, c.channel_versions) WITH ORDINALITY AS part (channel, version, slot)
        CROSS JOIN LATERAL (
            SELECT v.type, v.data, v.size
            FROM __schema__.channel_values AS v
            WHERE v.tenant = $1 AND v.thread_id = c.thread_id AND v.checkpoint_ns = c.checkpoint_ns
                AND v.channel = part.channel AND v.version = part.version
            LIMIT 1
        ) AS v
    ) AS stored
) AS channel_values ON c.with_parts
LEFT JOIN LATERAL (
    SELECT
        array_agg(w.task_id) AS task_ids, array_agg(w.task_path) AS task_paths, array_agg(w.idx) AS idxs,
        array_agg(w.channel) AS channels, array_agg(w.type) AS types,
        array_agg(CASE WHEN w.total_bytes <= 1048576 OR w.size > 0 THEN w.data END) AS data,
        array_agg(
            coalesce(w.size, CASE WHEN w.total_bytes > 1048576 THEN octet_length(w.data) END)
        ) AS sizes
    FROM (
        SELECT
            w.*,
            sum(CASE WHEN w.size IS NULL THEN octet_length(w.data) ELSE 0 END) OVER (
                ROWS UNBOUNDED PRECEDING
            ) AS total_bytes
        FROM (
            SELECT w.task_id, w.task_path, w.idx, w.channel, w.type, w.data, w.size
            FROM __schema__.task_writes AS w
            WHERE w.tenant = $1 AND w.thread_id = c.thread_id AND w.checkpoint_ns = c.checkpoint_ns
                AND w.checkpoint_id = c.checkpoint_id
            ORDER BY w.task_path, w.task_id, w.idx
            OFFSET 0
        ) AS w
    ) AS w
) AS task_writes ON c.with_parts

-- fragment: checkpoint_columns
-- What becomes a StoredCheckpoint.
c.thread_id, c.checkpoint_ns, c.checkpoint_id, c.parent_checkpoint_id, c.body, c.channels, c.channel_versions,
c.metadata_type, c.metadata,
channel_values.slots AS value_slots, channel_values.types AS value_types, channel_values.data AS value_data,
channel_values.sizes AS value_sizes,
task_writes.task_ids AS write_task_ids, task_writes.task_paths AS write_task_paths, task_writes.idxs AS write_idxs,
task_writes.channels AS write_channels, task_writes.types AS write_types, task_writes.data AS write_data,
task_writes.sizes AS write_sizes

-- fragment: namespace_version
-- The version of the namespace $1, $2, $3.
coalesce((
    SELECT n.version
    FROM __schema__.namespaces AS n
    WHERE n.tenant = $1 AND n.thread_id = $2 AND n.checkpoint_ns = $3
), 0)

-- name: get_latest
-- The checkpoint with the greatest id, and the version, in one row.
SELECT
    -- include: namespace_version
    AS version,
    -- include: checkpoint_columns
FROM (SELECT) AS one
LEFT JOIN LATERAL (
    SELECT c.*, true AS with_parts
    FROM __schema__.checkpoints AS c
    WHERE c.tenant = $1 AND c.thread_id = $2 AND c.checkpoint_ns = $3
    ORDER BY c.checkpoint_id DESC
    LIMIT 1
) AS c ON true
-- include: checkpoint_parts

-- name: get_by_id
-- The checkpoint $4, and the version, in one row.
SELECT
    -- include: namespace_version
    AS version,
    -- include: checkpoint_columns
FROM (SELECT) AS one
LEFT JOIN LATERAL (
    SELECT c.*, true AS with_parts
    FROM __schema__.checkpoints AS c
    WHERE c.tenant = $1 AND c.thread_id = $2 AND c.checkpoint_ns = $3 AND c.checkpoint_id = $4
    LIMIT 1
) AS c ON true
-- include: checkpoint_parts

-- fragment: listed_where
-- The query's bounds: ids from $4 to $5 and below $6, metadata that contains $7, and what comes after the last page,
-- which ended with ($8, $9, $10).
    AND c.checkpoint_id >= $4 AND c.checkpoint_id <= $5 AND c.checkpoint_id < $6
    AND ($7::jsonb IS NULL OR c.metadata_index @> $7::jsonb)
    AND c.checkpoint_id <= $8 AND (c.checkpoint_id < $8 OR (c.thread_id, c.checkpoint_ns) > ($9, $10))

-- fragment: page_of_listed
-- Cuts `listed`, which holds up to $11 keys more than none, to the $12 that fit on a page of $13 bytes, and reads those
-- whole. The sizes of values come from their headers, so what is cut off is never read. There is always a row, for the
-- version.
sized AS (
    SELECT
        listed.*,
        row_number() OVER newest_first AS number,
        sum(listed.bytes + coalesce(parts.bytes, 0)) OVER newest_first AS total_bytes
    FROM listed
    LEFT JOIN LATERAL (
        SELECT sum(octet_length(stored.data)) AS bytes
        FROM (
            SELECT v.data
            FROM unnest(listed.channels, listed.channel_versions) AS part (channel, version)
            CROSS JOIN LATERAL (
                SELECT v.data
                FROM __schema__.channel_values AS v
                WHERE v.tenant = $1 AND v.thread_id = listed.thread_id AND v.checkpoint_ns = listed.checkpoint_ns
                    AND v.channel = part.channel AND v.version = part.version
                LIMIT 1
            ) AS v
            UNION ALL
            SELECT w.data
            FROM __schema__.task_writes AS w
            WHERE w.tenant = $1 AND w.thread_id = listed.thread_id AND w.checkpoint_ns = listed.checkpoint_ns
                AND w.checkpoint_id = listed.checkpoint_id
        ) AS stored
    ) AS parts ON $14
    WINDOW newest_first AS (ORDER BY listed.checkpoint_id DESC, listed.thread_id, listed.checkpoint_ns)
),
page AS (
    SELECT sized.thread_id, sized.checkpoint_ns, sized.checkpoint_id, sized.number
    FROM sized
    WHERE sized.number = 1 OR (sized.number <= $12 AND sized.total_bytes <= $13)
)
SELECT
    -- include: namespace_version
    AS namespace_version,
    (SELECT count(*) FROM listed) > (SELECT count(*) FROM page) AS has_more,
    (
        SELECT n.version
        FROM __schema__.namespaces AS n
        WHERE n.tenant = $1 AND n.thread_id = c.thread_id AND n.checkpoint_ns = c.checkpoint_ns
    ) AS version,
    -- include: checkpoint_columns
FROM (SELECT) AS one
LEFT JOIN page ON true
LEFT JOIN LATERAL (
    SELECT c.*, $14::boolean AS with_parts
    FROM __schema__.checkpoints AS c
    WHERE c.tenant = $1 AND c.thread_id = page.thread_id AND c.checkpoint_ns = page.checkpoint_ns
        AND c.checkpoint_id = page.checkpoint_id
    LIMIT 1
) AS c ON true
-- include: checkpoint_parts
ORDER BY page.number

-- fragment: listed_columns
-- A key, and what its size is reckoned from.
c.thread_id, c.checkpoint_ns, c.checkpoint_id, c.channels, c.channel_versions,
octet_length(c.body) + octet_length(c.metadata) AS bytes

-- name: list_namespace
-- A page of one namespace.
WITH listed AS MATERIALIZED (
    SELECT
        -- include: listed_columns
    FROM __schema__.checkpoints AS c
    WHERE c.tenant = $1 AND c.thread_id = $2 AND c.checkpoint_ns = $3
    -- include: listed_where
    ORDER BY c.checkpoint_id DESC
    LIMIT $11
),
-- include: page_of_listed

-- name: list_thread
-- A page of all namespaces of a thread: the newest of each, then the newest of those.
WITH listed AS MATERIALIZED (
    SELECT c.*
    FROM __schema__.namespaces AS n
    CROSS JOIN LATERAL (
        SELECT
            -- include: listed_columns
        FROM __schema__.checkpoints AS c
        WHERE c.tenant = $1 AND c.thread_id = $2 AND c.checkpoint_ns = n.checkpoint_ns
        -- include: listed_where
        ORDER BY c.checkpoint_id DESC
        LIMIT $11
    ) AS c
    WHERE n.tenant = $1 AND n.thread_id = $2
    ORDER BY c.checkpoint_id DESC, c.checkpoint_ns
    LIMIT $11
),
-- include: page_of_listed

-- name: list_tenant
-- A page of all threads, or of one namespace $3 of all threads. "POSIX" brings the index in that order (see migration 1).
WITH listed AS MATERIALIZED (
    SELECT
        -- include: listed_columns
    FROM __schema__.checkpoints AS c
    WHERE c.tenant COLLATE "POSIX" = $1 AND ($3::text IS NULL OR c.checkpoint_ns = $3)
        AND c.checkpoint_id COLLATE "POSIX" >= $4 AND c.checkpoint_id COLLATE "POSIX" <= $5
        AND c.checkpoint_id COLLATE "POSIX" < $6 AND c.checkpoint_id COLLATE "POSIX" <= $8
    -- include: listed_where
    ORDER BY c.checkpoint_id COLLATE "POSIX" DESC, c.thread_id, c.checkpoint_ns
    LIMIT $11
),
-- include: page_of_listed

-- name: check
-- Whether the database answers and the tables are there; and which rights the server's role lacks, as GRANT writes them.
SELECT string_agg(lacking.right_on, ', ' ORDER BY lacking.right_on COLLATE "C")
FROM (
    SELECT format('%s ON TABLE %I', wanted.privilege, c.relname) AS right_on
    FROM pg_catalog.pg_class AS c
    CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS wanted (privilege)
    WHERE c.relnamespace = (SELECT n.relnamespace FROM pg_catalog.pg_class AS n WHERE n.oid = '__schema__.namespaces'::regclass)
        AND c.relkind IN ('r', 'p') AND (c.relname <> 'migrations' OR wanted.privilege = 'SELECT')
        AND NOT has_table_privilege(c.oid, wanted.privilege)
    UNION ALL
    SELECT format('USAGE ON SEQUENCE %I', c.relname)
    FROM pg_catalog.pg_class AS c
    WHERE c.relnamespace = (SELECT n.relnamespace FROM pg_catalog.pg_class AS n WHERE n.oid = '__schema__.namespaces'::regclass)
        AND CASE WHEN c.relkind = 'S' THEN NOT has_sequence_privilege(c.oid, 'USAGE') ELSE false END
    UNION ALL
    SELECT format('EXECUTE ON FUNCTION %I', f.proname)
    FROM pg_catalog.pg_proc AS f
    WHERE f.pronamespace = (SELECT n.relnamespace FROM pg_catalog.pg_class AS n WHERE n.oid = '__schema__.namespaces'::regclass)
        AND NOT has_function_privilege(f.oid, 'EXECUTE')
) AS lacking
