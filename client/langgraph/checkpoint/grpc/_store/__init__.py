"""Parts of GrpcStore: values, indexes, operations, and batches of operations."""
