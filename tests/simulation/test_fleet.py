"""Ten thousand bad days of a fleet, and the proof that a broken rule would show."""

import inspect

import pytest

from sidecar.machines.fleet import member as fleet_member
from sidecar.machines.fleet import page as fleet_page
from sidecar.machines.fleet import replica as fleet
from tests.simulation.fleet_world import play, schedule, smallest, story, violation

SEEDS, PART, LENGTH = 10_000, 500, 80


@pytest.mark.parametrize("first", range(0, SEEDS, PART))
def test_whatever_happens_the_invariants_hold_and_the_fleet_recovers(first):
    for seed in range(first, first + PART):
        acts = schedule(seed, LENGTH)
        if violation(seed, acts):
            pytest.fail(story(seed, acts), pytrace=False)


def test_a_seed_is_the_same_story_each_time():
    one, two = [], []
    play(21, schedule(21, LENGTH), one)
    play(21, schedule(21, LENGTH), two)
    assert one == two
    assert len(one) >= LENGTH


MUTANTS = [
    ("permits", fleet_page._Turn, "ask", "len(page.leases) < ask.permits", "len(page.leases) <= ask.permits"),
    ("permits", fleet_page._Turn, "go", "page.votes = {}", "page.votes = {}; page.leases = {}"),
    ("permits", fleet_member.Member, "_answered_ask", "sent.at + grant.left / 1000", "now + grant.left / 300"),
    ("epochs", fleet_member.Member, "heard", "record.epoch > self.record.epoch", "record.epoch != self.record.epoch"),
    ("stale", fleet_page._Turn, "report", "or report.epoch != page.epoch", ""),
    ("stale", fleet_page._Turn, "force", "order.epoch < self.page.epoch", "False"),
    ("stale", fleet_page._Turn, "restore", "known.epoch <= page.epoch or", ""),
    ("lone", fleet_page._Turn, "vote", "vote.quorum or", "1 or"),
    ("lone", fleet_page._Turn, "vote", "max(self.carrying, vote.carrying)", "self.carrying"),
    ("wedged", fleet_page._Turn, "tidy", "if lease.until > now", "if lease.until > 0"),
    ("wedged", fleet_member.Member, "heard", "self._send(Restore(record=mine), now)", ""),
    ("wedged", fleet_member.Member, "failed", "self._asking = False", "pass"),
    ("false", fleet_member.Member, "cut_off", "[Alone(self.name)]", "[Adopt(self.name, _snapshot(Record()))]"),
    ("false", fleet_member.Member, "heard", "self._send(Restore(record=mine), now)",
     "*self._adopt(msgspec.structs.replace(record, epoch=self.record.epoch), now)"),
    ("apart", fleet.Fleet, "_sync", "[Sync(", "[][0:0] and [Sync("),
]  # fmt: skip


@pytest.mark.parametrize(("word", "owner", "method", "old", "new"), MUTANTS)
def test_a_broken_rule_shows(word, owner, method, old, new, monkeypatch):
    """Each rule that an invariant rests on, taken out: some schedule soon finds it, and can be cut down."""
    source = inspect.getsource(getattr(owner, method))
    assert source.count(old) == 1
    namespace = dict(vars(inspect.getmodule(owner)))
    exec(inspect.cleandoc("\n" + source.replace(old, new)), namespace)
    monkeypatch.setattr(owner, method, namespace[method])
    for seed in range(3000):
        acts = schedule(seed, LENGTH)
        if violation(seed, acts) == word:
            shorter = smallest(seed, acts)
            assert len(shorter) < len(acts)
            assert violation(seed, shorter) == word
            return
    pytest.fail("no schedule found it")
