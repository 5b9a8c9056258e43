"""Calls to a server that may be restarting, overloaded, or hold a tenant to its quotas."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from checkpointd.v1.info_service_pb2 import GetServerInfoRequest
from checkpointd.v1.info_service_pb2_grpc import InfoServiceStub
from checkpointd_server.moving.content import MoveError

TRIES = 8
"""How often a call is made that a server can't answer just now."""
FIRST_PAUSE = 0.1
"""How long to wait before the second try, in seconds; twice as long before each further one."""
QUOTA_SECONDS = 300.0
"""How long a call waits, in all, for a quota of calls a second."""
_AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED)
_DETAILS_KEY = "grpc-status-details-bin"

Answer = TypeVar("Answer")


class QuotaUsedUp(MoveError):
    """The tenant may store no more: whatever comes next would be refused, too."""


class Refusal(NamedTuple):
    """A server's answer to what it doesn't do."""

    code: int
    """The number of the gRPC status code."""
    reason: str
    """The reason, without its prefix. Empty: it names none."""
    message: str
    retry_after: float
    """After how many seconds to send the call again. 0: nothing is said about it."""

    @classmethod
    def of(cls, error: grpc.RpcError) -> Refusal:
        """Reads what a call failed with."""
        code, message = error.code().value[0], error.details() or ""
        reason, retry_after = "", 0.0
        for key, value in error.trailing_metadata() or ():
            if key != _DETAILS_KEY:
                continue
            try:
                details = Status.FromString(value).details
            except DecodeError:
                continue
            for detail in details:
                info, retry = ErrorInfo(), RetryInfo()
                if detail.Unpack(info):
                    reason = info.reason
                elif detail.Unpack(retry):
                    retry_after = retry.retry_delay.ToTimedelta().total_seconds()
        return cls(code, reason, message, retry_after)


class Retries:
    """Waits before one call is made again, for as long as that makes sense."""

    def __init__(self, tries: int = TRIES) -> None:
        self._left = tries - 1
        self._pause = FIRST_PAUSE
        self._quota_seconds = QUOTA_SECONDS

    def wait(self, refusal: Refusal) -> bool:
        """Waits until the call may be made again. False: it may not. Raises QuotaUsedUp."""
        if refusal.reason == "QUOTA_EXCEEDED":
            if not refusal.retry_after:
                raise QuotaUsedUp(
                    f"the server takes no more: {refusal.message}. When there is room (`checkpointd quotas set`), give "
                    "the same command again: it goes on where it was"
                )
            if self._quota_seconds <= 0:
                return False
            self._quota_seconds -= refusal.retry_after
            time.sleep(refusal.retry_after)
            return True
        # What is too large won't be smaller the next time.
        if refusal.code not in {code.value[0] for code in _AGAIN} or refusal.reason == "MESSAGE_TOO_LARGE":
            return False
        if not self._left:
            return False
        self._left -= 1
        time.sleep(max(self._pause, refusal.retry_after))
        self._pause *= 2
        return True


def repeat(call: Callable[[], Answer], *, tries: int = TRIES) -> Answer:
    """Makes a call that is safe to repeat, until the server answers it. Raises grpc.RpcError, QuotaUsedUp.

    Args:
        call: Makes it.
        tries: How often, where a server can't answer.
    """
    retries = Retries(tries)
    while True:
        try:
            return call()
        except grpc.RpcError as error:
            if not retries.wait(Refusal.of(error)):
                raise


class ServerIdentity(NamedTuple):
    """Whose threads and items are behind a channel."""

    server_id: str
    """A UUID that tells the server's store from others."""
    tenant: str

    @classmethod
    def ask(cls, channel: grpc.Channel, timeout: float) -> ServerIdentity:
        """Asks a server, once: whether it is there at all shows at once. Raises grpc.RpcError, MoveError."""
        stub: Any = InfoServiceStub(channel)
        response = repeat(lambda: stub.GetServerInfo(GetServerInfoRequest(), timeout=timeout), tries=1)
        if not response.server_id:
            raise MoveError("the server doesn't tell which one it is: it is older than this command")
        return cls(response.server_id, response.tenant)

    def __str__(self) -> str:
        return f"the server {self.server_id}, tenant {self.tenant!r}"
