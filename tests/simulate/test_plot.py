"""The drawing is sound XML, says in words what it says in colours, and holds whatever names are thrown at it."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from sidecar.simulate.plot import draw
from tests.simulate.stage import config, played

SVG = "{http://www.w3.org/2000/svg}"
DIES = """
phases: [{name: calm, lasts: 10s, traffic: [{rate: 100}]}, {name: storm, lasts: 50s, traffic: [{rate: 100}]}]
faults: [{upstream: app, phase: storm, lasts: 15s, how: error}]
"""


def words(drawing: str) -> set[str]:
    return {"".join(one.itertext()) for one in ET.fromstring(drawing).iter(f"{SVG}text")}


def test_states_phases_faults_and_shares_stand_in_words(tmp_path: Path):
    result = played(DIES, config(upstream="breaker: {open_for: 20s}"), tmp_path)
    drawing = draw("a <title> & more", [result])
    said = words(drawing)
    assert {"a <title> & more", "breaker app", "error app", "0s calm", "10s storm"} <= said
    assert {"open 20.0 s", "answered; closed"} <= said
    assert any(one.endswith("% good") for one in said)
    assert "prefers-color-scheme:dark" in drawing


def test_every_kind_of_end_has_its_area_and_all_stay_inside(tmp_path: Path):
    result = played(DIES, config(upstream="breaker: {open_for: 20s}"), tmp_path)
    root = ET.fromstring(draw("t", [result]))
    areas = {one.get("class"): one.get("points", "") for one in root.iter(f"{SVG}polygon")}
    assert areas.keys() == {"answered", "refused", "error"}
    _, _, width, height = map(float, root.get("viewBox", "").split())
    for points in areas.values():
        for pair in points.split():
            x, y = map(float, pair.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height


def test_two_stand_side_by_side_on_one_scale(tmp_path: Path):
    one = played(DIES, config(upstream="breaker: {open_for: 20s}"), tmp_path)
    other = played(DIES, config("fallback: [{upstream: spare}]"), tmp_path)
    alone = ET.fromstring(draw("t", [one]))
    both = ET.fromstring(draw("t", [one, other]))
    assert float(both.get("width", "")) > 2 * float(alone.get("width", ""))
    panels = both.findall(f"{SVG}g")
    lanes = [[e.text for e in panel.iter(f"{SVG}text") if (e.text or "").startswith("breaker ")] for panel in panels]
    assert lanes == [["breaker app", "breaker spare"]] * 2


@pytest.mark.parametrize(
    "text",
    [
        "phases: [{name: silence, lasts: 1s}]",
        "phases: [{name: brief, lasts: 1us, traffic: [{rate: 1, arrivals: even}]}]",
    ],
)
def test_next_to_nothing_can_be_drawn(tmp_path: Path, text: str):
    ET.fromstring(draw("t", [played(text, config(), tmp_path)]))
