-- Ranks items by their vectors, comparing all of them.
--
--   p_components  The vector to be near to. Vectors with another number of components are ignored.
--   p_count       The maximum number of items.
CREATE OR REPLACE FUNCTION __schema__.near_items___distance__(
    p_tenant text, p_from text, p_to text, p_filter text, p_components real[], p_count integer
) RETURNS TABLE (o_namespace text, o_key text, o_score float8) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_now timestamptz := clock_timestamp();
    x_filter jsonpath := p_filter::jsonpath;
    x_query vector := p_components::vector;
    x_dims integer := cardinality(p_components);
BEGIN
    RETURN QUERY
    SELECT n.namespace, n.key, CASE WHEN n.distance = 'NaN' THEN 0 ELSE __score__ END
    FROM (
        SELECT v.namespace, v.key, min(v.embedding __operator__ x_query) AS distance
        FROM __schema__.item_vectors AS v
        WHERE v.tenant = p_tenant AND v.namespace >= p_from AND v.namespace < p_to AND v.dims = x_dims
        GROUP BY v.namespace, v.key
        ORDER BY distance, v.namespace, v.key
    ) AS n
    CROSS JOIN LATERAL (
        SELECT
        FROM __schema__.items AS i
        WHERE i.tenant = p_tenant AND i.namespace = n.namespace AND i.key = n.key
            AND (i.expires_at IS NULL OR i.expires_at > x_now)
            AND (x_filter IS NULL OR i.doc @@ x_filter)
        LIMIT 1
    ) AS i
    ORDER BY n.distance, n.namespace, n.key
    LIMIT p_count;
END
$$;
