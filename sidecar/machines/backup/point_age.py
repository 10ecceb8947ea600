"""How old the newest verified point is, whatever the wall clock does. Pure.

A point's moment is written by the wall clock, and that may be set: an hour forward makes every backup look too old, an
hour back hides that they are. So the age of a point that this process made is counted on a clock that only goes on.
Of one that was there before, all there is to go by is the wall clock, once, when it is first seen. One that then
lies in the future has no age that anybody knows: None, which is never told as 0.
"""

TOLERANCE = 5.0
"""Seconds by which clocks of two machines may differ without a word."""


class PointAge:
    """The newest verified point. Times are monotonic seconds, dates Unix seconds."""

    def __init__(self) -> None:
        self.point: str | None = None
        self.date: float | None = None
        """The moment whose state it brings back, as its maker's wall clock said."""
        self._since: float | None = None

    def made(self, point: str, date: float, since: float) -> None:
        """This process made it; `since`: the moment on our own clock."""
        self.point, self.date, self._since = point, date, since

    def seen(self, point: str | None, date: float, wall: float, now: float) -> None:
        """This is the newest one in the catalog, None: there is none. What is known of a point already stays."""
        if point is None:
            self.point = self.date = self._since = None
        elif point != self.point:
            age = wall - date
            self.point, self.date = point, date
            self._since = now - max(0.0, age) if age >= -TOLERANCE else None

    def age(self, now: float) -> float | None:
        """Seconds; None: there is no verified point, or its age cannot be known."""
        return None if self._since is None else max(0.0, now - self._since)
