"""Floor 4b: the upkeep. Admin interface, reload, workers; never imported by the data plane."""
