"""The longest keys within the limits fit into the indexes, even if they can't be compressed."""

from __future__ import annotations

import random
import string

from checkpointd_server.domain.limits import Limits
from tests.support.tenant import Tenant, write


def noise(size: int) -> str:
    return "".join(random.Random(size).choices(string.ascii_letters + string.digits + string.punctuation, k=size))


async def test_the_longest_keys(tenant: Tenant) -> None:
    limits = Limits()
    longest = Tenant(tenant.store, noise(limits.max_tenant_bytes))
    thread, ns = noise(limits.max_thread_id_bytes), noise(limits.max_checkpoint_ns_bytes)
    checkpoint_id, task_id = noise(limits.max_checkpoint_id_bytes), noise(limits.max_task_id_bytes)
    channel, version = noise(limits.max_channel_bytes), noise(limits.max_channel_version_bytes)
    path = noise(limits.max_task_path_bytes)
    place = {"thread": thread, "ns": ns}
    await longest.put(
        checkpoint_id,
        versions={channel: version},
        values={channel: b"value"},
        metadata={"run_id": noise(limits.max_run_id_bytes)},
        **place,  # type: ignore[arg-type]
    )
    await longest.writes(checkpoint_id, write(task_id, 0, channel, b"write", path=path), **place)  # type: ignore[arg-type]
    assert await longest.values(**place) == {channel: b"value"}
    assert [found.task_path for found in (await longest.read(**place)).pending_writes] == [path]
    await longest.copy(thread, noise(limits.max_thread_id_bytes - 1))
    assert await longest.prune(thread) == 0
