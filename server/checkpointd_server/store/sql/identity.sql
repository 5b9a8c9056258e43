-- Which store this is: migrations/0021_moving.

-- name: identity
-- Its id.
SELECT i.id FROM __schema__.identity AS i
