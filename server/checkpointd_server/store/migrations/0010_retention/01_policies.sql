-- compatibility: additive

-- Retention: which threads are kept, and how much of each. Policies belong to a tenant. What is deleted is decided thread by
-- thread, in the call that deletes it (03_deletions.sql), under the thread's lock.

CREATE TABLE __schema__.retention_policies (
    tenant text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    -- The threads that it applies to: the prefix of their names, and what the latest checkpoint's metadata contains. Null: any.
    prefix text COLLATE "C" NOT NULL,
    metadata jsonb,
    -- Deletes threads that were idle for longer than this; with deletes_interrupted, interrupted ones too.
    max_idle_seconds bigint,
    deletes_interrupted boolean NOT NULL,
    -- Delete checkpoints of the root namespace and of subgraphs with their own memory, but never the newest: those older than
    -- this; all but this number of the newest; all but the last of each run; the oldest, until the thread has at most this size.
    max_age_seconds bigint,
    keep_newest bigint,
    keep_last_of_run boolean NOT NULL,
    max_bytes bigint,
    -- How long before a deletion from the policy's threads, by whatever policy, it is announced (retention_holds). 0: not at all.
    hold_seconds bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, name)
) WITH (autovacuum_analyze_threshold = 2000);

-- Announced deletions, for clients that want to act before them.
CREATE TABLE __schema__.retention_holds (
    thread uuid NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    policy text COLLATE "C" NOT NULL,
    reason text NOT NULL,
    -- Checkpoints below this id are deleted. Null: the whole thread.
    below text COLLATE "C",
    checkpoints bigint NOT NULL,
    -- When the thread was last used. If it has been used since, it is no longer idle.
    idle_since timestamptz NOT NULL,
    -- The policy with the hold, which need not be the one that deletes.
    held_by text COLLATE "C" NOT NULL,
    deadline_at timestamptz NOT NULL,
    is_acknowledged boolean NOT NULL DEFAULT false,
    PRIMARY KEY (thread)
) WITH (autovacuum_analyze_threshold = 2000);

CREATE INDEX retention_holds_deadline ON __schema__.retention_holds (tenant, deadline_at, thread);

-- The tenants that have anything to sweep, and the progress of their sweeps. This table and the next are read across all tenants,
-- and reveal only that a tenant exists.
CREATE TABLE __schema__.retention_tenants (
    tenant text COLLATE "C" NOT NULL,
    -- When its policies last changed: the sweeper checks threads again that it checked before that.
    changed_at timestamptz NOT NULL,
    next_at timestamptz NOT NULL,
    -- Where an unfinished sweep continues: after this thread, in the order of threads_listed.
    after_at timestamptz,
    after_thread uuid,
    PRIMARY KEY (tenant)
);

-- Which server sweeps: one row.
CREATE TABLE __schema__.retention_sweeper (
    is_only boolean NOT NULL,
    holder bytea NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (is_only)
);

ALTER TABLE __schema__.retention_policies ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON __schema__.retention_policies
    USING (tenant IS NOT DISTINCT FROM current_setting('checkpointd.tenant', true));

ALTER TABLE __schema__.retention_holds ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON __schema__.retention_holds
    USING (tenant IS NOT DISTINCT FROM current_setting('checkpointd.tenant', true));

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'citus') THEN
        ALTER TABLE __schema__.retention_policies FORCE ROW LEVEL SECURITY;
        ALTER TABLE __schema__.retention_holds FORCE ROW LEVEL SECURITY;
    END IF;
END
$$;

-- Stores a policy, replacing the one with its name. Returns whether it was within the limit of policies.
CREATE FUNCTION __schema__.set_retention_policy(p_tenant text, p_policy jsonb, p_max_policies integer) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_others bigint;
BEGIN
    SELECT count(*) INTO x_others
    FROM __schema__.retention_policies AS p
    WHERE p.tenant = p_tenant AND p.name <> p_policy ->> 'name';
    IF x_others >= p_max_policies THEN
        RETURN false;
    END IF;
    INSERT INTO __schema__.retention_policies AS p (
        tenant, name, prefix, metadata, max_idle_seconds, deletes_interrupted, max_age_seconds, keep_newest,
        keep_last_of_run, max_bytes, hold_seconds
    )
    SELECT
        p_tenant, r.name, r.prefix, r.metadata, r.max_idle_seconds, r.deletes_interrupted, r.max_age_seconds, r.keep_newest,
        r.keep_last_of_run, r.max_bytes, r.hold_seconds
    FROM __schema__.read_retention_policy(p_policy) AS r
    ON CONFLICT (tenant, name) DO UPDATE SET
        prefix = excluded.prefix, metadata = excluded.metadata, max_idle_seconds = excluded.max_idle_seconds,
        deletes_interrupted = excluded.deletes_interrupted, max_age_seconds = excluded.max_age_seconds,
        keep_newest = excluded.keep_newest, keep_last_of_run = excluded.keep_last_of_run, max_bytes = excluded.max_bytes,
        hold_seconds = excluded.hold_seconds, updated_at = now();
    RETURN true;
END
$$;

-- Returns a policy in JSON as a row.
CREATE FUNCTION __schema__.read_retention_policy(p_policy jsonb)
RETURNS TABLE (
    name text, prefix text, metadata jsonb, max_idle_seconds bigint, deletes_interrupted boolean, max_age_seconds bigint,
    keep_newest bigint, keep_last_of_run boolean, max_bytes bigint, hold_seconds bigint
) LANGUAGE sql IMMUTABLE AS $$
    SELECT r.*
    FROM jsonb_to_record($1) AS r (
        name text, prefix text, metadata jsonb, max_idle_seconds bigint, deletes_interrupted boolean, max_age_seconds bigint,
        keep_newest bigint, keep_last_of_run boolean, max_bytes bigint, hold_seconds bigint
    )
    WHERE $1 IS NOT NULL
$$;

-- Returns the policies of a tenant.
CREATE FUNCTION __schema__.list_retention_policies(p_tenant text)
RETURNS TABLE (
    o_name text, o_prefix text, o_metadata jsonb, o_max_idle_seconds bigint, o_deletes_interrupted boolean,
    o_max_age_seconds bigint, o_keep_newest bigint, o_keep_last_of_run boolean, o_max_bytes bigint, o_hold_seconds bigint,
    o_updated_at timestamptz
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
BEGIN
    RETURN QUERY
    SELECT
        p.name::text, p.prefix::text, p.metadata, p.max_idle_seconds, p.deletes_interrupted, p.max_age_seconds, p.keep_newest,
        p.keep_last_of_run, p.max_bytes, p.hold_seconds, p.updated_at
    FROM __schema__.retention_policies AS p
    WHERE p.tenant = p_tenant
    ORDER BY p.name;
END
$$;

-- Deletes a policy. Returns whether it existed.
CREATE FUNCTION __schema__.delete_retention_policy(p_tenant text, p_name text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
BEGIN
    DELETE FROM __schema__.retention_policies AS p WHERE p.tenant = p_tenant AND p.name = p_name;
    RETURN FOUND;
END
$$;

-- Returns the strictest of each limit that policies set for a thread, with its policy; and the longest hold.
--
--   p_is_interrupted  Whether it is interrupted: max_idle of policies without deletes_interrupted doesn't apply then.
--   p_extra           A policy to try out: only its limits count, but the holds of all. Null: none.
CREATE FUNCTION __schema__.retention_limits(
    p_tenant text, p_thread_id text, p_metadata jsonb, p_is_interrupted boolean, p_extra jsonb,
    OUT o_idle bigint, OUT o_idle_by text, OUT o_age bigint, OUT o_age_by text, OUT o_newest bigint, OUT o_newest_by text,
    OUT o_bytes bigint, OUT o_bytes_by text, OUT o_run_by text, OUT o_hold bigint, OUT o_hold_by text,
    OUT o_deletes_interrupted boolean
) LANGUAGE sql STABLE AS $$
    WITH matching AS (
        SELECT p.name, p.hold_seconds, p.deletes_interrupted, l.*
        FROM (
            SELECT
                p.name::text, p.prefix::text, p.metadata, p.max_idle_seconds, p.deletes_interrupted, p.max_age_seconds,
                p.keep_newest, p.keep_last_of_run, p.max_bytes, p.hold_seconds
            FROM __schema__.retention_policies AS p
            WHERE p.tenant = $1 AND p.name IS DISTINCT FROM $5 ->> 'name'
            UNION ALL
            SELECT r.* FROM __schema__.read_retention_policy($5) AS r
        ) AS p
        LEFT JOIN LATERAL (
            SELECT
                CASE WHEN NOT $4 OR p.deletes_interrupted THEN p.max_idle_seconds END AS idle, p.max_age_seconds,
                p.keep_newest, p.keep_last_of_run, p.max_bytes
            WHERE $5 IS NULL OR p.name = $5 ->> 'name'
        ) AS l ON true
        WHERE starts_with($2, p.prefix) AND (p.metadata IS NULL OR $3 @> p.metadata)
    )
    SELECT
        min(m.idle), (array_agg(m.name ORDER BY m.idle, m.name))[1],
        min(m.max_age_seconds), (array_agg(m.name ORDER BY m.max_age_seconds, m.name))[1],
        min(m.keep_newest), (array_agg(m.name ORDER BY m.keep_newest, m.name))[1],
        min(m.max_bytes), (array_agg(m.name ORDER BY m.max_bytes, m.name))[1],
        min(m.name) FILTER (WHERE m.keep_last_of_run),
        coalesce(max(m.hold_seconds), 0), (array_agg(m.name ORDER BY m.hold_seconds DESC, m.name))[1],
        coalesce(bool_or(m.deletes_interrupted), false)
    FROM matching AS m
$$;
