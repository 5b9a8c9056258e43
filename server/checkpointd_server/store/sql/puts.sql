-- Writing checkpoints and task writes: one statement each. The first step locks the namespace's head and checks the
-- precondition; everything else reads FROM it, so nothing happens where it returns no row. Under READ COMMITTED the
-- sub-statements share one snapshot, but UPDATE, ON CONFLICT DO UPDATE and FOR SHARE check their WHERE again on the
-- latest version of the row once they hold its lock: only conditions on the head's own columns are safe there. Leases are
-- another matter; leases.sql tells how they bind. So are pieces: migration 7.

-- fragment: checkpoint_replaced
-- What a put changes of a checkpoint that is there already.
parent_checkpoint_id = excluded.parent_checkpoint_id,
version = excluded.version,
request_id = excluded.request_id,
body = excluded.body,
channels = excluded.channels,
channel_versions = excluded.channel_versions,
metadata_type = excluded.metadata_type,
metadata = excluded.metadata,
metadata_index = excluded.metadata_index,
run_id = excluded.run_id

-- fragment: write_replaced
-- What a special write (idx below 0) changes of the task write that is there already. Regular ones never replace one, nor
-- does a call that was here before: it is sent again, and what replaced it came later.
task_path = excluded.task_path,
channel = excluded.channel,
type = excluded.type,
data = excluded.data,
size = excluded.size,
request_id = excluded.request_id,
replaced_request_ids = CASE
    WHEN present.request_id IS NULL THEN present.replaced_request_ids
    ELSE (array_prepend(present.request_id, present.replaced_request_ids))[:8]
END
WHERE excluded.idx < 0
    AND present.request_id IS DISTINCT FROM excluded.request_id
    AND (excluded.request_id = ANY (present.replaced_request_ids)) IS NOT TRUE

-- fragment: put_checkpoint_rows
-- The checkpoint, the values that changed and those that became empty. Channels that are empty at their version have no
-- row.
checkpoint AS (
    INSERT INTO __schema__.checkpoints (
        tenant, thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, version, request_id, body,
        channels, channel_versions, metadata_type, metadata, metadata_index, run_id
    )
    SELECT $1, $2, $3, $4, $5, head.version, $14, $6, $7::text[], $8::text[], $9, $10, $11::jsonb, $12
    FROM head
    ON CONFLICT (tenant, thread_id, checkpoint_ns, checkpoint_id) DO UPDATE SET
        -- include: checkpoint_replaced
),
filled AS (
    INSERT INTO __schema__.channel_values AS stored (
        tenant, thread_id, checkpoint_ns, channel, version, type, data, size
    )
    SELECT $1, $2, $3, given.channel, given.version, given.type, given.data, given.size
    FROM head, unnest($15::text[], $16::text[], $17::text[], $18::bytea[], $24::bigint[])
        AS given (channel, version, type, data, size)
    ON CONFLICT (tenant, thread_id, checkpoint_ns, channel, version) DO UPDATE SET
        type = excluded.type,
        data = excluded.data,
        size = excluded.size
    WHERE (stored.type, stored.data, stored.size) IS DISTINCT FROM (excluded.type, excluded.data, excluded.size)
),
to_empty AS MATERIALIZED (
    SELECT array_agg(stored.ctid) AS ctids
    FROM head, unnest($19::text[], $20::text[]) AS given (channel, version)
    CROSS JOIN LATERAL (
        SELECT v.ctid
        FROM __schema__.channel_values AS v
        WHERE v.tenant = $1 AND v.thread_id = $2 AND v.checkpoint_ns = $3
            AND v.channel = given.channel AND v.version = given.version
        LIMIT 1
    ) AS stored
),
emptied AS (
    -- Most often there is nothing to delete. Asked first, that costs nothing, whatever way the planner finds to the rows.
    DELETE FROM __schema__.channel_values
    WHERE (SELECT to_empty.ctids IS NOT NULL FROM to_empty) AND ctid = ANY ((SELECT to_empty.ctids FROM to_empty)::tid[])
)

-- fragment: writes_put_along
-- Task writes of one run that go with its put, each beside its own checkpoint. The put's head decides for them too.
, stored AS (
    INSERT INTO __schema__.task_writes AS present (
        tenant, thread_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, data, size, request_id
    )
    SELECT
        $1, $2, $3, given.checkpoint_id, given.task_id, given.idx, given.task_path, given.channel, given.type,
        given.data, given.size, given.request_id
    FROM head,
        unnest(
            $25::text[], $26::text[], $27::integer[], $28::text[], $29::text[], $30::text[], $31::bytea[],
            $32::bigint[], $33::bytea[]
        ) AS given (checkpoint_id, task_id, idx, task_path, channel, type, data, size, request_id)
    ON CONFLICT (tenant, thread_id, checkpoint_ns, checkpoint_id, task_id, idx) DO UPDATE SET
        -- include: write_replaced
    RETURNING 1
)

-- fragment: put_result
-- The version, null if nothing was stored, the token that the lease check compared with, and the pieces that are missing.
SELECT
    (SELECT head.version FROM head) AS version,
    (SELECT lease.token FROM lease) AS lease_token,
    (SELECT missing.digests FROM missing) AS missing_pieces

-- fragment: head_that_may_be_new
-- The head of a namespace that may be new. $21: whatever is there; otherwise only the writer $22 may have been there
-- before.
head AS (
    INSERT INTO __schema__.namespaces AS n (
        tenant, thread_id, checkpoint_ns, version, last_checkpoint_id, last_writer, last_request_id
    )
    SELECT $1, $2, $3, nextval('__schema__.versions'), $4, $13::bytea, $14::bytea
    WHERE (SELECT missing.digests FROM missing) = '{}'
        AND NOT EXISTS (
            SELECT FROM __schema__.checkpoints AS c
            WHERE c.tenant = $1 AND c.thread_id = $2 AND c.checkpoint_ns = $3 AND c.checkpoint_id = $4
                AND c.request_id = $14
        )
        AND (SELECT lease.token FROM lease) = $23::bigint
    ON CONFLICT (tenant, thread_id, checkpoint_ns) DO UPDATE SET
        -- Not excluded.version: that was drawn before the row was locked, and another put may have drawn a greater one.
        version = nextval('__schema__.versions'),
        last_checkpoint_id = excluded.last_checkpoint_id,
        last_writer = excluded.last_writer,
        last_request_id = excluded.last_request_id,
        pruned_below = NULL
    WHERE ($21::boolean OR n.last_writer = $22::bytea) AND n.last_request_id IS DISTINCT FROM excluded.last_request_id
    RETURNING n.version
),

-- fragment: head_that_is_there
-- The head of a namespace that must have the version $21 or the last writer $22. An UPDATE, since an INSERT could raise a
-- thread from the dead that is being deleted.
head AS (
    UPDATE __schema__.namespaces AS n SET
        version = nextval('__schema__.versions'),
        last_checkpoint_id = $4,
        last_writer = $13::bytea,
        last_request_id = $14::bytea,
        pruned_below = NULL
    WHERE n.tenant = $1 AND n.thread_id = $2 AND n.checkpoint_ns = $3
        AND (SELECT missing.digests FROM missing) = '{}'
        AND (SELECT lease.token FROM lease) = $23::bigint
        AND (n.version = $21::bigint OR n.last_writer = $22::bytea)
        AND ($5::text COLLATE "C" >= n.pruned_below) IS NOT FALSE
        AND n.last_request_id IS DISTINCT FROM $14::bytea
        AND NOT EXISTS (
            SELECT FROM __schema__.checkpoints AS c
            WHERE c.tenant = $1 AND c.thread_id = $2 AND c.checkpoint_ns = $3 AND c.checkpoint_id = $4
                AND c.request_id = $14
        )
    RETURNING n.version
),

-- fragment: no_pieces
-- For statements that store none.
missing AS NOT MATERIALIZED (SELECT '{}'::bytea[] AS digests),

-- fragment: pieces_along
-- Task writes ($25 to $33) and pieces that go with a put: those that are referred to without being brought, and those brought.
given_pieces AS NOT MATERIALIZED (
    SELECT
        $34::bytea[] AS referred, $35::bytea[] AS brought, $36::smallint[] AS compressions, $37::bytea[] AS contents,
        cardinality($26::text[]) AS writes
),

-- fragment: pieces_missing
-- Those of the pieces referred to that the thread doesn't have; null while it is swept. Asked before the head is: a sweep is
-- kept away before anything is locked.
missing AS MATERIALIZED (
    SELECT
        CASE
            WHEN given.referred = '{}' AND given.brought = '{}' THEN '{}'
            ELSE __schema__.missing_pieces($1, $2, given.referred)
        END AS digests
    FROM given_pieces AS given
),

-- fragment: pieces_stored
-- Where a task write was here before, and isn't replaced, nothing may refer to its pieces.
, brought AS MATERIALIZED (
    SELECT
        __schema__.store_pieces(
            $1, $2, given.brought, given.compressions, given.contents, NULL,
            (SELECT count(*) FROM stored) < given.writes
        ) AS done
    FROM head, given_pieces AS given
    WHERE given.brought <> '{}'
)
-- include: put_result
, (SELECT count(brought.done) FROM brought) AS brought

-- name: put_checkpoint
-- Stores a checkpoint in a namespace that may be new.
WITH
-- include: no_pieces
-- include: lease
-- include: head_that_may_be_new
-- include: put_checkpoint_rows
-- include: put_result

-- name: put_checkpoint_if
-- Stores a checkpoint in a namespace that is there.
WITH
-- include: no_pieces
-- include: lease
-- include: head_that_is_there
-- include: put_checkpoint_rows
-- include: put_result

-- name: put_with_more
-- Stores a checkpoint in a namespace that may be new, and with it task writes ($25 to $33) and pieces.
WITH
-- include: pieces_along
-- include: pieces_missing
-- include: lease
-- include: head_that_may_be_new
-- include: put_checkpoint_rows
-- include: writes_put_along
-- include: pieces_stored

-- name: put_with_more_if
-- Stores a checkpoint in a namespace that is there, and with it task writes ($25 to $33) and pieces.
WITH
-- include: pieces_along
-- include: pieces_missing
-- include: lease
-- include: head_that_is_there
-- include: put_checkpoint_rows
-- include: writes_put_along
-- include: pieces_stored

-- name: explain_put
-- Why a put stored nothing: the version that the same put was given before, what the namespace's head is now, and whether
-- the head was put under the same request id, whatever checkpoint that was, and whether or not it is still there. The lock
-- makes this a transaction that writes: so the answer waits for a synchronous standby, as the put itself may not have
-- (PostgreSQL keeps a commit whose wait was cancelled).
SELECT
    (
        SELECT c.version
        FROM __schema__.checkpoints AS c
        WHERE c.tenant = $1 AND c.thread_id = $2 AND c.checkpoint_ns = $3 AND c.checkpoint_id = $4 AND c.request_id = $5
        FOR SHARE
    ) AS stored_version,
    n.version,
    n.last_checkpoint_id,
    n.last_request_id IS NOT DISTINCT FROM $5 AS is_last_request
FROM (SELECT) AS one
LEFT JOIN __schema__.namespaces AS n ON n.tenant = $1 AND n.thread_id = $2 AND n.checkpoint_ns = $3

-- fragment: put_writes_rows
-- Returns a row for each write that was stored: not where there is one that it doesn't replace.
INSERT INTO __schema__.task_writes AS present (
    tenant, thread_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, data, size, request_id
)
SELECT
    $1, $2, $3, $4, given.task_id, given.idx, given.task_path, given.channel, given.type, given.data, given.size, $13
FROM head,
    unnest($5::text[], $6::integer[], $7::text[], $8::text[], $9::text[], $10::bytea[], $12::bigint[])
        AS given (task_id, idx, task_path, channel, type, data, size)
ON CONFLICT (tenant, thread_id, checkpoint_ns, checkpoint_id, task_id, idx) DO UPDATE SET
    -- include: write_replaced

-- fragment: pieces_of_writes
-- As pieces_along, of task writes alone.
given_pieces AS NOT MATERIALIZED (
    SELECT
        $14::bytea[] AS referred, $15::bytea[] AS brought, $16::smallint[] AS compressions, $17::bytea[] AS contents,
        cardinality($5::text[]) AS writes
),

-- name: put_writes
-- Stores task writes, whatever is there.
WITH
-- include: pieces_of_writes
-- include: pieces_missing
-- include: lease
head AS (
    SELECT coalesce(max(n.version), 0) AS version
    FROM __schema__.namespaces AS n
    WHERE n.tenant = $1 AND n.thread_id = $2 AND n.checkpoint_ns = $3
    HAVING (SELECT missing.digests FROM missing) = '{}' AND (SELECT lease.token FROM lease) = $11::bigint
),
stored AS (
    -- include: put_writes_rows
    RETURNING 1
)
-- include: pieces_stored

-- name: put_writes_if
-- Stores task writes in a namespace that must have the version $18 or the last writer $19. The lock keeps puts from
-- committing between the check and the writes.
WITH
-- include: pieces_of_writes
-- include: pieces_missing
-- include: lease
locked AS MATERIALIZED (
    SELECT n.version
    FROM __schema__.namespaces AS n
    WHERE n.tenant = $1 AND n.thread_id = $2 AND n.checkpoint_ns = $3
        AND (SELECT missing.digests FROM missing) = '{}'
        AND (SELECT lease.token FROM lease) = $11::bigint
        AND (n.version = $18::bigint OR n.last_writer = $19::bytea)
    FOR SHARE
),
head AS MATERIALIZED (
    SELECT locked.version FROM locked
    UNION ALL
    SELECT 0
    WHERE $18::bigint = 0
        AND (SELECT missing.digests FROM missing) = '{}'
        AND (SELECT lease.token FROM lease) = $11::bigint
        AND NOT EXISTS (
            SELECT FROM __schema__.namespaces AS n
            WHERE n.tenant = $1 AND n.thread_id = $2 AND n.checkpoint_ns = $3
        )
),
stored AS (
    -- include: put_writes_rows
    RETURNING 1
)
-- include: pieces_stored

-- name: explain_writes
-- Why task writes were not stored: whether the same call has stored them before, and what the namespace's head is now. It
-- has if one of the places ($6, $7) knows it, and each of them holds something. The locks are there for what explain_put
-- says of them.
WITH present AS MATERIALIZED (
    SELECT w.request_id = $5 OR $5 = ANY (w.replaced_request_ids) AS knows_it
    FROM unnest($6::text[], $7::integer[]) AS given (task_id, idx)
    CROSS JOIN LATERAL (
        SELECT w.request_id, w.replaced_request_ids
        FROM __schema__.task_writes AS w
        WHERE w.tenant = $1 AND w.thread_id = $2 AND w.checkpoint_ns = $3 AND w.checkpoint_id = $4
            AND w.task_id = given.task_id AND w.idx = given.idx
        FOR SHARE
    ) AS w
)
SELECT
    (
        SELECT count(*) = cardinality($7::integer[]) AND coalesce(bool_or(present.knows_it), false) FROM present
    ) AS was_stored,
    n.version,
    n.last_checkpoint_id
FROM (SELECT) AS one
LEFT JOIN __schema__.namespaces AS n ON n.tenant = $1 AND n.thread_id = $2 AND n.checkpoint_ns = $3
