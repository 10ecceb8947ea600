"""The four forms of a request's target, and the methods that a reverse proxy does not serve."""

import pytest

from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.wire import Wire
from tests.real.harness import Sidecar, ask


@pytest.mark.parametrize(
    ("target", "origin"),
    [
        ("http://other.test/abs?q=1", "/abs?q=1"),
        ("http://other.test", "/"),
        ("http://other.test?q", "/?q"),
        ("HTTP://other.test/case", "/case"),
    ],
)
def test_absolute_form_becomes_origin_form(client: Wire, target: str, origin: str) -> None:
    """And the Host that the upstream sees is the target's, whatever the Host field said (RFC 9112 §3.2.2)."""
    echoed = client.send(ask(target)).read_answer().json()
    assert echoed["target"] == origin
    assert [value for name, value in echoed["fields"] if name.lower() == "host"] == ["other.test"]


def test_options_of_the_server(client: Wire) -> None:
    echoed = client.send(ask("*", method="OPTIONS")).read_answer().json()
    assert (echoed["method"], echoed["target"]) == ("OPTIONS", "*")


@pytest.mark.parametrize(
    "target",
    ["/", "/a%20b", "/.well-known/x", "/a..b/.c", "//double", "/?", "/a?b=c?d/e", "/;p=1,2", "/~!$&'()*+,;=:@"],
)
def test_origin_form_passes_byte_by_byte(client: Wire, target: str) -> None:
    assert client.send(ask(target)).read_answer().json()["target"] == target


@pytest.mark.parametrize("target", ["/a/../b", "/a/./b", "/%2e%2E/x", "/a/%2e%2e", "/a%2f..%2fb", "/.."])
def test_dot_segments_are_refused(server: ScriptedUpstream, client: Wire, target: str) -> None:
    """Whoever resolves them behind us would see another path than the one that was routed."""
    before = len(server.seen)
    assert client.send(ask(target)).read_answer().status == 400
    assert len(server.seen) == before


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "X-OWN", "get"])
def test_methods_pass_as_they_are(client: Wire, method: str) -> None:
    echoed = client.send(ask("/method", "content-length: 0\r\n", method)).read_answer().json()
    assert echoed["method"] == method


@pytest.mark.parametrize(
    ("method", "target"), [("CONNECT", "example.test:443"), ("CONNECT", "/refused"), ("TRACE", "/refused")]
)
def test_methods_that_are_refused(
    server: ScriptedUpstream, proxy: Sidecar, client: Wire, method: str, target: str
) -> None:
    before = len(server.seen)
    got = client.send(ask(target, method=method)).read_answer()
    assert got.status in {400, 405, 501}
    assert got.decision == "bad_request"
    assert len(server.seen) == before
