"""Metrics, as Prometheus scrapes them, and traces."""
