"""What is wrong, to whom it is told, and what it says about ourselves."""
