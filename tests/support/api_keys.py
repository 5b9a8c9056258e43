"""Entries of the keys file."""

from __future__ import annotations

import hashlib


def key_entry(key: str, tenant: str, *scopes: str, name: str = "somebody", more: str = "") -> str:
    """Returns a line of the keys file."""
    listed = ", ".join(f'"{scope}"' for scope in scopes)
    digest = hashlib.sha256(key.encode()).hexdigest()
    return f'[[key]]\ntenant = "{tenant}"\nscopes = [{listed}]\nname = "{name}"\nsha256 = "{digest}"\n{more}\n'
