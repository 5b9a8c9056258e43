-- An index on the vectors with __dims__ components, and the search that uses it.
CREATE INDEX IF NOT EXISTS item_vectors___dims_____distance__ ON __schema__.item_vectors
    USING hnsw ((__indexed__) __class__) WITH (m = 16, ef_construction = 64) WHERE dims = __dims__;

-- Ranks items by their vectors, as near_items___distance__ does, but usually by the index, which may miss some. If there are few
-- vectors below the namespace, or the index finds too few matches, all are compared. The index decides what is read, and the
-- vectors themselves in which order, and with which scores.
--
-- Plans are made once, when the tables may be empty: without a sort they always use the index.
CREATE OR REPLACE FUNCTION __schema__.near_items___dims_____distance__(
    p_tenant text, p_from text, p_to text, p_filter text, p_components real[], p_count integer
) RETURNS TABLE (o_namespace text, o_key text, o_score float8) LANGUAGE plpgsql STABLE
SET enable_sort = off
SET hnsw.iterative_scan = strict_order
SET hnsw.ef_search = 100
AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_now timestamptz := clock_timestamp();
    x_filter jsonpath := p_filter::jsonpath;
    x_query vector := p_components::vector;
    x_indexed __type__ := __query__;
    x_few integer := 1000 + p_count;
    x_rows integer := 20 + 2 * p_count;
    x_found integer;
    x_namespaces text[];
    x_keys text[];
    x_scores float8[];
BEGIN
    SELECT count(*) INTO x_found
    FROM (
        SELECT
        FROM __schema__.item_vectors AS v
        WHERE v.tenant = p_tenant AND v.namespace >= p_from AND v.namespace < p_to
        LIMIT x_few
    ) AS v;
    IF x_found = x_few THEN
        -- Several of the nearest vectors may belong to one item: then more are read.
        FOR attempt IN 1..3 LOOP
            SELECT
                sum(n.rows), array_agg(n.namespace), array_agg(n.key),
                array_agg(CASE WHEN n.distance = 'NaN' THEN 0 ELSE __score__ END)
            INTO x_found, x_namespaces, x_keys, x_scores
            FROM (
                SELECT v.namespace, v.key, min(v.distance) AS distance, count(*) AS rows
                FROM (
                    SELECT v.namespace, v.key, v.embedding __operator__ x_query AS distance
                    FROM __schema__.item_vectors AS v
                    CROSS JOIN LATERAL (
                        SELECT
                        FROM __schema__.items AS i
                        WHERE i.tenant = p_tenant AND i.namespace = v.namespace AND i.key = v.key
                            AND (i.expires_at IS NULL OR i.expires_at > x_now)
                            AND (x_filter IS NULL OR i.doc @@ x_filter)
                        LIMIT 1
                    ) AS i
                    WHERE v.tenant = p_tenant AND v.namespace >= p_from AND v.namespace < p_to AND v.dims = __dims__
                    ORDER BY __indexed__ __operator__ x_indexed
                    LIMIT x_rows
                ) AS v
                GROUP BY v.namespace, v.key
                ORDER BY distance, v.namespace, v.key
            ) AS n;
            EXIT WHEN cardinality(x_keys) >= p_count OR coalesce(x_found, 0) < x_rows;
            x_rows := x_rows * 4;
        END LOOP;
        IF cardinality(x_keys) >= p_count THEN
            RETURN QUERY
            SELECT n.namespace, n.key, n.score
            FROM unnest(x_namespaces, x_keys, x_scores) AS n (namespace, key, score)
            LIMIT p_count;
            RETURN;
        END IF;
    END IF;
    RETURN QUERY
    SELECT * FROM __schema__.near_items___distance__(p_tenant, p_from, p_to, p_filter, p_components, p_count);
END
$$;
