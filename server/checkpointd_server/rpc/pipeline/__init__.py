"""The multiplexed stream: ordered operations, and their results."""
