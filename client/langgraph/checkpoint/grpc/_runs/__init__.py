"""Runs: what each has read and written, and the order of its calls. Private."""
