"""YAML as nodes: the core schema of YAML 1.2, places, bounds."""

import math

import pytest

from sidecar.config import nodes
from sidecar.config.nodes import Mapping, Scalar, Sequence, compose, resolve


@pytest.mark.parametrize(
    "text", ["on", "off", "yes", "no", "y", "n", "1:30", "1_000", "0b1", "2024-01-01", "<<", "=", "+"]
)
def test_what_only_yaml_1_1_finds_special_is_text(text):
    assert resolve(text) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("False", False),
        ("012", 12),
        ("0o17", 15),
        ("0x1F", 31),
        ("-7", -7),
        ("+7", 7),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-.inf", -math.inf),
    ],
)
def test_plain_scalars_mean_what_yaml_1_2_says(text, value):
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


def test_nodes_know_their_places_in_characters():
    root, faults = compose("é: [ünï,\n   zwei]\nb:\n  c: 'x'\n", "f")
    assert not faults
    assert isinstance(root, Mapping)
    (key, items), (_, inner) = root.entries
    assert isinstance(items, Sequence)
    assert isinstance(inner, Mapping)
    assert key.mark == (1, 1)
    assert [item.mark for item in items.items] == [(1, 5), (2, 4)]
    assert inner.entries[0][1].mark == (4, 6)
    assert isinstance(inner.entries[0][1], Scalar)
    assert not inner.entries[0][1].plain


def first_fault(text):
    root, faults = compose(text, "f")
    assert faults, root
    return str(faults[0])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: 1\n---\nb: 2\n", "f:3:1: a second document: one file is one configuration"),
        ("a: *nobody\n", "f:1:4: the alias *nobody names no anchor before it"),
        ("a: &x [*x]\n", "f:1:8: the alias *x stands inside what it names"),
        ("a: !!python/name:os.system x\n", "f:1:4: the tag tag:yaml.org,2002:python/name:os.system is not allowed"),
        ("a: !!str 5\n", "f:1:4: the tag tag:yaml.org,2002:str is not allowed"),
        ("? [a]\n: 1\n", "f:1:3: a key is a single word"),
        ("base: &b {x: 1}\nother:\n  <<: *b\n", "f:3:3: merge keys (<<) are not YAML 1.2"),
        ("a: [1, 2\n", "f:2:1: not YAML: "),
        ("a: b: c\n", "f:1:5: not YAML: "),
        ("a:\n\t- x\n", "f:2:1: not YAML: "),
        ("a: x\x00y\n", "f:1:5: not YAML: a character that may not stand in a YAML file"),
        ("a: {b: ${env:X}}\n", "within { } or [ ] put quotes around ${env:NAME}"),
    ],
)
def test_what_cannot_be_read_is_refused_at_its_place(text, fault):
    assert fault in first_fault(text)


def test_the_quoted_merge_key_is_a_key_like_any_other():
    root, faults = compose("'<<': 1\n", "f")
    assert not faults
    assert isinstance(root, Mapping)
    assert root.entries[0][0].text == "<<"


def test_an_alias_is_the_node_that_it_names():
    root, faults = compose("a: &x {k: 1}\nb: *x\n", "f")
    assert not faults
    assert isinstance(root, Mapping)
    assert root.entries[0][1] is root.entries[1][1]


def test_a_billion_laughs_are_cut_short():
    laughs = "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
    for name, last in zip("bcdefghi", "abcdefgh", strict=True):
        laughs += f"{name}: &{name} [{','.join(['*' + last] * 10)}]\n"
    assert "more than 100000 values, aliases counted at their full size" in first_fault(laughs)


@pytest.mark.parametrize("text", ["[" * 200_000, "{a: " * 100_000, "- " * 200_000, "a: " + "[" * 40 + "]" * 40])
def test_depth_is_bounded(text):
    assert f"nested deeper than {nodes.MAX_DEPTH} levels" in first_fault(text) or "not YAML" in first_fault(text)


def test_an_empty_text_has_no_root():
    assert compose("# nothing\n", "f") == (None, [])
