"""SQL that fills a thread with a long history."""

from __future__ import annotations

FILL = """
INSERT INTO checkpointd.namespaces (tenant, thread_id, checkpoint_ns, version, last_checkpoint_id)
    SELECT 't', CASE n WHEN 1 THEN '{thread}' ELSE '{thread}' || n END, '', n, '{last:08}'
    FROM generate_series(1, {last}) AS n;
INSERT INTO checkpointd.checkpoints (
    tenant, thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, version, body, channels, channel_versions,
    metadata_type, metadata, metadata_index
) SELECT 't', '{thread}', '', to_char(n, 'FM00000000'), to_char(n - 1, 'FM00000000'), n, 'body', '{{a,b,c}}',
    ARRAY['v' || n, 'v' || n, 'v1'], 'json', '{{}}', '{{"step": 1}}' FROM generate_series(1, {last}) AS n;
INSERT INTO checkpointd.channel_values (tenant, thread_id, checkpoint_ns, channel, version, type, data)
    SELECT 't', '{thread}', '', c, 'v' || n, 'json', 'value'
    FROM generate_series(1, {last}) AS n, unnest('{{a,b,c}}'::text[]) AS c;
INSERT INTO checkpointd.task_writes (
    tenant, thread_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, data
) SELECT 't', '{thread}', '', to_char(n, 'FM00000000'), 'task', i, '', 'a', 'json', 'value'
    FROM generate_series(1, {last}) AS n, generate_series(0, 2) AS i;
"""
