-- The tables of a checkpoint store. The tenant leads every key. Key texts are compared bytewise (COLLATE "C"), whatever
-- the database's own collation, so that "the greatest id" and the order of writes mean the same everywhere.

-- Versions come from one sequence, so that none is used twice in a namespace, not even over its deletion.
CREATE SEQUENCE __schema__.versions AS bigint;

-- The head of a namespace that holds checkpoints; no row: version 0, nothing there. Every put and every deletion locks
-- it first, which puts the writers of a namespace in order.
CREATE TABLE __schema__.namespaces (
    tenant text COLLATE "C" NOT NULL,
    thread_id text COLLATE "C" NOT NULL,
    checkpoint_ns text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    -- The checkpoint put last, which is not always the one with the greatest id.
    last_checkpoint_id text COLLATE "C" NOT NULL,
    last_writer bytea,
    last_request_id bytea,
    -- Pruning removed what lies below this id: what a run still makes from there would lack values. Null again after the
    -- next put: from then on such a run has been overtaken anyway, and ids below may come up again from clocks behind.
    pruned_below text COLLATE "C",
    PRIMARY KEY (tenant, thread_id, checkpoint_ns)
) WITH (
    -- Rows are updated in place with every put: room on the page keeps that from touching the index.
    fillfactor = 70,
    -- A table that was analyzed while tiny makes the planner prefer sequential scans, and prepared statements keep
    -- such a plan while the table grows. Before the first analyze it assumes a table worth an index.
    autovacuum_analyze_threshold = 2000,
    autovacuum_vacuum_threshold = 2000
);

CREATE TABLE __schema__.checkpoints (
    tenant text COLLATE "C" NOT NULL,
    thread_id text COLLATE "C" NOT NULL,
    checkpoint_ns text COLLATE "C" NOT NULL,
    checkpoint_id text COLLATE "C" NOT NULL,
    parent_checkpoint_id text COLLATE "C",
    -- The namespace's version that this put made; the answer if it is sent again.
    version bigint NOT NULL,
    request_id bytea,
    body bytea NOT NULL,
    -- channels[i] has the version channel_versions[i].
    channels text[] COLLATE "C" NOT NULL,
    channel_versions text[] COLLATE "C" NOT NULL,
    metadata_type text NOT NULL,
    metadata bytea NOT NULL,
    metadata_index jsonb NOT NULL,
    run_id text COLLATE "C",
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, thread_id, checkpoint_ns, checkpoint_id)
) WITH (autovacuum_analyze_threshold = 2000, autovacuum_vacuum_threshold = 2000);

-- Deleting a run.
CREATE INDEX checkpoints_run_id ON __schema__.checkpoints (tenant, run_id) WHERE run_id IS NOT NULL;

-- Listing all threads, newest first. Ids grow with time, so this index is only ever appended to. "POSIX" is "C" by another
-- name: only the query that asks for it by that name gets this index. Elsewhere the planner might take it in place of the
-- primary key: copied threads share their ids, and while the table is tiny, the tenant alone seems good enough.
CREATE INDEX checkpoints_all_threads
    ON __schema__.checkpoints (tenant COLLATE "POSIX", checkpoint_id COLLATE "POSIX");

-- A value belongs to the version that wrote it, not to a checkpoint. No row: the channel is empty at this version.
CREATE TABLE __schema__.channel_values (
    tenant text COLLATE "C" NOT NULL,
    thread_id text COLLATE "C" NOT NULL,
    checkpoint_ns text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    type text NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (tenant, thread_id, checkpoint_ns, channel, version)
) WITH (autovacuum_analyze_threshold = 2000, autovacuum_vacuum_threshold = 2000);

-- Writes lie beside a checkpoint that may come later, hence no foreign key.
CREATE TABLE __schema__.task_writes (
    tenant text COLLATE "C" NOT NULL,
    thread_id text COLLATE "C" NOT NULL,
    checkpoint_ns text COLLATE "C" NOT NULL,
    checkpoint_id text COLLATE "C" NOT NULL,
    task_id text COLLATE "C" NOT NULL,
    idx integer NOT NULL,
    task_path text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    type text NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (tenant, thread_id, checkpoint_ns, checkpoint_id, task_id, idx)
) WITH (autovacuum_analyze_threshold = 2000, autovacuum_vacuum_threshold = 2000);

-- lz4 costs a fraction of what pglz does; not every build of PostgreSQL has it.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals))
    THEN
        ALTER TABLE __schema__.channel_values ALTER COLUMN data SET COMPRESSION lz4;
        ALTER TABLE __schema__.task_writes ALTER COLUMN data SET COMPRESSION lz4;
        ALTER TABLE __schema__.checkpoints ALTER COLUMN body SET COMPRESSION lz4;
        ALTER TABLE __schema__.checkpoints ALTER COLUMN metadata SET COMPRESSION lz4;
    END IF;
END
$$;
