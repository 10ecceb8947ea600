"""The main measurement: CPU per piece of work, every proxy side by side in one interleaved run."""
