-- Reading items by key, by content, and by words.

-- Returns items. A missing or expired one has no row.
--
--   p_refreshes  Whether to restart each item's time to live.
--   p_max_bytes  The maximum size of the result's data, in bytes. Beyond it, data is left out: it is null.
--
--   o_position  The item, counted from 1.
--   o_bytes     The size of its data.
CREATE FUNCTION __schema__.get_items(
    p_tenant text, p_namespaces text[], p_keys text[], p_refreshes boolean[], p_max_bytes bigint
) RETURNS TABLE (
    o_position integer, o_namespace text, o_key text, o_type text, o_data bytea, o_bytes integer, o_version bigint,
    o_created_at timestamptz, o_updated_at timestamptz, o_expires_at timestamptz
) LANGUAGE plpgsql AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_now timestamptz := clock_timestamp();
    x record;
    x_refreshes boolean;
    x_refreshed_namespaces text[];
    x_refreshed_keys text[];
BEGIN
    FOR
        o_position, o_namespace, o_key, o_type, o_data, o_bytes, o_version, o_created_at, o_updated_at, o_expires_at,
        x_refreshes
    IN
        SELECT
            f.position, f.namespace, f.key, f.type, CASE WHEN f.fits THEN f.data END, octet_length(f.data), f.version,
            f.created_at, f.updated_at, CASE WHEN f.refreshes AND f.fits THEN x_now + f.ttl ELSE f.expires_at END,
            f.refreshes AND f.fits
        FROM (
            SELECT
                w.position, i.*, w.refreshes AND i.ttl IS NOT NULL AS refreshes,
                sum(octet_length(i.data)) OVER (ORDER BY w.position) <= p_max_bytes AS fits
            FROM unnest(p_namespaces, p_keys, p_refreshes) WITH ORDINALITY AS w (namespace, key, refreshes, position)
            CROSS JOIN LATERAL (
                SELECT i.namespace, i.key, i.type, i.data, i.version, i.created_at, i.updated_at, i.expires_at, i.ttl
                FROM __schema__.items AS i
                WHERE i.tenant = p_tenant AND i.namespace = w.namespace AND i.key = w.key
                    AND (i.expires_at IS NULL OR i.expires_at > x_now)
                LIMIT 1
            ) AS i
        ) AS f
    LOOP
        IF x_refreshes THEN
            x_refreshed_namespaces := x_refreshed_namespaces || o_namespace;
            x_refreshed_keys := x_refreshed_keys || o_key;
        END IF;
        RETURN NEXT;
    END LOOP;
    IF x_refreshed_keys IS NOT NULL THEN
        -- In the order of the keys, as changes lock items.
        FOR x IN
            SELECT DISTINCT w.namespace COLLATE "C" AS namespace, w.key COLLATE "C" AS key
            FROM unnest(x_refreshed_namespaces, x_refreshed_keys) AS w (namespace, key)
            ORDER BY 1, 2
        LOOP
            UPDATE __schema__.items AS i SET expires_at = x_now + i.ttl
            WHERE i.tenant = p_tenant AND i.namespace = x.namespace AND i.key = x.key AND i.expires_at > x_now;
        END LOOP;
    END IF;
END
$$;

-- Returns items whose namespace is from p_from to before p_to and whose doc matches p_filter, the last stored first.
--
--   p_filter   A JSON path. Null: any doc.
--   p_skipped  How many to skip.
--   p_only     Only items with (true) or without (false) vectors. Null: both.
--
-- If the items are in few namespaces, those of each are read from the last stored one on, until there are enough. Plans are made
-- once, when the table may be empty: without a sort they always use that index.
CREATE FUNCTION __schema__.search_items(
    p_tenant text, p_from text, p_to text, p_filter text, p_skipped integer, p_limit integer, p_only boolean,
    p_refreshes boolean, p_max_bytes bigint
) RETURNS TABLE (
    o_position integer, o_namespace text, o_key text, o_type text, o_data bytea, o_bytes integer, o_version bigint,
    o_created_at timestamptz, o_updated_at timestamptz, o_expires_at timestamptz
) LANGUAGE plpgsql
SET enable_sort = off
AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_now timestamptz := clock_timestamp();
    x_filter jsonpath := p_filter::jsonpath;
    x_most bigint := p_skipped::bigint + p_limit;
    x_few integer := 8;
    x_from text := p_from;
    x_below text[] := '{}';
    x_namespaces text[];
    x_keys text[];
    x_flags boolean[];
BEGIN
    WHILE cardinality(x_below) <= x_few LOOP
        SELECT i.namespace INTO x_from
        FROM __schema__.items AS i
        WHERE i.tenant = p_tenant AND i.namespace >= x_from AND i.namespace < p_to
        ORDER BY i.namespace
        LIMIT 1;
        EXIT WHEN NOT FOUND;
        x_below := x_below || x_from;
        x_from := x_from || chr(1);
    END LOOP;
    IF cardinality(x_below) <= x_few THEN
        SELECT array_agg(w.namespace), array_agg(w.key), array_agg(p_refreshes)
        INTO x_namespaces, x_keys, x_flags
        FROM (
            SELECT i.namespace, i.key
            FROM unnest(x_below) AS n (namespace)
            CROSS JOIN LATERAL (
                SELECT i.namespace, i.key, i.updated_at
                FROM __schema__.items AS i
                WHERE i.tenant = p_tenant AND i.namespace = n.namespace AND i.updated_at > '-infinity'
                    AND (i.expires_at IS NULL OR i.expires_at > x_now)
                    AND (p_only IS NULL OR (i.vectors > 0) = p_only)
                    AND (x_filter IS NULL OR i.doc @@ x_filter)
                ORDER BY i.updated_at DESC, i.key
                LIMIT x_most
            ) AS i
            ORDER BY i.updated_at DESC, i.namespace, i.key
            OFFSET p_skipped LIMIT p_limit
        ) AS w;
    ELSE
        SELECT array_agg(w.namespace), array_agg(w.key), array_agg(p_refreshes)
        INTO x_namespaces, x_keys, x_flags
        FROM (
            SELECT i.namespace, i.key
            FROM __schema__.items AS i
            WHERE i.tenant = p_tenant AND i.namespace >= p_from AND i.namespace < p_to
                AND (i.expires_at IS NULL OR i.expires_at > x_now)
                AND (p_only IS NULL OR (i.vectors > 0) = p_only)
                AND (x_filter IS NULL OR i.doc @@ x_filter)
            ORDER BY i.updated_at DESC, i.namespace, i.key
            OFFSET p_skipped LIMIT p_limit
        ) AS w;
    END IF;
    RETURN QUERY SELECT * FROM __schema__.get_items(p_tenant, x_namespaces, x_keys, x_flags, p_max_bytes);
END
$$;

-- Counts items, as search_items finds them.
CREATE FUNCTION __schema__.count_items(p_tenant text, p_from text, p_to text, p_filter text)
RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_now timestamptz := clock_timestamp();
    x_filter jsonpath := p_filter::jsonpath;
BEGIN
    RETURN (
        SELECT count(*)
        FROM __schema__.items AS i
        WHERE i.tenant = p_tenant AND i.namespace >= p_from AND i.namespace < p_to
            AND (i.expires_at IS NULL OR i.expires_at > x_now)
            AND (x_filter IS NULL OR i.doc @@ x_filter)
    );
END
$$;

-- Returns how many items a tenant has, and their approximate size, including expired ones that aren't deleted yet.
CREATE FUNCTION __schema__.item_usage(p_tenant text, OUT o_items bigint, OUT o_bytes bigint) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
BEGIN
    SELECT count(*), coalesce(sum(i.bytes), 0)::bigint INTO o_items, o_bytes
    FROM __schema__.items AS i
    WHERE i.tenant = p_tenant;
END
$$;

-- Ranks items by words.
--
--   p_query, p_language  The words.
--   p_web                Whether the query has the syntax of search engines. Otherwise an item needs only one of the words.
--   p_count              The maximum number of items.
CREATE FUNCTION __schema__.rank_items_by_words(
    p_tenant text, p_from text, p_to text, p_filter text, p_query text, p_language text, p_web boolean, p_count integer
) RETURNS TABLE (o_namespace text, o_key text, o_score float8) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_now timestamptz := clock_timestamp();
    x_filter jsonpath := p_filter::jsonpath;
    x_query tsquery;
BEGIN
    IF p_web THEN
        x_query := websearch_to_tsquery(p_language::regconfig, p_query);
    ELSE
        -- Quotes a lexeme for tsquery.
        SELECT string_agg('''' || replace(replace(w.lexeme, '\', '\\'), '''', '''''') || '''', ' | ')::tsquery INTO x_query
        FROM unnest(to_tsvector(p_language::regconfig, p_query)) AS w;
    END IF;
    RETURN QUERY
    SELECT i.namespace, i.key, ts_rank(i.words, x_query)::float8 AS score
    FROM __schema__.items AS i
    WHERE i.tenant = p_tenant AND i.namespace >= p_from AND i.namespace < p_to
        AND i.words IS NOT NULL AND i.words @@ x_query
        AND (i.expires_at IS NULL OR i.expires_at > x_now)
        AND (x_filter IS NULL OR i.doc @@ x_filter)
    ORDER BY score DESC, i.updated_at DESC, i.namespace, i.key
    LIMIT p_count;
END
$$;

-- Lists namespaces that hold items, in order, from p_from to before p_to.
--
--   p_patterns  Regular expressions, all of which must match.
--   p_depth     The maximum number of labels to return of each. Null: all.
CREATE FUNCTION __schema__.list_namespaces(
    p_tenant text, p_from text, p_to text, p_patterns text[], p_depth integer, p_skipped integer, p_limit integer
) RETURNS TABLE (o_namespace text) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_now timestamptz := clock_timestamp();
    x_from text := p_from;
    x_namespace text;
    x_labels text[];
    x_skipped integer := p_skipped;
    x_found integer := 0;
BEGIN
    WHILE x_found < p_limit LOOP
        -- One look-up per namespace, however many items it holds.
        SELECT i.namespace INTO x_namespace
        FROM __schema__.items AS i
        WHERE i.tenant = p_tenant AND i.namespace >= x_from AND i.namespace < p_to
            AND (i.expires_at IS NULL OR i.expires_at > x_now)
        ORDER BY i.namespace
        LIMIT 1;
        EXIT WHEN NOT FOUND;
        x_from := x_namespace || chr(1);
        CONTINUE WHEN NOT x_namespace ~ ALL (p_patterns);
        x_labels := string_to_array(left(x_namespace, -1), chr(1));
        IF cardinality(x_labels) >= p_depth THEN
            x_namespace := array_to_string(x_labels[: p_depth], chr(1)) || chr(1);
            -- Continue after everything that begins with it.
            x_from := left(x_namespace, -1) || chr(2);
        END IF;
        IF x_skipped > 0 THEN
            x_skipped := x_skipped - 1;
        ELSE
            o_namespace := x_namespace;
            x_found := x_found + 1;
            RETURN NEXT;
        END IF;
    END LOOP;
END
$$;
