"""The embedded PostgreSQL: its server process and its data directory. It uses neither gRPC nor the store."""
