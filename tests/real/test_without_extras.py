"""Installed without `[all]`: the proxy has all it needs, and whoever asks for backups is told what to install."""

from pathlib import Path

import pytest

from tests.fakes.upstream import ScriptedUpstream
from tests.real.agent import Estate
from tests.real.documents import document, listener, route, upstream
from tests.real.harness import Sidecar, run_cli

EXTRAS = ("cryptography", "obstore", "zstandard")


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is started now finds none of the extras."""
    (tmp_path / "bare").mkdir()
    for name in EXTRAS:
        lacks = f"raise ModuleNotFoundError(\"No module named '{name}'\", name='{name}')"
        (tmp_path / "bare" / f"{name}.py").write_text(lacks)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "bare"))


@pytest.mark.usefixtures("bare")
def test_the_proxy_needs_none_and_backups_say_what_they_need(tmp_path: Path, server: ScriptedUpstream) -> None:
    config = document([listener("in", [route("all", "app")])], [upstream("app", server.address)])
    with Sidecar({**config, "backup": Estate(tmp_path).section()}) as proxy:
        assert proxy.get("in").status == 200
        for words in (("backup", "list"), ("agent", "run")):
            done = proxy.command(*words, check=False)
            assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
            assert "pip install 'sidecar[all]'" in done.stderr
    assert run_cli("--version").stdout.startswith("sidecar ")
