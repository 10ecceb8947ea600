"""Engines: who keeps trees in a repository."""
