"""Upstreams that are called by TLS, by the program itself: who is trusted, who is not and why, what is shown."""

import contextlib
import datetime as dt
import re
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.grpc_health import GrpcHealth
from tests.fakes.trust import Authority, Pair, put
from tests.fakes.upstream import ScriptedUpstream, answer
from tests.fakes.wire import Message, Truncated, Wire
from tests.real.documents import both_codecs, document, listener, route, upstream
from tests.real.harness import Sidecar, ask

BANK = "spiffe://shop.test/ns/pay/sa/bank"


class World:
    def __init__(self, directory: Path) -> None:
        self.ours = Authority(directory)
        self.theirs = Authority(directory, "other-ca")
        self.bank = self.ours.issue("bank", "bank.test", "localhost", "127.0.0.1")
        self.spiffe = self.ours.vouch("spiffe", BANK)
        self.teller = self.ours.vouch("teller", "spiffe://shop.test/teller", common_name="teller")
        self.stranger = self.theirs.issue("stranger", "bank.test", "127.0.0.1")
        yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
        self.old = self.ours.issue("old", "127.0.0.1", not_before=yesterday - dt.timedelta(days=9), not_after=yesterday)

    def tls(self, **more: Any) -> dict[str, Any]:
        return {"ca_file": str(self.ours.file), **more}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("trust"))


@contextlib.contextmanager
def served(context: ssl.SSLContext) -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(context=context) as running:
        yield running


def tree(address: str, tls: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return both_codecs([route("all", "bank", timeout="10s")], [upstream("bank", address, tls=tls, **keys)])


# ------------------------------------------------------------------------------------------------ who is called


def test_a_big_upload_that_is_refused_is_answered(world: World, codec: str) -> None:
    """The upstream closes with the upload unread, so its kernel resets; the client gets its answer all the same."""
    no = answer(b"no", "413 Content Too Large", [("connection", "close")])
    with served(world.ours.server(world.bank)) as bank, Sidecar(tree(bank.address, world.tls())) as proxy:
        bank.otherwise(lambda peer, _: peer.send(no).close())
        for _ in range(3):
            with proxy.client(codec) as client:
                client.send(ask("/lost", "content-length: 3000000\r\n", "POST"))
                with contextlib.suppress(OSError):
                    client.send(bytes(3_000_000))
                assert client.read_answer().body == b"no"


def test_requests_go_by_tls_over_connections_that_are_kept(world: World, codec: str) -> None:
    asked: list[str | None] = []
    context = world.ours.server(world.bank, minimum_version=ssl.TLSVersion.TLSv1_3)
    context.sni_callback = lambda _, name, __: asked.append(name)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with served(context) as server, Sidecar(tree(server.address, world.tls(server_name="bank.test"))) as proxy:
        for size in (0, 5, 300_000):
            answer = proxy.get(codec, "/kept", method="POST", body=b"x" * size)
            assert (answer.status, answer.json()["length"]) == (200, size)
        assert server.connections == 1
        assert asked == ["bank.test"]
        assert proxy.metrics().sum("sidecar_upstream_connects_total", upstream="bank", result="ok") == 1


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_without_a_server_name_the_host_is_verified(world: World, host: str) -> None:
    with served(world.ours.server(world.bank)) as server:
        with Sidecar(tree(f"{host}:{server.port}", world.tls())) as proxy:
            assert proxy.get("fast").status == 200


def test_a_spiffe_id_may_be_verified_instead(world: World) -> None:
    with served(world.ours.server(world.spiffe)) as server:
        with Sidecar(tree(server.address, world.tls(allowed_servers=[BANK]))) as proxy:
            assert proxy.get("fast").status == 200


WRONG: dict[str, tuple[str | None, dict[str, Any], str, str]] = {
    "stranger": ("stranger", {"server_name": "bank.test"}, "not_trusted", "unable to get local issuer certificate"),
    "old": ("old", {}, "expired", "certificate has expired"),
    "misnamed": ("bank", {"server_name": "else.test"}, "name_mismatch", "Hostname mismatch"),
    "nameless": ("spiffe", {}, "name_mismatch", "IP address mismatch"),
    "unlisted": ("spiffe", {"allowed_servers": ["spiffe://shop.test/else"]}, "not_allowed", BANK),
    "plain": (None, {}, "handshake", "wrong version number"),
    "outdated": ("bank", {}, "refused", "alert protocol version"),
}
"""name -> what it shows, how it is called, and what the log says of it."""


@pytest.fixture(scope="module")
def servers(world: World) -> Iterator[dict[str, ScriptedUpstream]]:
    with contextlib.ExitStack() as stack:
        running = {}
        for name, (pair, *_) in WRONG.items():
            context = None if pair is None else world.ours.server(getattr(world, pair))
            if name == "outdated" and context is not None:
                context.set_ciphers("ALL:@SECLEVEL=0")
                with warnings.catch_warnings(action="ignore"):
                    context.minimum_version = ssl.TLSVersion.TLSv1
                    context.maximum_version = ssl.TLSVersion.TLSv1_1
            running[name] = server = stack.enter_context(ScriptedUpstream(context=context))
            if pair is None:
                server.on_connect(lambda wire: wire.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
        yield running
        for server in running.values():
            server.faults.clear()  # one was spoken to in TLS that does not speak it


@pytest.fixture(scope="module")
def config(world: World, servers: dict[str, ScriptedUpstream]) -> dict[str, Any]:
    """A listener for each of those that are wrong."""
    to = [upstream(name, servers[name].address, tls=world.tls(**tls)) for name, (_, tls, *_) in WRONG.items()]
    return document([listener(name, [route("all", name)]) for name in WRONG], to)


@pytest.mark.parametrize("name", WRONG)
def test_who_is_not_the_right_one_gets_nothing_and_the_log_says_why(
    proxy: Sidecar, servers: dict[str, ScriptedUpstream], name: str
) -> None:
    _, _, reason, detail = WRONG[name]
    answer = proxy.get(name, "/secret")
    assert (answer.status, answer.decision) == (502, "connect_failure")
    line = proxy.wait_log(rf'"upstream_tls_failed", "upstream": "{name}".*')[0]
    assert f'"reason": "{reason}"' in line
    assert detail in line
    assert proxy.metrics().sum("sidecar_upstream_connects_total", upstream=name, result="tls") == 1
    assert servers[name].seen == []


def test_verification_can_be_switched_off(world: World) -> None:
    with served(world.theirs.server(world.stranger)) as server:
        with Sidecar(tree(server.address, {"verify": False})) as proxy:
            assert proxy.get("fast").status == 200


# ----------------------------------------------------------------------------------------------- what is shown


def test_a_client_certificate_is_shown_and_renewed(world: World, tmp_path: Path) -> None:
    mine = Pair(tmp_path / "mine.pem", tmp_path / "mine.key")
    put(mine, world.teller.cert.read_bytes(), world.teller.key.read_bytes())
    shown: list[Any] = []
    with served(world.ours.server(world.bank, asks=True)) as server:
        server.on_connect(lambda wire: shown.append(wire.sock.getpeercert()["subjectAltName"]))  # type: ignore[attr-defined]
        config = tree(server.address, world.tls(**mine.keys()))
        with Sidecar(config) as proxy:
            assert proxy.get("fast").status == 200
            next_one = world.ours.vouch("next", "spiffe://shop.test/next")
            put(mine, next_one.cert.read_bytes(), next_one.key.read_bytes())
            proxy.wait_log(r'"certificate_loaded".*upstream/bank')
            assert proxy.get("fast").status == 200  # on the connection that is open
            server.close_idle()
            proxy.wait_until(lambda: server.open_now == 0, "closed")
            assert proxy.get("fast").status == 200
        assert shown == [(("URI", "spiffe://shop.test/teller"),), (("URI", "spiffe://shop.test/next"),)]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_server_that_wants_a_certificate_refuses_who_has_none(world: World, version: ssl.TLSVersion) -> None:
    with served(world.ours.server(world.bank, asks=True, maximum_version=version)) as server:
        with Sidecar(tree(server.address, world.tls())) as proxy:

            def told() -> bool:  # a reset that follows the server's word may overtake it
                answer = proxy.get("fast", method="POST")
                assert answer.status == 502
                assert answer.decision in {"connect_failure", "reset"}
                return re.search(r'"upstream_tls_(failed|broken)".*"reason": "refused"', proxy.log) is not None

            proxy.wait_until(told, "the reason in the log")


def test_no_connection_outlives_what_it_was_opened_by(world: World) -> None:
    context = world.ours.server(world.bank)
    with served(context) as server:
        server.context = None
        config = tree(server.address, {})
        section = config["upstreams"][0].pop("tls")
        with Sidecar(config) as proxy:
            assert proxy.get("fast").status == 200
            server.context = context
            config["upstreams"][0]["tls"] = {**section, **world.tls()}
            proxy.write(config)
            proxy.command("reload")
            assert proxy.get("fast").status == 200
            assert server.connections == 2
            proxy.wait_until(lambda: server.open_now == 1, "the plain connection closed")
            proxy.write(config | {"upstreams": [{**config["upstreams"][0], "tls": {"ca_file": "/nowhere/ca"}}]})
            assert "upstream/bank: tls.ca_file: /nowhere/ca is not there" in proxy.command("reload", check=False).stderr


def test_two_sidecars_know_each_other_and_nobody_else(world: World) -> None:
    """The how-to's pair: plain to our own sidecar, mutual TLS to theirs, and the service hears who called."""
    bank, teller = world.spiffe, world.teller
    with ScriptedUpstream() as service:
        inbound = listener(
            "inbound",
            [route("all", "app")],
            tls={
                **bank.keys(),
                "client_ca_file": str(world.ours.file),
                "allowed_clients": ["spiffe://shop.test/teller"],
                "forward_client_cert": True,
            },
        )
        with Sidecar(document([inbound], [upstream("app", service.address)])) as callee:
            address = f"127.0.0.1:{callee.port('inbound')}"
            listed = upstream("listed", address, tls=world.tls(**teller.keys(), allowed_servers=[BANK]))
            stranger = upstream("stranger", address, tls=world.tls(**world.bank.keys(), allowed_servers=[BANK]))
            outbound = [listener(name, [route("all", name)]) for name in ("listed", "stranger")]
            with Sidecar(document(outbound, [listed, stranger])) as caller:
                assert caller.get("listed", "/pay").status == 200
                assert caller.get("stranger", "/steal").status == 502
                callee.wait_log(r"tls_client_refused.*bank\.test")
        assert [one.target for one in service.seen] == ["/pay"]
        assert "URI=spiffe://shop.test/teller" in (service.seen[0].get("x-forwarded-client-cert") or "")
        assert service.seen[0].get("x-forwarded-proto") == "http"


# --------------------------------------------------------------------------------------------------- the bytes


def test_an_answer_that_ends_with_its_connection_ends_by_goodbye_only(world: World, codec: str) -> None:
    def until_close(wire: Wire, _: Message) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\n\r\nwhole")
        assert isinstance(wire.sock, ssl.SSLSocket)
        wire.sock.unwrap().close()

    def cut(wire: Wire, _: Message) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        socket.socket(fileno=wire.sock.detach()).close()

    with served(world.ours.server(world.bank)) as server, Sidecar(tree(server.address, world.tls())) as proxy:
        server.on("/whole", until_close).on("/cut", cut)
        assert proxy.get(codec, "/whole").body == b"whole"
        with pytest.raises((Truncated, ConnectionError)):
            proxy.get(codec, "/cut")


def test_large_bodies_both_ways(world: World) -> None:
    size = 8 << 20

    def gives(wire: Wire, request: Message) -> None:
        left = int(request.get("content-length") or 0) - len(wire.held)
        wire.held = b""
        while left:
            assert wire.fill()
            left, wire.held = left - len(wire.held), b""
        wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(size >> 16):
            wire.send(b"k" * (1 << 16))

    with served(world.ours.server(world.bank)) as server, Sidecar(tree(server.address, world.tls())) as proxy:
        server.on("/large", gives)
        before = proxy.rss()
        with proxy.client("fast") as client:
            sender = threading.Thread(target=client.send, args=(ask("/large", method="PUT", body=b"p" * size),))
            sender.start()
            answer = client.read_answer()
            sender.join()
        assert len(answer.body) == size
        assert proxy.rss() - before < 24 << 20


def test_a_tcp_listener_speaks_tls_to_its_upstream(world: World) -> None:
    context = world.ours.server(world.bank)
    context.set_alpn_protocols(["h2"])
    chosen: list[str | None] = []
    with served(context) as server:
        server.on_connect(lambda wire: chosen.append(wire.sock.selected_alpn_protocol()))  # type: ignore[attr-defined]
        to_bank = upstream("bank", server.address, tls=world.tls(alpn=["h2"]))
        stream = listener("stream", [{"name": "all", "upstream": "bank"}], protocol="tcp")
        with Sidecar(document([stream], [to_bank])) as proxy:
            answer = proxy.get("stream", method="POST", body=b"x" * 100_000)
            assert answer.json()["length"] == 100_000
    assert chosen == ["h2"]


# --------------------------------------------------------------------------------------------------- the checks


@pytest.mark.parametrize("kind", ["http", "tcp", "grpc"])
def test_health_checks_speak_tls_as_requests_do(world: World, kind: str) -> None:
    quick = {"interval": "1s", "timeout": "1s", "unhealthy_after": 1, "healthy_after": 1}
    context = world.ours.server(world.spiffe)
    context.set_alpn_protocols(["h2"] if kind == "grpc" else ["http/1.1"])
    serving: Any = GrpcHealth(context) if kind == "grpc" else ScriptedUpstream(context=context)
    with serving as server:
        address = f"127.0.0.1:{server.port}"
        to = [
            upstream("good", address, tls=world.tls(allowed_servers=[BANK]), health_check={kind: {}, **quick}),
            upstream("bad", address, tls=world.tls(), health_check={kind: {}, **quick}),
            upstream("plain", address, tls=world.tls(), health_check={kind: {}, "tls": False, **quick}),
        ]
        names = ("good", "bad", "plain")
        config = document([listener(name, [route("all", name)]) for name in names], to)
        with Sidecar(config) as proxy:

            def states() -> dict[str, str]:
                return {one["upstream"]: one["state"] for one in proxy.admin("/api/v1/health").json()}

            proxy.wait_until(lambda: "unknown" not in states().values(), "every check answered")
            expected = {"good": "healthy", "bad": "unhealthy", "plain": "healthy" if kind == "tcp" else "unhealthy"}
            proxy.wait_until(lambda: states() == expected, f"{expected}")
            found = next(one for one in proxy.admin("/api/v1/health").json() if one["upstream"] == "bad")
            assert "IP address mismatch" in found["detail"]
