-- Leases. How they bind writes:
--
-- A put reads the lease in its own statement (fragment `lease`). It goes through if it names the token in force, or none
-- where there is no row. It never takes an expired row for none: it has the row deleted first (forget_expired_lease),
-- which can't happen beside a renewal, for both lock the row.
--
-- A put whose snapshot is older than a lease doesn't see it. So a grant isn't told to its holder before the puts that
-- were under way when it was committed have ended (writers_under_way).
--
-- Work on whole threads takes longer than one statement. It keeps leases from being granted while it lasts
-- (hold_off_leases), and those that it was allowed to work under from ending (lease_states).

-- fragment: lease
-- The token of the lease in force on the thread; 0: there is none; -1: it has expired. PostgreSQL locks the tables of a
-- statement before it takes the statement's snapshot, and writers_under_way relies on it.
lease AS MATERIALIZED (
    SELECT coalesce(
        (
            SELECT CASE WHEN l.expires_at > clock_timestamp() THEN l.token ELSE -1 END
            FROM __schema__.leases AS l
            WHERE l.tenant = $1 AND l.thread_id = $2
        ),
        0
    ) AS token
),

-- name: writers_under_way
-- The puts that are at work in this database, as their virtual transaction ids. A put writes to namespaces or
-- task_writes and reads leases; nothing else holds both kinds of locks, and a backup holds none of the first.
SELECT l.virtualtransaction
FROM pg_catalog.pg_locks AS l
WHERE l.locktype = 'relation' AND l.pid <> pg_backend_pid()
    AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())
GROUP BY l.virtualtransaction
HAVING bool_or(l.relation = '__schema__.leases'::regclass AND l.mode = 'AccessShareLock')
    AND bool_or(
        l.relation IN ('__schema__.namespaces'::regclass, '__schema__.task_writes'::regclass)
        AND l.mode = 'RowExclusiveLock'
    )

-- name: lock_line
-- Puts those who ask for the lease on one thread in order, until the end of the transaction.
SELECT pg_advisory_xact_lock('__schema__.leases'::regclass::oid::integer, hashtext($1::text || '/' || $2::text))

-- name: grant_lease
-- Grants the lease to the holder $3 for $4 seconds, if it is free and his turn: nobody who still waits came earlier. He
-- leaves the line then. Returns the token; or else whether it is his turn, and the lease that is there: whether it is
-- his own, and how long it lives, which is 0 or less for an expired one.
WITH present AS MATERIALIZED (
    SELECT l.holder = $3::bytea AS own, l.token, extract(epoch FROM l.expires_at - clock_timestamp()) AS remaining
    FROM __schema__.leases AS l
    WHERE l.tenant = $1 AND l.thread_id = $2
),
line AS MATERIALIZED (
    SELECT NOT EXISTS (
        SELECT FROM __schema__.lease_waiters AS w
        WHERE w.tenant = $1 AND w.thread_id = $2 AND w.holder <> $3
            AND w.seen_at > clock_timestamp() - interval '5 seconds'
            AND NOT EXISTS (
                SELECT FROM __schema__.lease_waiters AS own
                WHERE own.tenant = $1 AND own.thread_id = $2 AND own.holder = $3 AND own.ticket < w.ticket
            )
    ) AS turn
),
granted AS (
    INSERT INTO __schema__.leases AS l (tenant, thread_id, holder, token, expires_at)
    SELECT $1, $2, $3, nextval('__schema__.lease_tokens'), clock_timestamp() + make_interval(secs => $4)
    FROM line
    WHERE line.turn AND NOT EXISTS (SELECT FROM present)
    -- A transaction that held off leases was in the way, but is over when the statement goes on.
    ON CONFLICT DO NOTHING
    RETURNING l.token
),
left_line AS (
    DELETE FROM __schema__.lease_waiters AS w
    USING granted
    WHERE w.tenant = $1 AND w.thread_id = $2 AND w.holder = $3
)
SELECT
    (SELECT granted.token FROM granted) AS granted, line.turn,
    present.own, present.token, present.remaining::float8
FROM line
LEFT JOIN present ON true

-- name: renew_lease
-- Lets the lease with the token $3 live for $4 seconds from now, if it is in force.
UPDATE __schema__.leases AS l SET
    expires_at = clock_timestamp() + make_interval(secs => $4)
WHERE l.tenant = $1 AND l.thread_id = $2 AND l.token = $3 AND l.expires_at > clock_timestamp()
RETURNING extract(epoch FROM l.expires_at - clock_timestamp())::float8

-- name: join_line
-- Lets the holder $3 wait for the lease, at the end of the line or where he is already.
INSERT INTO __schema__.lease_waiters AS w (tenant, thread_id, holder, seen_at)
VALUES ($1, $2, $3, clock_timestamp())
ON CONFLICT (tenant, thread_id, holder) DO UPDATE SET seen_at = excluded.seen_at

-- name: await_turn
-- Shows that the holder $3 still waits. Returns whether nobody is before him, and whether the lease is free. No row: he
-- isn't in the line.
WITH seen AS (
    UPDATE __schema__.lease_waiters AS w SET seen_at = clock_timestamp()
    WHERE w.tenant = $1 AND w.thread_id = $2 AND w.holder = $3 AND w.seen_at < clock_timestamp() - interval '1 second'
)
SELECT
    NOT EXISTS (
        SELECT FROM __schema__.lease_waiters AS w
        WHERE w.tenant = $1 AND w.thread_id = $2 AND w.ticket < own.ticket
            AND w.seen_at > clock_timestamp() - interval '5 seconds'
    ) AS first,
    NOT EXISTS (
        SELECT FROM __schema__.leases AS l
        WHERE l.tenant = $1 AND l.thread_id = $2 AND l.expires_at > clock_timestamp()
    ) AS free
FROM __schema__.lease_waiters AS own
WHERE own.tenant = $1 AND own.thread_id = $2 AND own.holder = $3

-- name: release_lease
-- Ends the lease of the holder $3, also one that has expired, and lets him leave the line. Returns whether it was still
-- in force.
WITH left_line AS (
    DELETE FROM __schema__.lease_waiters AS w
    WHERE w.tenant = $1 AND w.thread_id = $2 AND w.holder = $3
),
released AS (
    DELETE FROM __schema__.leases AS l
    WHERE l.tenant = $1 AND l.thread_id = $2 AND l.holder = $3
    RETURNING l.expires_at > clock_timestamp() AS in_force
)
SELECT coalesce(bool_or(released.in_force), false) FROM released

-- name: read_lease
-- The thread's lease, also an expired one, whose remaining time is 0 or less; and how many wait for it.
SELECT
    l.token, extract(epoch FROM l.expires_at - clock_timestamp())::float8 AS remaining,
    (
        SELECT count(*)
        FROM __schema__.lease_waiters AS w
        WHERE w.tenant = $1 AND w.thread_id = $2 AND w.seen_at > clock_timestamp() - interval '5 seconds'
    ) AS waiting
FROM (SELECT) AS one
LEFT JOIN __schema__.leases AS l ON l.tenant = $1 AND l.thread_id = $2

-- name: forget_expired_lease
-- Ends the thread's lease if it has expired.
DELETE FROM __schema__.leases AS l
WHERE l.tenant = $1 AND l.thread_id = $2 AND l.expires_at <= clock_timestamp()

-- name: sweep_leases
-- Deletes what nobody of a tenant came to delete: leases that expired, and places in line that were left. A few at a time,
-- and none that another is at work on.
WITH expired AS (
    DELETE FROM __schema__.leases
    WHERE ctid = ANY (ARRAY (
        SELECT l.ctid
        FROM __schema__.leases AS l
        WHERE l.tenant = $1 AND l.expires_at < clock_timestamp() - interval '1 minute'
        LIMIT 1000
        FOR UPDATE SKIP LOCKED
    ))
)
DELETE FROM __schema__.lease_waiters
WHERE ctid = ANY (ARRAY (
    SELECT w.ctid
    FROM __schema__.lease_waiters AS w
    WHERE w.tenant = $1 AND w.seen_at < clock_timestamp() - interval '1 minute'
    LIMIT 1000
    FOR UPDATE SKIP LOCKED
))

-- name: hold_off_leases
-- Marks those of the threads $2 that have no lease, so that none is granted before the transaction ends, and returns
-- them. Waits for those who are at it too. The marks are to be deleted by the same transaction (let_leases_on).
INSERT INTO __schema__.leases AS l (tenant, thread_id, holder, token, expires_at)
SELECT $1, given.thread_id, '', 0, '-infinity'
FROM unnest($2::text[]) AS given (thread_id)
ORDER BY given.thread_id COLLATE "C"
ON CONFLICT DO NOTHING
RETURNING l.thread_id

-- name: lease_states
-- The leases on the threads $2, with how long they live. They can be renewed until the transaction ends, but don't end
-- before it does.
SELECT l.thread_id, l.token, extract(epoch FROM l.expires_at - clock_timestamp())::float8 AS remaining
FROM __schema__.leases AS l
WHERE l.tenant = $1 AND l.thread_id = ANY ($2::text[]) AND l.token > 0
ORDER BY l.thread_id
FOR KEY SHARE

-- name: let_leases_on
-- Takes back what hold_off_leases did to the threads $2.
DELETE FROM __schema__.leases AS l
WHERE l.tenant = $1 AND l.thread_id = ANY ($2::text[]) AND l.token = 0
