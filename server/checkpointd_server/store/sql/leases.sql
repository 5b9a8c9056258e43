-- Leases: migrations/0001_core/08_leases.sql.

-- name: acquire_lease
-- Takes the lease if it is free, or joins the queue for it.
SELECT * FROM __schema__.acquire_lease($1, $2, $3, $4, $5, $6)

-- name: await_lease
-- Records that a holder still waits, and returns whether its turn has come.
SELECT * FROM __schema__.await_lease($1, $2, $3)

-- name: renew_lease
-- Renews a lease, and returns whether it was in force.
SELECT * FROM __schema__.renew_lease($1, $2, $3, $4)

-- name: release_lease
-- Releases a lease or leaves the queue, and returns whether it was a lease in force.
SELECT * FROM __schema__.release_lease($1, $2, $3)

-- name: get_lease
-- Returns the lease in force, and how many wait for it.
SELECT * FROM __schema__.get_lease($1, $2)
