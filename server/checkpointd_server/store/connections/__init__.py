"""Connections to PostgreSQL: kept, shared, bounded, watched, and replaced where they died."""
