"""What a path is called in an index, and what an exclude pattern leaves out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.agent.faults import Damaged
from sidecar.agent.paths import excluder, order, safe_join, spell, unspell

names = st.binary(min_size=1, max_size=20).filter(lambda raw: b"\0" not in raw and b"/" not in raw)


@given(st.lists(names, min_size=1, max_size=4).map(b"/".join))
def test_any_path_comes_back_from_its_spelling(raw: bytes):
    assert unspell(spell(raw)) == raw
    spell(raw).encode()  # JSON can carry it


def test_a_directory_comes_before_what_it_holds_and_all_of_it_before_its_neighbour():
    assert sorted(["a-b", "a/z", "a", "a/b"], key=order) == ["a", "a/b", "a/z", "a-b"]


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "a//b", ".", "", "\0../x"])
def test_an_index_leads_nowhere_else(path: str):
    with pytest.raises(Damaged):
        safe_join(b"/scratch", path)


@pytest.mark.parametrize(
    ("pattern", "path", "out"),
    [
        ("*.log", "/data/x.log", True),
        ("*.log", "/data/x.log.gz", False),
        ("cache", "/data/cache", True),
        ("a?c", "/data/abc", True),
        ("[!a]*", "/data/abc", False),
        ("[ab].txt", "/data/b.txt", True),
        ("x.y", "/data/xzy", False),
        ("/data/*/tmp", "/data/a/tmp", True),
        ("/data/*/tmp", "/data/a/b/tmp", False),
        ("/data/*/x/*", "/data/a/b/x/c", False),
        ("/data/*/x/*", "/data/a/x/c", True),
        ("/data/tmp/", "/data/tmp", True),
        ("[", "/data/[", True),
    ],
)
def test_a_pattern_leaves_out_what_it_says(pattern: str, path: str, out: bool):
    raw = path.encode()
    assert excluder([pattern])(raw.rpartition(b"/")[2], raw) is out
