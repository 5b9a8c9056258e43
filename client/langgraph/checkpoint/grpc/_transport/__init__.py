"""The transport of calls from a saver to its servers. Private: import from `langgraph.checkpoint.grpc` instead."""
