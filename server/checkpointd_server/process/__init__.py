"""The server's processes: signals, logging, the supervisor and its workers. Nothing of gRPC or the database."""
