"""The script that gets the programs which the tests start: it asks for all that are absent, and for nothing else."""

import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts/install-test-tools"


def test_where_nothing_can_be_installed_it_fails_and_names_what_is_missing(tmp_path: Path):
    """PATH leads to an empty directory, so even apt-get is absent; what stands in /usr/sbin it still finds."""
    done = subprocess.run(
        ["/bin/bash", SCRIPT], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "This system has no apt-get" in done.stderr
    missing = set(done.stderr.partition("apt-get install ")[2].split())
    assert missing >= {"redis-server", "openssl", "chromium", "prometheus", "systemd", "kubernetes-client", "valgrind"}


def test_where_all_are_there_it_does_nothing():
    done = subprocess.run([SCRIPT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
