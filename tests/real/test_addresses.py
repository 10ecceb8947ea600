"""Where the proxy listens and what it calls: IPv4, IPv6, Unix sockets, names; and never itself."""

import contextlib
import http.server
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.wire import Wire
from tests.real.documents import document, free_port, listener, route, upstream
from tests.real.harness import Sidecar, ask, dial, run_cli


class Plain(http.server.BaseHTTPRequestHandler):
    """Answers with the name of its server's address family."""

    def do_GET(self) -> None:
        body = self.server.address_family.name.encode()  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass

    def address_string(self) -> str:
        return "somebody"


class Six(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True


class Unix(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


@contextlib.contextmanager
def running(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=[0.05], daemon=True)
    thread.start()
    yield
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sock")


@pytest.fixture(scope="module")
def config(server: ScriptedUpstream, directory: Path) -> Iterator[dict[str, Any]]:
    six, unix = Six(("::1", 0), Plain), Unix(str(directory / "up.sock"), Plain)
    routes = [
        route("six", "six", "/six"),
        route("unix", "unix", "/unix"),
        route("named", "named", "/named"),
        route("all", "app"),
    ]
    in_six, in_unix = listener("in-six", routes), listener("in-unix", routes)
    in_six["bind"] = f"[::1]:{free_port()}"
    in_unix["bind"] = f"unix:{directory / 'in.sock'}"
    with running(six), running(unix):
        yield document(
            [listener("in", routes), in_six, in_unix],
            [
                upstream("app", server.address),
                upstream("six", f"[::1]:{six.server_address[1]}"),
                upstream("unix", f"unix:{directory / 'up.sock'}"),
                upstream("named", f"localhost:{server.port}"),
            ],
        )


@pytest.mark.parametrize(("target", "body"), [("/six", b"AF_INET6"), ("/unix", b"AF_UNIX")])
def test_upstreams(proxy: Sidecar, target: str, body: bytes) -> None:
    got = proxy.get("in", target)
    assert (got.status, got.body) == (200, body)


def test_an_upstream_by_name(server: ScriptedUpstream, proxy: Sidecar) -> None:
    """The name has an address of each family; one of them answers."""
    assert proxy.get("in", "/named").json()["port"] == server.port


def test_a_listener_on_ipv6(proxy: Sidecar) -> None:
    with dial(proxy.port("in-six"), host="::1") as client:
        echoed = client.send(ask("/")).read_answer().json()
    assert [value for name, value in echoed["fields"] if name.lower() == "x-forwarded-for"] == ["::1"]


def test_a_listener_on_a_unix_socket(proxy: Sidecar, directory: Path) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(directory / "in.sock"))
    with Wire(sock) as client:
        assert client.send(ask("/")).read_answer().status == 200


@pytest.mark.parametrize(("bind", "address"), [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "localhost"),
                                              ("127.0.0.1", "127.1"), ("0.0.0.0", "127.0.0.2")])  # fmt: skip
def test_the_admin_interface_is_not_reached_through_the_proxy(bind: str, address: str) -> None:
    """Refused with the file, or when the name turns out to mean it: never asked."""
    port = free_port()
    tree = document([listener("in", [route("all", "self")])], [upstream("self", f"{address}:{port}")])
    tree["admin"] = {"bind": f"{bind}:{port}"}
    proxy = Sidecar(tree, ready=False)
    proxy.admin_port = port
    if run_cli("check", "-c", str(proxy.file)).returncode == 78:
        proxy.exit_code = 78
        assert proxy.wait_exit() == 78
    else:
        proxy.wait_ready()
        got = proxy.get("in", "/api/v1/config")
        assert got.status in {502, 503}
        assert got.decision is not None
    proxy.stop()


def test_a_stale_unix_socket_is_taken_over(server: ScriptedUpstream, tmp_path: Path) -> None:
    """A proxy that was killed left its socket's name behind; the next one starts all the same."""
    tree = document([listener("in", [route("all", "app")])], [upstream("app", server.address)])
    tree["listeners"][0]["bind"] = f"unix:{tmp_path / 'in.sock'}"
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as left:
        left.bind(str(tmp_path / "in.sock"))
    with Sidecar(tree) as proxy:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(tmp_path / "in.sock"))
        with Wire(sock) as client:
            assert client.send(ask("/")).read_answer().status == 200
        assert proxy.probe("/readyz") == 200
