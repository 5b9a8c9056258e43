"""Threads on the move: out of a server into a file or the stock savers' tables, and back, through the server's RPCs."""
