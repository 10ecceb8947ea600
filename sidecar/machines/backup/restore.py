"""A restore, step by step: what comes after what, what a failure means, and where to go on after a crash. Pure.

Theory. A restore is a list of steps, made when it is planned. Each is journalled twice: `begun` before anything is
done, `done` afterwards. After a crash the journal says where we were; a step that was begun and not done is done again,
so every step must bear that. What holds only as long as a process lives (the lease, the fence) is `held`: it is done
again at each resume, whatever the journal says, until it was taken back.

Rules. Until the first `swap` has begun nothing of the service was touched: a failure there gives up, lets the service
go on as it was (`UNDO`), and the restore is over. From the first swap on there is no way back but forward: a failure
stops, the fence stays, and `restore resume` goes on from there once the cause is gone. A step that is not critical
(the safety snapshot of what is broken anyway, the last words) is noted when it fails, and passed over.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Act(StrEnum):
    """What a step does."""

    PREFLIGHT = "preflight"
    """Space, key, versions, target: whatever can be known to fail before anything is touched."""
    LEASE = "lease"
    FENCE = "fence"
    """The proxy lets nobody through to the service, and what was under way has ended."""
    STOP = "stop"
    """The service is stopped, so that it holds no file open that is about to be exchanged."""
    SAFETY = "safety"
    """What is there now is kept as a snapshot."""
    FETCH = "fetch"
    """A source is restored beside its place."""
    VALIDATE = "validate"
    SWAP = "swap"
    """A source is put into place by renames."""
    START = "start"
    HEALTH = "health"
    UNFENCE = "unfence"
    CLEAR = "clear"
    """What was set aside is removed."""


@dataclass(frozen=True, slots=True)
class Nature:
    """What is true of every step of an act."""

    critical: bool = True
    held: bool = False
    """True only while this process lives: done again at each resume."""


NATURE = {
    Act.PREFLIGHT: Nature(),
    Act.LEASE: Nature(held=True),
    Act.FENCE: Nature(held=True),
    Act.STOP: Nature(held=True),
    Act.SAFETY: Nature(critical=False),
    Act.FETCH: Nature(),
    Act.VALIDATE: Nature(),
    Act.SWAP: Nature(),
    Act.START: Nature(),
    Act.HEALTH: Nature(),
    Act.UNFENCE: Nature(),
    Act.CLEAR: Nature(critical=False),
}
UNDO: dict[Act, Act | None] = {Act.START: Act.STOP, Act.UNFENCE: Act.FENCE, Act.CLEAR: None}
"""What is still done when a restore is given up before its first swap, if what it takes back was begun."""
UNTIL = {taken: back for back, taken in UNDO.items() if taken is not None}
"""What a held step holds until: afterwards it is not done again, or nothing would take it back."""
FIRST, LAST = ("config",), ("files",)
"""Sources come back in this order: configuration, databases, files."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step; `source` is empty when it concerns the whole."""

    act: Act
    source: str = ""

    def __str__(self) -> str:
        return f"{self.act} {self.source}".rstrip()


def steps(sources: Iterable[tuple[str, str]], *, in_place: bool, safety: bool = True) -> tuple[Step, ...]:
    """The steps for these sources, given as (name, sort); into the live places, or beside them into a directory."""
    names = [name for name, _ in sorted(sources, key=lambda one: _rank(*one))]
    fetched = [Step(act, name) for name in names for act in (Act.FETCH, Act.VALIDATE)]
    swapped = [Step(Act.SWAP, name) for name in names]
    if not in_place:
        return (Step(Act.PREFLIGHT), Step(Act.LEASE), *fetched, *swapped, Step(Act.CLEAR))
    before = [Act.PREFLIGHT, Act.LEASE, Act.FENCE, Act.STOP, *([Act.SAFETY] if safety else [])]
    after = [Act.START, Act.HEALTH, Act.UNFENCE, Act.CLEAR]
    return (*(Step(act) for act in before), *fetched, *swapped, *(Step(act) for act in after))


def _rank(name: str, sort: str) -> tuple[int, str]:
    if name in FIRST:
        return 0, name
    return 2 if sort in LAST else 1, name


class Mark(StrEnum):
    """What the journal says of a step."""

    BEGUN = "begun"
    DONE = "done"
    PASSED_OVER = "passed_over"
    """It failed, and was not critical."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the journal."""

    step: Step
    mark: Mark
    detail: str = ""


class Outcome(StrEnum):
    """How a restore stands."""

    UNDER_WAY = "under_way"
    STOPPED = "stopped"
    """It can be resumed."""
    GIVEN_UP = "given_up"
    """Nothing was touched."""
    DONE = "done"


class Restore:
    """One restore. Built from its steps and its journal, so a resumed one is the same as one that was never broken."""

    def __init__(self, planned: Sequence[Step], journal: Iterable[Entry] = ()) -> None:
        self._planned = tuple(planned)
        self._begun: set[Act] = set()
        self._done: set[Step] = set()
        self._swapping = False
        self._giving_up = ""
        self._stopped = False
        for entry in journal:
            self._take(entry)
        self._stopped = False  # whoever reads a journal means to go on
        self._renewed: set[Step] = set()  # held steps that this process has done

    @property
    def outcome(self) -> Outcome:
        if self._stopped:
            return Outcome.STOPPED
        if self.next() is not None:
            return Outcome.UNDER_WAY
        return Outcome.GIVEN_UP if self._giving_up else Outcome.DONE

    @property
    def why(self) -> str:
        """Why it was given up."""
        return self._giving_up

    @property
    def torn(self) -> bool:
        """Whether some of the data is exchanged and some is not, or may be: nobody may use it."""
        return self._swapping and any(step.act is Act.SWAP and step not in self._done for step in self._planned)

    def next(self) -> Step | None:
        """The step to do now; None when there is none."""
        if self._stopped:
            return None
        for step in self._planned:
            if self._giving_up and not self._takes_back(step.act):
                continue
            if step in self._done and not self._to_renew(step):
                continue
            return step
        return None

    def _takes_back(self, act: Act) -> bool:
        return act in UNDO and (UNDO[act] is None or UNDO[act] in self._begun)

    def _to_renew(self, step: Step) -> bool:
        """Whether a held step is to be done again by this process: what it holds for is not done yet."""
        if not NATURE[step.act].held or step in self._renewed:
            return False
        ends = [one for one in self._planned if one.act is UNTIL.get(step.act)]
        return not all(one in self._done for one in ends or self._planned if not NATURE[one.act].held)

    def begun(self, step: Step) -> Entry:
        return self._record(Entry(step, Mark.BEGUN))

    def done(self, step: Step, detail: str = "") -> Entry:
        return self._record(Entry(step, Mark.DONE, detail))

    def failed(self, step: Step, why: str) -> Entry:
        """It did not go well: what that means is up to the rules."""
        mark = Mark.FAILED if NATURE[step.act].critical else Mark.PASSED_OVER
        return self._record(Entry(step, mark, why))

    def _record(self, entry: Entry) -> Entry:
        self._take(entry)
        if entry.mark in {Mark.DONE, Mark.PASSED_OVER}:
            self._renewed.add(entry.step)
        return entry

    def _take(self, entry: Entry) -> None:
        step, mark = entry.step, entry.mark
        self._begun.add(step.act)
        if step.act is Act.SWAP:
            self._swapping = True
        if mark is Mark.BEGUN:
            return
        if mark in {Mark.DONE, Mark.PASSED_OVER}:
            self._done.add(step)
        elif mark is Mark.FAILED:
            if self._swapping or self._giving_up:
                self._stopped = True
            else:
                self._giving_up = f"{step}: {entry.detail}"
