"""checkpointd: the checkpoint server for LangGraph agents.

The layers, from the inside out: `domain` says what a checkpoint store is, `store` keeps one in PostgreSQL, `rpc` serves
it over gRPC, and the rest (`app`, `cli`, `config`, ...) puts them together.
"""

__version__ = "0.1.0"
