"""Encryption: the cipher, the place that it binds values to, and copies of encrypted threads."""
