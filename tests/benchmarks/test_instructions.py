"""A request must not come to cost more instructions than its recorded budget allows."""

import shutil

import pytest

from benchmarks.instructions import Budget, budget, measure, over
from benchmarks.rig.machine import build_facts


def test_growth_beyond_the_tolerance_is_named() -> None:
    allowed = Budget(build={}, per_request={"get-1k": 100_000, "post-1k": 100_000})
    assert over({"get-1k": 102_900, "post-1k": 50_000}, allowed) == []
    assert over({"get-1k": 103_100, "post-1k": 50_000}, allowed) == [
        "get-1k: 103,100 instructions, budget 100,000 (+3.1%, tolerance 3%)"
    ]


@pytest.mark.alone
@pytest.mark.timeout(180)
def test_requests_stay_within_budget() -> None:
    allowed = budget()
    if allowed is None:
        pytest.skip("no budget recorded: python -m benchmarks.instructions --record")
    if allowed.build != build_facts():
        pytest.skip(f"the budget is for another build: {allowed.build}")
    if not (shutil.which("valgrind") and shutil.which("nginx") and shutil.which("taskset")):
        pytest.skip("scripts/install-test-tools was not run")
    works = ["get-1k", "post-1k", "get-1k-tls"]
    excess = over(measure(works, requests=500), allowed)
    if excess:  # a busy machine adds some per cent, and not twice the same: a change adds them always
        excess = over(measure(works, requests=500), allowed)
    assert excess == []
