"""The interface of the store of retention policies, which `rpc` uses and `store` implements."""

from __future__ import annotations

from typing import Protocol

from checkpointd_server.domain.retention import ExpiringPage, RetentionPage, RetentionPolicy, RetentionPosition


class RetentionStore(Protocol):
    """Stores retention policies, and applies them. Arguments and errors are as in `CheckpointStore`."""

    async def set_policy(self, tenant: str, policy: RetentionPolicy, *, timeout: float | None) -> None:
        """Stores a policy in place of the one with its name.

        Args:
            tenant: The tenant.
            policy: The policy.
            timeout: The caller's remaining time, in seconds. None: no limit.

        Raises:
            InvalidArgument: There are too many.
        """
        ...

    async def delete_policy(self, tenant: str, name: str, *, timeout: float | None) -> bool:
        """Deletes a policy.

        Args:
            tenant: The tenant.
            name: Its name.
            timeout: The caller's remaining time, in seconds. None: no limit.

        Returns:
            Whether it was there.
        """
        ...

    async def list_policies(self, tenant: str, *, timeout: float | None) -> list[RetentionPolicy]:
        """Reads all policies of a tenant.

        Args:
            tenant: The tenant.
            timeout: The caller's remaining time, in seconds. None: no limit.

        Returns:
            The policies, by name.
        """
        ...

    async def preview(
        self, tenant: str, policy: RetentionPolicy | None, *, after: RetentionPosition | None, timeout: float | None
    ) -> RetentionPage:
        """Returns what would be deleted from the next threads now, without changing anything.

        Args:
            tenant: The tenant.
            policy: A policy to try, in place of the one with its name. None: the stored policies.
            after: The position where the previous page ended. None: the first page.
            timeout: The caller's remaining time, in seconds. None: no limit.

        Returns:
            The plans, and where to continue.
        """
        ...

    async def run(self, tenant: str, *, after: RetentionPosition | None, timeout: float | None) -> RetentionPage:
        """Applies the policies to the next threads now.

        Args:
            tenant: The tenant.
            after: The position where the previous part ended. None: the first part.
            timeout: The caller's remaining time, in seconds. None: no limit.

        Returns:
            What was deleted, and where to continue.
        """
        ...

    async def list_expiring(
        self, tenant: str, *, after: RetentionPosition | None, page_size: int, timeout: float | None
    ) -> ExpiringPage:
        """Reads a page of announced deletions that aren't acknowledged, earliest deadline first.

        Args:
            tenant: The tenant.
            after: The position where the previous page ended. None: the first page.
            page_size: The most entries.
            timeout: The caller's remaining time, in seconds. None: no limit.

        Returns:
            The page.
        """
        ...

    async def acknowledge(self, tenant: str, thread_id: str, below: str, *, timeout: float | None) -> bool:
        """Acknowledges an announced deletion.

        Args:
            tenant: The tenant.
            thread_id: The thread.
            below: For a trim: the id below which checkpoints are deleted. Empty: the whole thread.
            timeout: The caller's remaining time, in seconds. None: no limit.

        Returns:
            Whether it is still the announced deletion.
        """
        ...
