"""Values in answers: assembled from patches, and read range by range."""
