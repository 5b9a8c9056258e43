-- A put that brings pieces, or refers to them, is one statement, as others are. That statement's snapshot is older than the
-- lock which keeps sweeps away, so it may not ask by itself which pieces are there: what a function asks, it asks of the
-- moment (under READ COMMITTED).

-- Keeps sweeps from a thread until the end of the transaction, and returns those of the digests $3 that the thread doesn't
-- have; null if it is being swept just now. It doesn't wait: what has to be asked again, the statement around it too.
CREATE FUNCTION __schema__.missing_pieces(tenant text, thread_id text, digests bytea[]) RETURNS bytea[]
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock_shared('__schema__.pieces'::regclass::oid::integer, hashtext($1 || '/' || $2)) THEN
        RETURN NULL;
    END IF;
    RETURN ARRAY(
        SELECT needed.digest
        FROM unnest($3) AS needed (digest)
        WHERE (
            SELECT true
            FROM __schema__.pieces AS p
            WHERE p.tenant = $1 AND p.thread_id = $2 AND p.digest = needed.digest
            LIMIT 1
        ) IS NULL
    );
END
$$;

-- Stores those of the pieces ($3, $4, $5) that the thread hasn't yet. Whoever calls it has kept sweeps away. $6: when they
-- were sent ahead of their put; null: they come with it. $7: that nothing may refer to some of them; then the thread is
-- looked at.
CREATE FUNCTION __schema__.store_pieces(
    tenant text,
    thread_id text,
    digests bytea[],
    compressions smallint[],
    contents bytea[],
    uploaded_at timestamptz,
    unsure boolean
) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    WITH fresh AS MATERIALIZED (
        SELECT given.digest, given.compression, given.data, nextval('__schema__.piece_content_ids') AS content_id
        FROM unnest($3, $4, $5) AS given (digest, compression, data)
        WHERE (
            SELECT true
            FROM __schema__.pieces AS p
            WHERE p.tenant = $1 AND p.thread_id = $2 AND p.digest = given.digest
            LIMIT 1
        ) IS NULL
    ),
    named AS (
        -- In one order in all transactions, so that two that store the same pieces don't wait for each other.
        INSERT INTO __schema__.pieces (tenant, thread_id, digest, content_id, uploaded_at)
        SELECT $1, $2, fresh.digest, fresh.content_id, $6
        FROM fresh
        ORDER BY fresh.digest
        ON CONFLICT DO NOTHING
        RETURNING content_id
    )
    -- What the pieces hold that got a name. IS TRUE makes it a look-up in a hash table: a join is planned as a loop over all
    -- pairs.
    INSERT INTO __schema__.piece_contents (tenant, content_id, compression, data)
    SELECT $1, fresh.content_id, fresh.compression, fresh.data
    FROM fresh
    WHERE (fresh.content_id IN (SELECT named.content_id FROM named)) IS TRUE;
    IF $7 THEN
        INSERT INTO __schema__.piece_sweeps AS s (tenant, thread_id, due_at)
        VALUES ($1, $2, now())
        ON CONFLICT ON CONSTRAINT piece_sweeps_pkey DO UPDATE SET due_at = excluded.due_at;
    END IF;
END
$$;
