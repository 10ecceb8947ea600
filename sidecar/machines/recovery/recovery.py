"""Recovery: when something is done about a fault, how often, when it counts as healed, and when people take over.

One machine per rule. It is told what is seen and what came of what was done, and says by its stage what is to be done
next (`machines/recovery/stages.py` has the table). The rules:

* A condition must hold for `held_for` seconds without a break; then the state is looked at once more, right before
  acting. What that look finds may forbid to act (`Hold`): a dependency that is down is not healed by a restart.
* An attempt is proved or it failed. Between attempts comes a backoff, doubled each time and jittered.
* `attempts` is per fault. A fault ends when it is proved over, or when it stayed away for ten minutes; a fault that
  just paused is the same one, with what was tried before.
* `budget` is across faults: so many runs within so many seconds. Both used up mean the same: escalate, once per fault.
* A proof resets attempts and backoff. Sick again within five minutes is a relapse: the record then says that the
  success was none, but the new fault is treated like any other.
* The supervised process is started again by its supervisor as soon as it dies; here that counts as an attempt.
  It costs the budget only when the life before was never proved: a crash loop stops at the budget (`revive_at`),
  and an accident after a good life does not.
* What people order is done whatever attempts and budget say; it counts as a run.
"""

from collections import deque
from dataclasses import dataclass

from sidecar.base.backoff import Uniform, exponential, spread
from sidecar.machines.recovery.stages import Hold, Stage
from sidecar.machines.transition import Transition

RELAPSE_WITHIN = 300.0
"""Seconds after the proof within which the same trouble makes it a failure."""
WELL_AFTER = 600.0
"""Seconds of health after which a fault is over and nothing of it counts."""
LOOK_AGAIN = 5.0
"""Seconds between two looks while something forbids to act."""
LONGEST_BACKOFF = 300.0
_JITTER = 0.2

Change = Transition[Stage]


@dataclass(frozen=True, slots=True)
class RecoveryPolicy:
    """One rule's figures; seconds and counts as the configuration names them."""

    held_for: float
    attempts: int
    backoff: float
    budget_runs: int
    budget_per: float


class Budget:
    """So many runs within so many seconds, seen from each moment backwards."""

    __slots__ = ("_per", "_runs", "_spent")

    def __init__(self, runs: int, per: float) -> None:
        self._runs = runs
        self._per = per
        self._spent: deque[float] = deque(maxlen=runs)

    def room_at(self, now: float) -> float:
        """When another run is allowed: now, or when the oldest of the last ones is old enough."""
        if len(self._spent) < self._runs:
            return now
        return max(now, self._spent[0] + self._per)

    def spend(self, now: float) -> None:
        """A run begins."""
        self._spent.append(now)

    def left(self, now: float) -> int:
        """Runs that are left at `now`."""
        return self._runs - sum(1 for at in self._spent if at + self._per > now)

    def resized(self, runs: int, per: float) -> "Budget":
        """The same past under other figures."""
        fresh = Budget(runs, per)
        fresh._spent.extend(self._spent)
        return fresh


class Recovery:
    """One rule and its fault. `due`: when `tick` has something to do; None: never by itself."""

    __slots__ = ("_escalated", "_policy", "_proven", "_since", "_uniform", "attempts", "budget", "detected_at", "due",
                 "hold", "stage", "why")  # fmt: skip

    def __init__(self, policy: RecoveryPolicy, uniform: Uniform) -> None:
        self._policy = policy
        self._uniform = uniform
        self._since = 0.0  # when the stage began
        self._proven = False  # the process's present life was proved good
        self._escalated = False  # people know of this fault
        self.budget = Budget(policy.budget_runs, policy.budget_per)
        self.stage = Stage.WELL
        self.due: float | None = None
        self.attempts = 0
        """Of the present fault."""
        self.detected_at: float | None = None
        """When the present fault was first seen."""
        self.hold: Hold | None = None
        """What forbids to act, while held."""
        self.why = ""
        """What was seen last, for people."""

    def reconfigure(self, policy: RecoveryPolicy) -> None:
        """Go on under other figures; stage and counts stay."""
        self._policy = policy
        self.budget = self.budget.resized(policy.budget_runs, policy.budget_per)

    # What is seen -----------------------------------------------------------------------------------------------------

    def seen(self, now: float, *, sick: bool, why: str = "") -> Change | None:
        """A look at the condition. While acting, proving or dead, what is seen decides nothing."""
        if sick:
            self.why = why
            match self.stage:
                case Stage.WELL:
                    self.detected_at = now
                    return self._fall_sick("seen", now)
                case Stage.HEALED:
                    relapsed = now < self._since + RELAPSE_WITHIN
                    self.detected_at = now
                    return self._fall_sick("relapsed" if relapsed else "seen", now)
                case Stage.QUIET if self._escalated:
                    return self._escalate("known", now)
                case Stage.QUIET:
                    return self._fall_sick("seen", now)
            return None
        match self.stage:
            case Stage.SICK | Stage.CHECKING | Stage.HELD if not self.attempts:
                return self._be_well("gone", now)
            case Stage.SICK | Stage.CHECKING | Stage.HELD | Stage.WAITING | Stage.ESCALATED:
                return self._go(Stage.QUIET, "gone", now, due=now + WELL_AFTER)
        return None

    def tick(self, now: float) -> Change | None:
        """Time has passed. In stage HELD nothing changes: it is time for another look."""
        if self.due is None or now < self.due:
            return None
        match self.stage:
            case Stage.SICK:
                return self._go(Stage.CHECKING, "lasts", now, detail=self.why)
            case Stage.WAITING:
                return self._go(Stage.CHECKING, "wait_over", now, detail=self.why)
            case Stage.HEALED | Stage.QUIET:
                return self._be_well("stayed_well", now)
        return None

    def allowed(self, now: float) -> None:
        """What forbade to act may be over: look again at once."""
        if self.stage is Stage.HELD:
            self.due = now

    def checked(self, now: float, hold: Hold | None, detail: str = "") -> Change | None:
        """The look right before acting: still sick. `hold`: what forbids to act; None: nothing does."""
        if self.stage not in {Stage.CHECKING, Stage.HELD}:
            return None
        if self.attempts >= self._policy.attempts:
            return self._escalate("attempts_used", now)
        if hold is not None:
            if self.hold is hold:
                self.due = now + LOOK_AGAIN
                return None
            change = self._go(Stage.HELD, hold.value, now, due=now + LOOK_AGAIN, detail=detail)
            self.hold = hold
            return change if change.old is not Stage.HELD else None
        if self.budget.room_at(now) > now:
            return self._escalate("budget_used", now)
        return self._act("confirmed", now, detail)

    # What was done ----------------------------------------------------------------------------------------------------

    def ordered(self, now: float) -> Change | None:
        """Somebody wants the action run now, whatever attempts and budget say. None: it is at it."""
        if self.stage in {Stage.ACTING, Stage.PROVING, Stage.DEAD}:
            return None
        if self.detected_at is None:
            self.detected_at = now
        return self._act("ordered", now, "")

    def acted(self, now: float, *, ok: bool, detail: str = "") -> Change | None:
        """The action ended; not `ok`: nothing was done, or half of it."""
        if self.stage is not Stage.ACTING:
            return None
        if ok:
            return self._go(Stage.PROVING, "done", now, detail=detail)
        return self._failed("action_failed", now, detail)

    def proved(self, now: float) -> Change | None:
        """The proof is there: attempts and backoff begin anew with the next fault."""
        if self.stage is not Stage.PROVING:
            return None
        self._proven = True
        change = self._go(Stage.HEALED, "proved", now, due=now + WELL_AFTER)
        self.attempts = 0
        self._escalated = False
        return change

    def unproved(self, now: float, detail: str = "") -> Change | None:
        """No proof came in time."""
        if self.stage is not Stage.PROVING:
            return None
        return self._failed("not_proved", now, detail)

    # The supervised process -------------------------------------------------------------------------------------------

    def died(self, now: float, *, detail: str = "", lived: float = 0.0) -> Change | None:
        """The supervised process died by itself after `lived` seconds."""
        if self.stage in {Stage.ACTING, Stage.DEAD}:
            return None  # we are ending it, or know
        self._proven = self._proven or lived >= WELL_AFTER
        self.why = detail
        if self.stage is Stage.ESCALATED:
            return None
        if self.stage in {Stage.WELL, Stage.HEALED}:
            self.detected_at = now
        if used_up := self._used_up(now):
            return self._escalate(used_up, now, detail)
        relapsed = self.stage is Stage.HEALED and now < self._since + RELAPSE_WITHIN
        return self._go(Stage.DEAD, "relapsed" if relapsed else "died", now, detail=detail)

    def revive_at(self, now: float) -> float:
        """When the supervisor may start the dead process: at once after a proved life, else within the budget."""
        return now if self._proven else self.budget.room_at(now)

    def reborn(self, now: float) -> Change | None:
        """The supervisor started it again."""
        if self.stage is Stage.ACTING:
            return None  # this is the action, and is counted as that
        if not self._proven:
            self.budget.spend(now)
        self._proven = False
        if self.stage is not Stage.DEAD:
            return None
        self.attempts += 1
        return self._go(Stage.PROVING, "reborn", now)

    # Inside -----------------------------------------------------------------------------------------------------------

    def _fall_sick(self, reason: str, now: float) -> Change:
        return self._go(Stage.SICK, reason, now, due=now + self._policy.held_for, detail=self.why)

    def _be_well(self, reason: str, now: float) -> Change:
        change = self._go(Stage.WELL, reason, now)
        self.attempts = 0
        self._escalated = False
        self.detected_at = None
        return change

    def _act(self, reason: str, now: float, detail: str) -> Change:
        self.attempts += 1
        self.budget.spend(now)
        self._proven = False
        return self._go(Stage.ACTING, reason, now, detail=detail)

    def _failed(self, reason: str, now: float, detail: str) -> Change:
        if self.attempts >= self._policy.attempts:
            return self._escalate("attempts_used", now, detail)
        wait = spread(exponential(self.attempts - 1, self._policy.backoff, LONGEST_BACKOFF), _JITTER, self._uniform)
        return self._go(Stage.WAITING, reason, now, due=now + wait, detail=detail)

    def _used_up(self, now: float) -> str:
        if self.attempts >= self._policy.attempts:
            return "attempts_used"
        return "budget_used" if self.revive_at(now) > now else ""

    def _escalate(self, reason: str, now: float, detail: str = "") -> Change:
        """Hand over to people; `known` when they were told of this fault before."""
        change = self._go(Stage.ESCALATED, "known" if self._escalated else reason, now, detail=detail or self.why)
        self._escalated = True
        return change

    def _go(self, new: Stage, reason: str, now: float, *, due: float | None = None, detail: str = "") -> Change:
        change = Transition(self.stage, new, reason, now, detail)
        self.stage = new
        self._since = now
        self.due = due
        self.hold = None
        return change
