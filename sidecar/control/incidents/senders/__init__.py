"""How somebody is told: one way a file."""
