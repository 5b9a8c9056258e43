-- Room on the disk. A full one isn't seen by what is read, nor by a small row that finds a place in a page that is there.

-- Writes some 3.5 MB to a temporary file, which is gone when it returns: fails with 53100 where there is no room for it.
-- Such a file lies where the database does, unless temp_tablespaces says otherwise.
CREATE FUNCTION __schema__.check_room() RETURNS void LANGUAGE plpgsql SET work_mem = '64kB' AS $$
BEGIN
    PERFORM count(*) FROM generate_series(1, 250000);
END
$$;
