"""Fixtures shared by the tests of GrpcStore."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from langgraph.checkpoint.grpc import GrpcStore

from tests.support.server_process import ServerProcess
from tests.support.stores import Build


@pytest.fixture
def store_with(shared_server: ServerProcess) -> Iterator[Build]:
    """Builds stores with options; they are closed after the test."""
    stores: list[GrpcStore] = []

    def build(**options: Any) -> GrpcStore:
        stores.append(GrpcStore(shared_server.target, **options))
        return stores[-1]

    yield build
    for store in stores:
        store.close()


@pytest.fixture
def store(store_with: Build) -> GrpcStore:
    """A store without an index."""
    return store_with()


@pytest.fixture
def root() -> str:
    """The first label of namespaces that no other test uses."""
    return str(uuid.uuid4())
