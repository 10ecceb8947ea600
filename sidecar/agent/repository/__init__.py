"""Where points are kept: a store of objects, sealed by the repository's key, written under a lease."""
