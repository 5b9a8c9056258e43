-- Writes: migrations/0001_core/04_commits.sql and 09_uploads.sql. Each statement is only a function call:
-- then Citus can send it to the node that has the thread.

-- name: commit_group
-- Stores a group, and returns two versions; null: use commit_writes.
SELECT __schema__.commit_group($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33)

-- name: commit_writes
-- Stores groups of writes, and returns one row of arrays with an entry for each group.
SELECT * FROM __schema__.commit_writes($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)

-- name: put_part
-- Stores a part of an upload.
SELECT * FROM __schema__.put_part($1, $2, $3, $4, $5, $6, $7)
