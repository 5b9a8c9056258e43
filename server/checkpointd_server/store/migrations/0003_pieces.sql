-- Large values as lists of pieces: a piece that a thread has already is not stored in it again.

-- A thread's pieces, by the SHA-256 of what they hold. Threads don't share names; a copied thread has names of its own for
-- the same contents.
CREATE TABLE __schema__.pieces (
    tenant text COLLATE "C" NOT NULL,
    thread_id text COLLATE "C" NOT NULL,
    digest bytea NOT NULL,
    content_id bigint NOT NULL,
    -- When the piece was sent ahead of the put that is to refer to it: such a one is spared for a while. Null: it came
    -- with a put.
    uploaded_at timestamptz,
    PRIMARY KEY (tenant, thread_id, digest)
) WITH (autovacuum_analyze_threshold = 2000, autovacuum_vacuum_threshold = 2000);

-- Who else has a name for the same contents?
CREATE INDEX pieces_by_content ON __schema__.pieces (tenant, content_id);

CREATE SEQUENCE __schema__.piece_content_ids AS bigint;

-- What the pieces hold, as the client sent it: compressed, where that pays.
CREATE TABLE __schema__.piece_contents (
    tenant text COLLATE "C" NOT NULL,
    content_id bigint NOT NULL,
    -- 0: as it is; 1: zlib (RFC 1950).
    compression smallint NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (tenant, content_id)
) WITH (autovacuum_analyze_threshold = 2000, autovacuum_vacuum_threshold = 2000);

-- The client has compressed what lends itself.
ALTER TABLE __schema__.piece_contents ALTER COLUMN data SET STORAGE EXTERNAL;

-- Threads in which something may have lost the last reference to a piece, and when to look. Asked across all tenants; it
-- tells no more than that a thread was there.
CREATE TABLE __schema__.piece_sweeps (
    tenant text COLLATE "C" NOT NULL,
    thread_id text COLLATE "C" NOT NULL,
    due_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, thread_id)
);

-- Not null: the value is a list of pieces that make so many bytes, and `data` holds their digests one after the other, 32
-- bytes each.
ALTER TABLE __schema__.channel_values ADD COLUMN size bigint;
ALTER TABLE __schema__.task_writes ADD COLUMN size bigint;
