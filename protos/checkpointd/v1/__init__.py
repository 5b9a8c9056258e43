"""Stubs of the protocol `checkpointd.v1`. Generated modules; the reference is in the .proto files beside them."""
