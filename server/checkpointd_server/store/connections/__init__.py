"""Connections to PostgreSQL: pool, queue, hosts, and watchdog."""
