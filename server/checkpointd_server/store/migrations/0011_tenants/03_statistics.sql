-- Statistics of one tenant: sums over its rows in threads, and the contents of a sample of threads.

-- Returns statistics from the rows of a tenant's threads.
--
--   p_days      The number of days, up to today, of the growth statistics: each thread's checkpoints and bytes are spread evenly
--               over its lifetime.
--   p_largest   How many of the largest threads to return.
--   p_sample    How many others to return: a random sample, because keys are hashes.
--   o_running   Threads without an interrupt or error that were written to in the last minute, or are leased.
CREATE FUNCTION __schema__.tenant_statistics(
    p_tenant text, p_days integer, p_largest integer, p_sample integer,
    OUT o_threads bigint, OUT o_idle bigint, OUT o_running bigint, OUT o_interrupted bigint, OUT o_failed bigint,
    OUT o_archived bigint, OUT o_pinned bigint, OUT o_checkpoints bigint, OUT o_bytes bigint,
    OUT o_session_seconds float8, OUT o_oldest_at timestamptz, OUT o_measured_at timestamptz,
    OUT d_day date[], OUT d_threads bigint[], OUT d_checkpoints bigint[], OUT d_bytes bigint[],
    OUT l_thread uuid[], OUT l_thread_id text[], OUT l_checkpoints bigint[], OUT l_bytes bigint[],
    OUT s_thread uuid[], OUT s_checkpoints bigint[], OUT s_bytes bigint[]
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_now timestamptz := clock_timestamp();
    x_today timestamp := date_trunc('day', x_now AT TIME ZONE 'UTC');
BEGIN
    o_measured_at := x_now;
    SELECT
        count(*),
        count(*) FILTER (WHERE t.what = 'idle'), count(*) FILTER (WHERE t.what = 'running'),
        count(*) FILTER (WHERE t.what = 'interrupted'), count(*) FILTER (WHERE t.what = 'failed'),
        count(*) FILTER (WHERE t.what = 'archived'), count(*) FILTER (WHERE t.is_pinned),
        coalesce(sum(t.checkpoints), 0)::bigint, coalesce(sum(t.bytes), 0)::bigint,
        coalesce(avg(date_part('epoch', t.active_at - t.created_at)), 0), min(t.created_at)
    INTO
        o_threads, o_idle, o_running, o_interrupted, o_failed, o_archived, o_pinned, o_checkpoints, o_bytes,
        o_session_seconds, o_oldest_at
    FROM (
        SELECT
            t.checkpoints, t.bytes, t.created_at, t.active_at, t.is_pinned,
            CASE
                WHEN t.is_archived THEN 'archived'
                WHEN t.signal = 1 THEN 'interrupted'
                WHEN t.signal = 2 THEN 'failed'
                WHEN t.active_at > x_now - interval '1 minute' OR t.lease_expires_at > x_now THEN 'running'
                ELSE 'idle'
            END AS what
        FROM __schema__.threads AS t
        WHERE t.tenant = p_tenant AND t.listed_at IS NOT NULL
    ) AS t;

    SELECT
        array_agg(day.day::date ORDER BY day.day), array_agg(coalesce(grown.threads, 0) ORDER BY day.day),
        array_agg(coalesce(grown.checkpoints, 0)::bigint ORDER BY day.day),
        array_agg(coalesce(grown.bytes, 0)::bigint ORDER BY day.day)
    INTO d_day, d_threads, d_checkpoints, d_bytes
    FROM generate_series(x_today - make_interval(days => p_days - 1), x_today, interval '1 day') AS day (day)
    LEFT JOIN (
        SELECT
            part.day, count(*) FILTER (WHERE t.created_at >= part.begins) AS threads,
            sum(t.checkpoints * part.share) AS checkpoints, sum(t.bytes * part.share) AS bytes
        FROM __schema__.threads AS t
        CROSS JOIN LATERAL (
            SELECT
                day.day, day.day AT TIME ZONE 'UTC' AS begins,
                CASE
                    WHEN t.active_at <= t.created_at THEN 1
                    ELSE date_part('epoch',
                        least(t.active_at, (day.day + interval '1 day') AT TIME ZONE 'UTC')
                        - greatest(t.created_at, day.day AT TIME ZONE 'UTC')
                    ) / date_part('epoch', t.active_at - t.created_at)
                END AS share
            FROM generate_series(
                greatest(date_trunc('day', t.created_at AT TIME ZONE 'UTC'), x_today - make_interval(days => p_days - 1)),
                greatest(t.active_at, t.created_at) AT TIME ZONE 'UTC', interval '1 day'
            ) AS day (day)
        ) AS part
        WHERE t.tenant = p_tenant AND t.listed_at IS NOT NULL
            AND greatest(t.active_at, t.created_at) >= (x_today - make_interval(days => p_days - 1)) AT TIME ZONE 'UTC'
        GROUP BY part.day
    ) AS grown ON grown.day = day.day;

    SELECT
        coalesce(array_agg(t.thread ORDER BY t.bytes DESC, t.thread), '{}'),
        coalesce(array_agg(t.thread_id ORDER BY t.bytes DESC, t.thread), '{}'),
        coalesce(array_agg(t.checkpoints ORDER BY t.bytes DESC, t.thread), '{}'),
        coalesce(array_agg(t.bytes ORDER BY t.bytes DESC, t.thread), '{}')
    INTO l_thread, l_thread_id, l_checkpoints, l_bytes
    FROM (
        SELECT t.thread, t.thread_id, t.checkpoints, t.bytes
        FROM __schema__.threads AS t
        WHERE t.tenant = p_tenant AND t.listed_at IS NOT NULL
        ORDER BY t.bytes DESC, t.thread
        LIMIT p_largest
    ) AS t;

    SELECT
        coalesce(array_agg(t.thread ORDER BY t.thread), '{}'), coalesce(array_agg(t.checkpoints ORDER BY t.thread), '{}'),
        coalesce(array_agg(t.bytes ORDER BY t.thread), '{}')
    INTO s_thread, s_checkpoints, s_bytes
    FROM (
        SELECT t.thread, t.checkpoints, t.bytes
        FROM __schema__.threads AS t
        WHERE t.tenant = p_tenant AND t.listed_at IS NOT NULL AND t.thread <> ALL (l_thread)
        ORDER BY t.thread
        LIMIT p_sample
    ) AS t;
END
$$;

-- Measures a thread: its task writes, and the mean size of a checkpoint of its root graph with all values whole, over the oldest
-- and the newest ones, in bytes.
--
--   p_checkpoints  How many of the oldest, and of the newest, to measure.
--   p_writes       The maximum number of task writes to count.
CREATE FUNCTION __schema__.measure_thread(
    p_tenant text, p_thread uuid, p_checkpoints integer, p_writes integer, OUT o_writes bigint, OUT o_checkpoint_bytes float8
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
BEGIN
    SELECT count(*) INTO o_writes
    FROM (SELECT FROM __schema__.task_writes AS w WHERE w.thread = p_thread LIMIT p_writes) AS w;
    SELECT coalesce(avg(c.size + coalesce(held.bytes, 0)), 0) INTO o_checkpoint_bytes
    FROM (
        (
            SELECT c.checkpoint_id, c.channels, c.channel_versions, c.size
            FROM __schema__.checkpoints AS c
            WHERE c.thread = p_thread AND c.checkpoint_ns = ''
            ORDER BY c.checkpoint_id DESC
            LIMIT p_checkpoints
        )
        UNION
        (
            SELECT c.checkpoint_id, c.channels, c.channel_versions, c.size
            FROM __schema__.checkpoints AS c
            WHERE c.thread = p_thread AND c.checkpoint_ns = ''
            ORDER BY c.checkpoint_id
            LIMIT p_checkpoints
        )
    ) AS c
    CROSS JOIN LATERAL (
        SELECT sum(v.size) AS bytes
        FROM unnest(c.channels, c.channel_versions) AS part (channel, version)
        CROSS JOIN LATERAL (
            SELECT v.size
            FROM __schema__.channel_values AS v
            WHERE v.thread = p_thread AND v.checkpoint_ns = ''
                AND v.channel = part.channel COLLATE "C" AND v.version = part.version COLLATE "C"
            LIMIT 1
        ) AS v
    ) AS held;
END
$$;
