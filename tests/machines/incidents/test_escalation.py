"""Who hears next: in order, once, and nobody once somebody looks at it."""

from hypothesis import given
from hypothesis import strategies as st

from sidecar.machines.incidents.escalation import Step, due, take
from sidecar.machines.incidents.incident import Condition, Incident, Patience, Severity

STEPS = (Step(300.0, "lead"), Step(60.0, "ops"), Step(900.0, "boss"))
WRONG = Condition("dependency_down", "db", "check", Severity.ERROR, "db is down")


def incident(now: float = 1000.0) -> Incident:
    one = Incident("1", "orders", "o-1", "dependency_down", "db", "db is down", now, now, now)
    one.hold(WRONG, now)
    return one


def test_each_step_in_its_time_and_once():
    one = incident()
    assert due(STEPS, one) == 1060.0
    assert take(STEPS, one, 1059.9) == []
    assert take(STEPS, one, 1060.0) == ["ops"]
    assert take(STEPS, one, 1061.0) == []
    assert take(STEPS, one, 2000.0) == ["lead", "boss"]
    assert due(STEPS, one) is None


def test_an_acknowledgement_ends_it():
    one = incident()
    take(STEPS, one, 1060.0)
    one.ack(1100.0, "kim")
    assert (take(STEPS, one, 5000.0), due(STEPS, one)) == ([], None)


def test_it_rests_while_nothing_is_wrong_and_goes_on_after_a_relapse():
    one = incident()
    one.clear("check", 1030.0)
    assert take(STEPS, one, 1070.0) == []
    one.hold(WRONG, 1080.0)
    assert take(STEPS, one, 1080.0) == ["ops"]


def test_a_reopened_incident_begins_anew():
    one = incident()
    take(STEPS, one, 1060.0)
    one.clear("check", 1070.0)
    one.tick(1500.0, Patience())
    one.hold(WRONG, 1600.0)
    assert due(STEPS, one) == 1660.0


@given(st.lists(st.tuples(st.floats(1, 1000), st.sampled_from("abc"))), st.lists(st.floats(0, 2000)))
def test_nobody_hears_twice_of_one_step_and_everybody_hears_in_time(steps: list, times: list[float]):
    one, told = incident(0.0), []
    for now in sorted(times):
        told += take([Step(*step) for step in steps], one, now)
    last = max(times, default=0.0)
    assert told == [to for after, to in sorted(steps) if times and after <= last]
