"""Connection strings: both forms of libpq, and nothing of them in an error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.address import Address
from sidecar.control.probes.dsn import parse_dsn


def test_a_url() -> None:
    dsn = parse_dsn("postgresql://me:p%40ss@db.shop.svc:6432/orders?sslmode=verify-full&sslrootcert=/ca.pem")
    assert dsn.targets == (Address(host="db.shop.svc", port=6432),)
    assert (dsn.user, dsn.password, dsn.database) == ("me", "p@ss", "orders")
    assert (dsn.ssl_mode, dsn.ca_file) == ("verify-full", "/ca.pem")


def test_pairs() -> None:
    dsn = parse_dsn(r"host=db user=me password='it\'s \\ odd' dbname = orders connect_timeout=3")
    assert (dsn.targets, dsn.password, dsn.database) == ((Address(host="db", port=5432),), r"it's \ odd", "orders")


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("postgres://me@h", [Address(host="h", port=5432)]),
        ("postgres://me@h:/d", [Address(host="h", port=5432)]),
        ("postgresql://me@[::1]:99/d", [Address(host="::1", port=99)]),
        ("postgresql://me@a,b:7/d", [Address(host="a", port=5432), Address(host="b", port=7)]),
        ("host=a,b port=1,2 user=me", [Address(host="a", port=1), Address(host="b", port=2)]),
        ("host=a,b port=3 user=me", [Address(host="a", port=3), Address(host="b", port=3)]),
        ("host=/run/pg user=me", [Address(path="/run/pg/.s.PGSQL.5432")]),
        ("postgresql://me@%2Frun%2Fpg/d", [Address(path="/run/pg/.s.PGSQL.5432")]),
        ("user=me", [Address(path="/var/run/postgresql/.s.PGSQL.5432")]),
    ],
)
def test_where_it_leads(text: str, targets: list[Address]) -> None:
    assert list(parse_dsn(text).targets) == targets


def test_what_is_left_out_is_the_users() -> None:
    dsn = parse_dsn("postgresql://me@h")
    assert (dsn.database, dsn.password, dsn.ssl_mode, dsn.ca_file) == ("me", "", "prefer", None)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "names no user"),
        ("postgresql://h/d", "names no user"),
        ("hush", "neither postgresql:// nor key=value"),
        ("user=me password='hush", "neither postgresql:// nor key=value"),
        ("postgresql://me:hush@h:x/d", "a host of the connection string cannot be read"),
        ("user=me host=a port=hush", "is not a port"),
        ("user=me host=a port=99999", "is not a port"),
        ("user=me host=a,b,c port=1,2", "not as many ports as hosts"),
        ("user=me sslmode=hush", "sslmode is none of"),
    ],
)
def test_what_cannot_be_read_is_told_without_its_text(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why.replace("postgresql://", "postgresql://…")) as caught:
        parse_dsn(text)
    assert "hush" not in str(caught.value)


@given(st.text(max_size=60) | st.text(alphabet="postgresql:/@,=[]?&'\\ hu%0", max_size=60).map("postgresql://".__add__))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_dsn(text)
    except ValueError:
        pass
