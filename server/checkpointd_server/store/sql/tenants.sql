-- Tenants: what they hold, may use, and leave: migrations/0011_tenants.

-- name: note_tenants
-- Notes tenants that were seen.
INSERT INTO __schema__.tenants (tenant) SELECT seen.tenant FROM unnest($1::text[]) AS seen (tenant)
ON CONFLICT (tenant) DO NOTHING

-- name: list_tenants
-- The tenants behind a name, at most $2, with their quotas.
SELECT t.tenant, t.max_bytes, t.max_threads, t.max_calls_per_second, t.noted_at
FROM __schema__.tenants AS t
WHERE t.tenant > $1
ORDER BY t.tenant
LIMIT $2

-- name: read_quotas
-- The quotas of some tenants.
SELECT t.tenant, t.max_bytes, t.max_threads, t.max_calls_per_second, t.noted_at
FROM __schema__.tenants AS t
WHERE t.tenant = ANY ($1::text[])

-- name: set_quotas
-- Sets the quotas of a tenant: $2 whether to begin from none of its own, then each; null: as it is.
INSERT INTO __schema__.tenants AS t (tenant, max_bytes, max_threads, max_calls_per_second) VALUES ($1, $3, $4, $5)
ON CONFLICT (tenant) DO UPDATE SET
    max_bytes = coalesce(excluded.max_bytes, CASE WHEN NOT $2::boolean THEN t.max_bytes END),
    max_threads = coalesce(excluded.max_threads, CASE WHEN NOT $2::boolean THEN t.max_threads END),
    max_calls_per_second = coalesce(
        excluded.max_calls_per_second, CASE WHEN NOT $2::boolean THEN t.max_calls_per_second END
    )
RETURNING t.tenant, t.max_bytes, t.max_threads, t.max_calls_per_second, t.noted_at

-- name: tenant_usage
-- What a tenant holds.
SELECT * FROM __schema__.tenant_usage($1)

-- name: item_usage
-- What its items take.
SELECT * FROM __schema__.item_usage($1)

-- name: known_threads
-- Those of some threads that hold anything.
SELECT * FROM __schema__.known_threads($1, $2)

-- name: tenant_statistics
-- What the rows of a tenant's threads tell.
SELECT * FROM __schema__.tenant_statistics($1, $2, $3, $4)

-- name: measure_thread
-- What a thread holds, looked at.
SELECT * FROM __schema__.measure_thread($1, $2, $3, $4)

-- name: threads_to_purge
-- Threads of a tenant that were there at a time.
SELECT * FROM __schema__.threads_to_purge($1, $2, $3, $4)

-- name: find_to_purge
-- Keys of threads that a filter finds.
SELECT * FROM __schema__.find_to_purge($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)

-- name: purge_thread
-- Purges a thread.
SELECT * FROM __schema__.purge_thread($1, $2, $3)

-- name: purge_items
-- Purges items of a tenant.
SELECT __schema__.purge_items($1, $2)

-- name: purge_tenant
-- Purges what a tenant has beside its threads.
SELECT * FROM __schema__.purge_tenant($1)
