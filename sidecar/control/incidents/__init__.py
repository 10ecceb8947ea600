"""Incidents: what is wrong is detected, written down, and told to people until it is over."""
