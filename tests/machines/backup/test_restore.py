"""A restore that is killed at any point and resumed does each step, in order, and ends like one that never was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.machines.backup.restore import NATURE, Act, Entry, Mark, Outcome, Restore, Step, steps

SOURCES = [("uploads", "files"), ("db", "sqlite"), ("config", "files")]
IN_PLACE = steps(SOURCES, in_place=True)


def play(restore: Restore, journal: list[Entry], limit: int = 1000, fail: Act | None = None) -> list[Step]:
    """Do steps until none is left or `limit` journal entries are written; what was done."""
    done = []
    while (step := restore.next()) is not None:
        if limit <= 0:
            return done
        journal.append(restore.begun(step))
        limit -= 1
        if limit <= 0:
            return done
        done.append(step)
        journal.append(restore.failed(step, "no luck") if step.act is fail else restore.done(step))
        limit -= 1
    return done


def test_configuration_then_databases_then_files():
    swaps = [step.source for step in IN_PLACE if step.act is Act.SWAP]
    assert swaps == ["config", "db", "uploads"]
    acts = [step.act for step in IN_PLACE]
    assert acts.index(Act.FENCE) < acts.index(Act.STOP) < acts.index(Act.SAFETY) < acts.index(Act.FETCH)
    assert max(at for at, act in enumerate(acts) if act is Act.VALIDATE) < acts.index(Act.SWAP)
    assert acts[-4:] == [Act.START, Act.HEALTH, Act.UNFENCE, Act.CLEAR]


def test_beside_nothing_is_fenced():
    acts = {step.act for step in steps(SOURCES, in_place=False)}
    assert acts == {Act.PREFLIGHT, Act.LEASE, Act.FETCH, Act.VALIDATE, Act.SWAP, Act.CLEAR}


class Service:
    """What a restore does to it: fenced off, stopped, exchanged."""

    def __init__(self) -> None:
        self.fenced = self.stopped = False

    def take(self, steps: list[Step]) -> None:
        for step in steps:
            match step.act:
                case Act.FENCE | Act.UNFENCE:
                    self.fenced = step.act is Act.FENCE
                case Act.STOP | Act.START:
                    self.stopped = step.act is Act.STOP
                case Act.SWAP:
                    assert self.fenced, "callers are away while data is exchanged"
                    assert self.stopped, "and the service stands still"
                case Act.HEALTH:
                    assert not self.stopped, "who is asked runs"


@pytest.mark.parametrize("forgets", [False, True])
@pytest.mark.parametrize("limit", range(1, 2 * len(IN_PLACE) + 1))
def test_killed_anywhere_and_resumed_callers_come_to_a_service_that_runs(limit: int, forgets: bool):
    journal: list[Entry] = []
    service = Service()
    service.take(play(Restore(IN_PLACE), journal, limit))
    if forgets and Restore(IN_PLACE, journal).torn:
        service = Service()  # it was started anew, and fenced by whoever saw that the data is torn
        service.fenced = service.stopped = True
    service.take(play(Restore(IN_PLACE, journal), journal))
    assert not service.fenced
    assert not service.stopped


def test_a_service_that_was_not_well_runs_while_it_is_asked_again():
    journal: list[Entry] = []
    service = Service()
    service.take(play(Restore(IN_PLACE), journal, fail=Act.HEALTH))
    assert service.fenced
    service.take(play(Restore(IN_PLACE, journal), journal))
    assert not service.fenced


def test_a_good_one_does_every_step_once():
    restore = Restore(IN_PLACE)
    assert play(restore, []) == list(IN_PLACE)
    assert restore.outcome is Outcome.DONE


@given(st.lists(st.integers(1, 12), max_size=12))
def test_killed_anywhere_and_resumed_it_ends_the_same(kills: list[int]):
    journal: list[Entry] = []
    for limit in kills:
        play(Restore(IN_PLACE, journal), journal, limit)
    restore = Restore(IN_PLACE, journal)
    play(restore, journal)
    assert restore.outcome is Outcome.DONE
    done = [entry.step for entry in journal if entry.mark is Mark.DONE]
    once = [step for step in done if not NATURE[step.act].held]
    assert once == [step for step in IN_PLACE if not NATURE[step.act].held], "each once, in order"
    swap = next(at for at, entry in enumerate(journal) if entry.step.act is Act.SWAP and entry.mark is Mark.BEGUN)
    assert {Act.LEASE, Act.FENCE, Act.STOP} <= {entry.step.act for entry in journal[:swap]}


def test_after_a_kill_the_lease_and_the_fence_are_taken_again():
    journal: list[Entry] = []
    play(Restore(IN_PLACE, journal), journal, 2 * 7 + 1)
    again = play(Restore(IN_PLACE, journal), journal)
    assert [step.act for step in again[:3]] == [Act.LEASE, Act.FENCE, Act.STOP]
    assert Step(Act.PREFLIGHT) not in again


@pytest.mark.parametrize("act", [Act.FENCE, Act.STOP, Act.FETCH, Act.VALIDATE])
def test_a_failure_before_the_swap_lets_the_service_go_on(act: Act):
    restore = Restore(IN_PLACE)
    done = [step.act for step in play(restore, [], fail=act)]
    assert restore.outcome is Outcome.GIVEN_UP
    assert Act.SWAP not in done
    expected = [*([Act.START] if act is not Act.FENCE else []), Act.UNFENCE, Act.CLEAR]
    assert done[done.index(act) + 1 :] == expected
    assert "no luck" in restore.why


def test_a_failed_preflight_touches_nothing():
    restore = Restore(IN_PLACE)
    assert [step.act for step in play(restore, [], fail=Act.PREFLIGHT)] == [Act.PREFLIGHT, Act.CLEAR]


@pytest.mark.parametrize("act", [Act.SWAP, Act.START, Act.HEALTH])
def test_a_failure_from_the_swap_on_stops_and_can_be_resumed(act: Act):
    journal: list[Entry] = []
    restore = Restore(IN_PLACE)
    done = [step.act for step in play(restore, journal, fail=act)]
    assert restore.outcome is Outcome.STOPPED
    assert Act.UNFENCE not in done, "nobody is let in to half a restore"
    resumed = Restore(IN_PLACE, journal)
    again = [step.act for step in play(resumed, journal)]
    started = [] if act is Act.HEALTH else [Act.STOP]  # who was started already is not stopped again
    assert again[: again.index(act)] == [Act.LEASE, Act.FENCE, *started]
    assert resumed.outcome is Outcome.DONE


def test_a_safety_snapshot_that_fails_is_passed_over():
    restore = Restore(IN_PLACE)
    play(restore, [], fail=Act.SAFETY)
    assert restore.outcome is Outcome.DONE
