"""From LangGraph's arguments to requests, and from answers back to LangGraph's types."""
