"""Counts over the last seconds, in a ring of buckets.

A bucket is a fixed stretch of the clock: bucket k covers [k * width, (k + 1) * width). The window is the current
bucket and those before it, `buckets` in all, so it looks back between `span - width` and `span` seconds.

The counters only ever grow, and the ring keeps what they were when each bucket began. Counting is then one addition
and nothing is ever subtracted in the hot path; a sum is "now less what was when the oldest bucket began". Old
buckets leave on every `turn`, however long nobody came: whoever counts or reads at `now >= edge` turns first, and a
read through `sum` does it by itself.
"""


class Window:
    """`columns` counters seen over `span` seconds.

    Hot paths may count by themselves: `if now >= window.edge: window.turn(now)`, then `window.counts[column] += 1`.
    """

    __slots__ = ("_buckets", "_index", "_marks", "base", "counts", "edge", "width")

    def __init__(self, span: float, buckets: int = 10, columns: int = 3) -> None:
        if span <= 0.0 or buckets < 1:
            raise ValueError("a window has a positive span and at least one bucket")
        self.width = span / buckets
        self.counts = [0] * columns
        """Everything counted so far, per column; never falls."""
        self.edge = float("-inf")
        """When the current bucket ends; from then on `turn` comes before counting."""
        self._buckets = buckets
        self._index = -(1 << 62)  # before any time
        self._marks = [(0,) * columns] * buckets
        self.base: tuple[int, ...] = (0,) * columns
        """What `counts` were when the window began; the sums are their difference."""

    def turn(self, now: float) -> None:
        """Begin the bucket of `now`; what is older than the window leaves the sums."""
        index = int(now // self.width)
        steps = index - self._index
        if steps <= 0:
            return
        mark = tuple(self.counts)
        for step in range(max(index - self._buckets, self._index) + 1, index + 1):
            self._marks[step % self._buckets] = mark
        self._index = index
        self.base = self._marks[(index + 1) % self._buckets]
        self.edge = (index + 1) * self.width

    def add(self, column: int, now: float) -> None:
        """Count one."""
        if now >= self.edge:
            self.turn(now)
        self.counts[column] += 1

    def sum(self, column: int, now: float) -> int:
        """What was counted in this column within the window."""
        if now >= self.edge:
            self.turn(now)
        return self.counts[column] - self.base[column]

    def clear(self) -> None:
        """Forget everything counted so far."""
        self._marks = [tuple(self.counts)] * self._buckets
        self.base = self._marks[0]
