-- compatibility: additive

-- Tenants as the operator sees them, and their quotas. A server registers a tenant soon after its first call. The table is read
-- across all tenants, and reveals only that a tenant exists, and its quotas.
CREATE TABLE __schema__.tenants (
    tenant text COLLATE "C" NOT NULL,
    -- Null: the servers' options apply. 0: no limit.
    max_bytes bigint,
    max_threads bigint,
    max_calls_per_second bigint,
    noted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant)
);

-- Returns a tenant's usage: threads, checkpoints, items, and approximate bytes, including those of items and of uploads that no
-- put has named yet.
CREATE FUNCTION __schema__.tenant_usage(
    p_tenant text,
    OUT o_threads bigint, OUT o_checkpoints bigint, OUT o_bytes bigint,
    OUT o_pinned bigint, OUT o_pinned_checkpoints bigint, OUT o_pinned_bytes bigint,
    OUT o_items bigint, OUT o_item_bytes bigint
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_uploaded bigint;
BEGIN
    SELECT
        count(*) FILTER (WHERE t.listed_at IS NOT NULL),
        coalesce(sum(t.checkpoints), 0)::bigint, coalesce(sum(t.bytes), 0)::bigint,
        count(*) FILTER (WHERE t.is_pinned),
        coalesce(sum(t.checkpoints) FILTER (WHERE t.is_pinned), 0)::bigint,
        coalesce(sum(t.bytes) FILTER (WHERE t.is_pinned), 0)::bigint
    INTO o_threads, o_checkpoints, o_bytes, o_pinned, o_pinned_checkpoints, o_pinned_bytes
    FROM __schema__.threads AS t
    WHERE t.tenant = p_tenant;
    SELECT coalesce(sum(parts.bytes), 0)::bigint INTO x_uploaded
    FROM __schema__.uploads AS u
    CROSS JOIN LATERAL (
        SELECT sum(octet_length(p.data)) AS bytes
        FROM __schema__.value_parts AS p
        WHERE p.thread = u.thread AND p.upload_id = u.upload_id
    ) AS parts
    WHERE u.tenant = p_tenant;
    SELECT u.o_items, u.o_bytes INTO o_items, o_item_bytes FROM __schema__.item_usage(p_tenant) AS u;
    o_bytes := o_bytes + x_uploaded + o_item_bytes;
END
$$;

-- Returns those of the threads p_threads that aren't empty.
CREATE FUNCTION __schema__.known_threads(p_tenant text, p_threads uuid[]) RETURNS TABLE (o_thread uuid)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
BEGIN
    RETURN QUERY
    SELECT t.thread FROM __schema__.threads AS t WHERE t.thread = ANY (p_threads) AND t.listed_at IS NOT NULL;
END
$$;
