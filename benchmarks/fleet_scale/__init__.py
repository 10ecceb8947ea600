"""What a fleet of ten thousand costs its Redis, simulated with the real machines and with Redis's real prices."""
