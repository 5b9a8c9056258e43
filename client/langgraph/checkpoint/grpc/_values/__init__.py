"""Serialized values: patches, the cache, and transfers outside messages."""
