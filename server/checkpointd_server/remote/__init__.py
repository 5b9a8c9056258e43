"""Calls to a server by commands, exports and imports: decoded rejections, and retries."""
