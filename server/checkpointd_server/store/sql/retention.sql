-- Retention: migrations/0010_retention.

-- name: set_retention_policy
-- Stores a policy.
SELECT * FROM __schema__.set_retention_policy($1, $2, $3)

-- name: list_retention_policies
-- Returns the policies of a tenant.
SELECT * FROM __schema__.list_retention_policies($1)

-- name: delete_retention_policy
-- Deletes a policy.
SELECT * FROM __schema__.delete_retention_policy($1, $2)

-- name: preview_retention
-- Returns what would be done to a thread.
SELECT * FROM __schema__.preview_retention($1, $2, $3)

-- name: plan_retention
-- Returns what would be deleted from a thread.
SELECT * FROM __schema__.plan_retention($1, $2, $3, $4, $5, $6, $7, $8)

-- name: retain_thread
-- Deletes a batch of what is due from a thread.
SELECT * FROM __schema__.retain_thread($1, $2, $3, $4, $5, $6, $7, $8, $9)

-- name: find_garbage
-- Returns the values of a thread that nothing refers to.
SELECT * FROM __schema__.find_garbage($1, $2)

-- name: free_garbage
-- Deletes values that nothing refers to.
SELECT * FROM __schema__.free_garbage($1, $2, $3, $4, $5, $6)

-- name: note_retained
-- Records that a thread was checked.
SELECT * FROM __schema__.note_retained($1, $2, $3, $4, $5, $6)

-- name: find_to_retain
-- Returns the next threads to check.
SELECT * FROM __schema__.find_to_retain($1, $2, $3, $4, $5)

-- name: list_expiring
-- Lists announced deletions.
SELECT * FROM __schema__.list_expiring($1, $2, $3, $4)

-- name: acknowledge_expiring
-- Acknowledges an announced deletion.
SELECT * FROM __schema__.acknowledge_expiring($1, $2, $3)

-- name: clean_expiring
-- Removes announcements that no longer apply.
SELECT * FROM __schema__.clean_expiring($1)

-- name: set_ttl
-- Sets a thread's time to live.
SELECT * FROM __schema__.set_ttl($1, $2, $3, $4)

-- name: note_read
-- Records that a thread was read.
SELECT * FROM __schema__.note_read($1, $2)

-- name: register_retention
-- Registers the tenant $1 for sweeps. $2: whether its policies have changed.
INSERT INTO __schema__.retention_tenants AS r (tenant, changed_at, next_at)
VALUES ($1, clock_timestamp(), clock_timestamp())
ON CONFLICT (tenant) DO UPDATE SET
    changed_at = clock_timestamp(), next_at = least(r.next_at, clock_timestamp())
WHERE $2

-- name: claim_sweep
-- Makes the server $1 the sweeper for $2 seconds, unless another server is. No row: another one is.
INSERT INTO __schema__.retention_sweeper AS s (is_only, holder, expires_at)
VALUES (true, $1, clock_timestamp() + make_interval(secs => $2))
ON CONFLICT (is_only) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
WHERE s.holder = excluded.holder OR s.expires_at <= clock_timestamp()
RETURNING true

-- name: release_sweep
-- Allows another server to sweep.
UPDATE __schema__.retention_sweeper AS s SET expires_at = clock_timestamp() WHERE s.holder = $1

-- name: next_to_sweep
-- Returns the next tenant to sweep, and where its sweep continues.
SELECT r.tenant, r.changed_at, r.after_at, r.after_thread
FROM __schema__.retention_tenants AS r
WHERE r.next_at <= clock_timestamp()
ORDER BY r.next_at
LIMIT 1

-- name: note_sweep
-- Records the progress of the sweep of the tenant $1: up to $2 and $3. Null: it is done, and the next is due in $4 seconds.
UPDATE __schema__.retention_tenants AS r SET
    after_at = $2, after_thread = $3,
    next_at = CASE WHEN $2::timestamptz IS NULL THEN clock_timestamp() + make_interval(secs => $4) ELSE r.next_at END
WHERE r.tenant = $1
