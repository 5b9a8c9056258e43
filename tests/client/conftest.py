"""Fixtures shared by the tests of the saver as an object."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langgraph.checkpoint.grpc import GrpcSaver
from langgraph.checkpoint.grpc._transport import stream_pool
from langgraph.checkpoint.grpc._transport.stream import Stream

from tests.support.server_process import ServerProcess


@pytest.fixture
def thread_id() -> str:
    """A thread that no other test uses."""
    return str(uuid.uuid4())


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Stream]]:
    """All streams that were opened, in order."""
    known: list[Stream] = []

    class Known(Stream):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            known.append(self)

    monkeypatch.setattr(stream_pool, "Stream", Known)
    yield known
    known.clear()


@pytest.fixture
def saver_with(shared_server: ServerProcess) -> Iterator[Callable[..., GrpcSaver]]:
    """Builds savers with options; they are closed after the test."""
    savers: list[GrpcSaver] = []

    def build(**options: Any) -> GrpcSaver:
        savers.append(GrpcSaver(shared_server.target, **options))
        return savers[-1]

    yield build
    for saver in savers:
        saver.close()
