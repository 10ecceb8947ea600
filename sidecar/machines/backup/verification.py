"""When stored data is read again, and which point is offered when one turns out to be bad. Pure.

Every backup is verified by sample as soon as it is made; that needs no schedule. But a bit flips at rest, in what was
good yesterday: so all data is read again, a part each time, until every part was read, and then from the beginning.
A turn that failed is not passed over: the same part comes again, soon, and only then the next.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

RETRY = 0.1
"""Share of the interval after which a part that could not be read is tried again."""


class ReadTurn:
    """Whose turn it is: part `part` of `parts`, due at `due_at` (monotonic seconds)."""

    def __init__(self, every: float, parts: int, now: float, last: tuple[int, float] | None = None) -> None:
        """`last`: the part read last and how many seconds ago; None: nothing was ever read."""
        self._every = every
        self._parts = parts
        part, age = last if last is not None else (0, 0.0)
        self.part = part % parts + 1
        self.due_at = max(now, now + every - max(0.0, age))

    def due(self, now: float) -> bool:
        return now >= self.due_at

    def done(self, now: float, *, read: bool) -> None:
        """The part was read, whatever was found; or could not be (`read` false)."""
        if read:
            self.part = self.part % self._parts + 1
        self.due_at = now + self._every * (1.0 if read else RETRY)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A point that might be restored instead; candidates come newest first."""

    id: str
    verified: bool
    whole: bool
    """It needs nothing that is damaged."""


def offer(candidates: Sequence[Candidate], bad: Collection[str]) -> str | None:
    """The newest verified point that is whole and not among `bad`; None: there is none."""
    return next((one.id for one in candidates if one.verified and one.whole and one.id not in bad), None)
