"""Puts and task writes: queued, merged into groups, and committed together."""
