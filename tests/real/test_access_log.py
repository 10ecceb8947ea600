"""The access log: a line of JSON per request that says what the answer's header and the metrics say."""

import json
import re
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream, resets
from tests.fakes.wire import Wire
from tests.real.documents import both_codecs, free_port, route, upstream
from tests.real.harness import Sidecar, ask, json_lines

ROUTES = [route("dead", "dead", "/dead"), {**route("app", "app"), "match": {"host": "example.test"}}]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "access.jsonl"


@pytest.fixture(scope="module")
def config(server: ScriptedUpstream, path: Path) -> dict[str, Any]:
    return both_codecs(
        ROUTES,
        [upstream("app", server.address), upstream("dead", f"127.0.0.1:{free_port()}")],
        root={"access_log": {"path": str(path), "sample": 1.0}},
    )


def line_of(proxy: Sidecar, path: Path, request_id: str) -> dict[str, Any]:
    """The line of one request, once it is written."""

    def found() -> list[dict[str, Any]]:
        return [line for line in json_lines(path) if line["request_id"] == request_id]

    proxy.wait_until(found, "the line")
    lines = found()
    assert len(lines) == 1
    return lines[0]


def test_a_line_tells_the_request(
    server: ScriptedUpstream, proxy: Sidecar, client: Wire, codec: str, path: Path
) -> None:
    name = f"tells-{codec}"
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    got = client.send(
        ask("/told?q=1", f"x-request-id: {name}\r\ntraceparent: {parent}\r\n", "POST", b"x" * 100)
    ).read_answer()
    line = line_of(proxy, path, name)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert line | {"time": 0, "duration_ms": 0, "bytes_in": 0, "bytes_out": 0} == {
        "time": 0,
        "listener": codec,
        "route": "app",
        "upstream": "app",
        "endpoint": server.address,
        "method": "POST",
        "path": "/told?q=1",
        "host": "example.test",
        "status": 200,
        "decision": "",
        "duration_ms": 0,
        "bytes_in": 0,
        "bytes_out": 0,
        "request_id": name,
        "traceparent": parent,
        "client": "127.0.0.1",
        "attempts": 1,
    }
    assert line["duration_ms"] > 0
    assert line["bytes_in"] >= 100
    assert line["bytes_out"] >= len(got.body)


@pytest.mark.parametrize(
    ("target", "host"), [("/dead", "example.test"), ("/", "unknown.test"), ("/resets", "example.test")]
)
def test_the_decision_is_the_headers(
    server: ScriptedUpstream, proxy: Sidecar, client: Wire, codec: str, path: Path, target: str, host: str
) -> None:
    server.on("/resets", resets)
    name = f"decision-{codec}-{target[1:]}"
    got = client.send(ask(target, f"x-request-id: {name}\r\n", "POST", b"x", host=host)).read_answer()
    line = line_of(proxy, path, name)
    assert (line["status"], line["decision"]) == (got.status, got.decision)
    assert got.decision is not None


def test_an_id_of_ours_is_in_the_line(server: ScriptedUpstream, proxy: Sidecar, client: Wire, path: Path) -> None:
    client.send(ask("/nameless")).read_answer()
    line_of(proxy, path, server.requests("/nameless")[-1].get("x-request-id") or "")


def test_odd_bytes_keep_the_line_whole(proxy: Sidecar, client: Wire, codec: str, path: Path) -> None:
    client.send(ask("/odd%0a", f'x-request-id: a"b\\{codec}\xe9\r\n')).read_answer()
    proxy.wait_until(lambda: any(f'a"b\\{codec}' in line["request_id"] for line in json_lines(path)), "the line")


def test_refused_requests_are_there_too(proxy: Sidecar, client: Wire, codec: str, path: Path) -> None:
    def refused() -> int:
        return sum(line["decision"] == "bad_request" and line["listener"] == codec for line in json_lines(path))

    before = refused()
    client.send(b"NONSENSE\r\n\r\n").read_answer()
    proxy.wait_until(lambda: refused() == before + 1, "the line")


@pytest.fixture
def sampled(server: ScriptedUpstream, tmp_path: Path) -> Iterator[Sidecar]:
    tree = both_codecs(
        ROUTES[1:],
        [upstream("app", server.address)],
        root={"access_log": {"path": str(tmp_path / "log"), "sample": 0.1}},
    )
    with Sidecar(tree) as running:
        yield running


def test_a_sample(sampled: Sidecar, tmp_path: Path) -> None:
    """A tenth, evenly, and all of them are written when the program ends."""
    with sampled.client("fast") as client:
        for number in range(100):
            client.send(ask(f"/{number}")).read_answer()
    sampled.stop()
    paths = [int(line["path"][1:]) for line in json_lines(tmp_path / "log")]
    assert len(paths) in {9, 10}
    assert {two - one for one, two in pairwise(paths)} <= {9, 10, 11}


def test_rotation(proxy: Sidecar, client: Wire, codec: str, path: Path) -> None:
    """The file is moved away, SIGHUP opens a new one, no line is lost."""
    client.send(ask("/before", f"x-request-id: before-{codec}\r\n")).read_answer()
    line_of(proxy, path, f"before-{codec}")
    moved = path.with_suffix(f".{codec}")
    path.rename(moved)
    proxy.signal(signal.SIGHUP)
    proxy.wait_until(path.exists, "a new file")
    client.send(ask("/after", f"x-request-id: after-{codec}\r\n")).read_answer()
    line_of(proxy, path, f"after-{codec}")
    assert any(line["request_id"] == f"before-{codec}" for line in json_lines(moved))


def test_to_stdout(server: ScriptedUpstream) -> None:
    """Beside the program's own log, line by line, each of them JSON."""
    tree = both_codecs(ROUTES[1:], [upstream("app", server.address)], root={"access_log": {"path": "stdout"}})
    with Sidecar(tree) as running:
        with running.client("fast") as client:
            for number in range(200):
                client.send(ask(f"/{number}")).read_answer()
        running.signal(signal.SIGTERM)
        assert running.wait_exit() == 0
        lines = [json.loads(line) for line in running.log.splitlines()]
    assert [line["path"] for line in lines if "request_id" in line] == [f"/{number}" for number in range(200)]


def test_an_answer_of_our_own_names_the_request_as_the_log_does(proxy: Sidecar, codec: str, path: Path) -> None:
    got = proxy.get(codec, "/dead")
    assert got.decision == "connect_failure"
    assert line_of(proxy, path, got.get("x-request-id") or "none")["decision"] == "connect_failure"
