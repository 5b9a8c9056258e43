"""Databases that tests borrow one after another are as good as new."""

from __future__ import annotations

import pytest

from tests.support.cluster import PostgresCluster


def test_what_a_test_has_stored_is_gone_when_the_next_borrows_the_database(postgres_cluster: PostgresCluster) -> None:
    stores = "INSERT INTO checkpointd.gc_queue (thread, tenant, due_at) VALUES (gen_random_uuid(), 'somebody', now())"
    nothing = "DO $$ BEGIN ASSERT NOT EXISTS (SELECT FROM checkpointd.gc_queue); END $$"
    for _ in range(10):
        with postgres_cluster.borrowed_database() as name:
            postgres_cluster.execute(stores, database=name)
        with postgres_cluster.borrowed_database() as again:
            postgres_cluster.execute(nothing, database=again)
        if again == name:
            return
    pytest.fail("each was made anew")


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TABLE checkpointd.more (number int)",
        "ALTER TABLE checkpointd.threads DROP COLUMN thread_id CASCADE",
        "ALTER TABLE checkpointd.threads DISABLE ROW LEVEL SECURITY",
        "UPDATE checkpointd.migrations SET name = 'another'",
        "GRANT SELECT ON checkpointd.threads TO PUBLIC",
        "ALTER DATABASE {name} SET statement_timeout = '1s'",
        "ALTER DATABASE {name} ALLOW_CONNECTIONS false",
    ],
)
def test_a_database_that_was_changed_is_dropped(change: str, postgres_cluster: PostgresCluster) -> None:
    with postgres_cluster.borrowed_database() as name:
        postgres_cluster.execute(change.format(name=name), database="postgres" if "DATABASE" in change else name)
    assert postgres_cluster.fetch_value("SELECT count(*) FROM pg_database WHERE datname = $1", name) == 0
