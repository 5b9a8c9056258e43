"""What the tests of the saver as an object share."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from langgraph.checkpoint.grpc._transport import stream_pool
from langgraph.checkpoint.grpc._transport.stream import Stream


@pytest.fixture
def thread_id() -> str:
    """A thread that no other test uses."""
    return str(uuid.uuid4())


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Stream]]:
    """All streams that were opened, in their order."""
    known: list[Stream] = []

    class Known(Stream):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            known.append(self)

    monkeypatch.setattr(stream_pool, "Stream", Known)
    yield known
    known.clear()
