"""The checker detects each kind of damage, done on purpose to an intact store."""

from __future__ import annotations

import re
from pathlib import Path

import asyncpg
import pytest

from checkpointd_server.domain.threads import thread_key
from tests.faults.postgres import FaultyPostgres
from tests.support.checker import check
from tests.support.journal import Line, of, read
from tests.support.server_process import ServerProcess
from tests.support.storm import FORMS, Storm

pytestmark = pytest.mark.long

LAST = "SELECT checkpoint_id FROM checkpointd.checkpoints WHERE thread_id = '{}' ORDER BY version DESC LIMIT 1"
HARM = {
    "a checkpoint is lost": (
        "DELETE FROM checkpointd.checkpoints WHERE checkpoint_id = (" + LAST.format("awaiting-3") + ")",
        "head is not at|lost",
    ),
    "a value is lost": (
        "DELETE FROM checkpointd.channel_values WHERE thread_id = 'blocking-4' AND version = "
        "'s' || (" + LAST.format("blocking-4") + ")",
        "values that are lost",
    ),
    "a value is changed": (
        "UPDATE checkpointd.channel_values SET data = '\\xa0' WHERE thread_id = 'awaiting-5'",
        "was changed",
    ),
    "task writes are lost": (
        "DELETE FROM checkpointd.task_writes WHERE thread_id = 'blocking-3' AND idx = 1",
        "writes beside",
    ),
    "a version came twice": (
        "UPDATE checkpointd.checkpoints SET version = 7 WHERE thread_id = 'blocking-5'",
        "a version came twice",
    ),
    "a version is not what was acknowledged": (
        "UPDATE checkpointd.checkpoints SET version = -version WHERE thread_id = 'awaiting-5' AND version < "
        "(SELECT max(version) FROM checkpointd.checkpoints WHERE thread_id = 'awaiting-5')",
        "versions don't grow",
    ),
    "a turn is lost": (
        "DELETE FROM checkpointd.checkpoints WHERE thread_id = 'awaiting-0' AND checkpoint_id IN "
        "(SELECT checkpoint_id FROM checkpointd.checkpoints WHERE thread_id = 'awaiting-0' "
        "ORDER BY checkpoint_id DESC LIMIT 5);"
        "UPDATE checkpointd.namespaces SET version = (SELECT max(version) FROM checkpointd.checkpoints "
        "WHERE thread_id = 'awaiting-0') WHERE thread_id = 'awaiting-0'",
        "awaiting-0: .*done",
    ),
    "nobody wrote it": (
        "INSERT INTO checkpointd.channel_values (thread, checkpoint_ns, channel, version, tenant, type, data, size) "
        "SELECT thread, checkpoint_ns, channel, 'sother', tenant, type, data, size "
        "FROM checkpointd.channel_values WHERE thread_id = 'contested' LIMIT 1",
        "values without a checkpoint",
    ),
}


def by_key(sql: str) -> str:
    """Replaces thread names by their keys, as in rows."""
    return re.sub(r"thread_id = '([\w-]+)'", lambda name: f"thread = '{thread_key('default', name[1])}'", sql)


async def test_every_harm_is_found(postgres: FaultyPostgres, server: ServerProcess, tmp_path: Path) -> None:
    async with Storm(server.target, tmp_path) as storm:
        await storm.progress(100)
    await storm.check(target=server.target, dsn=postgres.dsn)
    lines = [list(read(tmp_path / f"{form}.journal")) for form in FORMS]
    connection = await asyncpg.connect(postgres.dsn)
    tables = ("checkpoints", "channel_values", "task_writes", "namespaces")
    for table in tables:
        await connection.execute(f"CREATE TABLE kept_{table} AS TABLE checkpointd.{table}")
    for sql, found in HARM.values():
        await connection.execute(by_key(sql))
        with pytest.raises(AssertionError, match=found):
            await check(lines, target=server.target, dsn=postgres.dsn)
        for table in tables:
            await connection.execute(
                f"TRUNCATE checkpointd.{table}; INSERT INTO checkpointd.{table} SELECT * FROM kept_{table}"
            )
    await connection.close()
    refused = of(lines[0] + lines[1], "refused")
    assert refused
    contested = [line for line in lines[0] if line.thread_id == "contested"]
    stored = next(line for line in of(contested, "acknowledged") if line.kind == "put")
    written = next(line for line in of(contested, "acknowledged") if line.kind == "writes")
    # As if the agent had never been told that they were stored.
    lines[0].remove(written)
    for forged, found in (
        (Line(event="refused", kind="put", thread_id="contested", name=stored.name), "refused, but stored"),
        (
            Line(event="refused", kind="writes", thread_id="contested", name=written.name),
            "refused, but stored: writes",
        ),
        (Line(event="failed", kind="put", thread_id="t", name="", detail="the reason"), "the reason"),
        (Line(event="wrong", kind="put", thread_id="t", name="", detail="an absence"), "an absence"),
    ):
        with pytest.raises(AssertionError, match=found):
            await check([*lines, [forged]], target=server.target, dsn=postgres.dsn)
