"""Ports and connections: addresses, the accept loop, and bounds on what anybody may cost who reaches a port."""
