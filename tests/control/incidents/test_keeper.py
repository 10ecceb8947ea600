"""The keeper on a virtual clock: what happens becomes one incident with its story, and flapping is told little of."""

import asyncio
import random
from itertools import count
from typing import Any

import pytest

from sidecar.control.incidents.deliveries import Deliveries, Receiver
from sidecar.control.incidents.detect import Detector, Names
from sidecar.control.incidents.keeper import TAKEN_OVER_SECONDS, Keeper
from sidecar.control.incidents.measure import Count, Measure
from sidecar.control.incidents.senders.sender import Notice
from sidecar.control.incidents.writer import Writer
from sidecar.machines.incidents.book import IncidentBook
from sidecar.machines.incidents.incident import Incident, Status
from sidecar.machines.incidents.outbox import Outbox
from sidecar.runtime.metrics import Registry
from sidecar.runtime.observer import Happening, Kind, Level, Observer


class Ops:
    """Somebody who hears."""

    refresh_seconds: float | None = None

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def send(self, notice: Notice) -> None:
        self.heard.append(notice.what)

    async def refresh(self, notices: list[Notice]) -> None:
        raise AssertionError("nobody asked for it")


class Stage:
    """A keeper with everything around it but a file, and a clock that is moved."""

    def __init__(self, name: str = "one") -> None:
        self.now = 1_000_000.0
        self.health: list[dict[str, Any]] = []
        self.upstreams = {"app"}
        numbers = count()
        self.registry, self.observer = Registry(), Observer()
        self.book = IncidentBook("shop", name, lambda _: f"{name}-{next(numbers)}")
        detector = Detector(lambda: self.health, lambda _: True, Names(lambda: self.upstreams, lambda: {"db"}))
        writer = Writer(None, self.registry, self.observer)
        self.keeper = Keeper(self.book, detector, writer, self.registry, self.observer, lambda: self.now)
        self.ops = Ops()
        outbox = Outbox(random.Random(1).random, lambda: f"m{next(numbers)}")
        self.deliveries = Deliveries(outbox, self.keeper, writer, self.registry, lambda: self.now)
        self.deliveries.apply({"ops": Receiver(self.ops, "warning", always=True)}, [])

    def happens(self, kind: Kind, subject: str, seen_by: int = 7, reason: str = "", **fields: Any) -> None:
        self.keeper.hear(self.happening(kind, subject, seen_by, reason, fields))
        self.keeper.catch_up()

    def happening(self, kind: Kind, subject: str, seen_by: int, reason: str, fields: dict[str, Any]) -> Happening:
        return Happening(kind, subject, self.now, Level.WARNING, reason, "", fields, seen_by)

    def breaker(self, new: str, old: str = "closed", pid: int = 7) -> None:
        self.happens(Kind.BREAKER_CHANGED, "app", pid, upstream="app", old=old, new=new)

    async def passes(self, seconds: float, step: float = 1.0) -> None:
        """Time goes on, and everybody does what is due."""
        running = asyncio.get_running_loop().create_task(self.deliveries.run())
        for _ in range(round(seconds / step)):
            self.now += step
            self.keeper.catch_up()
            self.deliveries._work.set()
            for _ in range(6):
                await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait({running})

    @property
    def one(self) -> Incident:
        (found,) = self.book
        return found


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_fifty_flaps_in_ten_minutes_are_one_incident_and_a_handful_of_notices(stage: Stage) -> None:
    async def story() -> None:
        for _ in range(50):
            stage.breaker("open")
            await stage.passes(6.0)
            stage.breaker("closed", "half_open")
            await stage.passes(6.0)
        await stage.passes(3600.0, step=10.0)

    asyncio.run(story())
    assert stage.one.status is Status.CLOSED and stage.one.relapses == 49
    assert stage.ops.heard[0] == "opened" and stage.ops.heard[-1] == "resolved"
    assert len(stage.ops.heard) <= 5


def test_a_breaker_that_tries_again_is_not_well_yet(stage: Stage) -> None:
    stage.breaker("open")
    stage.breaker("half_open", "open")
    assert stage.one.status is Status.DETECTED
    stage.breaker("closed", "half_open")
    assert stage.one.status is Status.MITIGATED


def test_a_dead_worker_s_word_ends_with_it_and_the_others_stands(stage: Stage) -> None:
    stage.breaker("open", pid=7)
    stage.breaker("open", pid=8)
    stage.happens(Kind.WORKER_DIED, "0", worker="0", status="SIGKILL", pid=7)
    assert [key for key in stage.one.conditions] == ["breaker:app:8"]
    stage.happens(Kind.WORKER_DIED, "1", worker="1", status="SIGKILL", pid=8)
    assert stage.one.status is Status.MITIGATED


def test_what_a_reload_takes_away_does_not_hold_any_more(stage: Stage) -> None:
    stage.breaker("open")
    stage.upstreams = {"other"}
    stage.happens(Kind.CONFIG_RELOADED, "file")
    assert stage.one.status is Status.MITIGATED


def test_endpoints_are_a_warning_and_none_at_all_is_an_outage(stage: Stage) -> None:
    def checked(*states: str) -> None:
        stage.health = [
            {"kind": "endpoint", "upstream": "app", "endpoint": f"e{n}", "state": state, "detail": "refused"}
            for n, state in enumerate(states)
        ]
        stage.happens(Kind.ENDPOINT_HEALTH_CHANGED, "app", upstream="app", endpoint="e0", before="x", now="y")

    checked("unhealthy", "healthy")
    assert (str(stage.one.severity), stage.one.out_since) == ("warning", None)
    checked("unhealthy", "unhealthy")
    assert str(stage.one.severity) == "critical" and stage.one.out_since == stage.now
    stage.now += 5.0
    checked("healthy", "unhealthy")
    assert stage.one.down(0.0, stage.now) == [(stage.now - 5.0, stage.now)]
    checked("healthy", "healthy")
    assert stage.one.status is Status.MITIGATED


def test_a_service_that_keeps_dying_becomes_critical(stage: Stage) -> None:
    for _ in range(3):
        stage.happens(Kind.CHILD_DIED, "app.py", exit="code 3")
        stage.happens(Kind.CHILD_STARTED, "app.py", program="app.py", restarts=1)
        stage.now += 1.0
    assert str(stage.one.severity) == "critical" and stage.one.status is Status.MITIGATED


def test_redis_may_be_away_for_a_minute(stage: Stage) -> None:
    stage.happens(Kind.SHARED_STATE_LOST, "shared_state")
    stage.now += 59.0
    stage.happens(Kind.SHARED_STATE_UNREACHABLE, "shared_state", reason="refused")
    assert list(stage.book) == []
    stage.now += 2.0
    stage.happens(Kind.SHARED_STATE_UNREACHABLE, "shared_state", reason="refused")
    assert stage.one.started == stage.now - 61.0
    stage.happens(Kind.SHARED_STATE_CONNECTED, "shared_state")
    assert stage.one.status is Status.MITIGATED


def test_recovery_that_gives_up_makes_it_critical_and_its_proof_ends_it(stage: Stage) -> None:
    rule = {"rule": "fix", "strategy": "process", "upstream": "app"}
    stage.health = [
        {"kind": "endpoint", "upstream": "app", "endpoint": name, "state": state, "detail": ""}
        for name, state in (("e", "unhealthy"), ("f", "healthy"))
    ]
    stage.happens(Kind.ENDPOINT_HEALTH_CHANGED, "app", upstream="app", endpoint="e", before="x", now="y")
    stage.happens(Kind.RECOVERY_STARTED, "fix", attempt=1, **rule)
    stage.happens(Kind.RECOVERY_ESCALATED, "fix", reason="attempts_used", **rule)
    assert str(stage.one.severity) == "critical"
    stage.health = []
    stage.happens(Kind.ENDPOINT_HEALTH_CHANGED, "app", upstream="app", endpoint="e", before="y", now="x")
    stage.happens(Kind.RECOVERY_VERIFIED, "fix", seconds=3.0, **rule)
    assert stage.one.status is Status.MITIGATED
    told = [line.kind for line in stage.book.timeline(stage.one.id)]
    assert [kind for kind in told if kind.startswith("recovery")] == [
        "recovery_started", "recovery_escalated", "recovery_verified",
    ]  # fmt: skip


def test_the_story_begins_before_the_incident(stage: Stage) -> None:
    stage.happens(Kind.CONFIG_RELOADED, "file", config_hash="abc", changed=["upstreams[app].timeout"])
    stage.happens(Kind.ENDPOINT_EJECTED, "other", upstream="other", endpoint="e", enforced=False)
    stage.now += 20.0
    stage.breaker("open")
    told = [line.kind for line in stage.book.timeline(stage.one.id)]
    assert told == ["config_reloaded", "breaker_changed", "incident_opened"]


def test_what_an_earlier_run_saw_counts_until_it_is_not_seen_again(stage: Stage) -> None:
    stage.breaker("open")
    later = Stage()
    later.book.take_over(stage.one, stage.book.timeline("one-0"), later.now + TAKEN_OVER_SECONDS, stage.now + 5.0)
    assert later.one.down(0.0, later.now + 100.0) == [(stage.now, stage.now + 5.0)], "what nobody saw is not counted"
    later.now += TAKEN_OVER_SECONDS - 1.0
    later.keeper.catch_up()
    assert later.one.status is Status.DETECTED
    later.now += 1.0
    later.keeper.catch_up()
    assert later.one.status is Status.MITIGATED


def test_what_is_open_is_told_again_and_a_resolved_one_is_not() -> None:
    stage, told = Stage(), []

    class Renewed(Ops):
        refresh_seconds = 60.0

        async def refresh(self, notices: list[Notice]) -> None:
            told.append((stage.now, [one.incident["status"] for one in notices]))

    async def story() -> None:
        stage.deliveries.apply({"am": Receiver(Renewed(), "warning", always=True)}, [])
        stage.breaker("open")
        await stage.passes(200.0, step=5.0)
        stage.breaker("closed", "half_open")
        await stage.passes(200.0, step=5.0)

    asyncio.run(story())
    assert [round(when - told[0][0]) for when, _ in told[:3]] == [0, 60, 120]
    assert {status for _, statuses in told for status in statuses} <= {"detected", "mitigated"}
    assert told[-1][0] < stage.now - 150.0


def test_what_is_told_while_it_lasts_stands_in_the_story_once(stage: Stage) -> None:
    for _ in range(50):
        stage.happens(Kind.AGENT_CONDITION, "db", reason="rpo_missed", expires_seconds=900.0)
        stage.now += 300.0
    assert [line.kind for line in stage.book.timeline(stage.one.id)] == ["agent_condition", "incident_opened"]
    stage.happens(Kind.AGENT_CONDITION, "db", reason="rpo_missed", holds=False)
    stage.happens(Kind.AGENT_CONDITION, "db", reason="rpo_missed")
    told = [line.kind for line in stage.book.timeline(stage.one.id)]
    assert told[2:] == ["agent_condition", "incident_mitigated", "incident_relapsed"]


def test_a_receiver_that_is_being_told_is_not_looked_at_all_the_time(stage: Stage) -> None:
    class Renewed(Ops):
        refresh_seconds = 60.0

    async def story() -> None:
        stage.deliveries.apply({"am": Receiver(Renewed(), "warning", always=True)}, [])
        stage.breaker("open")
        await stage.deliveries._lock("am").acquire()
        stage.deliveries._refresh()
        assert stage.deliveries._refresh_at["am"] > stage.now

    asyncio.run(story())


def test_a_burn_is_an_incident_unless_another_one_explains_it(stage: Stage) -> None:
    async def never() -> Any:
        raise AssertionError("sampled by hand")

    measure = Measure(never, stage.keeper, stage.registry, "shop")
    measure.objective = 0.999
    measure.sample({"app": Count(100.0, 0.0)}, 0.0)
    stage.breaker("open")
    measure.sample({"app": Count(200.0, 50.0), "other": Count(10.0, 0.0)}, 10.0)
    assert (stage.one.failure, stage.one.impact) == ("upstream_failing", {"requests": 100.0, "failed_requests": 50.0})

    clear = Stage()
    measure = Measure(never, clear.keeper, clear.registry, "shop")
    measure.objective = 0.999
    measure.sample({"app": Count(100.0, 0.0)}, 0.0)
    measure.sample({"app": Count(200.0, 50.0)}, 10.0)
    assert (clear.one.failure, str(clear.one.severity)) == ("error_budget_burn", "critical")
    measure.sample({"app": Count(100_000.0, 50.0)}, 20.0)
    assert clear.one.status is Status.MITIGATED
