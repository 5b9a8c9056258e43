-- Task writes know the calls that stored them, so that one that is sent again after a lost answer is told from a conflict, and
-- doesn't undo what came after it.

ALTER TABLE __schema__.task_writes
    -- The call that stored the write. Null: it was stored before there was this column, or copied from another thread.
    ADD COLUMN request_id bytea,
    -- The calls whose special write was here before, the last ones first. Null: there were none, as is so for nearly all rows.
    ADD COLUMN replaced_request_ids bytea[];
