-- The second barrier between tenants: a transaction sees and changes only the rows of the tenant that it acts for, whatever its
-- statements say. Without a tenant it sees no rows. Superusers and roles with BYPASSRLS are exempt.
--
-- IS NOT DISTINCT FROM can't use an index, as = could: while the tables are new, the planner would search them by the tenant
-- alone, and prepared statements would keep that plan. So policies don't change plans.

ALTER TABLE __schema__.threads ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON __schema__.threads
    USING (tenant IS NOT DISTINCT FROM current_setting('checkpointd.tenant', true));

ALTER TABLE __schema__.thread_labels ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON __schema__.thread_labels
    USING (tenant IS NOT DISTINCT FROM current_setting('checkpointd.tenant', true));

ALTER TABLE __schema__.namespaces ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON __schema__.namespaces
    USING (tenant IS NOT DISTINCT FROM current_setting('checkpointd.tenant', true));

ALTER TABLE __schema__.checkpoints ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON __schema__.checkpoints
    USING (tenant IS NOT DISTINCT FROM current_setting('checkpointd.tenant', true));

ALTER TABLE __schema__.channel_values ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON __schema__.channel_values
    USING (tenant IS NOT DISTINCT FROM current_setting('checkpointd.tenant', true));

ALTER TABLE __schema__.task_writes ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON __schema__.task_writes
    USING (tenant IS NOT DISTINCT FROM current_setting('checkpointd.tenant', true));

ALTER TABLE __schema__.replaced_writes ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON __schema__.replaced_writes
    USING (tenant IS NOT DISTINCT FROM current_setting('checkpointd.tenant', true));

ALTER TABLE __schema__.value_parts ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON __schema__.value_parts
    USING (tenant IS NOT DISTINCT FROM current_setting('checkpointd.tenant', true));

ALTER TABLE __schema__.uploads ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON __schema__.uploads
    USING (tenant IS NOT DISTINCT FROM current_setting('checkpointd.tenant', true));

ALTER TABLE __schema__.lease_waiters ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON __schema__.lease_waiters
    USING (tenant IS NOT DISTINCT FROM current_setting('checkpointd.tenant', true));

-- Policies apply to owners too, because the server's role usually owns the tables. Not on Citus, where that would prevent moving
-- shards: there the owner migrates, and another role serves.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'citus') THEN
        ALTER TABLE __schema__.threads FORCE ROW LEVEL SECURITY;
        ALTER TABLE __schema__.thread_labels FORCE ROW LEVEL SECURITY;
        ALTER TABLE __schema__.namespaces FORCE ROW LEVEL SECURITY;
        ALTER TABLE __schema__.checkpoints FORCE ROW LEVEL SECURITY;
        ALTER TABLE __schema__.channel_values FORCE ROW LEVEL SECURITY;
        ALTER TABLE __schema__.task_writes FORCE ROW LEVEL SECURITY;
        ALTER TABLE __schema__.replaced_writes FORCE ROW LEVEL SECURITY;
        ALTER TABLE __schema__.value_parts FORCE ROW LEVEL SECURITY;
        ALTER TABLE __schema__.uploads FORCE ROW LEVEL SECURITY;
        ALTER TABLE __schema__.lease_waiters FORCE ROW LEVEL SECURITY;
    END IF;
END
$$;
