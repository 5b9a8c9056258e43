-- A put may replace or delete a value, or a special task write, that is a list of pieces: then the thread is looked at, for
-- nothing may refer to some of them any more. Triggers cost nothing where no such row is touched, as in nearly all puts.

CREATE FUNCTION __schema__.queue_piece_sweep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO __schema__.piece_sweeps AS s (tenant, thread_id, due_at)
    VALUES (OLD.tenant, OLD.thread_id, now())
    -- Where it is due already, the row is locked all the same: so a sweep comes after this.
    ON CONFLICT (tenant, thread_id) DO UPDATE SET due_at = excluded.due_at WHERE s.due_at > excluded.due_at;
    RETURN NULL;
END
$$;

CREATE TRIGGER queue_piece_sweep AFTER UPDATE OR DELETE ON __schema__.channel_values
    FOR EACH ROW WHEN (OLD.size IS NOT NULL) EXECUTE FUNCTION __schema__.queue_piece_sweep();

CREATE TRIGGER queue_piece_sweep AFTER UPDATE OR DELETE ON __schema__.task_writes
    FOR EACH ROW WHEN (OLD.size IS NOT NULL) EXECUTE FUNCTION __schema__.queue_piece_sweep();
