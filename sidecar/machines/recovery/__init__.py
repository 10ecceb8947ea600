"""When something is done about a fault, and when people take over."""
