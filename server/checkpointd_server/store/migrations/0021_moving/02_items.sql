-- Exporting and importing items with everything that belongs to them.

-- Lists items whose namespace is from p_from to before p_to, in order, after a given one: at least one if there is any.
--
--   p_after_namespace, p_after_key  The item to start after. Empty: start with the first.
--   p_keys                          Whether to return only keys and versions.
--   p_vectors                       Whether to return vectors.
--   p_max_bytes                     The list ends with the item that exceeds this size, or before it.
--
--   o_words    What word search matches, as text.
--   o_vectors  The number of vectors.
--   o_paths, o_components  The vectors.
CREATE FUNCTION __schema__.list_items(
    p_tenant text, p_from text, p_to text, p_after_namespace text, p_after_key text, p_limit integer, p_keys boolean,
    p_vectors boolean, p_max_bytes bigint
) RETURNS TABLE (
    o_namespace text, o_key text, o_version bigint, o_type text, o_data bytea, o_doc text, o_words text, o_ttl float8,
    o_created_at timestamptz, o_updated_at timestamptz, o_expires_at timestamptz, o_vectors integer, o_paths text[],
    o_components real[]
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_now timestamptz := clock_timestamp();
    x record;
    x_total bigint := 0;
    x_found integer := 0;
BEGIN
    FOR x IN
        SELECT i.*
        FROM __schema__.items AS i
        WHERE i.tenant = p_tenant AND i.namespace >= p_from AND i.namespace < p_to
            AND (i.namespace, i.key) > (p_after_namespace COLLATE "C", p_after_key COLLATE "C")
            AND (i.expires_at IS NULL OR i.expires_at > x_now)
        ORDER BY i.namespace, i.key
        LIMIT p_limit
    LOOP
        o_namespace := x.namespace;
        o_key := x.key;
        o_version := x.version;
        IF NOT p_keys THEN
            o_type := x.type;
            o_data := x.data;
            o_doc := x.doc::text;
            o_words := x.words::text;
            o_ttl := extract(epoch FROM x.ttl);
            o_created_at := x.created_at;
            o_updated_at := x.updated_at;
            o_expires_at := x.expires_at;
            o_vectors := x.vectors;
            o_paths := NULL;
            o_components := NULL;
            IF p_vectors AND x.vectors > 0 THEN
                SELECT array_agg(v.path ORDER BY v.position), array_agg(v.embedding::real[] ORDER BY v.position)
                INTO o_paths, o_components
                FROM __schema__.item_vectors AS v
                WHERE v.tenant = p_tenant AND v.namespace = x.namespace AND v.key = x.key;
            END IF;
            x_total := x_total + octet_length(o_data) + octet_length(o_doc) + coalesce(octet_length(o_words), 0)
                + 4 * coalesce(array_length(o_components, 1) * array_length(o_components, 2), 0);
            EXIT WHEN x_found > 0 AND x_total > p_max_bytes;
        END IF;
        x_found := x_found + 1;
        RETURN NEXT;
        EXIT WHEN x_total > p_max_bytes;
    END LOOP;
END
$$;

-- Restores listed items, and locks them in the order of the keys.
--
--   p_replace      Whether to replace existing items that differ.
--   p_words        What word search matches, as text. Null: nothing.
--   p_ttls         Times to live, in seconds. Null: they don't expire.
--   p_vectors      The number of vectors of each.
--   p_left_out     Whether vectors of it were left out.
--   p_owners ...   The vectors, as in change_items.
--
--   o_outcome  "restored", "same", "different" or "expired".
CREATE FUNCTION __schema__.restore_items(
    p_tenant text, p_replace boolean, p_namespaces text[], p_keys text[], p_types text[], p_data bytea[], p_docs text[],
    p_words text[], p_ttls float8[], p_created timestamptz[], p_updated timestamptz[], p_expires timestamptz[],
    p_vectors integer[], p_left_out boolean[], p_owners integer[], p_paths text[], p_dims integer[], p_starts integer[],
    p_components real[]
) RETURNS TABLE (o_position integer, o_outcome text) LANGUAGE plpgsql AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x record;
    x_there record;
    x_now timestamptz;
    x_version bigint;
    x_old_vectors integer;
    x_bytes bigint;
    x_found_paths text[];
    x_found_components real[];
    x_paths text[];
    x_components real[];
    x_expiring boolean := false;
BEGIN
    FOR x IN
        SELECT c.*
        FROM unnest(
            p_namespaces, p_keys, p_types, p_data, p_docs, p_words, p_ttls, p_created, p_updated, p_expires, p_vectors, p_left_out
        ) WITH ORDINALITY AS c (
            namespace, key, type, data, doc, words, ttl, created_at, updated_at, expires_at, vectors, left_out, position
        )
        ORDER BY c.namespace COLLATE "C", c.key COLLATE "C"
    LOOP
        o_position := x.position;
        o_outcome := NULL;
        x_bytes := octet_length(x.data) + octet_length(x.doc) + coalesce(octet_length(x.words), 0);
        IF x.vectors > 0 THEN
            -- A component has 4 bytes.
            x_bytes := x_bytes + 4 * (
                SELECT coalesce(sum(v.dims), 0) FROM unnest(p_owners, p_dims) AS v (owner, dims) WHERE v.owner = x.position
            );
        END IF;
        WHILE o_outcome IS NULL LOOP
            x_now := clock_timestamp();
            x_version := extract(epoch FROM x_now) * 1000000;
            x_old_vectors := 0;
            IF x.expires_at <= x_now THEN
                o_outcome := 'expired';
                EXIT;
            END IF;
            INSERT INTO __schema__.items AS i (
                tenant, namespace, key, version, type, data, doc, words, vectors, bytes, ttl, expires_at, created_at, updated_at
            )
            VALUES (
                p_tenant, x.namespace, x.key, x_version, x.type, x.data, x.doc::jsonb, x.words::tsvector, x.vectors,
                x_bytes, make_interval(secs => x.ttl), x.expires_at, x.created_at, x.updated_at
            )
            ON CONFLICT (tenant, namespace, key) DO UPDATE
            SET version = greatest(i.version + 1, excluded.version), request_id = '', type = excluded.type,
                data = excluded.data, doc = excluded.doc, words = excluded.words, vectors = excluded.vectors,
                replaced_vectors = i.vectors, bytes = excluded.bytes, ttl = excluded.ttl,
                expires_at = excluded.expires_at, created_at = excluded.created_at, updated_at = excluded.updated_at
            WHERE i.expires_at <= x_now
            RETURNING i.replaced_vectors INTO x_old_vectors;
            IF FOUND THEN
                o_outcome := 'restored';
                EXIT;
            END IF;
            -- It exists, and the statement above has locked it.
            SELECT i.* INTO x_there
            FROM __schema__.items AS i
            WHERE i.tenant = p_tenant AND i.namespace = x.namespace AND i.key = x.key;
            CONTINUE WHEN NOT FOUND;
            IF x_there.type = x.type AND x_there.data = x.data AND x_there.doc = x.doc::jsonb
                AND x_there.words IS NOT DISTINCT FROM x.words::tsvector
                AND x_there.ttl IS NOT DISTINCT FROM make_interval(secs => x.ttl)
                AND (x.left_out OR x_there.vectors = x.vectors)
            THEN
                o_outcome := 'same';
                IF x.vectors > 0 THEN
                    SELECT array_agg(v.path ORDER BY v.position), array_agg(v.embedding::real[] ORDER BY v.position)
                    INTO x_found_paths, x_found_components
                    FROM __schema__.item_vectors AS v
                    WHERE v.tenant = p_tenant AND v.namespace = x.namespace AND v.key = x.key;
                    SELECT
                        array_agg(v.path ORDER BY v.number),
                        array_agg(p_components[v.start + 1 : v.start + v.dims] ORDER BY v.number)
                    INTO x_paths, x_components
                    FROM unnest(p_owners, p_paths, p_dims, p_starts) WITH ORDINALITY AS v (owner, path, dims, start, number)
                    WHERE v.owner = x.position;
                    IF (x_found_paths, x_found_components) IS DISTINCT FROM (x_paths, x_components) THEN
                        o_outcome := NULL;
                    END IF;
                END IF;
                EXIT WHEN o_outcome IS NOT NULL;
            END IF;
            IF NOT p_replace THEN
                o_outcome := 'different';
                EXIT;
            END IF;
            UPDATE __schema__.items AS i
            SET version = greatest(i.version + 1, x_version), request_id = '', type = x.type, data = x.data,
                doc = x.doc::jsonb, words = x.words::tsvector, vectors = x.vectors, replaced_vectors = i.vectors, bytes = x_bytes,
                ttl = make_interval(secs => x.ttl), expires_at = x.expires_at, created_at = x.created_at,
                updated_at = x.updated_at
            WHERE i.tenant = p_tenant AND i.namespace = x.namespace AND i.key = x.key
            RETURNING i.replaced_vectors INTO x_old_vectors;
            CONTINUE WHEN NOT FOUND;
            o_outcome := 'restored';
        END LOOP;
        IF o_outcome = 'restored' THEN
            x_expiring := x_expiring OR x.ttl IS NOT NULL;
            IF x_old_vectors > 0 THEN
                DELETE FROM __schema__.item_vectors AS v
                WHERE v.tenant = p_tenant AND v.namespace = x.namespace AND v.key = x.key;
            END IF;
            IF x.vectors > 0 THEN
                INSERT INTO __schema__.item_vectors (tenant, namespace, key, position, path, dims, embedding)
                SELECT
                    p_tenant, x.namespace, x.key, row_number() OVER (ORDER BY v.number), v.path, v.dims,
                    p_components[v.start + 1 : v.start + v.dims]::vector
                FROM unnest(p_owners, p_paths, p_dims, p_starts) WITH ORDINALITY AS v (owner, path, dims, start, number)
                WHERE v.owner = x.position;
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
    IF x_expiring THEN
        INSERT INTO __schema__.item_sweeps (tenant, due_at) VALUES (p_tenant, clock_timestamp()) ON CONFLICT DO NOTHING;
    END IF;
END
$$;
