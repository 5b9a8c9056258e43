"""Fixtures shared by the tests with real graphs."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest
from langgraph.checkpoint.grpc import GrpcSaver

from tests.e2e.reference import ReferenceSaver
from tests.support.calls import Calls
from tests.support.comparison import FLAVOURS, Compare, Scenario, Way, differences, perform
from tests.support.server_process import ServerProcess


@pytest.fixture
def thread_id() -> str:
    """A thread that no other test uses."""
    return str(uuid.uuid4())


@pytest.fixture
def compare(shared_server: ServerProcess, thread_id: str) -> Compare:
    """Plays a scenario on GrpcSaver and on InMemorySaver, and fails at the first difference."""

    def compare(scenario: Scenario, way: Way) -> None:
        with GrpcSaver(shared_server.target) as saver:
            record = perform(scenario, saver, way, thread_id)
        reference = perform(scenario, ReferenceSaver(), way, thread_id)
        if found := differences(record, reference):
            pytest.fail(found, pytrace=False)

    return compare


@pytest.fixture(params=FLAVOURS)
async def calls(shared_server: ServerProcess, request: pytest.FixtureRequest) -> AsyncIterator[Calls]:
    """A saver's methods on a thread of the test's own, blocking and awaiting."""
    async with GrpcSaver(shared_server.target, retry_budget=0) as saver:
        yield Calls(saver, request.param)
