"""What tests of several folders share: real servers and databases, what breaks them, and what drives them.

Helpers that one folder alone uses stay there, in modules that aren't tests. `make lint` sees to both.
"""
