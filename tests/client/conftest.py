"""What the tests of the saver as an object share."""

from __future__ import annotations

import uuid

import pytest


@pytest.fixture
def thread_id() -> str:
    """A thread that no other test uses."""
    return str(uuid.uuid4())
