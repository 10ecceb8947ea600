"""Spans as a collector gets them from the running program, over real HTTP."""

import contextlib
import json
import signal
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream
from tests.real.documents import both_codecs, route, upstream
from tests.real.harness import Sidecar, ask

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector:
    """Takes OTLP/HTTP JSON and answers with the next of `answers`, 200 when there is none."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        self.resources: list[dict[str, str]] = []
        self.authorization: list[str | None] = []
        self.answers: list[int] = []
        self.posts = 0
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                collector.posts += 1
                status = collector.answers.pop(0) if collector.answers else 200
                if status == 200:
                    collector.take(body, self.headers.get("authorization"))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/traces"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, body: dict[str, Any], authorization: str | None) -> None:
        self.authorization.append(authorization)
        for group in body["resourceSpans"]:
            self.resources.append(flat(group["resource"]["attributes"]))
            for scope in group["scopeSpans"]:
                assert scope["scope"]["name"] == "sidecar"
                self.spans += scope["spans"]


def flat(attributes: list[dict[str, Any]]) -> dict[str, str]:
    return {one["key"]: next(iter(one["value"].values())) for one in attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.server.shutdown()
    collector.server.server_close()


@contextlib.contextmanager
def stage(collector: Collector, **tracing: Any) -> Iterator[tuple[Sidecar, ScriptedUpstream]]:
    with ScriptedUpstream() as server:
        config = both_codecs(
            [route("dead", "dead", "/dead"), route("all", "app")],
            [upstream("app", server.address), upstream("dead", "127.0.0.1:9")],
        )
        config["service"] = {"name": "orders", "instance": "orders-7"}
        config["tracing"] = {"otlp": {"url": collector.url}, **tracing}
        with Sidecar(config) as proxy:
            yield proxy, server


def test_a_request_becomes_a_span_and_the_upstream_its_child(collector: Collector, codec: str):
    with stage(collector, sample=0.0) as (proxy, server):
        fields = f"traceparent: 00-{TRACE}-{PARENT}-01\r\ntracestate: a=b\r\nuser-agent: till/2\r\n"
        with proxy.client(codec) as client:
            asked = ask("/orders?secret=1", fields, host="shop.test:8080")
            assert client.send(asked).read_answer().status == 200
        proxy.get(codec, "/untraced")
        proxy.wait_until(lambda: collector.spans, "a span")
        head = server.seen[0]
        assert proxy.metrics().sum("sidecar_spans_exported_total") == 1
    (span,) = collector.spans
    assert (span["traceId"], span["parentSpanId"], span["kind"], span["name"]) == (TRACE, PARENT, 2, "GET all")
    assert head.all("traceparent") == [f"00-{TRACE}-{span['spanId']}-01"]
    assert head.all("tracestate") == ["a=b"]
    said = flat(span["attributes"])
    assert said["sidecar.endpoint"] == server.address
    wanted = {
        "http.request.method": "GET",
        "url.scheme": "http",
        "url.path": "/orders",
        "server.address": "shop.test",
        "server.port": "8080",
        "network.protocol.version": "1.1",
        "user_agent.original": "till/2",
        "client.address": "127.0.0.1",
        "http.response.status_code": "200",
    }
    assert said.items() >= wanted.items()
    assert "secret" not in json.dumps(span)
    assert int(span["endTimeUnixNano"]) >= int(span["startTimeUnixNano"]) > 1_700_000_000_000_000_000
    assert collector.resources == [{"service.name": "orders", "service.instance.id": "orders-7"}]


def test_what_never_reached_an_upstream_is_a_span_too(collector: Collector):
    with stage(collector, sample=1.0) as (proxy, _):
        assert proxy.get("fast", "/dead", method="BREW").status == 502
        proxy.wait_until(lambda: collector.spans, "a span")
    (span,) = collector.spans
    said = flat(span["attributes"])
    assert (span["status"], said["error.type"], said["sidecar.outcome"]) == (
        {"code": 2},
        "connect_failure",
        "connect_failure",
    )
    assert span["parentSpanId"] == ""
    assert (span["name"], said["http.request.method_original"]) == ("_OTHER dead", "BREW")


def test_a_collector_that_is_busy_is_asked_again_and_one_that_refuses_is_not(collector: Collector, tmp_path):
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    collector.answers = [503, 429]
    with stage(collector, sample=1.0, otlp={"url": collector.url, "token_file": str(token)}) as (proxy, _):
        proxy.get("fast")
        proxy.wait_until(lambda: collector.spans, "a span")
        assert (collector.posts, collector.authorization) == (3, ["Bearer s3cret"])
        collector.answers = [400]
        proxy.get("fast")
        proxy.wait_until(lambda: proxy.metrics().sum("sidecar_spans_dropped_total", reason="refused") == 1, "the drop")
        assert "s3cret" not in proxy.log
        assert proxy.log.count("spans_dropped") == 1


def test_without_a_collector_requests_go_on_and_the_queue_is_bounded(collector: Collector):
    collector.server.shutdown()
    collector.server.server_close()
    with stage(collector, sample=1.0, queue=5) as (proxy, _):
        with proxy.client("fast") as client:
            for _ in range(50):
                client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
                assert client.read_answer("GET").status == 200
        proxy.wait_until(lambda: proxy.metrics().sum("sidecar_spans_dropped_total", reason="queue_full") >= 20, "drops")


def test_a_collector_that_never_answers_does_not_hold_the_end_up():
    """Neither a traceback nor a straggler: the spans on their way are given up, and told."""
    with socket.create_server(("127.0.0.1", 0)) as deaf, ScriptedUpstream() as server:
        config = both_codecs([route("all", "app")], [upstream("app", server.address)])
        config["tracing"] = {"otlp": {"url": f"http://127.0.0.1:{deaf.getsockname()[1]}/"}, "sample": 1.0}
        with Sidecar(config) as proxy:
            proxy.get("fast")
            deaf.settimeout(20)
            asked, _ = deaf.accept()  # a batch is on its way
            proxy.get("fast")
            proxy.signal(signal.SIGTERM)
            proxy.wait_exit()
            asked.close()
            told = [json.loads(line) for line in proxy.log.splitlines()]
        assert [line["spans"] for line in told if line["event"] == "spans_dropped"] == [2]
        assert not {"task_failed", "task_did_not_end"} & {line["event"] for line in told}


def test_a_reload_switches_it_on_and_off(collector: Collector):
    with stage(collector, sample=1.0) as (proxy, server):
        config = {key: value for key, value in proxy.config.items() if key != "tracing"}
        proxy.get("fast")
        proxy.write(config)
        proxy.command("reload")
        proxy.get("fast", "/quiet")
        assert server.seen[-1].all("traceparent") == []
        proxy.wait_until(lambda: len(collector.spans) == 1, "the span from before")
        proxy.write(proxy.config)
        proxy.command("reload")
        proxy.get("fast", "/again")
        proxy.wait_until(lambda: len(collector.spans) == 2, "the span afterwards")


def test_every_worker_delivers_and_the_last_spans_leave_at_the_end(collector: Collector):
    with ScriptedUpstream() as server:
        config = both_codecs([route("all", "app")], [upstream("app", server.address)])
        config |= {"workers": 2, "tracing": {"otlp": {"url": collector.url}, "sample": 1.0}}
        with Sidecar(config) as proxy:
            for _ in range(10):
                assert proxy.get("fast").status == 200
    assert len(collector.spans) == 10
