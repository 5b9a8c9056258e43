"""Refusals of a server as a command tells them: when to come again, which option is meant, why there is no answer."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import click
import grpc
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

LONGEST_WAIT = 60.0
"""How long a command waits in all for a server that asks it to come again later, in seconds."""
_ADVICE = re.compile(r"[;:] send this again later$")
_DETAILS_KEY = "grpc-status-details-bin"

_OPTIONS = {
    "thread_id_prefix": "prefix",
    "max_idle_seconds": "max_idle",
    "max_age_seconds": "max_age",
    "hold_seconds": "hold",
    "delete_interrupted": "interrupted",
    "tenant_name": "name",
    "thread_id": "thread_ids",
    "source_thread_id": "thread_id",
    "target_thread_id": "new_thread_id",
    "before_checkpoint_id": "before",
    "after_checkpoint_id": "after",
    "set_tags": "tags",
    "remove_tags": "remove",
    "request": "service",  # all that a request for the health of one holds
}
"""Options whose name differs from the field that they fill."""

_CAUSES = (
    ("connection refused", "nothing listens there"),
    ("dns resolution failed", "its name leads to no address"),
    ("name or service not known", "its name leads to no address"),
    ("no such file or directory", "there is no such socket"),
    ("permission denied", "this user may not open the socket"),
    ("network is unreachable", "no network leads there"),
    ("no route to host", "no network leads there"),
    ("timed out", "its host doesn't answer"),
    ("timeout occurred", "its host doesn't answer"),
    ("socket closed", "it closed the connection"),
    ("connection reset", "it closed the connection"),
)
"""Of what grpc says where there is no answer, what people know it by."""


class Refusal(NamedTuple):
    """Details of a refusal, as a server of ours gives them."""

    reason: str
    metadata: dict[str, str]
    retry_after: float | None
    """In seconds. None: it doesn't ask to come again."""


def read_refusal(error: Any) -> Refusal | None:
    """Returns what a call's error says in detail. None: no server of ours says it."""
    packed = dict(error.trailing_metadata() or ()).get(_DETAILS_KEY)
    if packed is None:
        return None
    info, hint, retry_after = ErrorInfo(), RetryInfo(), None
    for detail in Status.FromString(packed).details:
        detail.Unpack(info)
        if detail.Unpack(hint):
            retry_after = hint.retry_delay.ToTimedelta().total_seconds()
    return Refusal(info.reason, dict(info.metadata), retry_after)


class Patient(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]  # no types
    """Makes calls again that a server refuses for now: it has too much to do, or the tenant's quota is used up.

    Args:
        target: The server, as it is told of.
        longest: How long to wait in all, in seconds.
    """

    def __init__(self, target: str, *, longest: float = LONGEST_WAIT) -> None:
        self._target = target
        self._left = longest
        self._has_told = False

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """Makes a call, and again after each time that the server names, until it is done or the time is up."""
        while True:
            outcome = continuation(details, request)
            error = outcome.exception()
            if not isinstance(error, grpc.RpcError) or error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                return outcome
            refusal = read_refusal(error)
            if refusal is None or refusal.retry_after is None or refusal.retry_after > self._left:
                return outcome
            if not self._has_told:
                self._has_told = True
                why = _ADVICE.sub("", error.details() or "")
                click.echo(f"waiting for {self._target}: {why}", err=True)
            self._left -= refusal.retry_after
            time.sleep(refusal.retry_after)


def name_option(error: Any) -> click.BadParameter | None:
    """Returns a refused argument as the option's or argument's fault that it was given by. None: it was by none."""
    refusal = read_refusal(error)
    if refusal is None or refusal.reason != "INVALID_ARGUMENT":
        return None
    field = refusal.metadata.get("field", "")
    for name in _names_of(field):
        for param in click.get_current_context().command.params:
            if param.name == name:
                problem = str(error.details()).removeprefix(f"{field}: ")
                return click.BadParameter(problem, ctx=click.get_current_context(), param=param)
    return None


def _names_of(field: str) -> Iterator[str]:
    """Yields how a parameter may be named that fills a field, as policy.max_idle_seconds or set_tags[0].name."""
    for part in reversed(re.sub(r"\[[0-9]+\]", "", field).split(".")):
        yield part
        if part in _OPTIONS:
            yield _OPTIONS[part]


def why_no_answer(error: Any, timeout: float) -> str:
    """Says why a server could not be asked, in words that aren't grpc's where these are known."""
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"it did not answer within {timeout:g} s (--timeout)"
    details = str(error.details() or "")
    return next((plain for sign, plain in _CAUSES if sign in details.lower()), details)
