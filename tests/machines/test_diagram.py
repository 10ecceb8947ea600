"""The breaker's page is drawn from the table that the breaker runs on, and is fresh."""

import runpy
from pathlib import Path

import pytest

from sidecar.machines.breaker_states import AUTOMATIC, BreakerState
from sidecar.machines.diagram import mermaid

ROOT = Path(__file__).resolve().parents[2]


def test_every_change_is_an_arrow() -> None:
    lines = mermaid(AUTOMATIC, BreakerState.CLOSED).splitlines()
    assert lines[:2] == ["stateDiagram-v2", "    [*] --> closed"]
    assert "    open --> half_open: open_period_over" in lines
    assert len(lines) == 2 + len(AUTOMATIC)


def test_the_page_is_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))  # as when it is run as a program
    produce = runpy.run_path(str(ROOT / "scripts" / "generate.py"))["table"]()["docs/reference/breaker.md"]
    assert (ROOT / "docs/reference/breaker.md").read_text(encoding="utf-8") == produce()
