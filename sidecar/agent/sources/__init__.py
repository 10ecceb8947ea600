"""Sources: what is backed up, each made ready for an engine."""
