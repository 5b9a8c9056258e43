"""Ports and connections: addresses, the accept loop, and limits on connections."""
