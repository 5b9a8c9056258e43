-- Work on whole threads: migrations/0001_core/10_threads.sql, 11_prunes.sql and 12_copies.sql.

-- name: check_leases
-- Which of some threads may not be changed.
SELECT * FROM __schema__.check_leases($1, $2, $3)

-- name: delete_thread
-- Deletes a thread.
SELECT * FROM __schema__.delete_thread($1, $2, $3)

-- name: threads_of_runs
-- The threads that hold checkpoints of runs.
SELECT * FROM __schema__.threads_of_runs($1, $2)

-- name: delete_runs
-- Deletes the checkpoints of runs from a thread.
SELECT * FROM __schema__.delete_runs($1, $2, $3, $4)

-- name: prune_thread
-- Removes history from a thread.
SELECT * FROM __schema__.prune_thread($1, $2, $3)

-- name: make_thread
-- Makes the row of a thread, if there is none.
SELECT * FROM __schema__.make_thread($1, $2, $3)

-- name: copy_thread
-- Copies a thread, or forks it.
SELECT * FROM __schema__.copy_thread($1, $2, $3, $4, $5, $6)

-- name: list_threads
-- A page of threads: migrations/0001_core/14_thread_lists.sql.
SELECT * FROM __schema__.list_threads($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)

-- name: count_threads
-- How many threads there are.
SELECT * FROM __schema__.count_threads($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)

-- name: describe_thread
-- One thread, as lists show it.
SELECT * FROM __schema__.describe_thread($1, $2, $3)

-- name: archive_thread
-- Archives a thread, or brings it back: migrations/0001_core/15_thread_changes.sql.
SELECT * FROM __schema__.archive_thread($1, $2, $3, $4)

-- name: update_thread
-- Changes what people note of a thread.
SELECT * FROM __schema__.update_thread($1, $2, $3, $4, $5, $6, $7)

-- name: list_nodes
-- The checkpoints of a thread, without what they hold.
SELECT * FROM __schema__.list_nodes($1, $2, $3, $4, $5)
