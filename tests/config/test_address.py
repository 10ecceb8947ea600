"""Addresses: taken apart, printed again, refused with advice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.address import Address, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", Address("127.0.0.1", 80)),
        ("[::1]:80", Address("::1", 80)),
        ("[0:0:0:0:0:0:0:1]:80", Address("::1", 80)),
        ("payments.shop.svc:8080", Address("payments.shop.svc", 8080)),
        ("my_host:1", Address("my_host", 1)),
        ("unix:/run/a.sock", Address(path="/run/a.sock")),
    ],
)
def test_an_address_is_taken_apart(text, address):
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    ["", ":80", "h", "h:", "h:x", "h:-1", "h:65536", "h:0", "h:٣", "::1:80", "[::1]", "[::g]:1", "1.2.3:4",
     "999.1.1.1:1", "-h:1", "a..b:1", "a b", "http://h:1", "unix:", "unix:rel", "unix:/" + "x" * 107, "h" * 64 + ":1"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError):
        parse_address(text)


def test_a_url_is_told_from_an_address():
    with pytest.raises(ValueError, match="write host:port alone"):
        parse_address("http://h:1")


def test_only_a_listener_may_take_any_free_port():
    assert parse_address("h:0", ephemeral=True).port == 0


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_refused(text):
    try:
        address = parse_address(text)
    except ValueError:
        return
    assert parse_address(str(address)) == address


def test_loopback_and_any():
    assert parse_address("127.9.9.9:1").is_loopback
    assert parse_address("localhost:1").is_loopback
    assert parse_address("[::1]:1").is_loopback
    assert not parse_address("10.0.0.1:1").is_loopback
    assert parse_address("[::]:1").is_any
    assert parse_address("unix:/x").is_unix
