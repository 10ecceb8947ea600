"""Header fields: what crosses, what stays behind, what is added, and that the rest is not touched."""

import contextlib
import itertools
from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream, says, sends
from tests.fakes.wire import Message, Wire
from tests.real.documents import both_codecs, listener, route, upstream
from tests.real.harness import Sidecar, ask

Fields = list[tuple[str, str]]


@pytest.fixture(scope="module")
def config(server: ScriptedUpstream) -> dict[str, Any]:
    """The listeners trust loopback, as by default; `distrustful` trusts nobody."""
    routes = [route("all", "app")]
    tree = both_codecs(routes, [upstream("app", server.address)])
    tree["listeners"].append(listener("distrustful", routes, trusted_proxies=[]))
    return tree


def crossed(client: Wire, fields: str, target: str = "/") -> Fields:
    """The fields that the upstream saw."""
    return [(name, value) for name, value in client.send(ask(target, fields)).read_answer().json()["fields"]]


def values(fields: Fields, name: str) -> list[str]:
    return [value for key, value in fields if key.lower() == name]


# ---------------------------------------------------------------------------------------------- untouched
def test_order_case_and_duplicates_are_kept(client: Wire) -> None:
    sent = [("X-b", "2"), ("x-A", "1"), ("X-b", "again"), ("Cookie", "a=1"), ("cookie", "b=2"), ("ACCEPT", "*/*, x")]
    fields = crossed(client, "".join(f"{name}: {value}\r\n" for name, value in sent))
    ours = {"host", "via", "x-request-id"}
    assert [(n, v) for n, v in fields if n.lower() not in ours and not n.lower().startswith("x-forwarded")] == sent


def test_order_case_and_duplicates_of_an_answer_are_kept(server: ScriptedUpstream, client: Wire) -> None:
    sent = [("Set-Cookie", "a=1"), ("X-b", "1"), ("set-cookie", "b=2"), ("Date", "today"), ("SERVER", "x/1 (y)")]
    server.on("/cookies", says(b"ok", fields=sent))
    got = client.send(ask("/cookies")).read_answer()
    assert [(name, value) for name, value in got.fields if name.lower() not in {"via", "content-length"}] == sent


def test_values_pass_as_they_are_but_for_the_space_around_them(client: Wire) -> None:
    fields = crossed(client, 'x-pad: \t  v \t\r\nx-empty:\r\nx-tab: a\tb\r\nx-bytes: \xe9\xff\r\nx-q: "a\\"b"\r\n')
    for name, value in [
        ("x-pad", "v"),
        ("x-empty", ""),
        ("x-tab", "a\tb"),
        ("x-bytes", "\xe9\xff"),
        ("x-q", '"a\\"b"'),
    ]:
        assert values(fields, name) == [value]


def test_tracing_passes(client: Wire) -> None:
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    fields = crossed(client, f"traceparent: {parent}\r\ntracestate: a=1,b=2\r\n")
    assert (values(fields, "traceparent"), values(fields, "tracestate")) == ([parent], ["a=1,b=2"])


# -------------------------------------------------------------------------------------------- hop by hop
HOP_BY_HOP = (
    "Connection: keep-alive, X-Private\r\nConnection: x-second\r\nX-Private: 1\r\nx-second: 2\r\n"
    "Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: deflate\r\n"
)


def test_hop_by_hop_fields_of_a_request_stay_behind(client: Wire) -> None:
    fields = crossed(client, HOP_BY_HOP + "x-kept: 3\r\n")
    for name in ("connection", "x-private", "x-second", "keep-alive", "proxy-connection"):
        assert values(fields, name) == [], name
    assert values(fields, "te") in ([], ["trailers"])
    assert values(fields, "x-kept") == ["3"]


def test_hop_by_hop_fields_of_an_answer_stay_behind(server: ScriptedUpstream, client: Wire) -> None:
    server.on(
        "/hops",
        says(b"ok", fields=[("Connection", "X-Private, keep-alive"), ("X-Private", "1"), ("Keep-Alive", "timeout=5"),
                            ("Proxy-Connection", "x"), ("X-Kept", "2")]),
    )  # fmt: skip
    got = client.send(ask("/hops")).read_answer()
    for name in ("x-private", "keep-alive", "proxy-connection"):
        assert got.all(name) == [], name
    assert got.get("x-kept") == "2"


@pytest.mark.parametrize("name", ["authorization", "host", "x-request-id", "x-forwarded-for", "via", "cookie"])
def test_connection_cannot_strip_what_matters(client: Wire, name: str) -> None:
    fields = crossed(
        client, f"connection: {name}\r\nauthorization: Basic eDp5\r\nx-request-id: mine\r\ncookie: a=1\r\n"
    )
    assert values(fields, "authorization") == ["Basic eDp5"]
    assert values(fields, "host") == ["example.test"]
    assert len(values(fields, "x-request-id")) == 1
    assert len(values(fields, "x-forwarded-for")) == 1
    assert len(values(fields, "via")) == 1


def test_connection_cannot_strip_the_framing(client: Wire) -> None:
    got = client.send(ask("/framed", "connection: content-length\r\n", "POST", b"four")).read_answer()
    if got.status == 200:
        assert got.json()["length"] == 4
    else:
        assert got.status == 400


def test_connection_cannot_strip_the_framing_of_an_answer(server: ScriptedUpstream, client: Wire) -> None:
    server.on("/framed-answer", says(b"four", fields=[("connection", "content-length")]))
    assert client.send(ask("/framed-answer")).read_answer().body == b"four"


# ------------------------------------------------------------------------------------------------- added
def test_via_is_added_and_earlier_ones_are_kept(server: ScriptedUpstream, client: Wire) -> None:
    def members(message_fields: Fields) -> list[str]:
        return [part.strip() for value in values(message_fields, "via") for part in value.split(",")]

    assert len(members(crossed(client, ""))) == 1
    extended = members(crossed(client, "via: 1.0 first, 1.1 second\r\n"))
    assert extended[:2] == ["1.0 first", "1.1 second"]
    assert len(extended) == 3
    assert extended[2].startswith("1.1 ")
    server.on("/via", says(b"ok", fields=[("Via", "1.1 inner")]))
    back = members(client.send(ask("/via")).read_answer().fields)
    assert back[0] == "1.1 inner"
    assert len(back) == 2


def test_via_names_the_version_that_came(server: ScriptedUpstream, client: Wire) -> None:
    server.on("/old", sends(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", then="close"))
    assert client.send(ask("/old")).read_answer().get("via") == "1.0 sidecar"
    seen = client.send(ask("/", version="1.0")).read_answer()
    assert seen.get("via") == "1.1 sidecar"
    assert ["Via", "1.0 sidecar"] in seen.json()["fields"]


def test_forwarded_fields_are_made(client: Wire) -> None:
    fields = crossed(client, "")
    assert values(fields, "x-forwarded-for") == ["127.0.0.1"]
    assert values(fields, "x-forwarded-proto") == ["http"]
    assert values(fields, "x-forwarded-host") == ["example.test"]


def test_forwarded_fields_of_a_trusted_client_are_extended(client: Wire) -> None:
    fields = crossed(
        client,
        "x-forwarded-for: 203.0.113.9\r\nx-forwarded-proto: https\r\nx-forwarded-host: outer.test\r\n"
        "forwarded: for=x\r\nFORWARDED: for=y\r\nconnection: forwarded\r\n",
    )
    assert values(fields, "forwarded") == ["for=x, for=y"]
    assert [part.strip() for part in ",".join(values(fields, "x-forwarded-for")).split(",")] == [
        "203.0.113.9",
        "127.0.0.1",
    ]
    assert values(fields, "x-forwarded-proto") == ["https"]
    assert values(fields, "x-forwarded-host") == ["outer.test"]


def test_forwarded_fields_of_a_stranger_are_replaced(proxy: Sidecar) -> None:
    with contextlib.closing(proxy.client("distrustful")) as client:
        fields = crossed(
            client,
            "x-forwarded-for: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nx-forwarded-host: evil.test\r\n"
            "Forwarded: for=203.0.113.9\r\nx-last: 1\r\nFORWARDED: for=x\r\n",
        )
    assert values(fields, "forwarded") == []
    assert values(fields, "x-last") == ["1"]
    assert values(fields, "x-forwarded-for") == ["127.0.0.1"]
    assert values(fields, "x-forwarded-proto") == ["http"]
    assert values(fields, "x-forwarded-host") == ["example.test"]


@pytest.mark.parametrize("name", ["X-Forwarded-Client-Cert", "x-forwarded-client-cert"])
def test_nobody_claims_a_client_certificate(client: Wire, name: str) -> None:
    claimed = f"{name}: Hash=00;URI=spiffe://mesh/admin\r\n"
    assert values(crossed(client, claimed), "x-forwarded-client-cert") == []
    assert (
        values(
            crossed(client, claimed + claimed + "connection: x-forwarded-client-cert\r\n"), "x-forwarded-client-cert"
        )
        == []
    )


def test_a_request_id_is_made_and_unique(client: Wire) -> None:
    made = list(itertools.chain.from_iterable(values(crossed(client, ""), "x-request-id") for _ in range(50)))
    assert len(made) == 50
    assert len(set(made)) == 50
    assert all(len(one) >= 16 for one in made)


def test_a_request_id_is_kept(client: Wire) -> None:
    assert values(crossed(client, "X-Request-ID: abc-123\r\n"), "x-request-id") == ["abc-123"]


def test_our_own_answers_are_canonical_too(proxy: Sidecar, codec: str) -> None:
    """The reader would refuse anything else; a body that describes itself, and no stale copies of the request."""
    got: Message = proxy.get(codec, "/x y")
    assert got.status == 400
    assert got.get("content-type") is not None
    assert int(got.get("content-length") or -1) == len(got.body)
