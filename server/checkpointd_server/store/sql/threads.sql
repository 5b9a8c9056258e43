-- Work on whole threads: migrations/0001_core/10_threads.sql, 11_prunes.sql and 12_copies.sql.

-- name: check_leases
-- Returns which of some threads may not be changed.
SELECT * FROM __schema__.check_leases($1, $2, $3)

-- name: delete_thread
-- Deletes a thread.
SELECT * FROM __schema__.delete_thread($1, $2, $3)

-- name: threads_of_runs
-- Returns the threads that hold checkpoints of runs.
SELECT * FROM __schema__.threads_of_runs($1, $2)

-- name: delete_runs
-- Deletes the checkpoints of runs from a thread.
SELECT * FROM __schema__.delete_runs($1, $2, $3, $4)

-- name: prune_thread
-- Removes history from a thread.
SELECT * FROM __schema__.prune_thread($1, $2, $3)

-- name: make_thread
-- Creates the row of a thread if it is missing.
SELECT * FROM __schema__.make_thread($1, $2, $3)

-- name: copy_thread
-- Copies or forks a thread.
SELECT * FROM __schema__.copy_thread($1, $2, $3, $4, $5, $6)

-- name: list_threads
-- Returns a page of threads: migrations/0001_core/14_thread_lists.sql.
SELECT * FROM __schema__.list_threads($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)

-- name: count_threads
-- Counts threads.
SELECT * FROM __schema__.count_threads($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)

-- name: describe_thread
-- Returns one thread, as lists show it.
SELECT * FROM __schema__.describe_thread($1, $2, $3)

-- name: archive_thread
-- Archives or unarchives a thread: migrations/0001_core/15_thread_changes.sql.
SELECT * FROM __schema__.archive_thread($1, $2, $3, $4)

-- name: update_thread
-- Changes a thread's tags, pin or time to live.
SELECT * FROM __schema__.update_thread($1, $2, $3, $4, $5, $6, $7)

-- name: list_nodes
-- Returns the checkpoints of a thread, without their contents.
SELECT * FROM __schema__.list_nodes($1, $2, $3, $4, $5)
