"""What is printed loads again: any configuration, the example files, and a hash that follows the meaning."""

import os

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.config.decode import Decoder
from sidecar.config.document import Config
from sidecar.config.effective import fingerprint, to_plain, to_yaml
from sidecar.config.kinds import Kind
from sidecar.config.load import examine, load, parse
from sidecar.config.nodes import compose
from sidecar.config.reading import RETRY_WORDS
from sidecar.config.shape import ListOf, MapOf, fields

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

TRICKY = [
    "on",
    "012",
    "1e3",
    "0x1F",
    "null",
    "~",
    "",
    "true",
    " a ",
    "${env:X}",
    "$${env:X}",
    "a: b",
    "#",
    "é\u2028\x00",
    "-",
]
SAMPLES = {
    "text": st.sampled_from(TRICKY) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    "flag": st.booleans(),
    "duration": st.integers(1, 3650 * 86_400_000_000).map(lambda microseconds: microseconds / 1_000_000),
    "size": st.integers(0, 1 << 50),
    "ratio": st.floats(0, 1),
    "number": st.floats(1, 100),
    "name": st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,8}", fullmatch=True),
    "address": st.sampled_from(["a:1", "[::1]:80", "unix:/x", "127.0.0.1:65535"]),
    "network": st.sampled_from(["10.0.0.0/8", "::1/128"]),
    "path": st.sampled_from(["/", "/x y", "/on"]),
    "URL path": st.sampled_from(["/", "/a?b=%20"]),
    "repository": st.sampled_from(["/x", "s3://b/p"]),
    "token": st.from_regex(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,6}", fullmatch=True),
    "header value": st.sampled_from(["", "x", "a b", "é", "1", "no"]),
    "method": st.sampled_from(["GET", "NULL", "M-SEARCH"]),
    "host": st.sampled_from(["a.b", "1e3", "127"]),
    "server name": st.sampled_from(["a.b", "1e3", "::1"]),
    "peer name": st.sampled_from(["spiffe://a/b", "spiffe://a/*", "*.a.b", "a"]),
    "protocol": st.sampled_from(["h2", "1", "a#b"]),
    "DNS name": st.sampled_from(["_http._tcp.a.b", "1e3", "a."]),
    "output": st.sampled_from(["stdout", "/a b"]),
    "slot name": st.sampled_from(["on", "1", "a_1"]),
    "signal": st.sampled_from(["SIGHUP"]),
    "mail address": st.sampled_from(["a@b", "on@1.2"]),
    "time": st.sampled_from(["02:30", "23:59"]),
    "port": st.integers(1, 65535) | st.sampled_from(["http"]),
    "set of statuses": st.frozensets(st.integers(100, 599)),
    "set of conditions": st.frozensets(st.integers(100, 599) | st.sampled_from(RETRY_WORDS)),
}


def value_of(kind):
    if kind.word == "whole number":
        return st.integers(kind.schema["minimum"], kind.schema["maximum"])
    if kind.word == "word":
        return st.sampled_from(kind.schema["enum"])
    if kind.word == "URL":
        return st.sampled_from([f"{kind.unit.split(' ')[0]}h:1/a?b=c"])
    return SAMPLES[kind.word]


def of_shape(shape):
    if isinstance(shape, Kind):
        return value_of(shape)
    if isinstance(shape, ListOf):
        return st.lists(of_shape(shape.item), max_size=2).map(tuple)
    if isinstance(shape, MapOf):
        return st.dictionaries(value_of(shape.key).map(str.lower), value_of(shape.value), max_size=2)
    return sections(shape)


@st.composite
def sections(draw, section):
    values = {}
    chosen = draw(st.sampled_from(section.one_of)) if section.one_of else None
    for field in fields(section):
        wanted = field.name == chosen if field.name in section.one_of else field.required or draw(st.booleans())
        if wanted:
            values[field.name] = draw(of_shape(field.shape))
    return section(**values)


@pytest.mark.parametrize("field", fields(Config), ids=lambda field: field.name)
@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_configuration_prints_as_yaml_that_decodes_to_the_same(field, data):
    config = Config(**{field.name: data.draw(of_shape(field.shape))})
    root, faults = compose(to_yaml(config), "f")
    assert faults == []
    decoder = Decoder("f", {"X": "taken from the environment"})
    assert decoder.config(root) == config
    assert decoder.faults == []


@pytest.mark.parametrize("name", ["minimal.yaml", "sidecar.yaml"])
def test_the_files_that_we_ship_are_sound_and_print_as_they_load(name):
    config = load(os.path.join(ROOT, "config", name), {})
    assert parse(to_yaml(config)) == config
    msgspec.json.encode(to_plain(config))  # --json can print it


def test_the_smallest_file_has_no_notes():
    with open(os.path.join(ROOT, "config", "minimal.yaml"), encoding="utf-8") as file:
        assert examine(file.read()).notes == []


def test_the_hash_follows_the_meaning_not_the_spelling():
    text = "listeners: [{name: a, bind: 'h:1', routes: [{name: r, upstream: u, timeout: %s}]}]\n"
    text += "upstreams: [{name: u, endpoints: [{address: 'h:2'}]}]\n"
    base = fingerprint(parse(text % "90s"))
    assert len(base) == 64
    assert fingerprint(parse("# a comment\nworkers: 1\n" + text % "1m30s")) == base
    assert fingerprint(parse(text % "91s")) != base
