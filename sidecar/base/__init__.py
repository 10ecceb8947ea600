"""Floor 0: the words everybody speaks. Standard library only."""
