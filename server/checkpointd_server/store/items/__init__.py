"""Long-term memory on PostgreSQL: items, their filters, vectors and words."""
