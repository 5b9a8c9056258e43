-- compatibility: additive
-- The identity of this store, independent of its servers' addresses: exports and imports record it, to resume with the right one.

CREATE TABLE __schema__.identity (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    -- A copy of the database has the same id.
    id uuid NOT NULL
);

INSERT INTO __schema__.identity (id) VALUES (gen_random_uuid());
