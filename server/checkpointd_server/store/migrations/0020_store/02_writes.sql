-- Storing and deleting items: any number of changes of a tenant in one call. Each change locks its item, in the order of the
-- keys, so calls can't deadlock.

-- Changes items. Of several changes of one item, each builds on the one before.
--
--   p_namespaces, p_keys  The item of each change.
--   p_expected            The version that the item must have. 0: it must not exist. Null: any.
--   p_requests            The request id of the call. If the same call has already stored the item, nothing changes.
--   p_types               The value's type. Null: delete the item.
--   p_data, p_docs        The value, and the part that filters match, as JSON.
--   p_texts, p_languages  The text that word search matches. Null: none.
--   p_ttls                Time to live, in seconds. Null: it doesn't expire.
--   p_vectors             The number of vectors. Null: none.
--   p_vector_bytes        The size of its vectors together, in bytes.
--   p_owners              The change that each vector belongs to, counted from 1. For each vector:
--   p_paths               the part of the value that it was made from,
--   p_dims                the number of its components,
--   p_starts              the index of its first component,
--   p_components          and the components of all vectors.
--
--   o_position  The change, counted from 1.
--   o_outcome   "ok"; "absent": there was nothing to delete; "conflict".
--   o_version   The new version; for a conflict, the present one, 0: the item doesn't exist.
CREATE FUNCTION __schema__.change_items(
    p_tenant text, p_namespaces text[], p_keys text[], p_expected bigint[], p_requests bytea[], p_types text[],
    p_data bytea[], p_docs text[], p_texts text[], p_languages text[], p_ttls float8[], p_vectors integer[],
    p_vector_bytes integer[], p_owners integer[], p_paths text[], p_dims integer[], p_starts integer[], p_components real[]
) RETURNS TABLE (o_position integer, o_outcome text, o_version bigint) LANGUAGE plpgsql AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x record;
    x_begun timestamptz := clock_timestamp();
    x_now timestamptz;
    x_stored_at timestamptz;
    x_version bigint;
    x_words tsvector;
    x_ttl interval;
    x_vectors integer;
    x_bytes bigint;
    x_expires timestamptz;
    x_request bytea;
    x_expiring boolean := false;
BEGIN
    FOR x IN
        SELECT c.*
        FROM unnest(
            p_namespaces, p_keys, p_expected, p_requests, p_types, p_data, p_docs, p_texts, p_languages, p_ttls, p_vectors,
            p_vector_bytes
        ) WITH ORDINALITY AS c (
            namespace, key, expected, request, type, data, doc, text, language, ttl, vectors, vector_bytes, position
        )
        ORDER BY c.namespace COLLATE "C", c.key COLLATE "C", c.position
    LOOP
        x_now := clock_timestamp();
        -- The result is the same as if the changes were made in the order given.
        x_stored_at := x_begun + x.position * interval '1 microsecond';
        o_position := x.position;
        o_outcome := 'ok';
        IF x.type IS NULL THEN
            DELETE FROM __schema__.items AS i
            WHERE i.tenant = p_tenant AND i.namespace = x.namespace AND i.key = x.key
                AND (x.expected IS NULL OR (i.version = x.expected AND (i.expires_at IS NULL OR i.expires_at > x_now)))
            RETURNING i.version, i.vectors, i.expires_at INTO o_version, x_vectors, x_expires;
            IF x_expires <= x_now THEN
                o_outcome := 'absent';
            END IF;
        ELSE
            x_version := extract(epoch FROM x_now) * 1000000;
            x_bytes := octet_length(x.data) + octet_length(x.doc) + coalesce(octet_length(x.text), 0)
                + coalesce(x.vector_bytes, 0);
            x_words := to_tsvector(x.language::regconfig, x.text);
            x_ttl := make_interval(secs => x.ttl);
            x_expiring := x_expiring OR x_ttl IS NOT NULL;
            IF x.expected > 0 THEN
                UPDATE __schema__.items AS i
                SET version = greatest(i.version + 1, x_version), request_id = x.request, type = x.type, data = x.data, doc = x.doc::jsonb,
                    words = x_words, vectors = coalesce(x.vectors, 0), replaced_vectors = i.vectors, bytes = x_bytes, ttl = x_ttl,
                    expires_at = x_stored_at + x_ttl, updated_at = x_stored_at
                WHERE i.tenant = p_tenant AND i.namespace = x.namespace AND i.key = x.key AND i.version = x.expected
                    AND (i.expires_at IS NULL OR i.expires_at > x_now)
                RETURNING i.version, i.replaced_vectors INTO o_version, x_vectors;
            ELSE
                INSERT INTO __schema__.items AS i (
                    tenant, namespace, key, version, request_id, type, data, doc, words, vectors, bytes, ttl,
                    expires_at, created_at, updated_at
                )
                VALUES (
                    p_tenant, x.namespace, x.key, x_version, x.request, x.type, x.data, x.doc::jsonb, x_words,
                    coalesce(x.vectors, 0), x_bytes, x_ttl, x_stored_at + x_ttl, x_stored_at, x_stored_at
                )
                ON CONFLICT (tenant, namespace, key) DO UPDATE
                SET version = greatest(i.version + 1, excluded.version), request_id = excluded.request_id,
                    type = excluded.type, data = excluded.data,
                    doc = excluded.doc, words = excluded.words, vectors = excluded.vectors, replaced_vectors = i.vectors,
                    bytes = excluded.bytes, ttl = excluded.ttl, expires_at = excluded.expires_at,
                    created_at = CASE WHEN i.expires_at <= x_now THEN x_stored_at ELSE i.created_at END,
                    updated_at = x_stored_at
                WHERE i.expires_at <= x_now OR (x.expected IS NULL AND i.request_id <> x.request)
                RETURNING i.version, i.replaced_vectors INTO o_version, x_vectors;
            END IF;
        END IF;
        IF o_version IS NULL THEN
            -- Nothing was changed. If another call is about to store it, that call counts as later.
            SELECT i.version, i.request_id INTO o_version, x_request
            FROM __schema__.items AS i
            WHERE i.tenant = p_tenant AND i.namespace = x.namespace AND i.key = x.key
                AND (i.expires_at IS NULL OR i.expires_at > x_now);
            o_version := coalesce(o_version, 0);
            IF x.type IS NULL THEN
                o_outcome := CASE WHEN x.expected IS NULL OR x.expected = o_version THEN 'absent' ELSE 'conflict' END;
            ELSIF x_request IS DISTINCT FROM x.request THEN
                o_outcome := 'conflict';
            END IF;
        ELSE
            -- Without pgvector there are no vectors, and no such table.
            IF x_vectors > 0 THEN
                DELETE FROM __schema__.item_vectors AS v
                WHERE v.tenant = p_tenant AND v.namespace = x.namespace AND v.key = x.key;
            END IF;
            IF x.type IS NOT NULL AND x.vectors > 0 THEN
                INSERT INTO __schema__.item_vectors (tenant, namespace, key, position, path, dims, embedding)
                SELECT
                    p_tenant, x.namespace, x.key, row_number() OVER (), v.path, v.dims,
                    p_components[v.start + 1 : v.start + v.dims]::vector
                FROM unnest(p_owners, p_paths, p_dims, p_starts) AS v (owner, path, dims, start)
                WHERE v.owner = x.position;
            END IF;
        END IF;
        RETURN NEXT;
        o_version := NULL;
    END LOOP;
    IF x_expiring THEN
        INSERT INTO __schema__.item_sweeps (tenant, due_at) VALUES (p_tenant, clock_timestamp()) ON CONFLICT DO NOTHING;
    END IF;
END
$$;

-- Stores the vectors of the items that put_items has stored: p_stored_namespaces, p_stored_keys.
CREATE FUNCTION __schema__.put_item_vectors(
    p_tenant text, p_stored_namespaces text[], p_stored_keys text[], p_namespaces text[], p_keys text[],
    p_owners integer[], p_paths text[], p_dims integer[], p_starts integer[], p_components real[]
) RETURNS void LANGUAGE plpgsql
-- These are no look-ups in tables.
SET enable_hashjoin = on
AS $$
BEGIN
    INSERT INTO __schema__.item_vectors (tenant, namespace, key, position, path, dims, embedding)
    SELECT
        p_tenant, c.namespace, c.key, row_number() OVER (PARTITION BY v.owner ORDER BY v.start), v.path, v.dims,
        p_components[v.start + 1 : v.start + v.dims]::vector
    FROM unnest(p_owners, p_paths, p_dims, p_starts) AS v (owner, path, dims, start)
    JOIN unnest(p_namespaces, p_keys) WITH ORDINALITY AS c (namespace, key, position) ON c.position = v.owner
    JOIN unnest(p_stored_namespaces, p_stored_keys) AS s (namespace, key) ON s.namespace = c.namespace AND s.key = c.key;
END
$$;

-- Stores different items without preconditions, many in one statement. They must be in the order of their keys, in which
-- change_items locks them.
--
--   p_positions  The order in which they were given.
--   The others are as in change_items; no type is null. An array of nulls may be null itself.
--
--   Returns the new versions, in the order of the keys. An item that the same call has already stored has no row.
CREATE FUNCTION __schema__.put_items(
    p_tenant text, p_positions integer[], p_namespaces text[], p_keys text[], p_requests bytea[], p_types text[],
    p_data bytea[], p_docs text[], p_texts text[], p_languages text[], p_ttls float8[], p_vectors integer[],
    p_vector_bytes integer[], p_owners integer[], p_paths text[], p_dims integer[], p_starts integer[], p_components real[]
) RETURNS TABLE (o_namespace text, o_key text, o_version bigint) LANGUAGE plpgsql AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_now timestamptz := clock_timestamp();
    x_version bigint := extract(epoch FROM x_now) * 1000000;
    x_replaced integer;
    x_namespaces text[];
    x_keys text[];
BEGIN
    FOR o_namespace, o_key, o_version, x_replaced IN
        INSERT INTO __schema__.items AS i (
            tenant, namespace, key, version, request_id, type, data, doc, words, vectors, bytes, ttl, expires_at, created_at,
            updated_at
        )
        SELECT
            p_tenant, c.namespace, c.key, x_version, c.request, c.type, c.data, c.doc::jsonb,
            to_tsvector(c.language::regconfig, c.text), coalesce(c.vectors, 0),
            octet_length(c.data) + octet_length(c.doc) + coalesce(octet_length(c.text), 0) + coalesce(c.vector_bytes, 0),
            make_interval(secs => c.ttl),
            x_now + c.position * interval '1 microsecond' + make_interval(secs => c.ttl),
            x_now + c.position * interval '1 microsecond', x_now + c.position * interval '1 microsecond'
        FROM unnest(
            p_positions, p_namespaces, p_keys, p_requests, p_types, p_data, p_docs, p_texts, p_languages, p_ttls, p_vectors,
            p_vector_bytes
        ) AS c (position, namespace, key, request, type, data, doc, text, language, ttl, vectors, vector_bytes)
        ON CONFLICT (tenant, namespace, key) DO UPDATE
        SET version = greatest(i.version + 1, excluded.version), request_id = excluded.request_id, type = excluded.type,
            data = excluded.data, doc = excluded.doc, words = excluded.words, vectors = excluded.vectors,
            replaced_vectors = i.vectors, bytes = excluded.bytes, ttl = excluded.ttl, expires_at = excluded.expires_at,
            created_at = CASE WHEN i.expires_at <= x_now THEN excluded.created_at ELSE i.created_at END,
            updated_at = excluded.updated_at
        WHERE i.expires_at <= x_now OR i.request_id <> excluded.request_id
        RETURNING i.namespace, i.key, i.version, i.replaced_vectors + i.vectors
    LOOP
        IF x_replaced > 0 THEN
            x_namespaces := x_namespaces || o_namespace;
            x_keys := x_keys || o_key;
        END IF;
        RETURN NEXT;
    END LOOP;
    IF x_keys IS NOT NULL THEN
        -- Without pgvector there are no vectors, and no such table.
        DELETE FROM __schema__.item_vectors AS v
        USING unnest(x_namespaces, x_keys) AS c (namespace, key)
        WHERE v.tenant = p_tenant AND v.namespace = c.namespace AND v.key = c.key;
        PERFORM __schema__.put_item_vectors(
            p_tenant, x_namespaces, x_keys, p_namespaces, p_keys, p_owners, p_paths, p_dims, p_starts, p_components
        );
    END IF;
    IF p_ttls IS NOT NULL THEN
        INSERT INTO __schema__.item_sweeps (tenant, due_at) VALUES (p_tenant, clock_timestamp()) ON CONFLICT DO NOTHING;
    END IF;
END
$$;

-- Deletes expired items, at most p_limit, and returns how many. Items that are being changed are left for later.
CREATE FUNCTION __schema__.sweep_items(p_tenant text, p_limit integer) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x record;
    x_vectors integer;
    x_gone bigint := 0;
BEGIN
    FOR x IN
        SELECT i.namespace, i.key
        FROM __schema__.items AS i
        WHERE i.tenant = p_tenant AND i.expires_at <= clock_timestamp()
        ORDER BY i.expires_at
        LIMIT p_limit
        FOR NO KEY UPDATE SKIP LOCKED
    LOOP
        DELETE FROM __schema__.items AS i
        WHERE i.tenant = p_tenant AND i.namespace = x.namespace AND i.key = x.key AND i.expires_at <= clock_timestamp()
        RETURNING i.vectors INTO x_vectors;
        IF x_vectors > 0 THEN
            DELETE FROM __schema__.item_vectors AS v
            WHERE v.tenant = p_tenant AND v.namespace = x.namespace AND v.key = x.key;
        END IF;
        x_gone := x_gone + 1;
    END LOOP;
    RETURN x_gone;
END
$$;
