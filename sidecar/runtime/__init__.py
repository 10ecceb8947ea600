"""Floor 3: metrics, logs, owned tasks: what every program of the image runs on."""
