"""Restoring: a plan with a hash, carried out step by step, beside or in place."""
