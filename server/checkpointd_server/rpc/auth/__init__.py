"""Authentication: API keys, JSON Web Tokens and clients' certificates, each turned into an identity."""

from __future__ import annotations

from checkpointd_server.rpc.auth.authenticator import Authenticator

__all__ = ["Authenticator"]
