"""The domain of a checkpoint store: plain types, limits, errors and the store's interface. Standard library only."""
