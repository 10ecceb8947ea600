"""What rules count: the reading of each, without the program around it."""

from sidecar.config.recovery import AgentTrouble, ErrorRatio, MemoryPressure
from sidecar.control.recovery.ports import Seen
from sidecar.control.recovery.symptoms import MAX_REPORTED, AgentReports, Crashing, Failing, MemoryShort
from sidecar.runtime import series
from sidecar.runtime.metrics import Registry
from sidecar.runtime.observer import Happening, Kind


def seen(now=0.0, registry=None):
    return Seen(now, {}, None if registry is None else registry.snapshot())


def report(reason="rpo_missed", subject="db", **fields):
    return Happening(Kind.AGENT_CONDITION, subject, 0.0, "error", reason, "late", fields)


class Traffic:
    def __init__(self):
        self.registry = Registry()

    def count(self, code, outcome="ok", by=1, upstream="app"):
        labels = {"listener": "in", "route": "all", "upstream": upstream, "method": "GET", "code": code}
        values = labels | {"outcome": outcome}
        self.registry.cell(series.REQUESTS, *(values[name] for name in series.REQUESTS.labels)).value += by


def test_memory_is_what_the_kernel_cannot_take_back(tmp_path):
    short = MemoryShort(MemoryPressure(above=0.9, cgroup=str(tmp_path)))
    assert not short.look(seen()).sick, "no control group"
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("950\n")
    assert short.look(seen()).sick
    (tmp_path / "memory.stat").write_text("anon 400\ninactive_file 500\n")
    assert not short.look(seen()).sick, "half of it is a file that was read once"
    (tmp_path / "memory.stat").write_text("anon 940\ninactive_file 10\n")
    assert short.look(seen()).sick
    (tmp_path / "memory.max").write_text("max\n")
    assert not short.look(seen()).sick, "no limit"


def test_the_share_of_errors_needs_enough_requests_and_forgets():
    traffic = Traffic()
    failing = Failing(ErrorRatio(upstream="app", above=0.5, window=10.0, minimum_requests=10))
    traffic.count("500", by=100)
    assert not failing.look(seen(0.0, traffic.registry)).sick, "what was before us does not count"
    for turn in range(4):  # in turns, never two in a row
        traffic.count("200")
        traffic.count("502", "connect_failure")
        assert not failing.look(seen(1.0 + turn / 10, traffic.registry)).sick, "too few"
    traffic.count("200")
    traffic.count("200", "fallback_cache")
    assert failing.look(seen(2.0, traffic.registry)).why == "5 of 10 requests failed within 10s"
    traffic.count("500", by=100, upstream="other")
    traffic.count("408", "client_timeout", by=5)
    assert not failing.look(seen(3.0, traffic.registry)).sick
    traffic.count("500", by=20)
    assert failing.look(seen(4.0, traffic.registry)).sick
    assert not failing.look(seen(15.0, traffic.registry)).sick
    traffic.count("500", by=20)
    assert failing.look(seen(16.0, traffic.registry)).sick
    failing.forget()
    assert not failing.look(seen(16.1, traffic.registry)).sick


def test_deaths_count_within_their_time():
    crashing = Crashing(2, 60.0)
    crashing.died(0.0)
    assert not crashing.look(seen(0.0)).sick
    crashing.died(61.0)
    assert not crashing.look(seen(61.0)).sick
    crashing.died(62.0)
    assert crashing.look(seen(62.0)).why == "died 2 times within 60s"
    assert not crashing.look(seen(130.0)).sick


def test_what_the_agent_reports_holds_until_it_is_over_or_not_repeated():
    reports = AgentReports(AgentTrouble())
    reports.heard(report(), 0.0)
    assert reports.look(seen(899.0)).why == "rpo_missed of db: late"
    assert not reports.look(seen(900.0)).sick
    reports.heard(report(expires_seconds=5), 1000.0)
    assert reports.look(seen(1004.0)).sick
    assert not reports.look(seen(1005.0)).sick
    reports.heard(report(), 1010.0)
    reports.heard(report(subject="uploads"), 1010.0)
    reports.heard(report(holds=False), 1011.0)
    assert reports.look(seen(1012.0)).why == "rpo_missed of uploads: late"


def test_only_the_condition_and_subject_that_were_asked_for():
    reports = AgentReports(AgentTrouble(condition="rpo_missed", subject="db"))
    reports.heard(report(subject="uploads"), 0.0)
    reports.heard(report(reason="drill_failed"), 0.0)
    assert not reports.look(seen(1.0)).sick
    reports.heard(report(), 0.0)
    assert reports.look(seen(1.0)).sick


def test_an_agent_that_reports_without_end_costs_little():
    reports = AgentReports(AgentTrouble())
    for number in range(10 * MAX_REPORTED):
        reports.heard(report(subject=f"s{number}"), 0.0)
    assert len(reports._holds) == MAX_REPORTED
