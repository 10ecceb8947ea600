"""The fleet: what replicas say to each other about breakers, what is kept of it, and what each does."""
