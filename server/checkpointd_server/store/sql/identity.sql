-- The identity of this store: migrations/0021_moving.

-- name: identity
-- Returns its id.
SELECT i.id FROM __schema__.identity AS i
