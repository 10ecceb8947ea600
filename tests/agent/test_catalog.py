"""The catalog while it is rebuilt: who looks meanwhile finds what was there before."""

from pathlib import Path

import pytest

from sidecar.agent.catalog import Catalog
from sidecar.agent.repository.repository import Repository
from tests.agent.test_killed import Place


def test_a_rebuild_is_seen_when_it_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    place = Place(tmp_path)
    ids = {place.backup().id for _ in range(2)}
    seen: list[set[str]] = []

    def look(repository: Repository, name: str, signed=Repository.signed):
        seen.append({one.id for one in Catalog(place.config.state_dir).points()})
        return signed(repository, name)

    monkeypatch.setattr(Repository, "signed", look)
    assert place.catalog.rebuild(place.repository) == (2, [])
    assert seen
    assert all(one == ids for one in seen), "never an empty catalog: the agent would say that there is no backup"
