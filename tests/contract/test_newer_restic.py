"""A restic of 0.17 or later, whose exit codes say what failed: the real one of a later Debian, its words muted."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.real.estate import Estate
from tests.real.foreign_lock import foreign_lock
from tests.real.harness import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def newer() -> Path:
    """The program, which is fetched when it is not there yet."""
    program = ROOT / ".cache" / "newer-restic" / "restic"
    if not program.exists():
        fetched = subprocess.run([ROOT / "scripts" / "newer-restic"], capture_output=True, text=True, check=False)
        if fetched.returncode:
            pytest.skip(f"a newer restic cannot be fetched here: {fetched.stderr.strip()[-200:]}")
    return program


def test_each_failure_is_told_by_its_exit_code_alone(newer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    muted = tmp_path / "bin" / "restic"
    muted.parent.mkdir()
    muted.write_text(f'#!/bin/sh\nexec {newer} "$@" 2>/dev/null\n')
    muted.chmod(0o755)
    monkeypatch.setenv("PATH", f"{muted.parent}:{os.environ['PATH']}")
    estate = Estate(tmp_path, "restic")
    point = estate.backup()
    words = [muted, "-r", str(estate.repository), "--password-file", str(estate.key), "--no-cache"]

    def code(*more: str) -> int:
        return subprocess.run([*words, *more], stdout=subprocess.DEVNULL, check=False).returncode

    with foreign_lock(estate.repository, estate.key, exclusive=True):
        assert code("backup", str(estate.uploads)) == 11
        assert "restic's own lock is held by another" in estate.run("backup", "run", code=1).stderr

    shutil.rmtree(estate.repository / "sidecar" / "spare")  # else it would be put back from there
    (estate.repository / "config").rename(tmp_path / "config")
    assert code("cat", "config") == 10
    assert "restic's part of the repository is gone" in estate.run("backup", "prune", code=1).stderr
    assert "restic's config is gone" in estate.run("backup", "run", code=1).stderr
    (tmp_path / "config").rename(estate.repository / "config")
    estate.run("backup", "verify", point, "--level", "read")

    (tmp_path / "other").write_text("another\n")
    assert code("key", "passwd", "--new-password-file", str(tmp_path / "other")) == 0
    assert code("cat", "config") == 12
    assert "the password does not open it" in estate.run("backup", "run", code=4).stderr
