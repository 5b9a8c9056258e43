-- The tables of LangGraph's SqliteSaver, as `checkpointd import --from-sqlite` reads them.

-- name: list_threads
SELECT DISTINCT thread_id FROM checkpoints ORDER BY thread_id

-- name: read_checkpoints
-- The checkpoints of a thread in order.
SELECT checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata
FROM checkpoints
WHERE thread_id = ?
ORDER BY checkpoint_id, checkpoint_ns

-- name: read_writes
-- The task writes beside a checkpoint.
SELECT task_id, task_path, idx, channel, type, value
FROM writes
WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?

-- name: read_writes_without_paths
-- The same in files of old releases.
SELECT task_id, '' AS task_path, idx, channel, type, value
FROM writes
WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?
