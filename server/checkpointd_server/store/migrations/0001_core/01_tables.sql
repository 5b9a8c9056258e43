-- compatibility: breaking

-- The tables. The same schema runs on one PostgreSQL and, distributed by `thread`, on Citus:
--
-- * Every key begins with `thread`, which the server computes from the tenant and the thread's name (domain/threads.py).
--   Threads share nothing: everything that a thread refers to is stored with it.
-- * Every change of a thread first locks its row in `threads`, by an UPDATE. So changes of a thread are ordered, and what a
--   function reads after its first statement can't change until it commits. A change is one function call, so no lock is held
--   while a server is idle.
-- * There are no sequences: versions and lease tokens come from the clock and the previous ones (next_version). There are no
--   triggers.
-- * Key texts are compared bytewise (COLLATE "C"), whatever the database's collation: "the greatest id" and the order of
--   writes mean the same everywhere.
--
-- If a table is analyzed while tiny, the planner prefers sequential scans, and prepared statements keep such a plan while the
-- table grows. Before the first analyze it assumes a table worth an index. Hence the thresholds of autovacuum.
--
-- Nothing is compressed here. Values are patches on each other, compressed by the sender, or small; and pglz, the only method
-- of some builds of PostgreSQL, takes longer than writing the row. Rows of up to 8 kB aren't split (toast_tuple_target): a
-- second table and its index cost more than the smaller rows save.

-- A thread: its names, its lease, and the lock on everything else. The row outlives a deleted thread by an hour or so.
CREATE TABLE __schema__.threads (
    thread uuid NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    thread_id text COLLATE "C" NOT NULL,
    -- No version at or below this is given again: it covers the namespaces that were deleted.
    floor bigint NOT NULL DEFAULT 0,
    lease_holder bytea,
    -- The token of the last lease, in force or not.
    lease_token bigint NOT NULL DEFAULT 0,
    -- By the database's clock. Null: there is no lease.
    lease_expires_at timestamptz,
    -- The request id of the copy that created the thread, to recognize a retry, and how many checkpoints it copied.
    copy_request_id bytea,
    copied_checkpoints bigint,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- When its lease, or anything below, changed.
    updated_at timestamptz NOT NULL DEFAULT now(),
    -- When checkpoints or task writes were last stored.
    active_at timestamptz NOT NULL DEFAULT now(),
    -- The thread's position in lists: at most two seconds before active_at (listed_now). It is indexed instead of active_at,
    -- so most writes don't touch the index. Null: the thread is empty.
    listed_at timestamptz,
    -- How many checkpoints it holds, and the approximate bytes of all its rows: exact after a prune, a deletion or a copy.
    checkpoints bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    -- The task writes of the root namespace's last put have 1: an interrupt, 2: an error. Null: neither.
    signal smallint,
    -- The family of the serializer that it was first written with (domain/serializers.py): 1: LangGraph's msgpack, 2: the JSON of
    -- LangGraph.js, 3: another. Null: unknown from what it holds.
    serializer smallint,
    -- The fingerprint of the metadata whose labels are in thread_labels. 0: of metadata without labels. Null: there is none, or it
    -- is unknown.
    fingerprint bigint,
    -- Read-only and hidden from lists. The lease then has no holder and never ends.
    archived_at timestamptz,
    is_archived boolean NOT NULL DEFAULT false,
    -- Nobody can delete anything of it.
    is_pinned boolean NOT NULL DEFAULT false,
    -- How long it is kept after active_at and read_at, if it has its own time to live.
    ttl_seconds bigint,
    -- When it was last read by a call that asked for this to count as use.
    read_at timestamptz,
    -- When retention last checked it, and when to check it again even if nothing is written. Null: not since something
    -- changed; nothing becomes due.
    retained_at timestamptz,
    retention_due_at timestamptz,
    -- Retention has deleted checkpoints, but not yet the values that were only theirs.
    has_garbage boolean NOT NULL DEFAULT false,
    -- Tags: an object of texts.
    tags jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (thread)
) WITH (
    -- Every write updates a row. With free space on its page, this is a HOT update, which touches no index.
    fillfactor = 50,
    autovacuum_analyze_threshold = 2000,
    autovacuum_vacuum_threshold = 2000
);

-- Lists of threads, latest activity first. Every write opens all indexes of this table, even those that it doesn't change:
-- indexes on plain columns, without a condition, cost the least.
CREATE INDEX threads_listed ON __schema__.threads (tenant, is_archived, listed_at, thread);

-- Lists of threads by a prefix of their names. "POSIX" is the same as "C" by another name: only a query that names it uses
-- this index.
CREATE INDEX threads_names ON __schema__.threads (tenant COLLATE "POSIX", thread_id COLLATE "POSIX");

-- What threads can be found by, as hashes of tenant and content (thread_labels): entries of the metadata of the root namespace's
-- latest checkpoint, tags, signals. The operator that compares hashes may use indexes under row-level security; matches are
-- checked again. Few writes change any of these.
CREATE TABLE __schema__.thread_labels (
    thread uuid NOT NULL,
    label bigint NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    PRIMARY KEY (thread, label)
) WITH (autovacuum_analyze_threshold = 2000, autovacuum_vacuum_threshold = 2000);

CREATE INDEX thread_labels_label ON __schema__.thread_labels (label, thread);

-- A namespace that holds checkpoints. No row: version 0, empty.
CREATE TABLE __schema__.namespaces (
    thread uuid NOT NULL,
    checkpoint_ns text COLLATE "C" NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    -- The checkpoint put last, which is not always the one with the greatest id.
    last_checkpoint_id text COLLATE "C" NOT NULL,
    last_writer bytea,
    last_request_id bytea,
    -- Pruning removed everything below this id: a run that continues from there would lack values. Null again after the next
    -- put: such a run conflicts anyway from then on, and clocks that are behind may produce ids below it again.
    pruned_below text COLLATE "C",
    PRIMARY KEY (thread, checkpoint_ns)
) WITH (fillfactor = 50, autovacuum_analyze_threshold = 2000, autovacuum_vacuum_threshold = 2000);

CREATE TABLE __schema__.checkpoints (
    thread uuid NOT NULL,
    checkpoint_ns text COLLATE "C" NOT NULL,
    checkpoint_id text COLLATE "C" NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    parent_checkpoint_id text COLLATE "C",
    -- The namespace's version after this put: the answer if it is sent again.
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
    -- Its size in an answer, in bytes, without values and task writes.
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

-- Lists of checkpoints of all threads, newest first. Ids grow with time, so entries are only appended to this index. "POSIX" is
-- the same as "C" by another name: only a query that names it uses this index.
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
    -- The value's bytes, or the instructions of a patch; empty if they were uploaded.
    data bytea NOT NULL,
    -- The size of the value, in bytes, with its patch applied.
    size bigint NOT NULL,
    -- The value's checksum, or the client's. Values of one version with different checksums are different.
    crc32 bigint,
    -- Not null: a patch on this version of the channel, which exists as long as this row does.
    base_version text COLLATE "C",
    sealed boolean,
    -- The number of patches from a whole value to this one. 0: it is whole.
    depth integer NOT NULL DEFAULT 0,
    -- Not null: the bytes or instructions are in value_parts, upload_size bytes of them.
    upload_id bytea,
    upload_size bigint,
    PRIMARY KEY (thread, checkpoint_ns, channel, version)
) WITH (toast_tuple_target = 8160, autovacuum_analyze_threshold = 2000, autovacuum_vacuum_threshold = 2000);

ALTER TABLE __schema__.channel_values ALTER COLUMN data SET STORAGE EXTERNAL;

-- No foreign key: a task write may arrive before its checkpoint.
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
    -- The bytes, or the instructions of a patch; empty if they were uploaded.
    data bytea NOT NULL,
    upload_id bytea,
    upload_size bigint,
    -- The request id of the call that stored it. Null: it was copied from another thread.
    request_id bytea,
    -- Not null: a patch on this version of the channel in channel_values, which exists as long as this row does. The next
    -- columns describe the result as those of channel_values do. All are null if the write is whole.
    base_version text COLLATE "C",
    size bigint,
    crc32 bigint,
    sealed boolean,
    depth integer,
    PRIMARY KEY (thread, checkpoint_ns, checkpoint_id, task_id, idx)
) WITH (toast_tuple_target = 8160, autovacuum_analyze_threshold = 2000, autovacuum_vacuum_threshold = 2000);

ALTER TABLE __schema__.task_writes ALTER COLUMN data SET STORAGE EXTERNAL;

-- Finds what builds on a value before the value is replaced or deleted. Only large writes are patches.
CREATE INDEX task_writes_base
    ON __schema__.task_writes (thread, checkpoint_ns, channel, base_version) WHERE base_version IS NOT NULL;

-- Calls whose special writes were replaced, kept as long as the checkpoint. If such a call is sent again after a lost answer, it
-- doesn't undo the replacement.
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

-- The bytes of values sent in parts: of uploads, and of values and task writes that name their upload.
CREATE TABLE __schema__.value_parts (
    thread uuid NOT NULL,
    upload_id bytea NOT NULL,
    -- The offset of the part in the value's bytes.
    part_offset bigint NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (thread, upload_id, part_offset)
) WITH (autovacuum_analyze_threshold = 2000, autovacuum_vacuum_threshold = 2000);

ALTER TABLE __schema__.value_parts ALTER COLUMN data SET STORAGE EXTERNAL;

-- Uploads that no put has named yet. The put that names one deletes the row, and the parts then belong to the value.
CREATE TABLE __schema__.uploads (
    thread uuid NOT NULL,
    upload_id bytea NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (thread, upload_id)
) WITH (autovacuum_analyze_threshold = 2000, autovacuum_vacuum_threshold = 2000);

-- The queue for a lease, ordered by ticket. Waiters that haven't been seen for a while no longer count.
CREATE TABLE __schema__.lease_waiters (
    thread uuid NOT NULL,
    holder bytea NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    ticket bigint NOT NULL,
    seen_at timestamptz NOT NULL,
    PRIMARY KEY (thread, holder)
) WITH (fillfactor = 70, autovacuum_analyze_threshold = 2000);

-- Threads that may hold garbage: abandoned uploads or waiters, or an empty row. It is read across all tenants, and reveals only
-- that a thread existed.
CREATE TABLE __schema__.gc_queue (
    thread uuid NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    due_at timestamptz NOT NULL,
    PRIMARY KEY (thread)
) WITH (autovacuum_analyze_threshold = 2000);

CREATE INDEX gc_queue_due_at ON __schema__.gc_queue (due_at);
