"""Savers that may collide."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langgraph.checkpoint.grpc import GrpcSaver

from tests.support.server_process import ServerProcess


@pytest.fixture
def concurrency() -> str:
    """The savers' mode without a lease. Tests may override it."""
    return "optimistic"


@pytest.fixture
def saver(shared_server: ServerProcess, concurrency: Any) -> Iterator[GrpcSaver]:
    """A saver."""
    with GrpcSaver(shared_server.target, concurrency=concurrency) as saver:
        yield saver


@pytest.fixture
def other(shared_server: ServerProcess, concurrency: Any) -> Iterator[GrpcSaver]:
    """Another saver, as if in another process."""
    with GrpcSaver(shared_server.target, concurrency=concurrency) as saver:
        yield saver
