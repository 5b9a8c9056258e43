"""Hides rich from processes that tests start: it isn't installed with the server or the client.

Our tools need it. If it is there, structlog and httpx load it, which adds 0.1 s to the start of each process.
"""

raise ImportError("rich is only there for tools")
