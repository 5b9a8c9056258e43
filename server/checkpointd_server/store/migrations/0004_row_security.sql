-- The second wall between tenants: a connection sees and changes the rows of the tenant that it acts for (tenants.sql), and
-- no others, whatever a statement asks for. Without a tenant there are no rows. FORCE, for the server's role mostly owns
-- the tables. Superusers and roles with BYPASSRLS are not bound.
--
-- IS NOT DISTINCT FROM is no condition for an index, as = would be: the planner, which knows nothing of the tables while they
-- are new, would find rows by the tenant alone, and prepared statements would go on with it. So plans are what they were.

ALTER TABLE __schema__.namespaces ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON __schema__.namespaces
    USING (tenant IS NOT DISTINCT FROM current_setting('checkpointd.tenant', true));

ALTER TABLE __schema__.checkpoints ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON __schema__.checkpoints
    USING (tenant IS NOT DISTINCT FROM current_setting('checkpointd.tenant', true));

ALTER TABLE __schema__.channel_values ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON __schema__.channel_values
    USING (tenant IS NOT DISTINCT FROM current_setting('checkpointd.tenant', true));

ALTER TABLE __schema__.task_writes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON __schema__.task_writes
    USING (tenant IS NOT DISTINCT FROM current_setting('checkpointd.tenant', true));

ALTER TABLE __schema__.leases ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON __schema__.leases
    USING (tenant IS NOT DISTINCT FROM current_setting('checkpointd.tenant', true));

ALTER TABLE __schema__.lease_waiters ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON __schema__.lease_waiters
    USING (tenant IS NOT DISTINCT FROM current_setting('checkpointd.tenant', true));

ALTER TABLE __schema__.pieces ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON __schema__.pieces
    USING (tenant IS NOT DISTINCT FROM current_setting('checkpointd.tenant', true));

ALTER TABLE __schema__.piece_contents ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON __schema__.piece_contents
    USING (tenant IS NOT DISTINCT FROM current_setting('checkpointd.tenant', true));
