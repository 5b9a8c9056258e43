-- Leases: who may write to a thread, and who waits for it.

-- Tokens come from one sequence, so that every lease has a greater one than those before it.
CREATE SEQUENCE __schema__.lease_tokens AS bigint;

-- A row is a lease; no row: everybody may write. A row's holder and token never change. It is inserted when the lease is
-- granted, and deleted when it ends: by its holder, or by whoever finds that it has expired. An expired lease that
-- nobody has deleted yet can't be revived.
CREATE TABLE __schema__.leases (
    tenant text COLLATE "C" NOT NULL,
    thread_id text COLLATE "C" NOT NULL,
    holder bytea NOT NULL,
    -- 0: not a lease, but a mark of a transaction under way that keeps leases from being granted; never committed.
    token bigint NOT NULL,
    -- On the database's clock, which is everybody's.
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, thread_id)
) WITH (
    -- Rows are renewed in place.
    fillfactor = 70,
    -- Every write probes this table. See 0001 for why it is not to be analyzed while it is tiny.
    autovacuum_analyze_threshold = 2000
);

-- Who waits for a lease, in the order of the tickets. Whoever hasn't been seen for a while isn't there any more.
CREATE TABLE __schema__.lease_waiters (
    tenant text COLLATE "C" NOT NULL,
    thread_id text COLLATE "C" NOT NULL,
    holder bytea NOT NULL,
    ticket bigint GENERATED ALWAYS AS IDENTITY,
    seen_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, thread_id, holder)
) WITH (fillfactor = 70, autovacuum_analyze_threshold = 2000);
