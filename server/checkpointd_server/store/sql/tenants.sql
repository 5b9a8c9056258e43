-- Tenants: usage, quotas and purges: migrations/0011_tenants.

-- name: note_tenants
-- Registers tenants that have called.
INSERT INTO __schema__.tenants (tenant) SELECT seen.tenant FROM unnest($1::text[]) AS seen (tenant)
ON CONFLICT (tenant) DO NOTHING

-- name: list_tenants
-- Returns the tenants after a name, at most $2, with their quotas.
SELECT t.tenant, t.max_bytes, t.max_threads, t.max_calls_per_second, t.noted_at
FROM __schema__.tenants AS t
WHERE t.tenant > $1
ORDER BY t.tenant
LIMIT $2

-- name: read_quotas
-- Returns the quotas of some tenants.
SELECT t.tenant, t.max_bytes, t.max_threads, t.max_calls_per_second, t.noted_at
FROM __schema__.tenants AS t
WHERE t.tenant = ANY ($1::text[])

-- name: set_quotas
-- Sets the quotas of a tenant. $2: whether to clear all first; then each quota, null: unchanged.
INSERT INTO __schema__.tenants AS t (tenant, max_bytes, max_threads, max_calls_per_second) VALUES ($1, $3, $4, $5)
ON CONFLICT (tenant) DO UPDATE SET
    max_bytes = coalesce(excluded.max_bytes, CASE WHEN NOT $2::boolean THEN t.max_bytes END),
    max_threads = coalesce(excluded.max_threads, CASE WHEN NOT $2::boolean THEN t.max_threads END),
    max_calls_per_second = coalesce(
        excluded.max_calls_per_second, CASE WHEN NOT $2::boolean THEN t.max_calls_per_second END
    )
RETURNING t.tenant, t.max_bytes, t.max_threads, t.max_calls_per_second, t.noted_at

-- name: tenant_usage
-- Returns a tenant's usage.
SELECT * FROM __schema__.tenant_usage($1)

-- name: item_usage
-- Returns the usage of a tenant's items.
SELECT * FROM __schema__.item_usage($1)

-- name: known_threads
-- Returns those of some threads that aren't empty.
SELECT * FROM __schema__.known_threads($1, $2)

-- name: tenant_statistics
-- Returns statistics from the rows of a tenant's threads.
SELECT * FROM __schema__.tenant_statistics($1, $2, $3, $4)

-- name: measure_thread
-- Measures the contents of a thread.
SELECT * FROM __schema__.measure_thread($1, $2, $3, $4)

-- name: threads_to_purge
-- Returns threads of a tenant that existed at a time.
SELECT * FROM __schema__.threads_to_purge($1, $2, $3, $4)

-- name: find_to_purge
-- Returns the keys of threads that match a filter.
SELECT * FROM __schema__.find_to_purge($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)

-- name: purge_thread
-- Purges a thread.
SELECT * FROM __schema__.purge_thread($1, $2, $3)

-- name: purge_items
-- Purges items of a tenant.
SELECT __schema__.purge_items($1, $2)

-- name: purge_tenant
-- Purges what a tenant has besides its threads and items.
SELECT * FROM __schema__.purge_tenant($1)
