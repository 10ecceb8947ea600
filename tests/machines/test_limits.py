"""Gates: full is full, and nobody leaves twice."""

import pytest

from sidecar.machines.limits import Gate


def test_a_full_gate_refuses_and_counts_it() -> None:
    gate = Gate(2)
    assert [gate.enter() for _ in range(3)] == [True, True, False]
    assert (gate.inside, gate.overflowed) == (2, 1)
    gate.leave()
    assert gate.enter()


def test_zero_admits_nobody() -> None:
    assert not Gate(0).enter()


def test_a_smaller_maximum_leaves_those_inside_alone() -> None:
    gate = Gate(3)
    for _ in range(3):
        gate.enter()
    gate.maximum = 1
    gate.leave()
    assert not gate.enter()
    gate.leave()
    gate.leave()
    assert gate.enter()


def test_leaving_twice_is_a_fault_of_the_caller() -> None:
    gate = Gate(1)
    gate.enter()
    gate.leave()
    with pytest.raises(RuntimeError):
        gate.leave()
