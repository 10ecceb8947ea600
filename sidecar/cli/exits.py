"""Exit codes. The same number means the same thing for every verb."""

OK = 0
FAILED = 1
USAGE = 2
UNHEALTHY = 3
WRONG_KEY = 4
"""A wrong key or wrong credentials."""
CONFIG = 78
"""The configuration cannot be used (EX_CONFIG of sysexits.h)."""
