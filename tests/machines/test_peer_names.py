"""Who a certificate names, whom a list lets in, what a certificate says, and how that is told to others."""

import datetime as dt
import hashlib

import pytest

from sidecar.machines.certificate import Facts, chain, read
from sidecar.machines.client_cert import element
from sidecar.machines.peer_names import AllowList, Names, has_ended
from tests.fakes.trust import Authority

LIST = AllowList(["spiffe://shop.test/ns/pay/sa/trader", "spiffe://mesh.test/ns/pay/*", "api.shop.test", "*.ops.test"])


@pytest.mark.parametrize(
    ("names", "admitted"),
    [
        (Names(("spiffe://shop.test/ns/pay/sa/trader",)), True),
        (Names(("spiffe://shop.test/ns/pay/sa/trader2",)), False),
        (Names(("spiffe://shop.test/ns/pay/sa",)), False),
        (Names(("spiffe://shop.test/ns/pay/sa/trader", "spiffe://other.test/x")), False),  # X.509-SVID, 2: exactly one
        (Names(("spiffe://mesh.test/ns/pay/sa/any",)), True),
        (Names(("spiffe://mesh.test/ns/pay/",)), False),
        (Names(("spiffe://mesh.test/ns/pay",)), False),
        (Names(("spiffe://mesh.test/ns/payroll/sa/x",)), False),
        (Names(("spiffe://mesh.test/ns/pay/../root",)), False),
        (Names(("spiffe://mesh.test/ns/pay//x",)), False),
        (Names(("https://mesh.test/ns/pay/x",)), False),
        (Names((), ("api.shop.test",)), True),
        (Names((), ("else.test", "api.shop.test")), True),
        (Names((), ("x.api.shop.test",)), False),
        (Names((), ("one.ops.test",)), True),
        (Names((), ("two.one.ops.test",)), False),
        (Names((), ("ops.test",)), False),
        (Names((), ("*.ops.test",)), False),
        (Names((), (".ops.test",)), False),
        (Names(), False),
    ],
)
def test_whom_the_list_lets_in(names, admitted):
    assert LIST.admits(names) is admitted


def test_when_a_certificate_has_ended():
    certificate = {"notAfter": "Jan  5 09:34:43 2018 GMT"}  # as the ssl module's own documentation has it
    assert has_ended(certificate, 1515144883.0)
    assert not has_ended(certificate, 1515144882.0)
    assert not has_ended({}, 1e12)


def test_what_a_certificate_says(tmp_path):
    authority = Authority(tmp_path)
    until = dt.datetime(2031, 5, 6, 7, 8, 9, tzinfo=dt.UTC)
    pair = authority.issue("leaf", "Shop.test", "*.shop.test", "10.0.0.1", not_after=until)
    facts = chain(pair.cert.read_bytes() + authority.file.read_bytes())
    assert facts[0].names == ("shop.test", "*.shop.test")
    assert facts[0].not_after == until.timestamp()
    assert facts[0].not_before < until.timestamp()
    assert facts[-1].names == ()


@pytest.mark.parametrize("der", [b"", b"\x30", b"\x30\x00", b"\x30\x03\x02\x01\x00", b"\x30\x82\xff\xff", b"garbage"])
def test_what_is_no_certificate(der):
    with pytest.raises(ValueError):
        read(der)


def test_no_warning_before_two_thirds_of_a_life_are_over():
    assert Facts(0.0, 90.0, ()).warn_from(7.0) == 83.0
    assert Facts(0.0, 90.0, ()).warn_from(89.0) == 60.0


def test_how_a_certificate_is_told():
    told = element(
        b"der",
        {
            "subject": (
                (("countryName", "DE"),),
                (("organizationName", 'A "B" \\ C; D\r\nE'),),
                (("commonName", "x"),),
            ),
            "subjectAltName": (
                ("URI", "spiffe://a/b"),
                ("URI", "urn:x;y,\u2028"),
                ("DNS", "Shop.test"),
                ("IP Address", "::1"),
            ),
        },
    )
    long = element(b"der", {"subjectAltName": [("URI", "spiffe://a/" + "b" * 9999)] * 99})
    assert len(long) < 40_000
    assert told == b"Hash=%b;" % hashlib.sha256(b"der").hexdigest().encode() + (
        b'Subject="CN=x,O=A \\"B\\" \\\\ C; D??E,C=DE";URI=spiffe://a/b;URI="urn:x;y,?";DNS=shop.test'
    )
