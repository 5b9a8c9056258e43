"""The interface of a store of retention policies, which `rpc` talks to and `store` fulfils."""

from __future__ import annotations

from typing import Protocol

from checkpointd_server.domain.retention import ExpiringPage, RetentionPage, RetentionPolicy, RetentionPosition


class RetentionStore(Protocol):
    """Keeps retention policies, and applies them. What `CheckpointStore` says of arguments and errors goes here too."""

    async def set_policy(self, tenant: str, policy: RetentionPolicy, *, timeout: float | None) -> None:
        """Stores a policy in place of the one with its name.

        Args:
            tenant: The tenant.
            policy: The policy.
            timeout: The time that the caller has left, in seconds; None: no end.

        Raises:
            InvalidArgument: There are too many.
        """
        ...

    async def delete_policy(self, tenant: str, name: str, *, timeout: float | None) -> bool:
        """Deletes a policy.

        Args:
            tenant: The tenant.
            name: Its name.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            Whether it was there.
        """
        ...

    async def list_policies(self, tenant: str, *, timeout: float | None) -> list[RetentionPolicy]:
        """Reads all policies of a tenant.

        Args:
            tenant: The tenant.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            The policies, by name.
        """
        ...

    async def preview(
        self, tenant: str, policy: RetentionPolicy | None, *, after: RetentionPosition | None, timeout: float | None
    ) -> RetentionPage:
        """Plans what would go of the next threads now, and changes nothing.

        Args:
            tenant: The tenant.
            policy: One to try, in place of the one with its name. None: those that are stored.
            after: The place where the page before ended. None: the first page.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            The plans, and where to go on.
        """
        ...

    async def run(self, tenant: str, *, after: RetentionPosition | None, timeout: float | None) -> RetentionPage:
        """Applies the policies to the next threads now.

        Args:
            tenant: The tenant.
            after: The place where the part before ended. None: the first part.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            What went, and where to go on.
        """
        ...

    async def list_expiring(
        self, tenant: str, *, after: RetentionPosition | None, page_size: int, timeout: float | None
    ) -> ExpiringPage:
        """Reads a page of announced deletions that aren't acknowledged, earliest deadline first.

        Args:
            tenant: The tenant.
            after: The place where the page before ended. None: the first page.
            page_size: The most entries.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            The page.
        """
        ...

    async def acknowledge(self, tenant: str, thread_id: str, below: str, *, timeout: float | None) -> bool:
        """Lets what was announced of a thread go.

        Args:
            tenant: The tenant.
            thread_id: The thread.
            below: Of a trim: the id below which checkpoints go; empty: the thread goes.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            Whether that is still what is announced.
        """
        ...
