"""The way out: states, timings, and that there is no way back."""

from hypothesis import given
from hypothesis import strategies as st

from sidecar.machines.drain import ALLOWED, CONDUCT, Conduct, Drain, Phase
from sidecar.machines.transition import Transition


def test_drain_goes_on_accepting_without_an_end() -> None:
    drain = Drain(delay=0.0, drain_timeout=30.0)
    assert drain.conduct == Conduct(ready=True, accepting=True, keep_alive=True)
    assert drain.drain(1.0) == Transition(Phase.SERVING, Phase.DRAINING, "drain", 1.0)
    assert drain.conduct == Conduct(ready=False, accepting=True, keep_alive=False)
    assert drain.drain(2.0) is None
    assert drain.tick(1e6, running=0) is None


def test_stop_waits_for_what_runs() -> None:
    drain = Drain(delay=0.0, drain_timeout=30.0)
    assert drain.stop(1.0) == Transition(Phase.SERVING, Phase.STOPPING, "stop", 1.0)
    assert not drain.conduct.accepting
    assert drain.tick(30.9, running=1) is None
    assert drain.tick(31.0, running=1) == Transition(Phase.STOPPING, Phase.STOPPED, "timeout", 31.0)


def test_stop_ends_early_when_nothing_runs() -> None:
    drain = Drain(delay=0.0, drain_timeout=30.0)
    drain.stop(1.0)
    assert drain.tick(1.5, running=0) == Transition(Phase.STOPPING, Phase.STOPPED, "finished", 1.5)
    assert drain.tick(2.0, running=0) is None


def test_a_bare_stop_first_drains_for_the_delay() -> None:
    drain = Drain(delay=5.0, drain_timeout=30.0)
    assert drain.stop(1.0) == Transition(Phase.SERVING, Phase.DRAINING, "stop", 1.0)
    assert drain.tick(5.9, running=0) is None
    assert drain.tick(6.0, running=3) == Transition(Phase.DRAINING, Phase.STOPPING, "delay_over", 6.0)
    assert drain.deadline == 36.0


def test_after_a_drain_stop_does_not_delay_again() -> None:
    drain = Drain(delay=5.0, drain_timeout=30.0)
    drain.drain(1.0)
    assert drain.stop(60.0) == Transition(Phase.DRAINING, Phase.STOPPING, "stop", 60.0)


def test_the_second_stop_forces() -> None:
    drain = Drain(delay=5.0, drain_timeout=30.0)
    drain.stop(1.0)
    assert drain.stop(2.0) == Transition(Phase.DRAINING, Phase.STOPPED, "forced", 2.0)
    assert drain.stop(3.0) is None


def test_every_phase_has_its_conduct() -> None:
    assert set(CONDUCT) == set(Phase)


@given(
    st.lists(st.tuples(st.sampled_from(["drain", "stop", "tick"]), st.floats(0, 40), st.integers(0, 2)), max_size=20),
    st.sampled_from([0.0, 5.0]),
)
def test_only_allowed_changes_happen_and_only_forward(events: list[tuple[str, float, int]], delay: float) -> None:
    drain = Drain(delay, drain_timeout=30.0)
    order = list(Phase)
    now = 0.0
    for event, wait, running in events:
        now += wait
        before = drain.phase
        change = drain.tick(now, running) if event == "tick" else getattr(drain, event)(now)
        if change is None:
            assert drain.phase is before
        else:
            assert (change.old, change.new) == (before, drain.phase)
            assert change.reason in ALLOWED[change.old, change.new].split(", ")
            assert order.index(change.new) > order.index(change.old)
