"""The multiplexed stream: its operations in order, and their results."""
