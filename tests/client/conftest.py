"""What the tests of the saver as an object share."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def thread_id() -> str:
    """A thread that no other test uses."""
    return str(uuid.uuid4())


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """All calls that were opened, in their order."""
    from langgraph.checkpoint.grpc import streams

    known: list[Any] = []

    class Known(streams.Stream):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            known.append(self)

    monkeypatch.setattr(streams, "Stream", Known)
    yield known
    known.clear()
