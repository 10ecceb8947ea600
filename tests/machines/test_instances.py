"""The registry's instances: leases, leaving, and a registry that is silent or forgets."""

from hypothesis import given
from hypothesis import strategies as st

from sidecar.machines.instances import Instance, Instances, Lease, State

TTL = 15.0


def lease(name, seconds=TTL, state=State.AVAILABLE):
    return Lease(Instance(name, f"{name}:80", state), seconds)


def names(service):
    return [one.name for one in service.present()]


def test_who_is_named_takes_part():
    service = Instances(TTL)
    service.heard(0.0, [lease("b"), lease("a", state=State.UNAVAILABLE)])
    assert [(one.name, one.state) for one in service.present()] == [
        ("a", State.UNAVAILABLE),
        ("b", State.AVAILABLE),
    ]


def test_who_is_named_no_more_goes_when_the_lease_has_run_out():
    service = Instances(TTL)
    service.heard(0.0, [lease("a"), lease("b", 4.0)])
    service.heard(3.9, [lease("a")])
    assert names(service) == ["a", "b"]
    service.heard(4.0, [lease("a")])
    assert names(service) == ["a"]


def test_who_leaves_is_gone_at_once():
    service = Instances(TTL)
    service.heard(0.0, [lease("a"), lease("b")])
    service.heard(1.0, [lease("a"), lease("b", state=State.LEFT)])
    assert names(service) == ["a"]


def test_silence_ends_nobody():
    service = Instances(TTL)
    service.heard(0.0, [lease("a")])
    service.silent()
    assert names(service) == ["a"]
    service.heard(3600.0, [])
    assert names(service) == ["a"], "it gets a whole grace to be named again"
    service.heard(3600.0 + TTL - 0.1, [])
    assert names(service) == ["a"]
    service.heard(3600.0 + TTL, [])
    assert names(service) == []


def test_an_emptied_registry_takes_nobody_away_who_comes_back_in_time():
    service = Instances(TTL)
    service.heard(0.0, [lease("a"), lease("b")])
    service.heard(5.0, [])
    service.heard(10.0, [lease("a")])
    assert names(service) == ["a", "b"]
    service.heard(15.0, [lease("a")])
    assert names(service) == ["a"]


def test_an_instance_that_moved_has_one_address():
    service = Instances(TTL)
    service.heard(0.0, [lease("a")])
    service.heard(1.0, [Lease(Instance("a", "elsewhere:80", State.AVAILABLE), TTL)])
    assert [one.address for one in service.present()] == ["elsewhere:80"]


leases = st.lists(st.builds(lease, st.sampled_from("abc"), st.floats(0.1, TTL), st.sampled_from(State)), max_size=4)
steps = st.lists(st.tuples(st.floats(0, 2 * TTL), st.none() | leases))


@given(steps)
def test_nobody_stays_beyond_lease_and_grace_once_the_registry_is_heard(events):
    service = Instances(TTL)
    now = 0.0
    last_named: dict[str, float] = {}
    heard_since = 0.0
    silent = False
    for pause, said in events:
        now += pause
        if said is None:
            before = names(service)
            service.silent()
            silent = True
            assert names(service) == before
            continue
        if silent:
            heard_since, silent = now, False
        service.heard(now, said)
        last = {one.instance.name: one.instance.state for one in said}
        last_named |= dict.fromkeys(last, now)
        for name in names(service):
            assert last.get(name) is not State.LEFT
            assert now - max(last_named[name], heard_since) < TTL or name in last
        assert {name for name, state in last.items() if state is not State.LEFT} <= set(names(service))
