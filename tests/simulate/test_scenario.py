"""A scenario's faults, each at its place; and what a good one may look like."""

import re
from pathlib import Path

import pytest

from sidecar.config.faults import InvalidConfig
from sidecar.config.load import load
from sidecar.config.shape import ListOf, fields
from sidecar.simulate import scenario as module
from sidecar.simulate.scenario import load_scenario
from tests.simulate.stage import config, scenario

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "config" / "scenarios").glob("*.yaml"))

BASE = """version: 1
phases:
  - {name: all, lasts: 10s, traffic: [{rate: 10}]}
faults:
  - {upstream: app, at: 1s, lasts: 2s, how: error}
"""


@pytest.mark.parametrize(
    ("old", "new", "place", "message"),
    [
        ("upstream: app", "upstream: ap", "5:16: faults[0].upstream", "no upstream 'ap'; did you mean app?"),
        ("how: error", "how: eror", "5:45: faults[0].how", "'eror' is not one of refuse"),
        ("how: error", "how: slow", "5:45: faults[0].how", "slow needs latency"),
        ("how: error", "hw: error", "5:40: faults[0].hw", "unknown key; did you mean how?"),
        ("how: error", "how: error, every: 2s", "5:59: faults[0].every", "not longer than lasts"),
        ("how: error", "how: error, status: 99", "5:60: faults[0].status", "not within 200 to 599"),
        ("at: 1s", "at: 10s", "5:25: faults[0].at", "begins when all is over: the phases last 10s"),
        ("at: 1s", "phase: al", "5:28: faults[0].phase", "no phase 'al'; did you mean all?"),
        ("at: 1s", 'endpoint: "127.0.0.1:8008"', "5:31: faults[0].endpoint", "did you mean 127.0.0.1:8000?"),
        ("rate: 10", "rate: 10, route: rest", "3:57: phases[0].traffic[0].route", "no route 'rest'; there is all"),
        ("rate: 10", "rate: 10, listener: wb", "3:60: phases[0].traffic[0].listener", "did you mean web?"),
        ("rate: 10", "rate: 0", "3:46: phases[0].traffic[0].rate", "0 is not within 1 to"),
        ("rate: 10", "rate: 100000", "2:1: phases", None),
        ("lasts: 10s", "lasts: 10", "3:24: phases[0].lasts", "10 has no unit: write 10s"),
        (
            "version: 1",
            "upstreams: [{name: app, latency: {median: 2s, p99: 1s}}]",
            "1:52: upstreams[0].latency.p99",
            "shorter than median",
        ),
    ],
)
def test_a_fault_is_told_at_its_place(tmp_path: Path, old: str, new: str, place: str, message: str | None):
    text = BASE.replace(old, new)
    if message is None:  # too many: only when it is long as well
        text, message = text.replace("10s", "10m"), "60,000,000 requests are more than"
    with pytest.raises(InvalidConfig) as caught:
        scenario(text, config(), tmp_path)
    faults = str(caught.value).splitlines()
    assert len(faults) == 1 or "missing" in faults[0], faults
    assert f"scenario.yaml:{place}: " in faults[-1]
    assert message in faults[-1]


def test_all_faults_at_once_in_their_order(tmp_path: Path):
    text = BASE.replace("rate: 10", "rate: x").replace("upstream: app", "upstream: x").replace("2s", "2")
    with pytest.raises(InvalidConfig) as caught:
        scenario(text, config(), tmp_path)
    assert [fault.mark.line for fault in caught.value.faults] == [3, 5, 5]


@pytest.mark.parametrize("text", ["", "phases: []", "- 1", "phases: [", "\x00"])
def test_what_is_no_scenario_is_refused(tmp_path: Path, text: str):
    with pytest.raises(InvalidConfig):
        scenario(text, config(), tmp_path)


def test_two_listeners_make_it_say_which(tmp_path: Path):
    more = "  - {name: more, bind: 127.0.0.1:8081, routes: [{name: all, upstream: app}]}\n"
    two = config().replace("upstreams:", f"{more}upstreams:", 1)
    for stream, advice in (("rate: 10", "say listener or route"), ("rate: 10, route: all", "web and more both have")):
        with pytest.raises(InvalidConfig, match=advice):
            scenario(BASE.replace("rate: 10", stream), two, tmp_path)
    scenario(BASE.replace("rate: 10", "rate: 10, route: all, listener: more"), two, tmp_path)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_fit_the_example_configuration(path: Path):
    load_scenario(str(path), [load(str(ROOT / "config" / "sidecar.yaml"))])


def test_the_page_shows_every_key_and_is_a_scenario(tmp_path: Path):
    page = (ROOT / "docs" / "howto" / "simulate.md").read_text()
    shown = re.search(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert shown is not None
    file = tmp_path / "shown.yaml"
    file.write_text(shown[1])
    load_scenario(str(file), [load(str(ROOT / "config" / "sidecar.yaml"))])
    sections = [getattr(module, name) for name in ("Behaviour", "Traffic", "Phase", "Trouble", "Scenario", "Latency")]
    for section in sections:
        for field in fields(section):
            assert re.search(rf"\b{field.name}:", shown[1]), f"{section.__name__}.{field.name} is not shown"
            assert field.doc.meaning or isinstance(field.shape, ListOf)
    how = next(field for field in fields(module.Trouble) if field.name == "how")
    for word in how.shape.schema["enum"]:  # type: ignore[union-attr]
        assert f"| `{word}` |" in page
