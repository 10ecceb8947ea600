"""A service-mesh sidecar."""

__version__ = "0.1.0"
