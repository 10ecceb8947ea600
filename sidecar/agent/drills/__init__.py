"""Drills: a point comes back into an empty place and is asked questions."""
