"""GrpcStores for tests."""

from __future__ import annotations

from collections.abc import Callable

from langgraph.checkpoint.grpc import GrpcStore

Build = Callable[..., GrpcStore]
"""Builds a store with options."""
