"""What would have happened: traffic and faults against a configuration, on a virtual clock, by the proxy's machines."""
