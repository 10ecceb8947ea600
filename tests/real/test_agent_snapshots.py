"""`sidecar snapshot`: what is held stays, whatever the rules say and whoever lost his state."""

import shutil
from pathlib import Path

from tests.real.estate import Estate

NOTHING_ELSE = {"keep_within": "0s", "daily": 1, "weekly": 0, "monthly": 0}


def test_a_snapshot_outlives_retention_and_the_loss_of_the_state(tmp_path: Path):
    estate = Estate(tmp_path)
    assert estate.json("snapshot", "list") == []
    assert estate.json("restore", "resume")["steps"] == [], "nothing to go on with, as JSON too"
    made = estate.json("snapshot", "create", "--why", "before 2.0")
    later = [estate.json("backup", "run", "--kind", "full")["id"] for _ in range(2)]  # none leans on it
    estate.write(retention=NOTHING_ELSE)
    shutil.rmtree(tmp_path / "state")
    estate.run("catalog", "rebuild")
    plan = estate.json("backup", "forget", "--dry-run")
    assert plan["keep"][made["id"]] == "held: before 2.0"
    estate.run("backup", "forget")
    estate.run("backup", "prune")
    assert [one["id"] for one in estate.json("backup", "list")] == [later[-1], made["id"]]
    assert [(one["id"], one["why"]) for one in estate.json("snapshot", "list")] == [(made["id"], "before 2.0")]
    estate.run("backup", "verify", made["id"], "--level", "read")
    estate.run("backup", "verify", later[-1])
    refused = estate.run("backup", "forget", made["id"], code=1)
    assert f"sidecar snapshot release {made['id']}" in refused.stderr

    estate.run("snapshot", "release", made["id"])
    estate.run("backup", "forget")
    assert [one["id"] for one in estate.json("backup", "list")] == [later[-1]]


def test_the_newest_verified_point_is_not_deleted_by_order_either(tmp_path: Path):
    estate = Estate(tmp_path)
    first = estate.backup()
    refused = estate.run("snapshot", "delete", first, code=1)
    assert "the newest verified point" in refused.stderr
    second = estate.json("snapshot", "create")["id"]
    estate.run("snapshot", "hold", first)
    estate.run("snapshot", "delete", first)
    assert [one["id"] for one in estate.json("backup", "list")] == [second]
    assert "no backup 'nothing'" in estate.run("snapshot", "hold", "nothing", code=1).stderr
    estate.run("snapshot", "hold", code=2)


def test_a_snapshot_of_what_is_not_there_is_not_held(tmp_path: Path):
    estate = Estate(tmp_path)
    shutil.rmtree(estate.uploads)
    assert "not held" in estate.run("snapshot", "create", code=1).stderr
    assert estate.json("snapshot", "list") == []
