"""The week in virtual time holds the RPO, and the benchmark of backups runs at a tiny size."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.backup_week import Faults, week

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("seed", range(3))
def test_the_rpo_is_held_over_a_week_with_faults(seed: int):
    lived = week(seed)
    assert lived.failed > 20
    assert lived.missed_seconds == 0
    assert lived.silent_seconds == 0, "what nobody could keep was said"
    assert lived.longest_period <= 305.0, "five minutes, and the look at the clock"
    assert lived.worst_age < 900.0
    assert lived.longest_recovery < 900.0


def test_without_faults_no_point_is_older_than_a_period_and_a_run():
    lived = week(1, faults=Faults(fails=0.0, slow=0.0, kills=0, clocks=0, outages=0, sleeps=0))
    assert lived.failed == 0
    assert lived.worst_age < 300.0 + 2 * 60.0
    assert lived.missed_in_outages == 0


def test_runs_that_take_too_long_miss_it_and_it_is_said():
    lived = week(2, rpo=120.0, typical=100.0)
    assert lived.missed_seconds > 0
    assert lived.silent_seconds == 0


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.skipif(shutil.which("restic") is None, reason="no restic here")
def test_the_benchmark_runs(tmp_path: Path):
    result = tmp_path / "result.json"
    words = [sys.executable, "-m", "benchmarks.backup", "--mib", "2", "--rounds", "1", "--json", str(result)]
    done = subprocess.run([*words, "--directory", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = {row["work"] for row in json.loads(result.read_text())["rows"]}
    restores = {"restore files", "restore files, compared"}
    assert rows == {"files, first", "files, unchanged", "database under writes"} | restores
    assert "100 GiB" in done.stdout
