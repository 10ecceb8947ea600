"""Claims of a lease in a store: who is dead is found out by watching, and then he is in nobody's way."""

import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from sidecar.agent.faults import Busy
from sidecar.agent.repository.claims import CLAIMS, Claim
from sidecar.agent.repository.lease import Holder, holder
from sidecar.agent.repository.store import LocalStore

OF_ANOTHER = Holder(who="pod-that-is-gone", why="backup", pid=7, machine="another", started="5", generation=4)
PLACE = f"{CLAIMS}/000000000004-0123456789ab"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    monkeypatch.setattr("sidecar.agent.repository.claims.TTL", 1.0)
    monkeypatch.setattr("sidecar.agent.repository.claims._LOOK", 0.05)
    return LocalStore(str(tmp_path))


def claims(store: LocalStore) -> list[str]:
    return [found.name for found in store.list(CLAIMS)]


@pytest.mark.parametrize("left", [lambda: OF_ANOTHER, lambda: holder("this process", "it could not give it back")])
def test_a_claim_that_stands_still_is_dead_and_no_patience_is_too_short_to_see_it(
    store: LocalStore, left: Callable[[], Holder]
):
    store.put(PLACE, msgspec.json.encode(left()))
    lease = Claim(store, holder("me", "backup"), lambda: 4).acquire(0.0)
    assert lease.generation == 5
    assert PLACE not in claims(store)
    lease.release()
    assert claims(store) == []


def test_a_claim_that_changes_is_left_alone(store: LocalStore):
    stop = threading.Event()

    def live() -> None:
        beat = 0
        while not stop.wait(0.1):
            beat += 1
            store.put(PLACE, msgspec.json.encode(msgspec.structs.replace(OF_ANOTHER, beat=beat)))

    store.put(PLACE, msgspec.json.encode(OF_ANOTHER))
    thread = threading.Thread(target=live)
    thread.start()
    try:
        with pytest.raises(Busy, match="pod-that-is-gone"):
            Claim(store, holder("me", "backup"), lambda: 4).acquire(0.0)
    finally:
        stop.set()
        thread.join()
    assert claims(store) == [PLACE]
