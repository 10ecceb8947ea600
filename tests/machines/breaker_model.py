"""The breaker once more, written for reading: no buckets' arithmetic, no shared permits, no cached answers.

It keeps every result as a tuple and looks at all of them each time. The real one must agree with it.
"""

import math
from dataclasses import dataclass, field

from sidecar.config.breaker import Breaker as BreakerPolicy

BUCKETS = 10


@dataclass(eq=False)
class ModelPermit:
    era: int
    counted: bool = True
    trial_ends: float | None = None
    answered: bool = False
    token: str = ""


Ended = tuple[str, str]
"""A lease that came back: its token, and what came of it."""


@dataclass
class BreakerModel:
    policy: BreakerPolicy
    state: str = "closed"
    era: int = 0
    results: list[tuple[float, bool, bool]] = field(default_factory=list)
    failures_in_a_row: int = 0
    trials: list[ModelPermit] = field(default_factory=list)
    good_trials: int = 0
    reopened: int = 0
    open_until: float = 0.0
    ordered_until: float | None = None
    ramp_from: float | None = None
    refused: int = 0
    led: bool = False
    alone: bool = False
    leases: list[tuple[str, float, float]] = field(default_factory=list)  # token, use by, deadline

    # ---- the calls

    def admit(self, now: float, u: float) -> ModelPermit | str:
        if self.state == "forced_open":
            self.refused += 1
            return "manual_open"
        if self.policy.mode == "disabled":
            return ModelPermit(self.era, counted=False)
        if self.state == "forced_closed":
            return ModelPermit(self.era)
        if self.state == "closed":
            if self.ramp_from is not None and u >= 0.1 + 0.9 * (now - self.ramp_from) / self.policy.ramp:
                return self.no()
            return ModelPermit(self.era)
        if self.led:
            usable = [lease for lease in self.leases if lease[1] > now]
            if self.state == "open" or not usable:
                return self.no()
            self.leases.remove(usable[0])
            return self.begin(usable[0][2], usable[0][0])
        if self.state == "open":
            if now < self.open_until:
                return self.no()
            alone = self.alone
            self.change("half_open")
            self.alone = alone
        if len(self.trials) >= (1 if self.alone else self.policy.half_open_permits):
            return self.no()
        return self.begin(now + self.policy.half_open_timeout)

    def begin(self, ends: float, token: str = "") -> ModelPermit:
        trial = ModelPermit(self.era, trial_ends=ends, token=token)
        self.trials.append(trial)
        return trial

    def no(self) -> ModelPermit | str:
        self.refused += 1
        return ModelPermit(self.era, counted=False) if self.policy.mode == "observe" else "breaker_open"

    def record(self, permit: ModelPermit, now: float, *, ok: bool, slow: bool) -> str | Ended | None:
        if permit.trial_ends is not None:
            if permit in self.trials:
                return self.conclude(permit, now, ok=ok, slow=slow, word="trial_failed")
            return self.give_back(permit, "unused")
        if not permit.counted or permit.era != self.era:
            return None
        self.results.append((now, ok, slow))
        self.failures_in_a_row = 0 if ok else self.failures_in_a_row + 1
        if self.state == "forced_closed":
            return None
        total, failures, slows = self.counts(now)
        policy = self.policy
        if policy.consecutive_failures and self.failures_in_a_row >= policy.consecutive_failures:
            return self.trip("consecutive_failures", now, policy.open_for)
        if total >= policy.minimum_requests and policy.failure_rate and failures / total >= policy.failure_rate:
            return self.trip("failure_rate", now, policy.open_for)
        if total >= policy.minimum_requests and policy.slow_rate and slows / total >= policy.slow_rate:
            return self.trip("slow_rate", now, policy.open_for)
        return None

    def conclude(self, trial: ModelPermit, now: float, *, ok: bool, slow: bool, word: str) -> str | Ended | None:
        self.trials.remove(trial)
        if trial.token:
            good = "slow" if slow and self.policy.slow_rate else "ok"
            return self.give_back(trial, good if ok else word.removeprefix("trial_"))
        if not ok or (slow and self.policy.slow_rate):
            self.reopened += 1
            grown = min(self.policy.open_for * self.policy.open_multiplier**self.reopened, self.policy.open_max)
            return self.trip("trial_slow" if ok else word, now, grown)
        self.good_trials += 1
        if self.good_trials < self.policy.half_open_successes:
            return None
        self.change("closed")
        self.ramp_from = now if self.policy.ramp else None
        return "recovered"

    def cancel(self, permit: ModelPermit) -> Ended | None:
        if permit in self.trials:
            self.trials.remove(permit)
        return self.give_back(permit, "unused")

    def give_back(self, permit: ModelPermit, end: str) -> Ended | None:
        token, permit.token = permit.token, ""
        return (token, end) if token else None

    # ---- time and orders

    def expire(self, now: float) -> str | Ended | None:
        for lease in self.leases:
            if lease[1] <= now:
                self.leases.remove(lease)
                return (lease[0], "unused")
        if self.ordered_until is not None and self.ordered_until <= now:
            self.change("closed")
            return "expired"
        for trial in [trial for trial in self.trials if trial.trial_ends is not None and trial.trial_ends <= now]:
            word = self.conclude(trial, now, ok=trial.answered, slow=False, word="trial_timeout")
            if word:
                return word
        return None

    def force(self, state: str, until: float | None) -> str | None:
        same = state == self.state
        if not same:
            self.change(state)
        self.ordered_until = until
        self.led = False
        return None if same else "manual"

    def reset(self) -> str | None:
        was = self.state
        self.change("closed")
        return None if was == "closed" else "reset"

    # ---- together with others

    def adopt(self, state: str, until: float | None, reopened: int) -> str | None:
        """`state` as others agreed on it."""
        if self.ordered() and not self.led:
            return None
        if self.policy.mode == "disabled" and state in ("open", "half_open"):
            state = "closed"
        was, row = self.state, self.failures_in_a_row
        if (was, state) == ("closed", "closed"):
            return None
        self.change(state)
        if state in (was, "open"):
            self.failures_in_a_row = row
        if state != "closed":
            self.led = True
            self.reopened = reopened
        if state == "open":
            self.open_until = until or 0.0
        if state.startswith("forced"):
            self.ordered_until = until
        return None if state == was else "shared"

    def on_its_own(self, now: float, pause: float) -> str | None:
        if not self.led or self.ordered():
            return None
        was, reopened, row = self.state, self.reopened, self.failures_in_a_row
        self.open_until = max(self.open_until, now) + pause if was == "open" else now + pause
        if was != "open":
            self.change("open")
            self.reopened = reopened
        self.failures_in_a_row = row
        self.led, self.alone = False, True
        return None if was == "open" else "shared"

    def ordered(self) -> bool:
        return self.state.startswith("forced")

    # ---- what both share

    def trip(self, word: str, now: float, period: float) -> str:
        failures_in_a_row, reopened, alone = self.failures_in_a_row, self.reopened, self.alone
        self.change("open")
        self.failures_in_a_row, self.reopened, self.alone = failures_in_a_row, reopened, alone
        self.open_until = now + period
        return word

    def change(self, state: str) -> None:
        self.state = state
        self.era += 1
        self.trials = []
        self.good_trials = 0
        self.failures_in_a_row = 0
        self.ordered_until = None
        self.ramp_from = None
        self.led = self.alone = False
        self.leases = [(token, -math.inf, deadline) for token, _, deadline in self.leases]
        if state == "closed":
            self.results = []
            self.reopened = 0

    def counts(self, now: float) -> tuple[int, int, int]:
        width = self.policy.window / BUCKETS
        oldest = now // width - BUCKETS + 1
        seen = [(ok, slow) for at, ok, slow in self.results if at // width >= oldest]
        return len(seen), sum(not ok for ok, _ in seen), sum(slow for _, slow in seen)
