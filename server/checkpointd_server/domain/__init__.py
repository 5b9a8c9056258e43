"""What a checkpoint store is: plain types, limits, errors and the store's interface. Standard library only."""
