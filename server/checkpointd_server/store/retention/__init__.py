"""Retention: policies, previews and runs, the sweeper, and threads' own times to live."""
