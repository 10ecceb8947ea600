"""Every key explains itself; what is generated from that is fresh; the schema agrees with the loader."""

import os
import re

import pytest

from sidecar.config.changes import changes
from sidecar.config.document import Config
from sidecar.config.explain import UnknownKey, explain, section_of, walk
from sidecar.config.generate import GENERATED
from sidecar.config.schema import schema
from sidecar.config.shape import fields

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KEYS = dict(walk())


@pytest.mark.parametrize("name", GENERATED)
def test_generated_files_are_fresh(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as file:
        assert file.read() == GENERATED[name](), f"{name} is stale: run `make generate`"


@pytest.mark.parametrize("key", KEYS)
def test_every_key_has_a_meaning_and_every_section_a_description(key):
    told = explain(key)
    assert told.meaning.endswith((".", "…", ". null", "?")), told.meaning
    section = section_of(KEYS[key].shape)
    if section:
        assert told.about
        assert set(told.one_of) <= set(told.keys)


def test_every_default_of_a_number_or_duration_that_shapes_traffic_has_a_source():
    for prefix in ("upstreams.breaker.", "upstreams.outlier.", "upstreams.limits.", "upstreams.retry_budget."):
        for key in KEYS:
            if key.startswith(prefix):
                assert explain(key).source, key


def test_positions_and_names_in_a_path_do_not_matter():
    assert explain("upstreams[1].breaker.open_for") == explain("upstreams.breaker.open_for")
    assert explain("upstreams[payments].breaker") == explain("upstreams.breaker")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("open_for", "upstreams.breaker.open_for"),
        ("upstreams.braker.open_for", "upstreams.breaker.open_for"),
        ("listners", "listeners"),
    ],
)
def test_a_wrong_key_is_answered_with_the_right_one(wrong, right):
    with pytest.raises(UnknownKey, match=f"did you mean {re.escape(right)}"):
        explain(wrong)


def test_the_schema_has_every_key_and_refuses_others():
    written = schema()
    section, place = Config, written
    assert list(place["properties"]) == [field.name for field in fields(section)]
    for name, definition in written["$defs"].items():
        if name != "from_environment":
            assert definition["additionalProperties"] is False
            assert all(value["description"] for value in definition["properties"].values())
    text = str(written)
    for name in re.findall(r"#/\$defs/(\w+)", text):
        assert name in written["$defs"]


def test_a_configuration_never_differs_from_itself_by_its_defaults():
    assert changes(Config(), Config()) == []
