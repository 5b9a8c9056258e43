"""Retries of calls that a server can't answer, or rejects for now."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from checkpointd.v1.info_service_pb2 import GetServerInfoRequest
from checkpointd.v1.info_service_pb2_grpc import InfoServiceStub
from checkpointd_server.remote.refusals import Refusal
from checkpointd_server.remote.retries import Retries, RetryInterceptor
from tests.support.server_process import ServerProcess

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
UNAVAILABLE = Refusal(code=grpc.StatusCode.UNAVAILABLE.value[0])


def test_pauses_double_until_the_tries_are_used_up() -> None:
    retries = Retries(tries=4, first_pause=0.5)
    assert [retries.next_pause(UNAVAILABLE) for _ in range(4)] == [0.5, 1.0, 2.0, None]


def test_a_server_that_restarts_is_not_asked_sooner_than_it_says() -> None:
    draining = Refusal(code=UNAVAILABLE.code, reason="DRAINING", retry_after=3.0)
    assert Retries(tries=2, first_pause=0.5).next_pause(draining) == 3.0


def test_what_names_its_time_is_waited_for_without_using_up_tries() -> None:
    retries = Retries(tries=1, max_wait=5.0)
    busy = Refusal(code=EXHAUSTED, reason="OVERLOADED", retry_after=2.0)
    assert [retries.next_pause(busy) for _ in range(3)] == [2.0, 2.0, None]


def test_what_time_does_not_change_is_not_tried_again() -> None:
    retries = Retries()
    for refusal in (
        Refusal(code=EXHAUSTED, reason="MESSAGE_TOO_LARGE"),
        Refusal(code=EXHAUSTED, reason="QUOTA_EXCEEDED"),
        Refusal(code=grpc.StatusCode.INVALID_ARGUMENT.value[0], reason="INVALID_ARGUMENT"),
    ):
        assert retries.next_pause(refusal) is None


class Restarting(Retries):
    """Retries that first start the server."""

    def __init__(self, server: ServerProcess) -> None:
        super().__init__()
        self.server = server
        self.begun = False

    def next_pause(self, refusal: Refusal) -> float | None:
        if not self.begun:
            self.begun = True
            self.server.restart()
        return super().next_pause(refusal)


def test_a_call_outlasts_a_restart_of_a_server_that_has_answered(server: ServerProcess) -> None:
    retries, told = Restarting(server), list[str]()
    with grpc.insecure_channel(server.target) as channel:
        stub: Any = InfoServiceStub(grpc.intercept_channel(channel, RetryInterceptor(lambda: retries, told.append)))
        before = stub.GetServerInfo(GetServerInfoRequest(), timeout=30)
        server.kill()
        assert stub.GetServerInfo(GetServerInfoRequest(), timeout=30).server_id == before.server_id
    assert retries.begun
    assert not told  # that is only for overload and quotas


def test_a_server_that_never_answered_is_not_waited_for(server: ServerProcess) -> None:
    target, retries = server.target, Restarting(server)
    server.kill()
    with grpc.insecure_channel(target) as channel:
        stub: Any = InfoServiceStub(grpc.intercept_channel(channel, RetryInterceptor(lambda: retries, print)))
        with pytest.raises(grpc.RpcError) as failed:
            stub.GetServerInfo(GetServerInfoRequest(), timeout=30)
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
    assert not retries.begun
