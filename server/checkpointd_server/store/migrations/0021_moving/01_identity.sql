-- compatibility: additive
-- What tells one store from another, wherever its servers listen: exports and imports note it, to go on with the right one.

CREATE TABLE __schema__.identity (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    -- A copy of the database has the same.
    id uuid NOT NULL
);

INSERT INTO __schema__.identity (id) VALUES (gen_random_uuid());
