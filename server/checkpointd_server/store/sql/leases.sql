-- Leases: migrations/0001_core/08_leases.sql.

-- name: acquire_lease
-- Takes the lease if it is free, or a place in line for it.
SELECT * FROM __schema__.acquire_lease($1, $2, $3, $4, $5, $6)

-- name: await_lease
-- Shows that somebody still waits; tells whether its turn has come.
SELECT * FROM __schema__.await_lease($1, $2, $3)

-- name: renew_lease
-- Extends a lease; tells whether it was in force.
SELECT * FROM __schema__.renew_lease($1, $2, $3, $4)

-- name: release_lease
-- Gives up a lease, or a place in line; tells whether it was a lease in force.
SELECT * FROM __schema__.release_lease($1, $2, $3)

-- name: get_lease
-- The lease in force, and how many wait for it.
SELECT * FROM __schema__.get_lease($1, $2)
