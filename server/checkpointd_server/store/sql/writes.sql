-- Writes: migrations/0001_core/04_commits.sql and 09_uploads.sql. Functions are called alone, with nothing around them, so that
-- a cluster can send the call to where the thread lies.

-- name: commit_group
-- Stores a group: two versions, or null if there is more to it.
SELECT __schema__.commit_group($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33)

-- name: commit_writes
-- Stores groups of writes. One row of arrays, with an entry for each group.
SELECT * FROM __schema__.commit_writes($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)

-- name: put_part
-- Stores a part of an upload.
SELECT * FROM __schema__.put_part($1, $2, $3, $4, $5, $6, $7)
