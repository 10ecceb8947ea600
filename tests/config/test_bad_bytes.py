"""Whatever stands in the file, the answer is a configuration or a list of faults within the file."""

import os

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.config.load import examine

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
with open(os.path.join(ROOT, "config", "sidecar.yaml"), "rb") as _file:
    TOUR = _file.read()

WEDGES = [
    b"&a ",
    b"*a",
    b"!!x ",
    b"{",
    b"[",
    b"}",
    b"]",
    b"null",
    b"- ",
    b": ",
    b"\t",
    b"'",
    b'"',
    b"${env:",
    b"\xff",
    b"<<: ",
    b"|\n",
]


def judge(data):
    found = examine(data, "f", {})
    assert (found.config is None) == bool(found.faults)
    lines = data.count(b"\n") + data.count(b"\r") + data.count("\x85".encode()) + data.count("\u2028".encode()) * 2 + 2
    for fault in found.faults:
        assert 1 <= fault.mark.line <= lines
        assert fault.mark.column >= 1
        assert fault.message
        assert "\n" not in str(fault)


@given(st.binary(max_size=300))
@example(b"\x85a")
@example(b"a:\r\n b")
def test_random_bytes(data):
    judge(data)


@given(st.text(st.sampled_from("ab:-{}[]&*!|>'\"%@`#,?~ \n$"), max_size=80))
def test_random_yaml_like_text(text):
    judge(text.encode())


@given(st.integers(0, len(TOUR)), st.integers(0, 30), st.binary(max_size=3) | st.sampled_from(WEDGES))
@settings(max_examples=60, deadline=None)
def test_the_tour_with_something_cut_out_and_something_put_in(at, cut, wedge):
    judge(TOUR[:at] + wedge + TOUR[at + cut :])
