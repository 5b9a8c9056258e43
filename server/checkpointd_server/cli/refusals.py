"""Explanations of a server's rejections for users of commands: the option at fault, or why there is no answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import click
import grpc

from checkpointd_server.remote.refusals import Refusal

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
    "request": "service",  # the only field of a health request
}
"""Options whose names differ from the fields that they set, by field."""

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
"""Parts of grpc's messages about unreachable servers, and what they mean in plain words."""


def name_option(error: Any) -> click.BadParameter | None:
    """Returns the error for the option or argument that the server rejected. None: no option set the field."""
    refusal = Refusal.of_call(error)
    if refusal.reason != "INVALID_ARGUMENT":
        return None
    field = refusal.metadata.get("field", "")
    for name in _names_of(field):
        for param in click.get_current_context().command.params:
            if param.name == name:
                problem = str(error.details()).removeprefix(f"{field}: ")
                return click.BadParameter(problem, ctx=click.get_current_context(), param=param)
    return None


def _names_of(field: str) -> Iterator[str]:
    """Yields possible names of the parameter that sets a field like policy.max_idle_seconds or set_tags[0].name."""
    for part in reversed(re.sub(r"\[[0-9]+\]", "", field).split(".")):
        yield part
        if part in _OPTIONS:
            yield _OPTIONS[part]


def why_no_answer(error: Any, timeout: float) -> str:
    """Returns why a server could not be reached, in plain words if the cause is known, else in grpc's."""
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"it did not answer within {timeout:g} s (--timeout)"
    details = str(error.details() or "")
    return next((plain for sign, plain in _CAUSES if sign in details.lower()), details)
