"""The lanes: threads of work that the running agent keeps up, each with its own schedule."""
