"""The floors as import-linter sees them: the contracts stand in pyproject.toml."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT = Path(sys.executable).with_name("lint-imports")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([LINT, "--no-logo", "--no-cache"], cwd=folder, capture_output=True, text=True, check=False)


def test_the_contracts_are_kept():
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """The floors with nothing on them, under this repository's contracts."""
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    for floor in ("base", "config", "machines", "runtime", "proxy", "control", "agent", "simulate", "cli"):
        (tmp_path / "sidecar" / floor).mkdir(parents=True)
        (tmp_path / "sidecar" / floor / "__init__.py").touch()
    (tmp_path / "sidecar" / "__init__.py").touch()
    (tmp_path / "sidecar" / "base" / "clock.py").write_text("import time\n")
    return tmp_path


def test_an_empty_house_is_in_order(house: Path):
    result = lint(house)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("proxy/stray.py", "import sidecar.control"),
        ("control/stray.py", "import sidecar.proxy"),
        ("agent/stray.py", "import sidecar.control"),
        ("control/stray.py", "import sidecar.agent"),
        ("base/stray.py", "import sidecar.config"),
        ("machines/stray.py", "import sidecar.runtime"),
        ("machines/stray.py", "import asyncio"),
        ("machines/stray.py", "from time import monotonic"),
        ("machines/stray.py", "from sidecar.base.clock import SystemClock"),
        ("proxy/stray.py", "import httpx"),
        ("simulate/stray.py", "import sidecar.proxy"),
        ("simulate/stray.py", "import sidecar.runtime"),
        ("simulate/stray.py", "from time import monotonic"),
        ("stray.py", "import sidecar.proxy"),
    ],
)
def test_a_stray_import_breaks_a_contract(house: Path, module: str, line: str):
    (house / "sidecar" / module).write_text(line + "\n")
    result = lint(house)
    assert result.returncode == 1, result.stdout + result.stderr
