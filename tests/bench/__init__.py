"""checkpointd measured beside the stock savers: `make bench`."""
