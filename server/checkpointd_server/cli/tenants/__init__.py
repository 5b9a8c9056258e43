"""`checkpointd purge`, `stats` and `quotas`: what tenants hold and may use, and their end."""
