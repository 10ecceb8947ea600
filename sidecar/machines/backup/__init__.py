"""The agent's decisions: when, of which kind, how old, what is kept, what a drill and a restore do next."""
