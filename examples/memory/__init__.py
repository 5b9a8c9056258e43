"""A demo of long-term memory: what one thread learns, another one knows."""
