"""LangGraph's own conformance suite: all of it, with nothing left out."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance.capabilities import (
    ALL_CAPABILITIES,
    Capability,
    DetectedCapabilities,
)
from langgraph.checkpoint.conformance.initializer import RegisteredCheckpointer
from langgraph.checkpoint.conformance.validate import validate
from langgraph.checkpoint.grpc import Encryption, GrpcSaver

from tests.support.local_server import LocalServer
from tests.support.server_process import ServerProcess

EXPECTED_TESTS = {
    "put": 17,
    "put_writes": 10,
    "get_tuple": 10,
    "list": 16,
    "delete_thread": 5,
    "delete_for_runs": 7,
    "copy_thread": 8,
    "prune": 8,
}
"""The number of tests of each capability in langgraph-checkpoint-conformance 0.0.2."""


ENCRYPTED: dict[str, Any] = {
    "encryption": Encryption(keys={"a": bytes(range(32))}, current="a"),
    # The key that the suite filters by, besides LangGraph's own keys.
    "searchable_metadata": {"score"},
}


@pytest.fixture(params=[{}, ENCRYPTED], ids=["plain", "encrypted"])
def registered(local_server: LocalServer, request: pytest.FixtureRequest) -> RegisteredCheckpointer:
    """GrpcSaver on a server of its own: some of the suite's tests list all threads there are."""

    async def factory() -> AsyncGenerator[BaseCheckpointSaver[str], None]:
        async with GrpcSaver(local_server.target, **request.param) as saver:
            yield saver

    return RegisteredCheckpointer(name="GrpcSaver", factory=factory)


async def test_all_eight_capabilities_pass(registered: RegisteredCheckpointer) -> None:
    report = await validate(registered)
    failures = {name: result.failures for name, result in report.results.items() if result.failures}
    assert not failures
    assert {Capability(name) for name in report.results} == ALL_CAPABILITIES
    assert len(ALL_CAPABILITIES) == 8
    assert all(result.detected and result.passed and not result.tests_skipped for result in report.results.values())
    assert {name: result.tests_passed for name, result in report.results.items()} == EXPECTED_TESTS
    assert report.conformance_level() == "FULL"


def test_the_saver_is_taken_for_one_that_can_do_all(shared_server: ServerProcess) -> None:
    # contract 29: capabilities are detected by override.
    with GrpcSaver(shared_server.target) as saver:
        assert DetectedCapabilities.from_instance(saver).missing == frozenset()


def test_every_rule_of_the_contract_has_a_test() -> None:
    tests = Path(__file__).parent.parent
    named: set[int] = set()
    for module in tests.rglob("test_*.py"):
        for comment in re.findall(r"# contract ([\d, ]+)", module.read_text()):
            named.update(int(number) for number in re.findall(r"\d+", comment))
    table = (tests / "e2e" / "README.md").read_text()
    assert named == set(range(1, 32)) == {int(number) for number in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
