"""What the first look waits for is what the page shows of an open breaker, and of no other."""

import copy
import re

import pytest

from benchmarks.first_look import _OPEN
from sidecar.control import page
from tests.fakes.program import STATUS


@pytest.mark.parametrize(("state", "seen"), [("closed", False), ("open", True), ("half_open", True)])
def test_an_open_breaker_is_seen(state: str, *, seen: bool) -> None:
    status = copy.deepcopy(STATUS)
    status["breakers"] = [{**status["breakers"][1], "machine": state}]
    assert bool(re.search(_OPEN, page.render(status))) is seen
    assert "<h1>" in page.render(status)
