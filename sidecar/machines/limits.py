"""How much of an upstream may be in use at once: requests, connections, waiting requests.

A gate counts what is inside and refuses when it is full; whoever entered leaves exactly once. One gate per limit
(Envoy's circuit-breaker thresholds: max_requests, max_connections, max_pending). A new maximum takes effect at
once for those who come; those inside stay.
"""


class Gate:
    """Admits at most `maximum` at a time."""

    __slots__ = ("inside", "maximum", "overflowed")

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.inside = 0
        self.overflowed = 0
        """How often the gate was full, since the start."""

    def enter(self) -> bool:
        """Whether there was room; when True, `leave` must follow once."""
        if self.inside >= self.maximum:
            self.overflowed += 1
            return False
        self.inside += 1
        return True

    def leave(self) -> None:
        """One who entered goes. Raises RuntimeError when nobody is inside: a slot was given back twice."""
        if self.inside <= 0:
            raise RuntimeError("a gate was left more often than entered")
        self.inside -= 1
