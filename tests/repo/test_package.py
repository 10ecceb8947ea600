"""What `pip install .` brings: everything that the programs read, the command, and the extras by name."""

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).parents[2]


def test_the_wheel_is_whole_and_runs(tmp_path: Path):
    options = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(tmp_path))
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("sidecar-*.whl")
    with ZipFile(wheel) as packed:
        packed.extractall(tmp_path)
        names = set(packed.namelist())
    ours = {str(one.relative_to(ROOT)) for one in (ROOT / "sidecar").rglob("*") if one.is_file()}
    assert {name for name in names if name.startswith("sidecar/")} == {one for one in ours if "__pycache__" not in one}
    (about,) = tmp_path.glob("*.dist-info")
    assert "sidecar = sidecar.cli:main" in (about / "entry_points.txt").read_text()
    wanted = [line for line in (about / "METADATA").read_text().splitlines() if line.startswith("Requires-Dist")]
    extras = {line.split()[1].partition(">")[0] for line in wanted if "extra ==" in line}
    assert extras == {"cryptography", "obstore", "zstandard"}
    said = subprocess.run([sys.executable, "-m", "sidecar", "--version"], cwd=tmp_path, capture_output=True, check=True)
    assert said.stdout.startswith(b"sidecar ")
