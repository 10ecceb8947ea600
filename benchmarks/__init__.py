"""Measurements of the proxy beside its peers. Each module here is one command; README.md lists them."""
