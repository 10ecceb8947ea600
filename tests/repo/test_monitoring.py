"""Rules and dashboards: promtool accepts and proves them, and every series they speak of is one that exists."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.runtime.series import TABLE

ROOT = Path(__file__).parents[2]
RULES = ROOT / "config/prometheus/rules.yaml"
PROVED = ROOT / "config/prometheus/rules_test.yaml"
DASHBOARDS = sorted((ROOT / "config/grafana").glob("*.json"))
OURS = re.compile(r"\b(sidecar_[a-z0-9_]+)(?:\{([^}]*)\})?")
FOREIGN_LABELS = {"job", "instance", "le"}
"""What the scraper and the histogram itself put on a series."""


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def queries() -> list[tuple[str, str]]:
    """(where, PromQL) of everything that is asked."""
    found = [(str(rule.get("record") or rule.get("alert")), str(rule["expr"])) for rule in rules()]
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            found += [(f"{path.stem}: {panel['title']}", target["expr"]) for target in panel["targets"]]
    return found


def promtool(*words: str | Path) -> str:
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_the_rules():
    assert f"SUCCESS: {len(rules())} rules found" in promtool("check", "rules", RULES)


def test_promtool_proves_the_alerts():
    assert "SUCCESS" in promtool("test", "rules", PROVED)


def test_every_alert_is_proved_to_fire_and_says_what_to_do():
    proved = {
        case["alertname"]
        for test in yaml.safe_load(PROVED.read_text())["tests"]
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    alerts = [rule for rule in rules() if "alert" in rule]
    assert {rule["alert"] for rule in alerts} == proved
    for rule in alerts:
        assert set(rule["annotations"]) == {"summary", "action"}, rule["alert"]
        assert rule["labels"]["severity"] in {"warning", "critical"}


@pytest.mark.parametrize(("where", "query"), queries(), ids=[f"{where}-{n}" for n, (where, _) in enumerate(queries())])
def test_every_series_exists_with_its_labels(where: str, query: str):
    series = {}
    for metric in TABLE:
        names = [metric.name]
        if metric.cell.kind == "histogram":
            names += [f"{metric.name}_{part}" for part in ("bucket", "sum", "count")]
        series.update({key: {*metric.labels, *FOREIGN_LABELS} for key in names})
    asked = OURS.findall(query)
    assert asked or "sidecar:" in query or "up{" in query, where
    for name, selector in asked:
        assert name in series, f"{where}: there is no {name}"
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))
        assert labels <= series[name], f"{where}: {name} has no {labels - series[name]}"
    known = set().union(*(series[name] for name, _ in asked), {"upstream", *FOREIGN_LABELS})
    for grouped in re.findall(r"\bby \(([^)]*)\)", query):
        assert {label.strip() for label in grouped.split(",")} <= known, where


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboards_fit_the_grid(path: Path):
    panels = json.loads(path.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
