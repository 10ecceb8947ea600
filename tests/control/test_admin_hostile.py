"""Clients of the admin interface that are slow, huge, many, or talk garbage: bounded, and the next one is served."""

import asyncio
import json
import re
import socket

import pytest

from sidecar.config.address import Address
from sidecar.runtime import admin_http
from sidecar.runtime.admin_http import MAX_BODY, MAX_CONNECTIONS, AdminServer, Door, Request, Response
from tests.fakes.admin import read_to_end


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET /livez HTTP/9.9\r\nHost: a\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST /drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /drain HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
@pytest.mark.parametrize("door", list(Door))
def test_garbage_is_refused_and_the_next_client_served(admin, door, garbage):
    with admin.connect(door) as sock:
        sock.sendall(garbage)
        sock.shutdown(socket.SHUT_WR)
        received = read_to_end(sock)
    assert received == b"" or b" 200 " not in received.split(b"\r\n", 1)[0]
    assert admin.program.commands == []
    assert admin.ask("/livez", door=door).status == 200


@pytest.mark.parametrize(
    "target", ["http://evil.example/api/v1/status", "*", "//evil/..//api/v1/status", "/../../etc/passwd"]
)
def test_odd_targets_lead_nowhere(admin, target):
    with admin.connect() as sock:
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert read_to_end(sock).startswith(b"HTTP/1.1 404 ")


def test_a_huge_head_is_refused(admin):
    with admin.connect() as sock:
        sock.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n")
        try:
            for _ in range(100):
                sock.sendall(b"X-Filler: " + b"a" * 10_000 + b"\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass
        received = read_to_end(sock)
    assert received == b"" or received.startswith(b"HTTP/1.1 431 ")
    assert admin.ask("/livez").status == 200


@pytest.mark.parametrize("framing", ["Content-Length: 10000000", "Transfer-Encoding: chunked"])
def test_a_huge_body_is_refused_with_an_answer(admin, framing):
    with admin.connect(Door.UNIX) as sock:
        sock.sendall(f"POST /drain HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n".encode())
        body = b"a" * (MAX_BODY + 1)
        sock.sendall(body if "Length" in framing else b"%x\r\n%b\r\n" % (len(body), body))
        assert sock.recv(65536).startswith(b"HTTP/1.1 413 ")
    assert admin.program.commands == []


def test_a_client_that_asks_to_continue_is_told_to(admin):
    with admin.connect(Door.UNIX) as sock:
        sock.sendall(b"POST /drain HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 100 ")
        sock.sendall(b"{}")
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_pipelined_requests_are_answered_in_order(admin):
    with admin.connect() as sock:
        sock.sendall(
            b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
            b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n"
            b"GET /api/v1/config HTTP/1.0\r\nHost: localhost\r\n\r\n"
        )
        received = read_to_end(sock)
    statuses = re.findall(rb"HTTP/1\.1 (\d+)", received)
    assert statuses == [b"200", b"404", b"200"]
    assert json.loads(received.rsplit(b"\r\n\r\n", 1)[1]) == {"version": 1}


def test_silent_strangers_do_not_keep_the_kubelet_out(admin):
    strangers = [admin.connect(Door.PROBES) for _ in range(MAX_CONNECTIONS * 3)]
    for _ in range(5):
        assert admin.ask("/livez", door=Door.PROBES).status == 200
    assert admin.ask("/livez", door=Door.TCP).status == 200
    for one in strangers:
        one.close()


def test_a_program_that_fails_is_a_500_and_not_the_end(admin):
    async def fail() -> dict:
        raise RuntimeError("a detail that nobody outside needs")

    admin.program.status = fail
    admin.admin._reads["/api/v1/status"] = lambda request: fail()
    answer = admin.ask("/api/v1/status")
    assert answer.status == 500
    assert b"detail" not in answer.body
    assert admin.ask("/livez").status == 200


# Times: with a server of our own, whose limits are short --------------------------------------------------------------


def serve(scenario, answer=None, **limits) -> None:
    async def ok(_request: Request) -> Response:
        return Response(200, b"ok")

    async def main() -> None:
        server = AdminServer(answer or ok, **limits)
        address = await server.listen(Door.TCP, Address("127.0.0.1", 0))
        try:
            await scenario(server, address)
        finally:
            await server.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"GET / HT",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_whoever_does_not_finish_a_request_in_time_is_closed(beginning):
    async def scenario(server, address) -> None:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(beginning)
        await reader.read()  # ends only when the server closes
        writer.close()
        while any(server._open.values()):
            await asyncio.sleep(0)

    serve(scenario, request_within=0.05)


def test_a_trickle_does_not_stretch_the_time():
    async def scenario(_server, address) -> None:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        ended = asyncio.ensure_future(reader.read())
        for byte in b"GET / HTTP/1.1\r\nX-Slow: " + b"a" * 10_000:
            if ended.done() or writer.is_closing():
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(0.005)
        else:
            pytest.fail("it was let trickle on")
        writer.close()

    serve(scenario, request_within=0.1)


def test_a_client_that_does_not_read_is_given_up(monkeypatch):
    monkeypatch.setattr(admin_http, "WRITE_WITHIN", 0.05)

    async def much(_request: Request) -> Response:
        return Response(200, b"x" * 20_000_000)

    async def scenario(server, address) -> None:
        sock = socket.create_connection((address.host, address.port))
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        while not server._open[Door.TCP]:
            await asyncio.sleep(0)
        while server._open[Door.TCP]:
            await asyncio.sleep(0.01)  # pytest's own time-out ends a wait in vain
        sock.close()

    serve(scenario, much)


def test_a_program_that_does_not_answer_is_a_504(monkeypatch):
    monkeypatch.setattr(admin_http, "ANSWER_WITHIN", 0.01)

    async def never(_request: Request) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    async def scenario(_server, address) -> None:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 504 ")
        writer.close()

    serve(scenario, never)
