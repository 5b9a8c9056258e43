"""Whole threads: what the saver's thread methods and saver.threads share."""
