"""What clients see of an upstream that dies, and what deciding costs: `python -m benchmarks.failures`."""
