-- Writes: migrations/0001_core/03_writes.sql and 08_uploads.sql. Functions are called alone, with nothing around them, so that a
-- cluster can send the call to where the thread lies.

-- name: commit_writes
-- Stores groups of writes. One row, of arrays.
SELECT * FROM __schema__.commit_writes(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26,
    $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39, $40, $41, $42, $43, $44, $45, $46, $47, $48, $49, $50,
    $51, $52, $53, $54, $55, $56, $57, $58, $59, $60, $61, $62
)

-- name: put_part
-- Stores a part of an upload.
SELECT * FROM __schema__.put_part($1, $2, $3, $4, $5, $6, $7)
