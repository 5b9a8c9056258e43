"""Savers with times and bounds that users can't set."""

from __future__ import annotations

from typing import Any

from langgraph.checkpoint.grpc import GrpcSaver
from langgraph.checkpoint.grpc._transport.tuning import Tuning


def tuned(**tuning: Any) -> type[GrpcSaver]:
    """Returns a class of savers with these values of `Tuning`, and its own of the others."""

    class Tuned(GrpcSaver):
        _tuning = Tuning(**tuning)

    return Tuned
