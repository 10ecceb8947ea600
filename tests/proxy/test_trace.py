"""Which requests are traced, and what the next hop is told."""

import re

import pytest

from sidecar.proxy.trace import UNTRACED, Tracer
from sidecar.runtime.metrics import Registry
from sidecar.runtime.otlp import SpanQueue

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Head:
    def __init__(self, *lines: str) -> None:
        self.wire = "".join(f"{line}\r\n" for line in ("GET / HTTP/1.1", "Host: a", *lines)).encode()

    def field(self, name: bytes) -> bytes | None:
        values = re.findall(rb"\r\n(?i:" + name + rb"): ([^\r]*)", self.wire)
        return b", ".join(values) if values else None


class Exchange:
    def __init__(self, *lines: str) -> None:
        self.head = Head(*lines)
        self.trace = None


def begin(tracer: Tracer, *lines: str) -> tuple[Exchange, str]:
    exchange = Exchange(*lines)
    return exchange, tracer.begin(exchange, exchange.head.wire).decode()  # type: ignore[arg-type]


def tracer(ratio: float) -> Tracer:
    return Tracer(SpanQueue(10, Registry()), ratio)


def test_a_sampled_caller_gets_a_child_whatever_the_ratio():
    exchange, wire = begin(tracer(0.0), f"Traceparent: 00-{TRACE}-{PARENT}-01", "tracestate: a=b", "Accept: */*")
    assert exchange.trace is not None
    assert (exchange.trace.trace.decode(), exchange.trace.parent.decode()) == (TRACE, PARENT)
    ours = re.findall(r"(?i)traceparent: (.*)\r\n", wire)
    assert ours == [f"00-{TRACE}-{exchange.trace.span.decode()}-01"]
    assert exchange.trace.span.decode() != PARENT
    assert wire.startswith("GET / HTTP/1.1\r\nHost: a\r\n")
    assert wire.endswith("\r\ntracestate: a=b\r\nAccept: */*\r\n")


@pytest.mark.parametrize("version", ["00", "01", "fe"])
def test_a_caller_that_is_not_sampled_is_left_alone(version: str):
    line = f"traceparent: {version}-{TRACE}-{PARENT}-00"
    exchange, wire = begin(tracer(1.0), line)
    assert exchange.trace is UNTRACED
    assert line in wire


@pytest.mark.parametrize(
    "value",
    [
        f"00-{TRACE}-{PARENT}-01-more",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}",
        "x" * 5000,
        f"00-{TRACE}-{PARENT}-01, 00-{TRACE}-{PARENT}-01",
    ],
)
def test_what_is_no_traceparent_begins_no_trace_of_its_own(value: str):
    exchange, wire = begin(tracer(1.0), f"traceparent: {value}")
    assert exchange.trace is not None
    assert exchange.trace.parent == b""
    assert re.findall(r"traceparent: (.*)\r\n", wire) == [exchange.trace.traceparent.decode()]
    _, untouched = begin(tracer(0.0), f"traceparent: {value}")
    assert f"traceparent: {value}\r\n" in untouched


def test_two_lines_are_no_parent_and_do_not_survive():
    exchange, wire = begin(tracer(1.0), f"traceparent: 00-{TRACE}-{PARENT}-01", f"traceparent: 00-{TRACE}-{PARENT}-01")
    assert exchange.trace is not None
    assert exchange.trace.parent == b""
    assert wire.count("traceparent") == 1


@pytest.mark.parametrize(("ratio", "traced"), [(0.0, 0), (0.01, 1), (0.25, 25), (1.0, 100)])
def test_the_ratio_is_even(ratio: float, traced: int):
    decides = tracer(ratio)
    found = [begin(decides)[0].trace is not UNTRACED for _ in range(100)]
    assert sum(found) == traced
    assert found[0] == bool(traced)


def test_another_try_tells_the_same():
    decides = tracer(1.0)
    exchange, first = begin(decides)
    assert decides.begin(exchange, exchange.head.wire).decode() == first  # type: ignore[arg-type]
