"""How many retries an upstream may get, so that retries never become the storm.

Over the last ten seconds the retries stay within `ratio` of the requests, but `min_per_second` is always allowed:
otherwise a service with little traffic could never retry. The idea and the ten seconds are Finagle's
(`RetryBudget`), the figures of 20 % and 3 are Envoy's and Linkerd's.
"""

from sidecar.machines.window import Window

SPAN = 10.0
_REQUESTS, _RETRIES = 0, 1


class RetryBudget:
    """One upstream's budget."""

    __slots__ = ("_floor", "_ratio", "_window", "refused")

    def __init__(self, ratio: float, min_per_second: float) -> None:
        self._ratio = ratio
        self._floor = min_per_second * SPAN
        self._window = Window(SPAN, buckets=10, columns=2)
        self.refused = 0
        """Retries that the budget did not allow, since the start."""

    def request(self, now: float) -> None:
        """A request came in; its later retries are not requests."""
        window = self._window
        if now >= window.edge:
            window.turn(now)
        window.counts[_REQUESTS] += 1

    def take(self, now: float) -> bool:
        """Whether one more retry is allowed; it is spent when it is."""
        if self.left(now) < 1.0:
            self.refused += 1
            return False
        self._window.counts[_RETRIES] += 1
        return True

    def left(self, now: float) -> float:
        """Retries that would be allowed at `now`."""
        allowed = max(self._floor, self._ratio * self._window.sum(_REQUESTS, now))
        return allowed - self._window.sum(_RETRIES, now)
