-- compatibility: breaking

-- The tables. The same schema runs on one PostgreSQL and, distributed by `thread`, on Citus:
--
-- * Every key begins with `thread`, which the server computes from the tenant and the thread's name (domain/threads.py).
--   What a thread refers to lies with the thread: threads share nothing.
-- * Whoever changes anything of a thread locks its row in `threads` first, by an UPDATE. So all that is done to a thread has
--   an order, and what a function asks after its first statement can't change under it. One function call a change: nothing
--   is locked while a server isn't at work.
-- * There are no sequences: versions and lease tokens come from the clock and from those before them (next_version). There
--   are no triggers.
-- * Key texts are compared bytewise (COLLATE "C"), whatever the database's own collation, so that "the greatest id" and the
--   order of writes mean the same everywhere.
--
-- A table that was analyzed while tiny makes the planner prefer sequential scans, and prepared statements keep such a plan
-- while the table grows; before the first analyze it assumes a table worth an index. Hence the thresholds of autovacuum.
--
-- Nothing is compressed here. Values are patches on each other, or compressed by who sends them, or small; and pglz, which is
-- all that some builds of PostgreSQL have, takes longer than writing the row. Rows of up to 8 kB stay in one piece
-- (toast_tuple_target): a second table and its index cost more than the compactness gains.

-- A thread: its names, its lease, and the lock on everything else. It outlives what the thread holds by an hour or so.
CREATE TABLE __schema__.threads (
    thread uuid NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    thread_id text COLLATE "C" NOT NULL,
    -- No version at or below it is given again: it remembers the namespaces that were deleted.
    floor bigint NOT NULL DEFAULT 0,
    lease_holder bytea,
    -- The last lease's, in force or not.
    lease_token bigint NOT NULL DEFAULT 0,
    -- On the database's clock, which is everybody's. Null: nobody holds the thread.
    lease_expires_at timestamptz,
    -- The copy that made the thread, so that it is known when it is sent again, and how many checkpoints it copied.
    copy_request_id bytea,
    copied_checkpoints bigint,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- When its lease, or what is noted below, changed.
    updated_at timestamptz NOT NULL DEFAULT now(),
    -- When checkpoints or task writes were last stored.
    active_at timestamptz NOT NULL DEFAULT now(),
    -- Where the thread stands in lists: at most two seconds before active_at (listed_now). An index has this column and not
    -- active_at, so that most writes touch no index. Null: the thread holds nothing.
    listed_at timestamptz,
    -- How many checkpoints it holds, and about how many bytes all its rows have: exact after a prune, a deletion or a copy.
    checkpoints bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    -- What lies beside the root namespace's last put: 1: an interrupt, 2: an error. Null: neither.
    signal smallint,
    -- The family of the serializer that it was first written with (domain/serializers.py): 1: LangGraph's msgpack, 2: the JSON of
    -- LangGraph.js, 3: another. Null: nothing that it holds tells one.
    serializer smallint,
    -- Of the metadata whose labels are in thread_labels. Null: they aren't there, or it isn't known of which they are.
    fingerprint bigint,
    -- Read-only and out of lists. The lease is nobody's for ever then.
    archived_at timestamptz,
    is_archived boolean NOT NULL DEFAULT false,
    -- Nothing of it is deleted, by whomever.
    is_pinned boolean NOT NULL DEFAULT false,
    -- How long it is kept after active_at and read_at, if it has a time of its own.
    ttl_seconds bigint,
    -- When somebody last read it who asked for that to count.
    read_at timestamptz,
    -- When retention last looked at it, and when it is to look again although nothing was written. Null: it hasn't looked since
    -- something changed; nothing comes due.
    retained_at timestamptz,
    retention_due_at timestamptz,
    -- Retention deleted checkpoints, and not yet the values that nothing refers to any more.
    has_garbage boolean NOT NULL DEFAULT false,
    -- What people noted about the thread itself: an object of texts.
    tags jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (thread)
) WITH (
    -- Rows are updated in place with every write: room on the page keeps that from touching the index.
    fillfactor = 50,
    autovacuum_analyze_threshold = 2000,
    autovacuum_vacuum_threshold = 2000
);

-- Lists of threads, newest activity first. Each write opens the indexes of this table, whether it touches them or not: those of
-- plain columns, without a condition, cost it the least.
CREATE INDEX threads_listed ON __schema__.threads (tenant, is_archived, listed_at, thread);

-- Lists of threads by the beginning of their names. "POSIX" is "C" by another name: only the query that asks for it by that
-- name gets this index.
CREATE INDEX threads_names ON __schema__.threads (tenant COLLATE "POSIX", thread_id COLLATE "POSIX");

-- What threads can be found by, each thing as a hash of the tenant and of what it is (thread_labels): entries of the metadata of
-- the root namespace's latest checkpoint, tags, signals. Hashes are compared by an operator that row-level security lets indexes
-- use; what is found is looked at once more. Written when something of it changes, which few writes do.
CREATE TABLE __schema__.thread_labels (
    thread uuid NOT NULL,
    label bigint NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    PRIMARY KEY (thread, label)
) WITH (autovacuum_analyze_threshold = 2000, autovacuum_vacuum_threshold = 2000);

CREATE INDEX thread_labels_label ON __schema__.thread_labels (label, thread);

-- A namespace that holds checkpoints; no row: version 0, nothing there.
CREATE TABLE __schema__.namespaces (
    thread uuid NOT NULL,
    checkpoint_ns text COLLATE "C" NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    -- The checkpoint put last, which is not always the one with the greatest id.
    last_checkpoint_id text COLLATE "C" NOT NULL,
    last_writer bytea,
    last_request_id bytea,
    -- Pruning removed what lies below this id: what a run still makes from there would lack values. Null again after the
    -- next put: from then on such a run has been overtaken anyway, and ids below may come up again from clocks behind.
    pruned_below text COLLATE "C",
    PRIMARY KEY (thread, checkpoint_ns)
) WITH (fillfactor = 50, autovacuum_analyze_threshold = 2000, autovacuum_vacuum_threshold = 2000);

CREATE TABLE __schema__.checkpoints (
    thread uuid NOT NULL,
    checkpoint_ns text COLLATE "C" NOT NULL,
    checkpoint_id text COLLATE "C" NOT NULL,
    tenant text COLLATE "C" NOT NULL,
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
    -- What filters see of the metadata.
    metadata_index jsonb NOT NULL,
    run_id text COLLATE "C",
    -- How many bytes of an answer it takes, without values and task writes.
    size integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (thread, checkpoint_ns, checkpoint_id)
) WITH (toast_tuple_target = 8160, autovacuum_analyze_threshold = 2000, autovacuum_vacuum_threshold = 2000);

ALTER TABLE __schema__.checkpoints
    ALTER COLUMN body SET STORAGE EXTERNAL,
    ALTER COLUMN channels SET STORAGE EXTERNAL,
    ALTER COLUMN channel_versions SET STORAGE EXTERNAL,
    ALTER COLUMN metadata SET STORAGE EXTERNAL;

-- Deleting a run.
CREATE INDEX checkpoints_run_id ON __schema__.checkpoints (tenant, run_id) WHERE run_id IS NOT NULL;

-- Listing all threads, newest first. Ids grow with time, so this index is only ever appended to. "POSIX" is "C" by another
-- name: only the query that asks for it by that name gets this index.
CREATE INDEX checkpoints_all_threads
    ON __schema__.checkpoints (tenant COLLATE "POSIX", checkpoint_id COLLATE "POSIX");

-- A value belongs to the version that wrote it, not to a checkpoint. No row: the channel is empty at this version.
CREATE TABLE __schema__.channel_values (
    thread uuid NOT NULL,
    checkpoint_ns text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    type text NOT NULL,
    -- The value's bytes, or the instructions of a patch; empty where they were uploaded.
    data bytea NOT NULL,
    -- How many bytes the value has, once its patch is applied.
    size bigint NOT NULL,
    -- Of the value, or as its client has it. Where values of one version have different ones, they aren't the same.
    crc32 bigint,
    -- Not null: a patch on this version of the channel, which is there as long as this row is.
    base_version text COLLATE "C",
    sealed boolean,
    -- How many patches lead to it from a whole value; 0: it is whole.
    depth integer NOT NULL DEFAULT 0,
    -- Not null: the bytes or instructions, so many, lie in value_parts.
    upload_id bytea,
    upload_size bigint,
    PRIMARY KEY (thread, checkpoint_ns, channel, version)
) WITH (toast_tuple_target = 8160, autovacuum_analyze_threshold = 2000, autovacuum_vacuum_threshold = 2000);

ALTER TABLE __schema__.channel_values ALTER COLUMN data SET STORAGE EXTERNAL;

-- Writes lie beside a checkpoint that may come later, hence no foreign key.
CREATE TABLE __schema__.task_writes (
    thread uuid NOT NULL,
    checkpoint_ns text COLLATE "C" NOT NULL,
    checkpoint_id text COLLATE "C" NOT NULL,
    task_id text COLLATE "C" NOT NULL,
    idx integer NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    task_path text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    type text NOT NULL,
    -- The bytes, or the instructions of a patch; empty where they were uploaded.
    data bytea NOT NULL,
    upload_id bytea,
    upload_size bigint,
    -- The call that stored it. Null: it was copied from another thread.
    request_id bytea,
    -- Not null: a patch on this version of the channel, in channel_values, which is there as long as this row is; what it
    -- makes is told as it is there. All of them are null where the write is whole.
    base_version text COLLATE "C",
    size bigint,
    crc32 bigint,
    sealed boolean,
    depth integer,
    PRIMARY KEY (thread, checkpoint_ns, checkpoint_id, task_id, idx)
) WITH (toast_tuple_target = 8160, autovacuum_analyze_threshold = 2000, autovacuum_vacuum_threshold = 2000);

ALTER TABLE __schema__.task_writes ALTER COLUMN data SET STORAGE EXTERNAL;

-- What is built on a value, before that makes room for another one, or is freed. Only large writes are patches.
CREATE INDEX task_writes_base
    ON __schema__.task_writes (thread, checkpoint_ns, channel, base_version) WHERE base_version IS NOT NULL;

-- Calls whose special writes were here before, each for as long as the checkpoint lives: one that is sent again after a lost
-- answer doesn't undo what replaced it, however often that was.
CREATE TABLE __schema__.replaced_writes (
    thread uuid NOT NULL,
    checkpoint_ns text COLLATE "C" NOT NULL,
    checkpoint_id text COLLATE "C" NOT NULL,
    task_id text COLLATE "C" NOT NULL,
    idx integer NOT NULL,
    request_id bytea NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    PRIMARY KEY (thread, checkpoint_ns, checkpoint_id, task_id, idx, request_id)
) WITH (autovacuum_analyze_threshold = 2000, autovacuum_vacuum_threshold = 2000);

-- The bytes of values that came in parts: of uploads, and of values and task writes that name their upload.
CREATE TABLE __schema__.value_parts (
    thread uuid NOT NULL,
    upload_id bytea NOT NULL,
    -- Where the part begins in the value's bytes.
    part_offset bigint NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (thread, upload_id, part_offset)
) WITH (autovacuum_analyze_threshold = 2000, autovacuum_vacuum_threshold = 2000);

ALTER TABLE __schema__.value_parts ALTER COLUMN data SET STORAGE EXTERNAL;

-- Uploads that no put has named yet. The put that names one deletes the row: from then on the parts belong to the value.
CREATE TABLE __schema__.uploads (
    thread uuid NOT NULL,
    upload_id bytea NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (thread, upload_id)
) WITH (autovacuum_analyze_threshold = 2000, autovacuum_vacuum_threshold = 2000);

-- Who waits for a lease, in the order of the tickets. Whoever hasn't been seen for a while isn't there any more.
CREATE TABLE __schema__.lease_waiters (
    thread uuid NOT NULL,
    holder bytea NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    ticket bigint NOT NULL,
    seen_at timestamptz NOT NULL,
    PRIMARY KEY (thread, holder)
) WITH (fillfactor = 70, autovacuum_analyze_threshold = 2000);

-- Threads that may hold something nobody will come for: uploads, waiters, a row without anything. Asked across all tenants; it
-- tells no more than that a thread was there.
CREATE TABLE __schema__.gc_queue (
    thread uuid NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    due_at timestamptz NOT NULL,
    PRIMARY KEY (thread)
) WITH (autovacuum_analyze_threshold = 2000);

CREATE INDEX gc_queue_due_at ON __schema__.gc_queue (due_at);
