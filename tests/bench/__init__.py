"""Benchmarks of checkpointd against the stock savers: `make bench`."""
