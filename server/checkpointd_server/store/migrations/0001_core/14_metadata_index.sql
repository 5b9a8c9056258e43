-- Returns the metadata index of a checkpoint, for exporting it. Null: there is no such checkpoint.
CREATE FUNCTION __schema__.get_metadata_index(
    p_tenant text, p_thread uuid, p_ns text, p_checkpoint_id text, OUT o_index text
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_setting text;
BEGIN
    x_setting := set_config('checkpointd.tenant', p_tenant, true);
    SELECT c.metadata_index::text INTO o_index
    FROM __schema__.checkpoints AS c
    WHERE c.thread = p_thread AND c.checkpoint_ns = p_ns AND c.checkpoint_id = p_checkpoint_id;
END
$$;
