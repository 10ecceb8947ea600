"""gRPC probes: SERVING and nothing else is healthy; the request is what the health service's definition asks for."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.address import Address
from sidecar.control.probes.grpc import GrpcProbe, _first_number, _read_varint, _varint
from sidecar.control.probes.probe import ProbeFailure, Result, ask
from tests.fakes.grpc_health import Answer, GrpcHealth


@pytest.fixture
def server() -> Iterator[GrpcHealth]:
    with GrpcHealth() as running:
        yield running


def probe(server: GrpcHealth, service: str = "") -> Result:
    target = Address(host="127.0.0.1", port=server.port)
    return asyncio.run(ask(GrpcProbe(target, authority="orders.test", service=service), 5.0))


def test_serving_is_healthy(server: GrpcHealth) -> None:
    assert probe(server)[::2] == (True, "SERVING")
    fields, body = server.asked[0]
    assert fields[":method"] == "POST"
    assert fields[":path"] == "/grpc.health.v1.Health/Check"
    assert (fields[":authority"], fields["content-type"], fields["te"]) == (
        "orders.test",
        "application/grpc",
        "trailers",
    )
    assert body == b"\0\0\0\0\0"


def test_a_service_is_asked_for_by_its_name(server: GrpcHealth) -> None:
    assert probe(server, "shop.Orders").ok
    assert server.asked[0][1] == b"\0\0\0\0\x0d\x0a\x0bshop.Orders"
    assert probe(server, "x" * 200).ok
    assert server.asked[1][1] == b"\0\0\0\0\xcb\x0a\xc8\x01" + b"x" * 200


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (Answer(message=b""), "says UNKNOWN"),
        (Answer(message=b"\x08\x02"), "says NOT_SERVING"),
        (Answer(message=b"\x08\x03"), "says SERVICE_UNKNOWN"),
        (Answer(message=b"\x08\x63"), "says a state nobody knows"),
        (Answer(trailers={"grpc-status": "5"}), "gRPC status NOT_FOUND: it does not know this service"),
        (
            Answer(message=None, trailers=None, headers={":status": "200", "grpc-status": "12"}),
            "gRPC status UNIMPLEMENTED: it has no health service",
        ),
        (Answer(trailers={"grpc-status": "13"}), "gRPC status 13"),
        (Answer(trailers={"grpc-status": "a secret"}), "answered what is not gRPC"),
        (Answer(trailers=None), "answered what is not gRPC"),
        (Answer(headers={":status": "404"}), "answered what is not gRPC"),
        (Answer(message=None), "answered what is no health message"),
        (Answer(message=b"\x08\x01", flag=1), "answered what is no health message"),
        (Answer(message=b"\x08"), "answered what is no health message"),
        (Answer(message=b"\x0b"), "answered what is no health message"),
        (Answer(message=b"\x12\x7f"), "answered what is no health message"),
        (Answer(message=b"\x12" + b"\xff" * 12), "answered what is no health message"),
        (Answer(message=b"\0" * 8000), "answered what is no health message"),
        (Answer(reset=True), "refused the call"),
    ],
)
def test_everything_else_is_not(server: GrpcHealth, answer: Answer, detail: str) -> None:
    server.answer = answer
    assert probe(server)[::2] == (False, detail)


def test_fields_of_a_later_version_are_passed_over(server: GrpcHealth) -> None:
    server.answer = Answer(message=b"\x12\x02hi\x19" + bytes(8) + b"\x08\x01\x25" + bytes(4) + b"\x10\x07")
    assert probe(server).ok


def test_a_ping_is_answered_on_the_way(server: GrpcHealth) -> None:
    server.answer = Answer(ping_first=True)
    assert probe(server).ok


@given(st.integers(0, 2**63 - 1), st.binary(max_size=5))
def test_numbers_are_read_as_they_are_written(number: int, rest: bytes) -> None:
    written = _varint(number)
    assert _read_varint(written + rest, 0) == (number, len(written))


@given(st.binary(max_size=40))
def test_any_message_is_read_or_refused(message: bytes) -> None:
    try:
        assert _first_number(message) >= 0
    except ProbeFailure:
        pass
