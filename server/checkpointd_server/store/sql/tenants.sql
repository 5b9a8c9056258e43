-- Whom a connection acts for. Row-level security (migration 4) goes by it.

-- name: act_for
-- Lets a connection act for the tenant $1, until it is told otherwise.
SELECT set_config('checkpointd.tenant', $1, false)

-- name: act_for_in_transaction
-- Lets a transaction act for a tenant until its end. Sent together with the BEGIN, so nothing can be bound: the tenant's
-- name takes the place of the word in hexadecimal.
SELECT set_config('checkpointd.tenant', convert_from(decode('__tenant__', 'hex'), 'UTF8'), true)
