"""Attacks on a server, and the time for which it is silent meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from tests.support.forked import ForkedAgent
from tests.support.local_server import LocalServer
from tests.support.server_process import clean_environment
from tests.support.stretches import Stretches

LONGEST_STRETCH = 0.25
"""The longest that the event loop may compute without a break, in seconds of CPU time."""
TRIES = 3
LONGEST_SILENCE = 3.0
"""The longest that a health check may take, in seconds."""


class Attacker:
    """Sends requests to a server."""

    def __init__(self, target: str) -> None:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self.target = target
        self.channel = grpc.insecure_channel(target, options)

    def send(self, method: str, request: Any) -> grpc.StatusCode:
        """Sends a request, and returns the status code of the answer."""
        data = request if isinstance(request, bytes) else request.SerializeToString()
        try:
            if method == "CheckpointService/Pipeline":
                call = self.channel.stream_stream(f"/checkpointd.v1.{method}")
                for _ in call(iter([data]), timeout=60):
                    pass
            else:
                self.channel.unary_unary(f"/checkpointd.v1.{method}")(data, timeout=60)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
        return grpc.StatusCode.OK

    def expect(self, code: grpc.StatusCode, method: str, request: Any) -> None:
        """Sends a request that must end with this code."""
        assert self.send(method, request) is code


class Silence:
    """The longest time without an answer from a server, in seconds."""

    seconds: float


@contextmanager
def watching(target: str) -> Iterator[Silence]:
    """Asks for health without a pause while the context lasts. The longest silence is known afterwards."""
    silence = Silence()
    with ForkedAgent("tests.load.onlooker", target, environment=clean_environment()) as onlooker:
        assert onlooker.stdout.readline() == "watching\n"
        yield silence
        silence.seconds = float(onlooker.communicate(timeout=60))


class Server(Attacker):
    """A server in this process, under attack."""

    def __init__(self, server: LocalServer, stretches: Stretches) -> None:
        super().__init__(server.target)
        self._thread = server.thread
        self._stretches = stretches

    def silences_nobody(self, attack: Callable[[], None]) -> None:
        """Attacks, and fails if the server was silent for too long.

        Tries again after a failure: a busy machine can cause one, but not each time.
        """
        for _ in range(TRIES):
            self._stretches.begin_anew()
            with watching(self.target) as silence:
                attack()
            stretch = self._stretches.longest(self._thread)
            if stretch < LONGEST_STRETCH and silence.seconds < LONGEST_SILENCE:
                return
        raise AssertionError(f"computed {stretch:.2f} s without a break; health was silent for {silence.seconds:.2f} s")
