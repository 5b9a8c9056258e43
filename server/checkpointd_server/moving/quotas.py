"""Quotas of a target that end an import."""

from __future__ import annotations

from checkpointd_server.moving.content import MoveError
from checkpointd_server.remote.refusals import Refusal


class QuotaUsedUp(MoveError):
    """The tenant may store no more: whatever comes next would be refused, too."""


def check_quota(refusal: Refusal) -> None:
    """Raises QuotaUsedUp if a call was refused for a quota that waiting doesn't free."""
    if refusal.reason == "QUOTA_EXCEEDED" and refusal.retry_after is None:
        raise QuotaUsedUp(
            f"the server takes no more: {refusal.message}. When there is room (`checkpointd quotas set`), give the "
            "same command again: it goes on where it was"
        )
