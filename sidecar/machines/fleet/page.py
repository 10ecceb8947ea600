"""The keeper of what replicas agree about: a page per breaker, changed by one command at a time.

    answer = apply(page, command, now_us, carrying)      # carrying: replicas with traffic

This is the plain text of the script that Redis runs (`control/fleet_script.py`): one contract suite holds both to the
same answers. It reads no clock: `now_us` are the keeper's microseconds, which may jump.

**Epochs.** Every change of state: now_us, or, when the page's or the sender's is not below that, beyond both by a step
that the clock's last digits choose: so a keeper that lost its memory under a clock that fell back hardly ever gives an
epoch a second time. A command of an older epoch changes nothing.

**Closed.** Votes count while they last, one per voter; the quorum opens it for the period that the last vote names.

**Open, half open.** An `Ask` after the period makes it half open. Leases are lent while fewer than `permits` are out,
whatever became of the page meanwhile: so at most that many trials run at once, always. A lease ends by its report, its
return, or its time, which nothing prolongs. `needed` good reports of the present epoch close it, one bad one opens it
again and bars its holder: while anybody else carries traffic, who failed lets the others try for BARRED_FOR.

**Forced.** By order, until its end or the next order.

**Loss.** A keeper that was emptied or fell back is told by whoever knows a later epoch (`Restore`): the stricter of
the two stands, under an epoch above both. An end of anything that lies further ahead than it ever lasted comes
of a clock that fell back: it is cut to what it lasted.
"""

import msgspec

from sidecar.machines.breaker_states import BreakerState, Reason
from sidecar.machines.fleet.words import (
    FORCED,
    NO_END,
    VERSION,
    Answer,
    Ask,
    Command,
    Did,
    Force,
    Grant,
    Heal,
    Record,
    Report,
    Restore,
    Return,
    Vote,
    Withdraw,
)

BARRED_FOR = 2_000
"""Milliseconds that the others have."""
MOST_VOTES = 256
"""A page remembers no more; a quorum above cannot be reached."""
MOST_BARRED = 32
DEFAULT_QUORUM = 2
LONGEST_STEP = 65_536
"""Between two epochs when the clock is behind."""
_STRICTNESS = {
    BreakerState.CLOSED: 0,
    BreakerState.HALF_OPEN: 1,
    BreakerState.OPEN: 1,
    BreakerState.FORCED_CLOSED: 2,
    BreakerState.FORCED_OPEN: 3,
}


class Ballot(msgspec.Struct):
    """One voter's vote."""

    until: int
    lasting: int
    reason: str = ""
    detail: str = ""


class Lease(msgspec.Struct):
    """One permit that is lent."""

    holder: str
    until: int
    ttl: int
    epoch: int


class Page(msgspec.Struct):
    """All that is kept of one breaker. Times are the keeper's milliseconds."""

    version: int = VERSION
    epoch: int = 0
    state: BreakerState = BreakerState.CLOSED
    since: int = 0
    until: int = NO_END
    period: int = 0
    reopened: int = 0
    reason: str = ""
    detail: str = ""
    by: str = ""
    successes: int = 0
    votes: dict[str, Ballot] = {}
    leases: dict[str, Lease] = {}
    barred: list[str] = []

    def record(self, now: int) -> Record:
        """What replicas adopt."""
        return Record(
            epoch=self.epoch,
            state=self.state,
            left=NO_END if self.until == NO_END else max(0, min(self.period, self.until - now)),
            period=self.period,
            reopened=self.reopened,
            reason=self.reason,
            detail=self.detail,
            by=self.by,
        )


def apply(page: Page, command: Command, now_us: int, carrying: int = 0) -> Answer:
    """Carry a command out on one page."""
    return _Turn(page, now_us, carrying).take(command)


class _Turn:
    """One command's turn."""

    def __init__(self, page: Page, now_us: int, carrying: int) -> None:
        self.page = page
        self.now_us = now_us
        self.now = now_us // 1000
        self.carrying = carrying
        self.before = page.epoch

    def take(self, command: Command) -> Answer:
        self.tidy()
        did, wait = Did.NOTHING, 0
        grants: tuple[Grant, ...] = ()
        match command:
            case Vote():
                did = self.vote(command)
            case Withdraw():
                did = Did.COUNTED if self.page.votes.pop(command.voter, None) else Did.NOTHING
            case Ask():
                did, grants, wait = self.ask(command)
            case Report():
                did = self.report(command)
            case Return():
                returned = [self.page.leases.pop(token, None) for token in command.tokens]
                did = Did.COUNTED if any(returned) else Did.NOTHING
            case Force():
                did = self.force(command)
            case Restore():
                did = self.restore(command)
            case Heal():
                did = self.heal(command)
        changed = self.page.epoch != self.before
        return Answer(
            record=self.page.record(self.now),
            did=did,
            changed=changed,
            grants=grants,
            wait=wait,
            carrying=self.carrying,
        )

    # ------------------------------------------------------------------ time

    def tidy(self) -> None:
        """End what is over, and cut what a jump of the clock moved too far ahead."""
        page, now = self.page, self.now
        page.since = min(page.since, now)
        if page.until != NO_END:
            page.until = min(page.until, now + page.period)
        for vote in page.votes.values():
            vote.until = min(vote.until, now + vote.lasting)
        for lease in page.leases.values():
            lease.until = min(lease.until, now + lease.ttl)
        page.votes = {voter: vote for voter, vote in page.votes.items() if vote.until > now}
        page.leases = {token: lease for token, lease in page.leases.items() if lease.until > now}
        if page.state in FORCED and page.until != NO_END and page.until <= now:
            self.go(BreakerState.CLOSED, Reason.EXPIRED, detail=f"the order of {page.by} ended")

    def go(
        self,
        state: BreakerState,
        reason: str,
        *,
        lasting: int = NO_END,
        known: int = 0,
        detail: str = "",
        by: str = "",
    ) -> None:
        """Change the state."""
        page = self.page
        page.epoch = self.next_epoch(known)
        page.state = state
        page.since = self.now
        page.until = NO_END if lasting == NO_END else self.now + lasting
        page.period = max(0, lasting)
        page.reason, page.detail, page.by = reason, detail, by
        page.successes = 0
        page.votes = {}
        if state is not BreakerState.OPEN and state is not BreakerState.HALF_OPEN:
            page.reopened = 0
            page.barred = []

    def next_epoch(self, known: int) -> int:
        """Above the page's and what the sender knows."""
        last = max(self.page.epoch, known)
        return self.now_us if self.now_us > last else last + 1 + self.now_us % 99_991 * 7_919 % LONGEST_STEP

    # ------------------------------------------------------------------ the commands

    def vote(self, vote: Vote) -> str:
        page = self.page
        if vote.epoch < page.epoch:
            return Did.STALE
        if page.state is not BreakerState.CLOSED or vote.lasting <= 0:
            return Did.NOTHING
        if vote.voter not in page.votes and len(page.votes) >= MOST_VOTES:
            return Did.NOTHING
        page.votes[vote.voter] = Ballot(self.now + vote.lasting, vote.lasting, vote.reason, vote.detail)
        quorum = vote.quorum or max(1, min(DEFAULT_QUORUM, max(self.carrying, vote.carrying)))
        if len(page.votes) < quorum:
            return Did.COUNTED
        by = ", ".join(sorted(page.votes)[:8])
        self.go(BreakerState.OPEN, vote.reason, lasting=vote.period, known=vote.epoch, detail=vote.detail, by=by)
        return Did.OPENED

    def ask(self, ask: Ask) -> tuple[str, tuple[Grant, ...], int]:
        page, now = self.page, self.now
        mine = [token for token in ask.tokens if token in page.leases and page.leases[token].epoch == page.epoch]
        if not mine and ask.epoch != page.epoch:
            return Did.STALE, (), 0
        if not mine and page.state is BreakerState.OPEN:
            if page.until > now and not ask.due:
                return Did.EARLY, (), page.until - now
            if (wait := self.barred(ask, min(page.until, now))) > 0:
                return Did.BARRED, (), wait
            if len(page.leases) >= ask.permits:
                return Did.TAKEN, (), self.next_free()
            self.half_open(ask.epoch)
        elif not mine and page.state is not BreakerState.HALF_OPEN:
            return Did.NOTHING, (), 0
        elif not mine and (wait := self.barred(ask, page.since)) > 0:
            return Did.BARRED, (), wait
        for token in ask.tokens:
            if token not in page.leases and len(page.leases) < ask.permits and not mine:
                page.leases[token] = Lease(ask.holder, now + ask.ttl, ask.ttl, page.epoch)
        grants = tuple(
            Grant(token, page.epoch, page.leases[token].until - now)
            for token in ask.tokens
            if token in page.leases and page.leases[token].epoch == page.epoch
        )
        return (Did.GRANTED, grants, 0) if grants else (Did.TAKEN, (), self.next_free())

    def half_open(self, known: int) -> None:
        """The open period is over and somebody tries."""
        page = self.page
        period, by = page.period, page.by
        self.go(BreakerState.HALF_OPEN, Reason.OPEN_PERIOD_OVER, known=known, by=by)
        page.period = period

    def barred(self, ask: Ask, since: int) -> int:
        """Milliseconds that this asker lets the others go first; 0: none."""
        page = self.page
        if ask.holder not in page.barred or len(page.barred) >= max(self.carrying, ask.carrying):
            return 0
        if page.leases:
            return max(BARRED_FOR, since + BARRED_FOR - self.now)
        return max(0, since + BARRED_FOR - self.now)

    def next_free(self) -> int:
        """Until the first lease ends, at the latest."""
        return min((lease.until for lease in self.page.leases.values()), default=self.now) - self.now

    def report(self, report: Report) -> str:
        page = self.page
        lease = page.leases.pop(report.token, None)
        if page.state is not BreakerState.HALF_OPEN or report.epoch != page.epoch:
            return Did.STALE
        if not report.ok:
            barred = [one for one in page.barred if one != report.holder][1 - MOST_BARRED :]
            barred.append(report.holder)
            reopened, by = page.reopened + 1, page.by
            self.go(BreakerState.OPEN, report.reason, lasting=report.period, detail=report.detail, by=by)
            page.reopened, page.barred = reopened, barred
            return Did.OPENED
        if lease is None or lease.epoch != page.epoch:
            return Did.NOTHING
        page.successes += 1
        if page.successes < report.needed:
            return Did.COUNTED
        self.go(BreakerState.CLOSED, Reason.RECOVERED, detail=f"{page.successes} trial calls succeeded")
        return Did.CLOSED

    def force(self, order: Force) -> str:
        if order.epoch < self.page.epoch:
            return Did.STALE
        reason = Reason.MANUAL if order.state in FORCED else Reason.RESET
        lasting = order.lasting if order.state in FORCED else NO_END
        self.go(order.state, reason, lasting=lasting, known=order.epoch, detail=order.why, by=order.by)
        return Did.ORDERED

    def restore(self, restore: Restore) -> str:
        page, known = self.page, restore.record
        if known.epoch <= page.epoch or (known.state in FORCED and known.left == 0):
            return Did.STALE
        mine, theirs = _STRICTNESS[page.state], _STRICTNESS[known.state]
        left = 0 if known.state is BreakerState.HALF_OPEN else known.left
        ours = 0 if page.state is BreakerState.HALF_OPEN else page.until - self.now
        if mine > theirs or (mine == theirs == 1 and ours >= left):
            page.epoch = self.next_epoch(known.epoch)
            return Did.RESTORED
        if known.state is BreakerState.CLOSED:
            page.epoch = max(known.epoch, page.epoch)
            return Did.RESTORED
        barred, reopened = page.barred, max(page.reopened, known.reopened)
        state = BreakerState.OPEN if known.state is BreakerState.HALF_OPEN else known.state
        self.go(state, known.reason, lasting=left, known=known.epoch, detail=known.detail, by=known.by)
        page.period = max(known.period, left, 0)
        if state is BreakerState.OPEN:
            page.barred, page.reopened = barred, reopened
        return Did.RESTORED

    def heal(self, heal: Heal) -> str:
        page = self.page
        if heal.epoch != page.epoch or page.state not in (BreakerState.OPEN, BreakerState.HALF_OPEN):
            return Did.STALE
        self.go(BreakerState.CLOSED, Reason.RECOVERED, detail=heal.detail)
        return Did.CLOSED
