-- Vectors of items, if the database has pgvector. Can be run again: it changes nothing then.

CREATE TABLE IF NOT EXISTS __schema__.item_vectors (
    tenant text COLLATE "C" NOT NULL,
    namespace text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    position integer NOT NULL,
    -- The part of the value that it was made from.
    path text NOT NULL,
    dims integer NOT NULL,
    embedding vector NOT NULL,
    PRIMARY KEY (tenant, namespace, key, position)
) WITH (toast_tuple_target = 8160, autovacuum_analyze_threshold = 2000, autovacuum_vacuum_threshold = 2000);

ALTER TABLE __schema__.item_vectors ENABLE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS own_tenant ON __schema__.item_vectors;
CREATE POLICY own_tenant ON __schema__.item_vectors
    USING (tenant = current_setting('checkpointd.tenant', true));

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'citus') THEN
        ALTER TABLE __schema__.item_vectors FORCE ROW LEVEL SECURITY;
    END IF;
END
$$;
