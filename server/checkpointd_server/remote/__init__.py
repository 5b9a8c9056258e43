"""Calls of commands, exports and imports to a server: refusals decoded, and when a call is made again."""
