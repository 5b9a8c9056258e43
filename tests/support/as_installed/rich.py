"""Hides rich from the processes that tests start: who installs the server or the client doesn't get it.

Our tools need it. Where it is there, structlog and httpx load it: a tenth of a second of each process that starts.
"""

raise ImportError("rich is only there for tools")
