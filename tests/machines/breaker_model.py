"""The breaker once more, written for reading: no buckets' arithmetic, no shared permits, no cached answers.

It keeps every result as a tuple and looks at all of them each time. The real one must agree with it.
"""

from dataclasses import dataclass, field

from sidecar.config.breaker import Breaker as BreakerPolicy

BUCKETS = 10


@dataclass(eq=False)
class ModelPermit:
    era: int
    counted: bool = True
    trial_ends: float | None = None
    answered: bool = False


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
        if self.state == "open":
            if now < self.open_until:
                return self.no()
            self.change("half_open")
        if len(self.trials) >= self.policy.half_open_permits:
            return self.no()
        trial = ModelPermit(self.era, trial_ends=now + self.policy.half_open_timeout)
        self.trials.append(trial)
        return trial

    def no(self) -> ModelPermit | str:
        self.refused += 1
        return ModelPermit(self.era, counted=False) if self.policy.mode == "observe" else "breaker_open"

    def record(self, permit: ModelPermit, now: float, *, ok: bool, slow: bool) -> str | None:
        if not permit.counted or permit.era != self.era:
            return None
        if permit.trial_ends is not None:
            return self.conclude(permit, now, ok=ok, slow=slow, word="trial_failed") if permit in self.trials else None
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

    def conclude(self, trial: ModelPermit, now: float, *, ok: bool, slow: bool, word: str) -> str | None:
        self.trials.remove(trial)
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

    def cancel(self, permit: ModelPermit) -> None:
        if permit in self.trials:
            self.trials.remove(permit)

    # ---- time and orders

    def expire(self, now: float, overdue_first: ModelPermit | None = None) -> str | None:
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
        return None if same else "manual"

    def reset(self) -> str | None:
        was = self.state
        self.change("closed")
        return None if was == "closed" else "reset"

    # ---- what both share

    def trip(self, word: str, now: float, period: float) -> str:
        failures_in_a_row, reopened = self.failures_in_a_row, self.reopened
        self.change("open")
        self.failures_in_a_row, self.reopened = failures_in_a_row, reopened
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
        if state == "closed":
            self.results = []
            self.reopened = 0

    def counts(self, now: float) -> tuple[int, int, int]:
        width = self.policy.window / BUCKETS
        oldest = now // width - BUCKETS + 1
        seen = [(ok, slow) for at, ok, slow in self.results if at // width >= oldest]
        return len(seen), sum(not ok for ok, _ in seen), sum(slow for _, slow in seen)
