"""Listeners that speak TLS, by the program itself, against Python's ssl, openssl and whoever means no good."""

import contextlib
import datetime as dt
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from tests.fakes.trust import Authority, Pair
from tests.fakes.upstream import ScriptedUpstream, says
from tests.fakes.wire import Truncated, Wire
from tests.real.documents import document, listener, route, upstream
from tests.real.harness import Sidecar, ask, dial
from tests.real.secure import half_closed, s_client, secure

TRADER = "spiffe://shop.test/ns/pay/sa/trader"


class World:
    """Who is around: an authority that we trust and one that we do not, and what they signed."""

    def __init__(self, directory: Path) -> None:
        self.ours = Authority(directory)
        self.theirs = Authority(directory, "other-ca")
        self.server = self.ours.issue("server", "localhost", "127.0.0.1")
        self.shop = self.ours.issue("shop", "shop.test", "*.shop.test", key_type=trustme.KeyType.RSA)
        self.branch = Authority(directory, "branch", under=self.ours)
        self.clerk = self.branch.issue("clerk", "clerk.shop.test")
        self.trader = self.ours.vouch("trader", TRADER, common_name='tr"ader')
        self.baker = self.ours.vouch("baker", "spiffe://shop.test/ns/bread/sa/baker")
        self.stranger = self.theirs.vouch("stranger", TRADER)

    def tls(self, pair: Pair | None = None, **more: Any) -> dict[str, Any]:
        return {**(pair or self.server).keys(), **more}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("trust"))


@pytest.fixture(scope="module")
def config(server: ScriptedUpstream, world: World) -> dict[str, Any]:
    with_ca = {"client_ca_file": str(world.ours.file)}
    to_app = [route("all", "app", timeout="10s")]
    return document(
        [
            listener("web", to_app, tls=world.tls(more_certificates=[world.shop.keys()])),
            listener("h11", to_app, codec="h11", tls=world.tls()),
            listener("newest", to_app, tls=world.tls(min_version="1.3")),
            listener("mutual", to_app, tls=world.tls(**with_ca, forward_client_cert=True)),
            listener("may", to_app, tls=world.tls(**with_ca, client_certificate="optional", forward_client_cert=True)),
            listener("branch", to_app, tls=world.tls(client_ca_file=str(world.branch.file))),
            listener("traders", to_app, tls=world.tls(**with_ca, allowed_clients=["spiffe://shop.test/ns/pay/*"])),
            listener("stream", [{"name": "all", "upstream": "app"}], protocol="tcp", tls=world.tls(alpn=["h2"])),
            listener("tight", to_app, tls=world.tls(max_handshakes=2, handshake_timeout="30s")),
            listener("brief", to_app, tls=world.tls(handshake_timeout="200ms")),
        ],
        [upstream("app", server.address)],
    )


@pytest.fixture(params=["web", "h11"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def handshakes(proxy: Sidecar, name: str, result: str) -> float:
    return proxy.metrics().sum("sidecar_tls_handshakes_total", listener=name, result=result)


# ----------------------------------------------------------------------------------------------- what is spoken


def test_a_request_is_served_over_tls_and_the_upstream_is_told(
    proxy: Sidecar, server: ScriptedUpstream, world: World, name: str
) -> None:
    with secure(proxy, name, world.ours.client()) as client:
        for _ in range(3):
            answer = client.send(ask(f"/told-{name}", method="POST", body=b"hello")).read_answer()
            assert (answer.status, answer.json()["length"]) == (200, 5)
    seen = [one for one in server.seen if one.target == f"/told-{name}"]
    assert [one.get("x-forwarded-proto") for one in seen] == ["https"] * 3
    assert seen[0].get("x-forwarded-client-cert") is None
    assert handshakes(proxy, name, "ok") >= 1


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_are_spoken(proxy: Sidecar, world: World, version: ssl.TLSVersion) -> None:
    context = world.ours.client(minimum_version=version, maximum_version=version)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with secure(proxy, "web", context) as client:
        assert client.send(ask()).read_answer().status == 200
        assert isinstance(client.sock, ssl.SSLSocket)
        assert client.sock.selected_alpn_protocol() == "http/1.1"


def test_what_openssl_says(proxy: Sidecar, world: World) -> None:
    told = s_client(proxy.port("web"), "-CAfile", str(world.ours.file), "-verify_return_error", "-alpn", "h2,http/1.1",
                    "-ign_eof", said=ask(fields="connection: close\r\n"))  # fmt: skip
    assert "Verify return code: 0 (ok)" in told
    assert "ALPN protocol: http/1.1" in told
    assert "TLSv1.3" in told
    assert "HTTP/1.1 200" in told


@pytest.mark.parametrize(("name", "version"), [("web", "-tls1"), ("web", "-tls1_1"), ("newest", "-tls1_2")])
def test_old_protocols_are_refused(proxy: Sidecar, name: str, version: str) -> None:
    before = handshakes(proxy, name, "failed")
    assert "Cipher is (NONE)" in s_client(proxy.port(name), version, "-cipher", "ALL:@SECLEVEL=0")
    proxy.wait_until(lambda: handshakes(proxy, name, "failed") > before, "the failure counted")


def test_a_client_cannot_renegotiate(proxy: Sidecar) -> None:
    told = s_client(proxy.port("web"), "-tls1_2", said=b"R\n")
    assert "RENEGOTIATING" in told
    assert "no renegotiation" in told


@pytest.mark.parametrize(
    ("asked", "shown"),
    [("shop.test", "shop"), ("a.shop.test", "shop"), ("localhost", "server"), ("else.test", "server"), ("", "server")],
)
def test_the_certificate_is_chosen_by_the_name_asked_for(proxy: Sidecar, world: World, asked: str, shown: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(world.ours.file)
    with secure(proxy, "web", context, asked or None) as client:  # type: ignore[arg-type]
        assert isinstance(client.sock, ssl.SSLSocket)
        certificate = client.sock.getpeercert(binary_form=True)
    wanted: Pair = getattr(world, shown)
    first = wanted.cert.read_text().partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----"
    assert certificate == ssl.PEM_cert_to_DER_cert(first)


def test_plain_http_is_told_what_is_wrong(proxy: Sidecar, name: str) -> None:
    with dial(proxy.port(name)) as client:
        answer = client.send(ask()).read_answer()
        assert (answer.status, answer.decision) == (400, "bad_request")
        assert b"https://" in answer.body
    assert handshakes(proxy, name, "plain") == 1


def test_a_tcp_listener_passes_what_was_inside(proxy: Sidecar, server: ScriptedUpstream, world: World) -> None:
    context = world.ours.client()
    context.set_alpn_protocols(["http/1.1", "h2"])
    with secure(proxy, "stream", context) as client:
        assert isinstance(client.sock, ssl.SSLSocket)
        assert client.sock.selected_alpn_protocol() == "h2"
        answer = client.send(ask("/stream", method="POST", body=b"x" * 300_000)).read_answer()
        assert answer.json()["length"] == 300_000
    assert server.seen[-1].get("x-forwarded-proto") is None


def test_a_half_close_passes_and_the_answer_comes_back(proxy: Sidecar, server: ScriptedUpstream, world: World) -> None:
    def after_the_end(wire: Wire, _: Any) -> None:
        while wire.fill():
            pass
        wire.send(b"late, and whole")
        wire.close()

    server.on("/half", after_the_end)
    assert half_closed(proxy.port("stream"), world.ours.client(), ask("/half")) == b"late, and whole"


# ----------------------------------------------------------------------------------------------- who may come


def test_a_client_must_show_a_certificate_of_ours(proxy: Sidecar, world: World) -> None:
    with secure(proxy, "mutual", world.ours.client(world.trader)) as client:
        assert client.send(ask()).read_answer().status == 200
    for nobody in (None, world.stranger):
        with pytest.raises((ssl.SSLError, ConnectionError, EOFError, Truncated)):
            with secure(proxy, "mutual", world.ours.client(nobody)) as client:
                client.send(ask()).read_answer()
    proxy.wait_log(r"tls_handshake_failed.*mutual.*peer did not return a certificate")
    proxy.wait_log(r"tls_handshake_failed.*mutual.*certificate verify failed")
    assert "certificate required" in s_client(proxy.port("mutual"), "-ign_eof")


@pytest.mark.parametrize("name", ["mutual", "branch"])
def test_an_authority_in_between_will_do(proxy: Sidecar, world: World, name: str) -> None:
    """The client shows a chain; the listener trusts its root, or the one in between alone."""
    with secure(proxy, name, world.ours.client(world.clerk)) as client:
        assert client.send(ask()).read_answer().status == 200
    if name == "branch":
        with pytest.raises((ssl.SSLError, ConnectionError, EOFError, Truncated)):
            with secure(proxy, name, world.ours.client(world.trader)) as client:
                client.send(ask()).read_answer()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_resumed(proxy: Sidecar, world: World, version: ssl.TLSVersion) -> None:
    context = world.ours.client(world.trader, minimum_version=version, maximum_version=version)
    before = handshakes(proxy, "traders", "resumed")
    session = None
    for target in ("/full", "/resumed"):
        wrapped = context.wrap_socket(dial(proxy.port("traders")).sock, server_hostname="localhost", session=session)
        with Wire(wrapped) as client:
            assert client.send(ask(target)).read_answer().status == 200
            assert wrapped.session_reused is (target == "/resumed")
            session = wrapped.session
    assert handshakes(proxy, "traders", "resumed") == before + 1


def test_the_upstream_hears_who_the_client_is_and_never_what_it_claims(
    proxy: Sidecar, server: ScriptedUpstream, world: World
) -> None:
    claim = "x-forwarded-client-cert: URI=spiffe://shop.test/ns/pay/sa/boss\r\n"
    with secure(proxy, "mutual", world.ours.client(world.trader)) as client:
        assert client.send(ask("/who", claim)).read_answer().status == 200
    told = server.seen[-1].get("x-forwarded-client-cert")
    assert told is not None
    digest, subject, uri = told.split(";")
    assert digest.startswith("Hash=")
    assert subject == r'Subject="CN=tr\"ader"'
    assert uri == f"URI={TRADER}"
    with secure(proxy, "may", world.ours.client()) as client:
        assert client.send(ask("/who", claim)).read_answer().status == 200
    assert server.seen[-1].get("x-forwarded-client-cert") is None


def test_a_certificate_that_is_shown_must_be_good_even_where_none_is_needed(proxy: Sidecar, world: World) -> None:
    with secure(proxy, "may", world.ours.client(world.baker)) as client:
        assert client.send(ask()).read_answer().status == 200
    with pytest.raises((ssl.SSLError, ConnectionError, EOFError, Truncated)):
        with secure(proxy, "may", world.ours.client(world.stranger)) as client:
            client.send(ask()).read_answer()


def test_only_those_on_the_list_are_let_in(proxy: Sidecar, server: ScriptedUpstream, world: World) -> None:
    with secure(proxy, "traders", world.ours.client(world.trader)) as client:
        assert client.send(ask()).read_answer().status == 200
    with pytest.raises((ssl.SSLError, ConnectionError, EOFError, Truncated)):
        with secure(proxy, "traders", world.ours.client(world.baker)) as client:
            client.send(ask("/not-for-bakers")).read_answer()
    proxy.wait_log(r"tls_client_refused.*spiffe://shop.test/ns/bread/sa/baker")
    assert handshakes(proxy, "traders", "refused") == 1
    assert not [one for one in server.seen if one.target == "/not-for-bakers"]


def test_a_certificate_that_ended_resumes_no_session(proxy: Sidecar, world: World) -> None:
    """OpenSSL verifies at the full handshake only, and a session outlives the certificate by hours."""
    brief = world.ours.vouch("brief", TRADER, life=dt.timedelta(seconds=5))
    ends = ssl.cert_time_to_seconds(_not_after(brief))
    context = world.ours.client(brief, maximum_version=ssl.TLSVersion.TLSv1_2)
    with secure(proxy, "mutual", context) as client:
        assert client.send(ask()).read_answer().status == 200
        assert isinstance(client.sock, ssl.SSLSocket)
        session = client.sock.session
    time.sleep(max(0.0, ends - time.time()) + 0.5)
    with pytest.raises((ssl.SSLError, ConnectionError, EOFError, Truncated)):
        plain = dial(proxy.port("mutual")).sock
        with Wire(context.wrap_socket(plain, server_hostname="localhost", session=session)) as client:
            client.send(ask()).read_answer()
    proxy.wait_log("tls_client_refused.*has ended since")


def _not_after(pair: Pair) -> str:
    told = subprocess.run(["openssl", "x509", "-in", pair.cert, "-noout", "-enddate"], capture_output=True, check=True)
    return told.stdout.decode().strip().removeprefix("notAfter=")


# ----------------------------------------------------------------------------------------------- who means no good


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x00\x05hello",
        b"\x80\x2e\x01\x00\x02",
        bytes(range(256)),
        b"\x16\x03\x01\xff\xff" + b"\0" * 70_000,
        b"\x17\x03\x03\x00\x10" + b"\0" * 16,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"",
    ],
)
def test_bytes_that_are_no_handshake_end_it(proxy: Sidecar, world: World, said: bytes) -> None:
    with dial(proxy.port("web")) as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.send(said)
            client.sock.shutdown(socket.SHUT_WR)
        client.discard_rest()
    with secure(proxy, "web", world.ours.client()) as client:
        assert client.send(ask()).read_answer().status == 200
    proxy.wait_until(
        lambda: proxy.metrics().sum("sidecar_tls_handshakes_inflight", listener="web") == 0, "no handshake left"
    )


def test_a_handshake_that_takes_too_long_is_dropped(proxy: Sidecar) -> None:
    with dial(proxy.port("brief")) as client:
        client.send(b"\x16\x03")
        assert client.discard_rest()[0] == 0
    assert handshakes(proxy, "brief", "timeout") == 1
    proxy.wait_log(r"tls_handshake_failed.*brief.*no handshake within handshake_timeout")


def test_who_dawdles_keeps_nobody_out(proxy: Sidecar, world: World) -> None:
    with contextlib.ExitStack() as stack:
        dawdlers = [stack.enter_context(dial(proxy.port("tight"))) for _ in range(6)]
        for one in dawdlers:
            one.send(b"\x16")
        proxy.wait_until(lambda: proxy.metrics().sum("sidecar_tls_handshakes_inflight", listener="tight") == 2, "full")
        with secure(proxy, "tight", world.ours.client()) as client:
            assert client.send(ask()).read_answer().status == 200
        assert handshakes(proxy, "tight", "gave_way") >= 5
        assert proxy.metrics().sum("sidecar_accept_paused_total", listener="tight", reason="handshakes") >= 1


def test_a_body_cut_without_goodbye_is_not_whole(proxy: Sidecar, server: ScriptedUpstream, world: World) -> None:
    """FIN without close_notify may be anybody's; the upstream must not get an end that the client did not send."""
    with secure(proxy, "web", world.ours.client()) as client:
        client.send(b"POST /cut HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
        with socket.socket(fileno=client.sock.detach()) as bare:
            bare.shutdown(socket.SHUT_WR)
            bare.settimeout(15)
            while bare.recv(65536):
                pass
    assert not [one for one in server.seen if one.target == "/cut" and one.body == b"abc"]


# ----------------------------------------------------------------------------------------------- many bytes


@pytest.mark.parametrize("size", [65_536, 40 << 20])
def test_a_large_answer_waits_for_who_reads_slowly(
    proxy: Sidecar, server: ScriptedUpstream, world: World, name: str, size: int
) -> None:
    def gives(wire: Any, _: Any) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        piece = b"0123456789abcdef" * 4096
        for _ in range(size // len(piece)):
            wire.send(piece)

    server.on(f"/large-{size}", gives)
    before = proxy.rss()
    with secure(proxy, name, world.ours.client()) as client:
        client.send(ask(f"/large-{size}"))
        assert client.read_status().status == 200
        assert proxy.rss() - before < 16 << 20
        left = size - len(client.held)
        client.held = b""
        while left:
            assert client.fill()
            left -= len(client.held)
            client.held = b""


def test_a_websocket_passes_tls_on_both_sides(world: World) -> None:
    def talk(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                connection.send(connection.recv())

    with serve(talk, "127.0.0.1", 0, max_size=None, ssl=world.ours.server(world.server)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        address = f"localhost:{server.socket.getsockname()[1]}"
        to = upstream("ws", address, tls={"ca_file": str(world.ours.file)})
        config = document([listener("web", [route("ws", "ws")], tls=world.tls())], [to])
        with own(config) as proxy:
            sock = dial(proxy.port("web")).sock
            with connect("wss://localhost/", sock=sock, ssl=world.ours.client(), max_size=None) as client:
                for message in ("hello", b"x" * 2_000_000):
                    client.send(message)
                    assert client.recv(15) == message
        server.shutdown()
        thread.join(15)


def test_handshakes_count_towards_max_connections(server: ScriptedUpstream, world: World) -> None:
    web = listener("web", [route("all", "app")], max_connections=2, tls=world.tls(handshake_timeout="60s"))
    with own(document([web], [upstream("app", server.address)])) as proxy:
        with dial(proxy.port("web")) as first, dial(proxy.port("web")) as second:
            for one in (first, second):
                one.send(b"\x16")

            def paused() -> float:
                return proxy.metrics().sum("sidecar_accept_paused_total", listener="web", reason="max_connections")

            waiting = dial(proxy.port("web"))
            proxy.wait_until(lambda: paused() >= 1, "accepting paused")
            first.close()
            context = world.ours.client()
            with Wire(context.wrap_socket(waiting.sock, server_hostname="localhost")) as client:
                assert client.send(ask()).read_answer().status == 200


def test_a_connection_costs_little_once_a_large_answer_has_gone(
    proxy: Sidecar, server: ScriptedUpstream, world: World
) -> None:
    """OpenSSL's buffers in memory never shrink: what passes through them at once is bounded."""
    server.on("/quarter", says(b"q" * 262_144))
    context = world.ours.client()
    with contextlib.ExitStack() as stack:

        def come(count: int) -> None:
            for _ in range(count):
                client = stack.enter_context(secure(proxy, "web", context))
                assert len(client.send(ask("/quarter")).read_answer().body) == 262_144

        come(20)
        before = proxy.rss()
        come(100)
        assert proxy.rss() - before < 100 * 120_000


@contextlib.contextmanager
def own(config: dict[str, Any], **options: Any) -> Iterator[Sidecar]:
    with Sidecar(config, **options) as running:
        yield running


def test_a_stop_lets_whoever_is_inside_finish(server: ScriptedUpstream, world: World) -> None:
    web = listener("web", [route("all", "app")], tls=world.tls(handshake_timeout="2s"))
    with own(document([web], [upstream("app", server.address)])) as proxy:
        with secure(proxy, "web", world.ours.client()) as client, dial(proxy.port("web")) as dawdler:
            dawdler.send(b"\x16")
            client.send(b"POST /last HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nab")
            proxy.wait_until(lambda: proxy.metrics().sum("sidecar_inflight_requests") == 1, "the request under way")
            proxy.signal(15)
            proxy.wait_log("phase_changed.*stopping")
            client.send(b"cd")
            answer = client.read_answer()
            assert answer.json()["length"] == 4
            assert not answer.keeps
            assert dawdler.discard_rest()[0] == 0
        assert proxy.wait_exit() == 0
