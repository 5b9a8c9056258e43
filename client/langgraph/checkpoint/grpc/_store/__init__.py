"""GrpcStore's parts: values, the index, operations, and batches of them."""
