"""Schedules of a fleet for as long as you like: `make fuzz`, SECONDS=600 for longer, FUZZ_SEED to begin elsewhere.

What happens in them and what must hold is `tests/simulation/fleet_world.py`. A seed that fails is cut down and told.
"""

import os
import random
import time

import pytest

from tests.simulation.fleet_world import schedule, story, violation

SECONDS = float(os.environ.get("SECONDS", "60"))
FIRST = int(os.environ.get("FUZZ_SEED") or random.SystemRandom().randrange(2**32))


def test_the_invariants_hold_in_long_schedules_too():
    print(f"FUZZ_SEED={FIRST}")
    seed, until = FIRST, time.monotonic() + SECONDS
    while time.monotonic() < until:
        acts = schedule(seed, random.Random(seed).choice([50, 100, 400, 1500]))
        if violation(seed, acts):
            pytest.fail(story(seed, acts), pytrace=False)
        seed += 1
    assert seed > FIRST
