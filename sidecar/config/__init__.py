"""Floor 1: what the operator writes. Frozen structs, one file per concern."""
