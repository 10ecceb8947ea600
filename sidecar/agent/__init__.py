"""Floor 4c: the backup agent. Engines, sources, the repository, the catalog, and what is done with them."""
