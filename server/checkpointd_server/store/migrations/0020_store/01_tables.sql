-- compatibility: additive
-- Long-term memory: items, which belong to a tenant, not to a thread. Searches are within a tenant, so its items are stored
-- together: every key begins with the tenant, and Citus distributes the tables by it.
--
-- A namespace is one text: the characters of each label, followed by U+0001. In a label, U+0001 is written as U+0002 U+0002, and
-- U+0002 as U+0002 U+0003. So these texts compare as lists of labels do, and a namespace comes directly before those below it.

CREATE TABLE __schema__.items (
    tenant text COLLATE "C" NOT NULL,
    namespace text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    -- Grows each time the item is stored.
    version bigint NOT NULL,
    -- The request id of the call that stored it: if sent again, the call changes nothing.
    request_id bytea NOT NULL DEFAULT '',
    type text NOT NULL,
    data bytea NOT NULL,
    -- The part of the value that filters match.
    doc jsonb NOT NULL,
    -- The text that word search matches. Null: none.
    words tsvector,
    -- How many vectors it has, and how many the replaced value had.
    vectors integer NOT NULL,
    replaced_vectors integer NOT NULL DEFAULT 0,
    -- Its approximate size in bytes: the value, what searches match, and the vectors.
    bytes bigint NOT NULL DEFAULT 0,
    -- Its time to live after it was stored or read. Null: it doesn't expire.
    ttl interval,
    expires_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, namespace, key)
) WITH (fillfactor = 90, toast_tuple_target = 8160, autovacuum_analyze_threshold = 2000, autovacuum_vacuum_threshold = 2000);

ALTER TABLE __schema__.items ALTER COLUMN data SET STORAGE EXTERNAL;

-- For searches of a namespace, those stored last first. All items are in it, but only a statement that says so by its condition is
-- planned with it: while the table is tiny it would look as good as the primary key for finding one item, and the plan would stay.
CREATE INDEX items_updated_at ON __schema__.items (tenant, namespace, updated_at DESC, key) WHERE updated_at > '-infinity';

CREATE INDEX items_words ON __schema__.items USING gin (words) WHERE words IS NOT NULL;

CREATE INDEX items_expires_at ON __schema__.items (tenant, expires_at) WHERE expires_at IS NOT NULL;

-- Tenants that have, or had, items that expire, and when to delete expired ones. It is read across all tenants.
CREATE TABLE __schema__.item_sweeps (
    tenant text COLLATE "C" NOT NULL,
    due_at timestamptz NOT NULL,
    PRIMARY KEY (tenant)
) WITH (fillfactor = 70);

ALTER TABLE __schema__.items ENABLE ROW LEVEL SECURITY;
-- An equation, which is compared once with that of a statement, and not row by row. Where nothing is set it is never true.
CREATE POLICY own_tenant ON __schema__.items
    USING (tenant = current_setting('checkpointd.tenant', true));

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'citus') THEN
        ALTER TABLE __schema__.items FORCE ROW LEVEL SECURITY;
    END IF;
END
$$;
