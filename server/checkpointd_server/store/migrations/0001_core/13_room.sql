-- Free disk space. Reads don't notice a full disk, nor do small rows that fit into an existing page.

-- Writes some 3.5 MB to a temporary file, which is deleted when it returns. Fails with 53100 if there is no space for it.
-- Temporary files are stored with the database, unless temp_tablespaces says otherwise.
CREATE FUNCTION __schema__.check_room() RETURNS void LANGUAGE plpgsql SET work_mem = '64kB' AS $$
BEGIN
    PERFORM count(*) FROM generate_series(1, 250000);
END
$$;
