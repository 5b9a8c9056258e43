"""The embedded PostgreSQL: its server process and its data directory. Nothing of gRPC or the store."""
