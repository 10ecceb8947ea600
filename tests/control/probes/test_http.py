"""HTTP probes: the status decides, a text in the body when asked for; nothing is followed, nothing is endless."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.dependencies import Dependency, DependencyCheck, HttpCheck
from sidecar.config.upstreams import HealthCheck, HttpProbe
from sidecar.control.probes.build import dependency_probes, endpoint_probe
from sidecar.control.probes.probe import Result, ask
from tests.fakes.upstream import ScriptedUpstream, answer, chunked, says, sends


@pytest.fixture
def server() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running


def probe(address: str, **http: Any) -> Result:
    check = HealthCheck(http=HttpProbe(**http))
    return asyncio.run(ask(endpoint_probe(check, address), 5.0))


def dependency(**http: Any) -> dict[str, Result]:
    probes = dependency_probes(Dependency(name="api", check=DependencyCheck(http=HttpCheck(**http))))
    return {what: asyncio.run(ask(one, 5.0)) for what, one in probes.items()}


def test_what_is_asked(server: ScriptedUpstream) -> None:
    assert probe(server.address, path="/up?deep=1", headers={"X-Tier": "gold"})[::2] == (True, "answered 200")
    (request,) = server.seen
    assert (request.method, request.target) == ("GET", "/up?deep=1")
    assert request.get("host") == server.address
    assert request.get("x-tier") == "gold"
    assert request.get("connection") == "close"


def test_host_and_port_may_differ_from_the_endpoints(server: ScriptedUpstream) -> None:
    assert probe("127.0.0.1:1", host="orders.test", port=server.port).ok
    assert server.seen[0].get("host") == "orders.test"


@pytest.mark.parametrize(
    ("status", "expect", "ok"),
    [
        ("204 No Content", {200, 204}, True),
        ("404 Not Found", {404}, True),
        ("200 OK", {204}, False),
        ("503 Service Unavailable", set(range(200, 300)), False),
    ],
)
def test_the_status_decides(server: ScriptedUpstream, status: str, expect: set[int], ok: bool) -> None:
    server.otherwise(sends(answer(b"", status, length=False), then="close"))
    assert probe(server.address, expect=frozenset(expect))[::2] == (ok, f"answered {status[:3]}")


def test_a_redirect_is_not_followed(server: ScriptedUpstream) -> None:
    server.otherwise(says(b"", "302 Found", [("location", f"http://{server.address}/again")]))
    assert probe(server.address).detail == "answered 302, a redirect, which is not followed"
    assert probe(server.address, expect=frozenset({302})).ok
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    ("answered", "detail"),
    [
        (answer(b"all is well here"), "answered 200"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunked(b"all is w", b"el", b"l"), "answered 200"),
        (b"HTTP/1.1 200 OK\r\n\r\nall is well", "answered 200"),
        (answer(b"all is wel"), "the expected text is not in the body"),
        (answer(b""), "the expected text is not in the body"),
        (answer(b"x" * 70_000 + b"is well"), "the expected text is not in the body's first 60 KiB"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf", "hung up before its answer was whole"),
        (answer(b"all is well", "500 Oops"), "answered 500"),
    ],
)
def test_the_body_must_contain_a_text(server: ScriptedUpstream, answered: bytes, detail: str) -> None:
    server.otherwise(sends(answered, then="close"))
    result = probe(server.address, contains="is well")
    assert result[::2] == (detail == "answered 200", detail)


@pytest.mark.parametrize(
    ("answered", "detail"),
    [
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3 + answer(), "answered 200"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 5000, "sent more than 64 KiB"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "answered what is not HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "answered what is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 20_000, "answered what is not HTTP"),
        (b"HTTP/1.1 200 O", "hung up before its answer was whole"),
        (b"", "hung up before its answer was whole"),
    ],
)
def test_odd_answers(server: ScriptedUpstream, answered: bytes, detail: str) -> None:
    server.otherwise(sends(answered, then="close"))
    assert probe(server.address).detail == detail


def test_an_external_service(server: ScriptedUpstream, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("hush\n")
    url = f"http://{server.address}/v1/ö status".replace(" ", "%20")
    told = dependency(url=f"{url}?key=secret", token_file=str(token))
    assert told.keys() == {url}
    assert told[url][::2] == (True, "answered 200")
    assert server.seen[0].target == "/v1/%C3%B6%20status?key=secret"
    assert server.seen[0].get("authorization") == "Bearer hush"


def test_a_token_that_is_none(server: ScriptedUpstream, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("hush\r\nx: y")
    (told,) = dependency(url=f"http://{server.address}/", token_file=str(token)).values()
    assert told.detail == "what is to be sent is not HTTP: look at headers and token_file"
    (told,) = dependency(url=f"http://{server.address}/", token_file="/none").values()
    assert told.detail == "/none cannot be read: No such file or directory"
    assert server.seen == []


def test_https_verifies(tmp_path: Path) -> None:
    from tests.fakes.https import https_server
    from tests.fakes.tls import certificate

    cert, key = certificate(tmp_path)
    with https_server(cert, key) as port:
        trusted = dependency(urls=(f"https://localhost:{port}/", f"https://127.0.0.1:{port}/"), ca_file=str(cert))
        assert trusted[f"https://localhost:{port}/"][::2] == (True, "answered 200")
        assert "certificate is not valid for '127.0.0.1'" in trusted[f"https://127.0.0.1:{port}/"].detail
        (told,) = dependency(url=f"https://localhost:{port}/").values()
        assert told.detail == "TLS: self-signed certificate"
