"""Helpers for tests of several folders: real servers and databases, fault injection, and drivers.

Helpers of a single folder stay there, in modules that aren't tests. `make lint` checks both.
"""
