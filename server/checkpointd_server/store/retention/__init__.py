"""Retention: policies, what they would do to threads, the sweeper, and what clients say of a thread's time."""
