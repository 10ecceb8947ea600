"""What the agent does beside backups: it reads all data again, part by part, and shows how far long work is."""

import json
import os
import pty
import re
import sqlite3
import subprocess
import sys
import zlib
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.real.agent import Agent, Estate
from tests.real.estate import flip
from tests.real.harness import ROOT


def test_rot_is_found_by_the_daily_reading_and_the_older_point_counts_again(tmp_path: Path):
    estate = Estate(tmp_path)
    first = estate.json("backup", "run", "--kind", "full")["id"]
    known = set(estate.sealed_objects())
    (estate.uploads / "new").write_bytes(os.urandom(200_000))
    second = estate.json("backup", "run", "--kind", "full")["id"]
    rotten = max(set(estate.sealed_objects()) - known, key=lambda path: path.stat().st_size)
    flip(rotten)
    name = str(rotten.relative_to(estate.repository))
    part = zlib.crc32(name.encode()) % 7 + 1
    with closing(sqlite3.connect(tmp_path / "state" / "catalog.db")) as db, db:  # the part before was read long ago
        ago = (datetime.now(UTC) - timedelta(days=2)).isoformat()
        body = json.dumps({"part": part - 1 or 7, "at": ago, "troubles": 0}).encode()
        db.execute("INSERT INTO findings VALUES ('reading', 'all', 0, '', ?)", (body,))
    estate.write(rpo="1h")
    with Agent(estate) as agent:
        assert agent.json("/api/v1/status")["rpo"]["point"] == second
        said = agent.wait_log('"backup_damaged".*"point": "([^"]+)".*')
        assert said[1] == second
        assert name in said[0]
        assert f"the next older good one is {first}" in said[0]
        agent.wait_until(lambda: agent.json("/api/v1/status")["rpo"]["point"] == first, "the older one counts")
        assert agent.metrics().sum("sidecar_backup_verify_total", level="read", result="damaged") == 1
        assert "verify_failed" in {one["reason"] for one in agent.json("/api/v1/status")["conditions"]}
    assert estate.json("restore", "plan", "--target", str(tmp_path / "t"))["backup"] == first


def test_on_a_terminal_a_restore_shows_a_bar_elsewhere_lines_of_json(tmp_path: Path):
    estate = Estate(tmp_path)
    (estate.uploads / "large").write_bytes(os.urandom(8 << 20))
    estate.run("backup", "run")
    plan = estate.json("restore", "plan", "--target", str(tmp_path / "a"))
    plain = estate.run("restore", "apply", plan["hash"]).stderr
    assert '"step": "fetch uploads"' in plain
    assert re.search(r'"bytes_per_second": \d+', plain)
    plan = estate.json("restore", "plan", "--target", str(tmp_path / "b"))
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "sidecar", "restore", "apply", plan["hash"], "-c", str(estate.file)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while piece := read(ours):
            shown += piece
        assert process.wait() == 0
    os.close(ours)
    text = shown.decode()
    assert re.search(r"restore uploads \[[#.]+\] +\d+% +[\d.]+ MB/s", text), text
    assert "step" not in text
    changed = tmp_path / "state" / "restores" / f"{plan['hash']}.json"
    changed.write_text(changed.read_text().replace(str(tmp_path / "b"), "/elsewhere"))
    assert "somebody changed it" in estate.run("restore", "apply", plan["hash"], code=1).stderr


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # the other end is closed
        return b""
