"""The server's processes: signals, logging, the supervisor and its workers. It uses neither gRPC nor the database."""
