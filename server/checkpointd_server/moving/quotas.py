"""Quotas of a target that end an import."""

from __future__ import annotations

from checkpointd_server.moving.content import MoveError
from checkpointd_server.remote.refusals import Refusal


class QuotaUsedUp(MoveError):
    """The tenant may store no more, so anything further would be refused too."""


def check_quota(refusal: Refusal) -> None:
    """Raises QuotaUsedUp if a call was refused for a quota that waiting doesn't free."""
    if refusal.reason == "QUOTA_EXCEEDED" and refusal.retry_after is None:
        raise QuotaUsedUp(
            f"the server stores no more: {refusal.message}. When there is room (`checkpointd quotas set`), run the "
            "same command again to continue"
        )
