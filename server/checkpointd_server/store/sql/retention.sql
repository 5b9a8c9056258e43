-- Retention: migrations/0010_retention.

-- name: set_retention_policy
-- Stores a policy.
SELECT * FROM __schema__.set_retention_policy($1, $2, $3)

-- name: list_retention_policies
-- The policies of a tenant.
SELECT * FROM __schema__.list_retention_policies($1)

-- name: delete_retention_policy
-- Deletes a policy.
SELECT * FROM __schema__.delete_retention_policy($1, $2)

-- name: preview_retention
-- What would be done to a thread.
SELECT * FROM __schema__.preview_retention($1, $2, $3)

-- name: plan_retention
-- What would go of a thread.
SELECT * FROM __schema__.plan_retention($1, $2, $3, $4, $5, $6, $7, $8)

-- name: retain_thread
-- Deletes some of what is to go of a thread.
SELECT * FROM __schema__.retain_thread($1, $2, $3, $4, $5, $6, $7, $8, $9)

-- name: find_garbage
-- The values of a thread that nothing refers to.
SELECT * FROM __schema__.find_garbage($1, $2)

-- name: free_garbage
-- Deletes them.
SELECT * FROM __schema__.free_garbage($1, $2, $3, $4, $5, $6)

-- name: note_retained
-- Notes that a thread was looked at.
SELECT * FROM __schema__.note_retained($1, $2, $3, $4, $5, $6)

-- name: find_to_retain
-- The next threads to look at.
SELECT * FROM __schema__.find_to_retain($1, $2, $3, $4, $5)

-- name: list_expiring
-- What is about to go.
SELECT * FROM __schema__.list_expiring($1, $2, $3, $4)

-- name: acknowledge_expiring
-- Lets it go.
SELECT * FROM __schema__.acknowledge_expiring($1, $2, $3)

-- name: clean_expiring
-- Forgets what was announced of threads that are gone.
SELECT * FROM __schema__.clean_expiring($1)

-- name: set_ttl
-- Gives a thread its time to live.
SELECT * FROM __schema__.set_ttl($1, $2, $3, $4)

-- name: note_read
-- Notes that a thread was read.
SELECT * FROM __schema__.note_read($1, $2)

-- name: register_retention
-- Has the sweeper look after the tenant $1 from now on; $2: its policies have changed.
INSERT INTO __schema__.retention_tenants AS r (tenant, changed_at, next_at)
VALUES ($1, clock_timestamp(), clock_timestamp())
ON CONFLICT (tenant) DO UPDATE SET
    changed_at = clock_timestamp(), next_at = least(r.next_at, clock_timestamp())
WHERE $2

-- name: claim_sweep
-- Makes the server $1 the one that sweeps, for $2 seconds, unless another one is. No row: another one is.
INSERT INTO __schema__.retention_sweeper AS s (is_only, holder, expires_at)
VALUES (true, $1, clock_timestamp() + make_interval(secs => $2))
ON CONFLICT (is_only) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
WHERE s.holder = excluded.holder OR s.expires_at <= clock_timestamp()
RETURNING true

-- name: release_sweep
-- Lets another server sweep.
UPDATE __schema__.retention_sweeper AS s SET expires_at = clock_timestamp() WHERE s.holder = $1

-- name: next_to_sweep
-- The tenant whose turn it is, and where its sweep goes on.
SELECT r.tenant, r.changed_at, r.after_at, r.after_thread
FROM __schema__.retention_tenants AS r
WHERE r.next_at <= clock_timestamp()
ORDER BY r.next_at
LIMIT 1

-- name: note_sweep
-- Notes how far the sweep of the tenant $1 has come: behind $2 and $3; null: it is over, and the next one is due in $4 seconds.
UPDATE __schema__.retention_tenants AS r SET
    after_at = $2, after_thread = $3,
    next_at = CASE WHEN $2::timestamptz IS NULL THEN clock_timestamp() + make_interval(secs => $4) ELSE r.next_at END
WHERE r.tenant = $1
