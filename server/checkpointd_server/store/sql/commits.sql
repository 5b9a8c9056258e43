-- Group commit: puts and task writes of many namespaces in one statement. Each is checked and stored as the statements of
-- puts.sql do it alone, and stands for itself: what is refused has no row in the answer, and the others are stored. A
-- namespace appears once: as a put with the writes that go with it, or as writes alone.
--
-- A head that somebody else has locked is passed over (SKIP LOCKED), and so is a thread whose pieces are being swept: its
-- write is refused here, and stored alone, so that the others needn't wait for it.
--
-- Rows are looked up one by one, in subqueries that end in LIMIT 1: a join, or an EXISTS, may be planned as a scan of the
-- whole table while that is tiny, and a prepared statement goes on with its plan.

-- fragment: free_of_leases
-- Whether the lease on the thread of `given` is the one that it names; see leases.sql. An expired one counts as another.
coalesce(
    (
        SELECT CASE WHEN l.expires_at > clock_timestamp() THEN l.token ELSE -1 END
        FROM __schema__.leases AS l
        WHERE l.tenant = given.tenant AND l.thread_id = given.thread_id
    ),
    0
) = given.lease_token

-- fragment: has_its_pieces
AND coalesce(
    (SELECT coalesce(missing.digests = '{}', false) FROM missing WHERE missing.number = given.number),
    true
)

-- name: commit_batch
-- $1 to $18: puts. Their kind is "any" (whatever is there), "new" (nothing may be there, or the writer's own put), or
-- "onto" (the version $17 must be there, or the writer's own put). $19 to $25: task writes without a put; with $23 they
-- expect the version $24 or the writer $25. $26: their lease tokens. $27 to $32: values, $33 to $35: emptied channels,
-- $36 to $45: writes, $46 to $51: pieces, without contents those that are only referred to; each with the number of its put
-- or of its writes, and a write with its own call's request id.
WITH given_piece AS MATERIALIZED (
    SELECT given.*
    FROM unnest($46::integer[], $47::text[], $48::text[], $49::bytea[], $50::smallint[], $51::bytea[])
        AS given (number, tenant, thread_id, digest, compression, data)
),
missing AS MATERIALIZED (
    SELECT
        one.number,
        __schema__.missing_pieces(one.tenant, one.thread_id, coalesce(one.referred, '{}')) AS digests
    FROM (
        SELECT
            given_piece.number, given_piece.tenant, given_piece.thread_id,
            array_agg(given_piece.digest) FILTER (WHERE given_piece.data IS NULL) AS referred
        FROM given_piece
        GROUP BY given_piece.number, given_piece.tenant, given_piece.thread_id
    ) AS one
),
given_put AS MATERIALIZED (
    SELECT
        given.*,
        EXISTS (
            SELECT FROM __schema__.namespaces AS n
            WHERE n.tenant = given.tenant AND n.thread_id = given.thread_id AND n.checkpoint_ns = given.checkpoint_ns
            OFFSET 0
        ) AS has_head,
        -- include: free_of_leases
        AND (
            SELECT c.request_id
            FROM __schema__.checkpoints AS c
            WHERE c.tenant = given.tenant AND c.thread_id = given.thread_id AND c.checkpoint_ns = given.checkpoint_ns
                AND c.checkpoint_id = given.checkpoint_id
            LIMIT 1
        ) IS DISTINCT FROM given.request_id
        -- include: has_its_pieces
        AS unbound
    FROM unnest(
        $1::integer[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[], $8::text[], $9::text[],
        $10::text[], $11::bytea[], $12::text[], $13::text[], $14::bytea[], $15::bytea[], $16::text[], $17::bigint[],
        $18::bigint[]
    ) AS given (
        number, tenant, thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, body, channels, channel_versions,
        metadata_type, metadata, metadata_index, run_id, writer, request_id, kind, expected_version, lease_token
    )
),
unlocked AS MATERIALIZED (
    SELECT given_put.number
    FROM given_put
    CROSS JOIN LATERAL (
        SELECT
        FROM __schema__.namespaces AS n
        WHERE n.tenant = given_put.tenant AND n.thread_id = given_put.thread_id
            AND n.checkpoint_ns = given_put.checkpoint_ns
        FOR UPDATE SKIP LOCKED
    ) AS n
    WHERE given_put.has_head AND given_put.unbound
),
put AS MATERIALIZED (
    SELECT
        given_put.*,
        given_put.unbound AND (NOT given_put.has_head OR given_put.number IN (TABLE unlocked)) AS free
    FROM given_put
),
lone AS MATERIALIZED (
    SELECT
        given.*,
        coalesce(
            (
                SELECT n.version
                FROM __schema__.namespaces AS n
                WHERE n.tenant = given.tenant AND n.thread_id = given.thread_id AND n.checkpoint_ns = given.checkpoint_ns
                LIMIT 1
            ),
            0
        ) AS version,
        -- include: free_of_leases
        -- include: has_its_pieces
        AS free
    FROM unnest(
        $19::integer[], $20::text[], $21::text[], $22::text[], $23::boolean[], $24::bigint[], $25::bytea[], $26::bigint[]
    ) AS given (
        number, tenant, thread_id, checkpoint_ns, conditional, expected_version, writer, lease_token
    )
),
moved AS (
    UPDATE __schema__.namespaces AS n SET
        version = nextval('__schema__.versions'),
        last_checkpoint_id = put.checkpoint_id,
        last_writer = put.writer,
        last_request_id = put.request_id,
        pruned_below = NULL
    FROM put
    WHERE put.kind = 'onto' AND put.free
        AND n.tenant = put.tenant AND n.thread_id = put.thread_id AND n.checkpoint_ns = put.checkpoint_ns
        AND (n.version = put.expected_version OR n.last_writer = put.writer)
        AND (put.parent_checkpoint_id COLLATE "C" >= n.pruned_below) IS NOT FALSE
        AND n.last_request_id IS DISTINCT FROM put.request_id
    RETURNING put.number, n.version
),
made AS (
    INSERT INTO __schema__.namespaces AS n (
        tenant, thread_id, checkpoint_ns, version, last_checkpoint_id, last_writer, last_request_id
    )
    SELECT
        put.tenant, put.thread_id, put.checkpoint_ns, nextval('__schema__.versions'), put.checkpoint_id, put.writer,
        put.request_id
    FROM put
    WHERE put.kind = 'new' AND put.free
    ON CONFLICT (tenant, thread_id, checkpoint_ns) DO UPDATE SET
        version = nextval('__schema__.versions'),
        last_checkpoint_id = excluded.last_checkpoint_id,
        last_writer = excluded.last_writer,
        last_request_id = excluded.last_request_id,
        pruned_below = NULL
    WHERE n.last_writer = excluded.last_writer AND n.last_request_id IS DISTINCT FROM excluded.last_request_id
    RETURNING n.tenant, n.thread_id, n.checkpoint_ns, n.version
),
replaced AS (
    INSERT INTO __schema__.namespaces AS n (
        tenant, thread_id, checkpoint_ns, version, last_checkpoint_id, last_writer, last_request_id
    )
    SELECT
        put.tenant, put.thread_id, put.checkpoint_ns, nextval('__schema__.versions'), put.checkpoint_id, put.writer,
        put.request_id
    FROM put
    WHERE put.kind = 'any' AND put.free
    ON CONFLICT (tenant, thread_id, checkpoint_ns) DO UPDATE SET
        version = nextval('__schema__.versions'),
        last_checkpoint_id = excluded.last_checkpoint_id,
        last_writer = excluded.last_writer,
        last_request_id = excluded.last_request_id,
        pruned_below = NULL
    WHERE n.last_request_id IS DISTINCT FROM excluded.last_request_id
    RETURNING n.tenant, n.thread_id, n.checkpoint_ns, n.version
),
head AS MATERIALIZED (
    SELECT moved.number, moved.version FROM moved
    UNION ALL
    SELECT put.number, one.version
    FROM (TABLE made UNION ALL TABLE replaced) AS one
    JOIN put ON put.tenant = one.tenant AND put.thread_id = one.thread_id AND put.checkpoint_ns = one.checkpoint_ns
),
checkpoint AS (
    INSERT INTO __schema__.checkpoints (
        tenant, thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, version, request_id, body,
        channels, channel_versions, metadata_type, metadata, metadata_index, run_id
    )
    SELECT
        put.tenant, put.thread_id, put.checkpoint_ns, put.checkpoint_id, put.parent_checkpoint_id, head.version,
        put.request_id, put.body, put.channels::text[], put.channel_versions::text[], put.metadata_type, put.metadata,
        put.metadata_index::jsonb, put.run_id
    FROM head JOIN put ON put.number = head.number
    ON CONFLICT (tenant, thread_id, checkpoint_ns, checkpoint_id) DO UPDATE SET
        -- include: checkpoint_replaced
),
filled AS (
    INSERT INTO __schema__.channel_values AS stored (
        tenant, thread_id, checkpoint_ns, channel, version, type, data, size
    )
    SELECT
        put.tenant, put.thread_id, put.checkpoint_ns, given.channel, given.version, given.type, given.data, given.size
    FROM unnest($27::integer[], $28::text[], $29::text[], $30::text[], $31::bytea[], $32::bigint[])
        AS given (number, channel, version, type, data, size)
    JOIN head ON head.number = given.number
    JOIN put ON put.number = given.number
    ON CONFLICT (tenant, thread_id, checkpoint_ns, channel, version) DO UPDATE SET
        type = excluded.type,
        data = excluded.data,
        size = excluded.size
    WHERE (stored.type, stored.data, stored.size) IS DISTINCT FROM (excluded.type, excluded.data, excluded.size)
),
to_empty AS MATERIALIZED (
    SELECT array_agg(stored.ctid) AS ctids
    FROM unnest($33::integer[], $34::text[], $35::text[]) AS given (number, channel, version)
    JOIN head ON head.number = given.number
    JOIN put ON put.number = given.number
    CROSS JOIN LATERAL (
        SELECT v.ctid
        FROM __schema__.channel_values AS v
        WHERE v.tenant = put.tenant AND v.thread_id = put.thread_id AND v.checkpoint_ns = put.checkpoint_ns
            AND v.channel = given.channel AND v.version = given.version
        LIMIT 1
    ) AS stored
),
emptied AS (
    -- As in puts.sql: most often there is nothing to delete.
    DELETE FROM __schema__.channel_values
    WHERE (SELECT to_empty.ctids IS NOT NULL FROM to_empty) AND ctid = ANY ((SELECT to_empty.ctids FROM to_empty)::tid[])
),
locked AS MATERIALIZED (
    SELECT lone.number, n.version
    FROM lone
    JOIN __schema__.namespaces AS n
        ON n.tenant = lone.tenant AND n.thread_id = lone.thread_id AND n.checkpoint_ns = lone.checkpoint_ns
    WHERE lone.conditional AND lone.free AND (n.version = lone.expected_version OR n.last_writer = lone.writer)
    FOR SHARE OF n SKIP LOCKED
),
owner AS MATERIALIZED (
    SELECT head.number, head.version FROM head
    UNION ALL
    SELECT locked.number, locked.version FROM locked
    UNION ALL
    SELECT lone.number, lone.version
    FROM lone
    WHERE lone.free AND (NOT lone.conditional OR (lone.expected_version = 0 AND lone.version = 0))
),
target AS MATERIALIZED (
    SELECT put.number, put.tenant, put.thread_id, put.checkpoint_ns FROM put
    UNION ALL
    SELECT lone.number, lone.tenant, lone.thread_id, lone.checkpoint_ns FROM lone
),
stored AS (
    INSERT INTO __schema__.task_writes AS present (
        tenant, thread_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, data, size, request_id
    )
    SELECT
        target.tenant, target.thread_id, target.checkpoint_ns, given.checkpoint_id, given.task_id, given.idx,
        given.task_path, given.channel, given.type, given.data, given.size, given.request_id
    FROM unnest(
        $36::integer[], $37::text[], $38::text[], $39::integer[], $40::text[], $41::text[], $42::text[], $43::bytea[],
        $44::bigint[], $45::bytea[]
    ) AS given (number, checkpoint_id, task_id, idx, task_path, channel, type, data, size, request_id)
    JOIN owner ON owner.number = given.number
    JOIN target ON target.number = given.number
    ON CONFLICT (tenant, thread_id, checkpoint_ns, checkpoint_id, task_id, idx) DO UPDATE SET
        -- include: write_replaced
    RETURNING 1
),
brought AS MATERIALIZED (
    -- In one order in all transactions.
    SELECT
        given_piece.tenant, given_piece.thread_id,
        __schema__.store_pieces(
            given_piece.tenant, given_piece.thread_id, array_agg(given_piece.digest),
            array_agg(given_piece.compression), array_agg(given_piece.data), NULL,
            -- A task write may have been here before, and not be replaced: then nothing may refer to its pieces.
            (SELECT count(*) FROM stored) < cardinality($36::integer[])
        ) AS done
    FROM given_piece JOIN owner ON owner.number = given_piece.number
    WHERE given_piece.data IS NOT NULL
    GROUP BY given_piece.tenant, given_piece.thread_id
    ORDER BY given_piece.tenant, given_piece.thread_id
)
SELECT owner.number, owner.version FROM owner WHERE (SELECT count(*) FROM brought) IS NOT NULL
