"""The rig against the cheapest peer: origins serve, generators drive, processes are measured and gone afterwards."""

import os
import shutil

import pytest

from benchmarks.load.works import WORKS
from benchmarks.rig.origin import origins
from benchmarks.rig.peers import peer_named, started

pytestmark = pytest.mark.skipif(
    not (shutil.which("nginx") and shutil.which("taskset")), reason="benchmarks/install.sh was not run"
)


def test_tunnel_turn_measures_and_ends_everything() -> None:
    work = next(work for work in WORKS if work.name == "tcp")
    with origins() as (scratch, origin), started(peer_named("relay"), scratch, origin) as peer:
        assert peer.process is not None
        pids = peer.process.tree()
        sample = work.measure(peer, scratch, 0.2)
    assert sample.errors == 0
    assert sample.units > 0
    assert sample.cpu_us > 0
    assert not scratch.exists()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_unknown_peer_is_named() -> None:
    with pytest.raises(ValueError, match="unknown peer 'apache'"):
        peer_named("apache")
