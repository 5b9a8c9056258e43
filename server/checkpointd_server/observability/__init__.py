"""What an operator sees of a server: metrics, as Prometheus scrapes them, and traces."""
