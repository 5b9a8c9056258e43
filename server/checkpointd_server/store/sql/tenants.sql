-- Whom a connection acts for. Row-level security (migration 4) goes by it.

-- name: row_security_binds
-- Whether row-level security binds the role that the server has.
SELECT NOT (r.rolsuper OR r.rolbypassrls) FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user

-- name: act_for
-- Lets a connection act for the tenant $1, until it is told otherwise.
SELECT set_config('checkpointd.tenant', $1, false)

-- name: act_for_in_transaction
-- Lets a transaction act for a tenant until its end. Sent together with the BEGIN, so nothing can be bound: the tenant's
-- name takes the place of the word in hexadecimal.
SELECT set_config('checkpointd.tenant', convert_from(decode('__tenant__', 'hex'), 'UTF8'), true)
