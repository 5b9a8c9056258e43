"""SQL that fills a thread with a long history."""

from __future__ import annotations

from checkpointd_server.domain.threads import thread_key

_FILL = """
INSERT INTO checkpointd.threads (thread, tenant, thread_id, active_at, listed_at)
    SELECT CASE n WHEN 1 THEN '{key}'::uuid ELSE gen_random_uuid() END, 't', '{thread}' || n,
        now() - n * interval '1 second', now() - n * interval '1 second'
    FROM generate_series(1, {last}) AS n;
INSERT INTO checkpointd.namespaces (tenant, thread, checkpoint_ns, version, last_checkpoint_id)
    SELECT 't', thread, '', 1, '{last:08}' FROM checkpointd.threads WHERE thread_id LIKE '{thread}%';
INSERT INTO checkpointd.checkpoints (
    tenant, thread, checkpoint_ns, checkpoint_id, parent_checkpoint_id, version, body, channels, channel_versions,
    metadata_type, metadata, metadata_index, size
) SELECT 't', '{key}', '', to_char(n, 'FM00000000'), to_char(n - 1, 'FM00000000'), n, 'body', '{{a,b,c}}',
    ARRAY['v' || n, 'v' || n, 'v1'], 'json', '{{}}', '{{"step": 1}}', 20 FROM generate_series(1, {last}) AS n;
INSERT INTO checkpointd.channel_values (tenant, thread, checkpoint_ns, channel, version, type, data, size)
    SELECT 't', '{key}', '', c, 'v' || n, 'json', 'value', 5
    FROM generate_series(1, {last}) AS n, unnest('{{a,b,c}}'::text[]) AS c;
INSERT INTO checkpointd.task_writes (
    tenant, thread, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, data
) SELECT 't', '{key}', '', to_char(n, 'FM00000000'), 'task', i, '', 'a', 'json', 'value'
    FROM generate_series(1, {last}) AS n, generate_series(0, 2) AS i;
"""


def fill(thread: str, last: int) -> str:
    """Returns SQL that gives a thread of tenant "t" this many checkpoints, among as many other threads."""
    return _FILL.format(thread=thread, key=thread_key("t", thread), last=last)
