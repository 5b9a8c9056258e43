"""Who calls. The tenant of a call comes from here and from nowhere else: no request can name one."""

from __future__ import annotations

import grpc.aio

DEFAULT_TENANT = "default"
"""The tenant of every call, as long as calls aren't authenticated."""


def tenant_of(context: grpc.aio.ServicerContext) -> str:
    """Returns the tenant that a call acts for."""
    return DEFAULT_TENANT
