"""A new process takes over from the running one: nobody notices, and whatever goes wrong, somebody serves."""

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

from sidecar.control.handover import (
    PROTOCOL,
    Goodbye,
    Hello,
    Line,
    More,
    Offer,
    Ready,
    Refusal,
    Serving,
    Standing,
    Yours,
    knock,
)
from tests.fakes.trust import Authority
from tests.fakes.upstream import ScriptedUpstream
from tests.real.agent import Agent, Estate
from tests.real.databases import Redis
from tests.real.documents import document, free_port, listener, route, upstream
from tests.real.harness import ROOT, Sidecar, ask, dial, run_cli
from tests.real.load import Load
from tests.real.secure import secure

HARD = signal.SIGKILL


@pytest.fixture
def config(server: ScriptedUpstream) -> dict[str, Any]:
    return tree(server)


def tree(server: ScriptedUpstream, **root: Any) -> dict[str, Any]:
    pay = upstream("pay", server.address, breaker={"consecutive_failures": 2, "open_for": "90s"})
    routes = [route("pay", "pay", "/pay"), route("all", "app")]
    return document([listener("in", routes)], [upstream("app", server.address), pay], **root)


def shared(config: dict[str, Any], redis: Redis) -> dict[str, Any]:
    return {**config, "shared_state": {"redis": {"url": f"redis://{redis.address}/0"}, "namespace": "shop"}}


def slow(config: dict[str, Any], silent: int) -> dict[str, Any]:
    """Starts slowly: it waits two seconds for a name server that says nothing."""
    named = upstream("named", discovery={"dns": "a.test:80", "server": f"127.0.0.1:{silent}"})
    return {**config, "upstreams": [*config["upstreams"], named]}


@pytest.fixture
def silent() -> Iterator[int]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield int(sock.getsockname()[1])


class Succession:
    """A proxy and those that come after it; whoever is left at the end is stopped, and must end well."""

    def __init__(self, config: dict[str, Any], exit_code: int = 0) -> None:
        self.first = Sidecar(config, exit_code=exit_code)
        self.port = self.first.port("in")

    def __enter__(self) -> "Succession":
        return self

    def __exit__(self, *error: object) -> None:
        serving = self.serving()
        if serving not in {0, self.first.pid}:
            os.kill(serving, signal.SIGTERM)
            assert ended(serving), f"{serving} does not end:\n{self.first.log}"
            assert not os.path.exists(self.first.socket_path)
        if error[0] is None:
            self.first.stop()
        else:
            self.first._kill()

    def serving(self) -> int:
        """The process behind the admin socket; 0: none."""
        try:
            return int(self.first.admin("/api/v1/status", unix=True).json()["pid"])
        except OSError:
            return 0

    def upgrade(self, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = self.first.command("upgrade", check=check)
        self.first.succeeded |= done.returncode == 0
        return done

    def by_hand(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a successor as an operator would."""
        with self.first.log_path.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "sidecar", "run", "-c", str(self.first.file), "--take-over", *words],
                cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": "1"}, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def answers(self, target: str = "/") -> Any:
        with dial(self.port) as wire:
            return wire.send(ask(target)).read_answer()


def ended(pid: int) -> bool:
    """Whether the process ends while we have patience."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with open(descriptor, "rb", closefd=True):
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(20_000))


# ------------------------------------------------------------------------------------------------- nothing is lost
@pytest.mark.parametrize("workers", [1, 2])
def test_no_request_is_lost_and_breakers_go_along(server: ScriptedUpstream, workers: int) -> None:
    with Succession(tree(server, workers=workers)) as all_of_them:
        first = all_of_them.first
        first.command("breaker", "open", "pay", "--for", "10m", "--why", "their deploy")
        with Load(all_of_them.port, 4) as kept, Load(all_of_them.port, 2, fresh=True) as fresh:
            kept.go_on_for(50)
            said = all_of_them.upgrade().stdout
            kept.go_on_for(100)
            fresh.go_on_for(50)
            assert first.process.wait(20) == 0
            kept.go_on_for(100)
        assert kept.failures == []
        assert fresh.failures == []
        assert kept.closed > 0  # who was with the old one was asked to come again
        serving = all_of_them.serving()
        assert serving != first.pid
        assert str(serving) in said
        assert len(first.status()["worker_pids"]) == (2 if workers == 2 else 0)
        (pay,) = [one for one in first.status()["breakers"] if one["name"] == "pay"]
        assert (pay["machine"], pay["ordered_why"]) == ("forced_open", "their deploy")
        assert 0 < pay["remaining_seconds"] <= 600
        assert all_of_them.answers("/pay").decision == "manual_open"
        taken = first.wait_log(r'"event": "taken_over".*').group()
        assert json.loads("{" + taken)["breakers"] == ["pay"]


def test_an_open_breaker_keeps_its_remaining_time_and_its_incident(config: dict[str, Any], tmp_path: Path) -> None:
    config["incidents"] = {"store": str(tmp_path / "incidents.db")}
    with ScriptedUpstream() as dying, Succession(config) as all_of_them:
        dying.refuse()
        config["upstreams"][1]["endpoints"] = [{"address": dying.address}]
        all_of_them.first.write(config)
        all_of_them.first.command("reload")
        for _ in range(3):
            refused = all_of_them.answers("/pay")
        assert refused.decision == "breaker_open"
        first = all_of_them.first
        first.wait_until(lambda: first.admin("/api/v1/incidents").json(), "an incident")
        (before,) = first.admin("/api/v1/incidents").json()
        all_of_them.upgrade()
        again = all_of_them.answers("/pay")
        assert again.decision == "breaker_open"
        first.wait_until(lambda: first.admin("/api/v1/incidents").json(), "the incident")
        (after,) = first.admin("/api/v1/incidents").json()
        assert (after["id"], after["status"]) == (before["id"], before["status"])

        def seen() -> bool:
            told = first.admin(f"/api/v1/incidents/{after['id']}").json()["timeline"]
            return any("taken_over" in str(line) for line in told if line["kind"] == "breaker_changed")

        first.wait_until(seen, "the new process sees it open, too")
        assert 1 <= int(again.get("retry-after")) <= int(refused.get("retry-after")) <= 90


def test_what_runs_ends_with_the_old_one(server: ScriptedUpstream, config: dict[str, Any], tmp_path: Path) -> None:
    """An answer that is under way, a kept connection that asks once more, a probe's too; and nothing else of it: it
    talks to Redis no more, looks for nobody there, and does not follow the file.
    """
    go_on = threading.Event()
    config["incidents"] = {"store": str(tmp_path / "incidents.db")}
    config["upstreams"].append(upstream("self", discovery={"registry": "tested", "refresh": "1s"}))

    def slowly(peer: Any, request: Any) -> None:
        go_on.wait(20)
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    server.on("/slow", slowly)
    with Redis() as redis:
        config = shared(config, redis)
        config["shared_state"]["registry"] = {"advertise": config["listeners"][0]["bind"]}
        with Succession(config) as all_of_them, dial(all_of_them.port) as wire:
            first = all_of_them.first
            first.wait_until(lambda: first.metrics().sum("sidecar_shared_state_connected"), "Redis")
            with dial(first.admin_port) as probe:
                probed = ask("/readyz", host="127.0.0.1")
                assert probe.send(probed).read_answer().status == 200
                wire.send(ask("/slow"))
                server.wait_until(lambda: server.requests("/slow"), "the request")
                talks = redis.clients()
                all_of_them.upgrade()
                assert all_of_them.answers().status == 200
                assert probe.send(probed).read_answer().status == 200
            first.signal(signal.SIGHUP)  # to the old one: a reload would begin anew what has just ended
            first.write({**config, "log": {"level": "debug"}})
            assert first.metrics().sum("sidecar_incident_store_ok") == 1
            first.wait_until(lambda: redis.clients() == talks, "only the new one talks to Redis")
            beats = first.metrics().sum("sidecar_registry_beats_total")
            first.wait_log('"event": "config_reloaded"')
            first.wait_until(  # by then the old one would have looked twice at the file, and more often for the others
                lambda: first.metrics().sum("sidecar_registry_beats_total") >= beats + 3, "beats of the new one"
            )
            assert first.log.count('"event": "config_reloaded"') == 1
            assert "discovery_failed" not in first.log
            assert first.process.poll() is None
            go_on.set()
            got = wire.read_answer()
            assert (got.status, got.body, got.keeps) == (200, b"ok", False)
            assert first.process.wait(20) == 0
            (own,) = [one for one in first.admin("/api/v1/registry").json() if one["kind"] == "self"]
            assert (own["told"], own["connected"]) == ("available", True)
            (found,) = [one for one in first.admin("/api/v1/registry").json() if one.get("upstream") == "self"]
            assert [one["state"] for one in found["instances"]] == ["available"]


def test_listeners_may_come_and_go(server: ScriptedUpstream, config: dict[str, Any]) -> None:
    """A reload cannot change a listener's address; an upgrade can. A Unix socket goes along, too."""
    path = str(Path(os.environ.get("TMPDIR", "/tmp")) / f"in-{free_port()}.sock")
    leaving, coming = listener("leaving", [route("all", "app")]), listener("coming", [route("all", "app")])
    local = {**listener("local", [route("all", "app")]), "bind": f"unix:{path}"}
    config["listeners"] += [leaving, local]
    with Succession(config) as all_of_them:
        first = all_of_them.first
        assert first.get("leaving").status == 200
        first.write({**config, "listeners": [config["listeners"][0], local, coming]})
        first.command("reload")  # which the file's watch might have done meanwhile
        all_of_them.upgrade()
        first.process.wait(20)
        first.config = {**config, "listeners": [*config["listeners"], coming]}
        assert first.get("coming").status == 200
        with pytest.raises(ConnectionRefusedError):
            first.get("leaving")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
    assert not os.path.exists(path)


def test_a_handshake_ends_with_the_one_that_began_it(server: ScriptedUpstream, tmp_path: Path) -> None:
    """TLS: who is half in is served by the old process, who knocks meanwhile by the new one."""
    authority = Authority(tmp_path)
    config = tree(server)
    config["listeners"][0]["tls"] = authority.issue("server", "localhost").keys()
    with Succession(config) as all_of_them:
        with dial(all_of_them.port) as half_in, secure(all_of_them.first, "in", authority.client()) as inside:
            into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = authority.client().wrap_bio(into, out, server_hostname="localhost")
            with contextlib.suppress(ssl.SSLWantReadError):
                client.do_handshake()
            hello = out.read()
            half_in.send(hello[:50])
            assert inside.send(ask()).read_answer().status == 200
            all_of_them.upgrade()
            half_in.send(hello[50:])
            with contextlib.suppress(ssl.SSLWantReadError):
                client.do_handshake()
            while client.version() is None or out.pending == 0:
                into.write(half_in.sock.recv(65536))
                with contextlib.suppress(ssl.SSLWantReadError):
                    client.do_handshake()
            client.write(ask(fields="connection: close\r\n"))
            half_in.send(out.read())
            while b"HTTP/1.1 200 OK" not in half_in.held:
                into.write(half_in.sock.recv(65536))
                with contextlib.suppress(ssl.SSLWantReadError):
                    half_in.held += client.read(65536)
        with secure(all_of_them.first, "in", authority.client()) as new:
            assert new.send(ask()).read_answer().status == 200


def test_the_admin_interface_may_move(config: dict[str, Any]) -> None:
    """To another port and another socket: the old ones are left to nobody."""
    with Succession(config) as all_of_them:
        first = all_of_them.first
        port, path = first.admin_port, first.socket_path
        first.admin_port, first.socket_path = free_port(), f"{first.directory}/moved.sock"
        first.write(config)
        assert run_cli("upgrade", "--socket", path).returncode == 0
        assert first.process.wait(20) == 0
        assert first.probe("/readyz") == 200
        assert all_of_them.serving() != first.pid
        assert not os.path.exists(path)
        with pytest.raises(ConnectionRefusedError):
            dial(port)


def test_health_goes_along(server: ScriptedUpstream, config: dict[str, Any]) -> None:
    """An endpoint that is known to be dead gets no request while its first check is still to come."""
    check = {"http": {"path": "/healthz"}, "interval": "30s", "unhealthy_after": 1}
    dead = f"127.0.0.1:{free_port()}"
    endpoints = [{"address": server.address}, {"address": dead}]
    config["upstreams"][0] = upstream("app", health_check=check, endpoints=endpoints, balance="round_robin")
    with Succession(config) as all_of_them:
        first = all_of_them.first

        def seen_dead() -> bool:
            return first.metrics().sum("sidecar_upstream_healthy", endpoint=dead) == 0

        first.wait_until(seen_dead, "the dead endpoint is known")
        all_of_them.upgrade()
        assert {all_of_them.answers().status for _ in range(6)} == {200}
        assert first.metrics().sum("sidecar_retries_total") == 0


def test_the_service_manager_is_told(tmp_path: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    manager.settimeout(20)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    with contextlib.closing(manager), Succession(config) as all_of_them:
        all_of_them.upgrade()
        said: list[str] = []
        while said.count("READY=1") < 2 or "WATCHDOG=1" not in said[-2:]:
            said += manager.recv(4096).decode().splitlines()
        told = said.index(f"MAINPID={all_of_them.serving()}")
        assert "READY=1" in said[:told]  # the first one's
        assert "READY=1" in said[told:]  # the successor's, which systemd hears only after it was told
        assert "STOPPING=1" not in said


class Kubelet(threading.Thread):
    """Asks for readiness again and again, each time on a connection of its own."""

    def __init__(self, *ports: int) -> None:
        super().__init__(daemon=True)
        self._ports = ports
        self._enough = threading.Event()
        self.answers: Counter[str] = Counter()

    def run(self) -> None:
        while not self._enough.wait(0.002):
            for port in self._ports:
                try:
                    with dial(port) as wire:
                        answer = wire.send(ask("/readyz", "connection: close\r\n", host="127.0.0.1")).read_answer()
                    self.answers[str(answer.status)] += 1
                except (OSError, EOFError) as error:
                    self.answers[repr(error)] += 1

    def stop(self) -> None:
        self._enough.set()
        self.join()


def test_probes_do_not_notice(config: dict[str, Any]) -> None:
    probes = free_port()
    config["admin"] = {"probes": {"bind": f"127.0.0.1:{probes}"}}
    with Succession(config) as all_of_them:
        kubelet = Kubelet(all_of_them.first.admin_port, probes)
        kubelet.start()
        for _ in range(2):
            all_of_them.upgrade()
        assert all_of_them.first.process.wait(20) == 0
        kubelet.stop()
        assert set(kubelet.answers) == {"200"}


def test_a_shared_breaker_stays_with_its_fleet(config: dict[str, Any]) -> None:
    """The successor is the same replica to the others: the fleet has not grown, and its word still counts here."""
    with Redis() as redis:
        alone = upstream("alone", f"127.0.0.1:{free_port()}", breaker={"consecutive_failures": 1, "quorum": 2})
        config["upstreams"].append(alone)
        config["listeners"][0]["routes"].insert(0, route("alone", "alone", "/alone"))
        with Succession(shared(config, redis)) as all_of_them:
            first = all_of_them.first

            def pay() -> Any:
                return next(one for one in first.status()["breakers"] if one["name"] == "pay")

            first.wait_until(lambda: first.metrics().sum("sidecar_shared_state_connected"), "Redis")
            assert [all_of_them.answers("/alone").status for _ in range(2)] == [502, 503]
            first.command("breaker", "open", "pay", "--fleet", "--for", "10m")
            first.wait_until(lambda: pay()["fleet"]["state"] == "forced_open", "the fleet's word")
            before = pay()
            all_of_them.upgrade()
            first.wait_until(lambda: pay()["fleet"]["heard_seconds_ago"] is not None, "news of the fleet")
            after = pay()
            assert (after["machine"], after["fleet"]["epoch"]) == ("forced_open", before["fleet"]["epoch"])
            assert all_of_them.answers("/pay").decision == "manual_open"
            assert all_of_them.answers("/alone").decision == "breaker_open"  # which we know and the others do not
            assert after["fleet"]["replicas"] == 1
            assert after["remaining_seconds"] <= before["remaining_seconds"]
            first.command("breaker", "reset", "pay", "--fleet")
            first.wait_until(
                lambda: all_of_them.answers("/pay").status == 200, "the fleet's order is the fleet's still"
            )
            with redis_py.Redis(port=redis.port) as client:
                client.flushall()

            def votes() -> Any:
                fleet = next(one["fleet"] for one in first.status()["breakers"] if one["name"] == "alone")
                return [one["replica"] for one in fleet.get("votes", ())]

            first.wait_until(lambda: votes() == [first.status()["shared"]["me"]], "the vote of before, told anew")


def test_the_fleets_word_counts_where_the_old_one_had_not_heard_it(config: dict[str, Any]) -> None:
    """As when the upgrade is what brings shared_state: the old one thought that the breaker was closed."""
    with Redis() as redis:
        told = shared(config, redis)
        told["upstreams"] = [*told["upstreams"], upstream("others", discovery={"registry": "tested"})]
        with Sidecar(told) as other:
            other.wait_until(lambda: other.metrics().sum("sidecar_shared_state_connected"), "Redis")
            other.command("breaker", "open", "pay", "--fleet")
        with Succession(config) as all_of_them:
            assert all_of_them.answers("/pay").status == 200
            all_of_them.first.write(told)
            all_of_them.upgrade()  # it waits for the registry's first answer, so it has heard the fleet's word as well
            assert all_of_them.answers("/pay").decision == "manual_open"


def test_an_order_of_the_fleet_goes_along_to_another_redis(config: dict[str, Any]) -> None:
    """The upgrade is what moves the shared state: the order counts there, too, and is taken back there."""
    with Redis() as before, Redis() as after, Succession(shared(config, before)) as all_of_them:
        first = all_of_them.first
        fleet = lambda: next(one["fleet"] for one in first.status()["breakers"] if one["name"] == "pay")
        first.wait_until(lambda: first.metrics().sum("sidecar_shared_state_connected"), "Redis")
        first.command("breaker", "open", "pay", "--fleet", "--why", "their deploy")
        first.write(shared(config, after))
        all_of_them.upgrade()
        with redis_py.Redis(port=after.port) as client:
            there = lambda: b"".join(client.get(key) or b"" for key in client.keys("*breaker:pay"))
            first.wait_until(lambda: b"forced_open" in there(), "the order there")
        assert all_of_them.answers("/pay").decision == "manual_open"
        assert (fleet()["state"], fleet()["detail"]) == ("forced_open", "their deploy")
        first.command("breaker", "reset", "pay", "--fleet")
        first.wait_until(lambda: all_of_them.answers("/pay").status == 200, "the order is taken back")


def test_the_agent_beside_reports_to_the_new_one(config: dict[str, Any], tmp_path: Path) -> None:
    estate = Estate(tmp_path)
    config["backup"] = estate.section()
    with Succession(config) as all_of_them:
        first, estate.file = all_of_them.first, all_of_them.first.file
        with Agent(estate) as agent:
            agent.wait_log('"backup_finished".*"verified": true')
            all_of_them.upgrade()
            assert first.process.wait(20) == 0
            agent.wait_until(lambda: (first.status()["backups"] or {}).get("reachable"), "the agent's answer")
            estate.uploads.rename(tmp_path / "aside")
            assert agent.command("/api/v1/backups/run") == 200
            agent.wait_until(lambda: b"backup_failed" in first.admin("/api/v1/incidents").body, "an incident")


# ------------------------------------------------------------------------------------------------- what goes wrong
def untouched(all_of_them: Succession) -> None:
    """The first one serves as if nothing had been."""
    assert all_of_them.serving() == all_of_them.first.pid
    assert all_of_them.first.probe("/readyz") == 200
    with dial(all_of_them.port) as wire:
        for _ in range(3):
            got = wire.send(ask("/")).read_answer()
            assert (got.status, got.keeps) == (200, True)


def test_a_bad_file(config: dict[str, Any]) -> None:
    with Succession(config) as all_of_them:
        all_of_them.first.write_text("version: 1\nlisteners: 7\n")
        done = run_cli("upgrade", "--socket", all_of_them.first.socket_path)
        assert done.returncode == 78
        assert "listeners" in done.stderr
        untouched(all_of_them)


def test_a_successor_that_cannot_start(config: dict[str, Any]) -> None:
    with Succession(config) as all_of_them, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        extra = {**listener("more", [route("all", "app")]), "bind": f"127.0.0.1:{taken.getsockname()[1]}"}
        all_of_them.first.write({**config, "listeners": [*config["listeners"], extra]})
        done = all_of_them.upgrade(check=False)
        assert done.returncode == 1
        assert "listener more" in done.stderr
        assert "goes on as before" in done.stderr
        untouched(all_of_them)
        all_of_them.first.write(config)
        all_of_them.upgrade()


def test_a_supervised_service_is_not_handed_over(config: dict[str, Any]) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with Sidecar(config, command=command) as proxy:
        done = proxy.command("upgrade", check=False)
        assert (done.returncode, "parent of its service" in done.stderr) == (1, True)
        assert proxy.probe("/readyz") == 200
    done = run_cli("run", "-c", str(proxy.file), "--take-over", "--", "true")
    assert (done.returncode, "cannot change its parent" in done.stderr) == (2, True)


def test_one_that_drains_is_not_taken_over(config: dict[str, Any]) -> None:
    with Succession(config) as all_of_them:
        all_of_them.first.command("drain")
        late = all_of_them.by_hand()
        assert late.wait(20) == 1
        assert "is draining" in all_of_them.first.log
        assert all_of_them.answers().status == 200


def test_nobody_to_take_over_from(config: dict[str, Any]) -> None:
    with Succession(config) as all_of_them:
        first = all_of_them.first
        first.signal(signal.SIGTERM)
        assert first.process.wait(20) == 0
        alone = all_of_them.by_hand()
        while first.probe("/readyz") != 200:
            assert alone.poll() is None, first.log
        assert all_of_them.answers().status == 200
        assert '"event": "nothing_to_take_over"' in first.log


def test_sockets_go_over_the_unix_socket_alone(config: dict[str, Any], tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    with Sidecar({**config, "admin": {"token_file": str(token)}}) as proxy:
        fields = "authorization: Bearer secret\r\nupgrade: sidecar-take-over\r\n"
        assert proxy.admin("/take-over", "POST", fields).status == 403
        assert proxy.admin("/take-over", "GET", fields).status == 405
        assert proxy.admin("/take-over", "POST", unix=True).status == 400
        assert proxy.admin("/upgrade", "POST").status == 401


@pytest.mark.parametrize("victim", ["old", "new"])
def test_killed_while_the_successor_starts(config: dict[str, Any], silent: int, victim: str) -> None:
    """The sockets live on in whoever lives on; who knocks meanwhile waits in their queue."""
    with Succession(slow(config, silent), exit_code=-HARD if victim == "old" else 0) as all_of_them:
        first = all_of_them.first
        new = all_of_them.by_hand()
        first.wait_until(lambda: first.log.count('"event": "admin_bound"') == 4, "the successor has the sockets")
        os.kill(first.pid if victim == "old" else new.pid, HARD)
        assert all_of_them.answers().status == 200
        if victim == "old":
            assert all_of_them.serving() == new.pid
            assert '"event": "predecessor_died"' in first.log
            new.send_signal(signal.SIGTERM)
        assert new.wait(20) == (0 if victim == "old" else -HARD)
        if victim == "new":
            untouched(all_of_them)
            first.wait_log('"event": "hand_over_failed"')


def test_stopped_while_the_successor_starts(config: dict[str, Any], silent: int) -> None:
    """Who says stop means all of it."""
    with Succession(slow(config, silent)) as all_of_them:
        first = all_of_them.first
        new = all_of_them.by_hand()
        first.wait_until(lambda: first.log.count('"event": "admin_bound"') == 4, "the successor has the sockets")
        first.signal(signal.SIGTERM)
        assert first.process.wait(20) == 0
        assert new.wait(20) == 1


async def lets_go_late(knocking: socket.socket, meanwhile: Callable[[], Any]) -> None:
    """Play the running one, which takes its time to end what only one may do."""
    assert b"/take-over" in await asyncio.get_running_loop().sock_recv(knocking, 4096)
    await asyncio.get_running_loop().sock_sendall(knocking, b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
    line = Line(knocking)
    assert isinstance(await line.receive(), Hello)
    await line.send(Offer("0", os.getpid(), [], Standing()))
    with open(os.pidfd_open(os.getpid()), "rb") as own:
        await line.send(More(), [own.fileno()])
    assert isinstance(await line.receive(None), Ready)
    await line.send(Yours(Standing()))
    assert isinstance(await line.receive(), Serving)
    await line.send(Goodbye())
    await asyncio.to_thread(meanwhile)
    line.close()


def test_stopped_before_the_old_one_has_let_go(config: dict[str, Any]) -> None:
    with Succession(config) as all_of_them:
        first = all_of_them.first
        first.signal(signal.SIGTERM)
        assert first.process.wait(20) == 0
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(first.socket_path)
            door.listen()
            new = all_of_them.by_hand()
            knocking, _ = door.accept()
            os.unlink(first.socket_path)

        def stop() -> None:
            new.send_signal(signal.SIGTERM)
            assert first.probe("/readyz") == 200  # it has heard the signal, and cannot obey yet

        knocking.setblocking(False)
        asyncio.run(lets_go_late(knocking, stop))
        assert new.wait(20) == 0


# --------------------------------------------------------------------------------- a successor that behaves badly
def as_successor(all_of_them: Succession, play: Callable[[Line], Any]) -> Any:
    """Run `play` on a line to the running one."""

    async def run() -> Any:
        line = await knock(all_of_them.first.socket_path)
        assert line is not None
        try:
            return await play(line)
        finally:
            line.close()

    return asyncio.run(run())


async def offered(line: Line, protocol: int = PROTOCOL) -> Any:
    """The answer to Hello, with the sockets that come with an Offer closed again."""
    await line.send(Hello(protocol, "0", os.getpid()))
    word = await line.receive()
    if isinstance(word, Offer):
        assert isinstance(await line.receive(), More)
        for one in line.take():
            os.close(one)
    return word


def test_some_that_fail_at_the_last_moment(config: dict[str, Any]) -> None:
    """They said Ready, so the running one accepts nobody; clients that come now are served when it takes that back."""

    async def despairs(line: Line) -> None:
        await offered(line)
        await line.send(Ready())
        await line.receive()
        await line.send(Refusal("out of heart"))
        await line.receive()

    async def vanishes(line: Line) -> None:
        await offered(line)
        await line.send(Ready())
        assert isinstance(await line.receive(), Yours)
        knocking = dial(all_of_them.port).send(ask("/"))
        line.close()
        assert (await asyncio.to_thread(knocking.read_answer)).status == 200
        knocking.close()

    with Succession(config) as all_of_them:
        as_successor(all_of_them, vanishes)
        untouched(all_of_them)
        as_successor(all_of_them, despairs)
        untouched(all_of_them)
        assert "out of heart" in all_of_them.first.log
        all_of_them.upgrade()


def test_some_that_do_not_speak_as_they_should(config: dict[str, Any]) -> None:
    """Out of turn; nonsense; of another time."""

    def says(word: Any, protocol: int = PROTOCOL) -> Callable[[Line], Any]:
        async def play(line: Line) -> Any:
            got = await offered(line, protocol)
            if not isinstance(got, Offer):
                return got
            await line.send(word)
            return await line.receive()

        return play

    with Succession(config) as all_of_them:
        for word in (Serving([]), Goodbye(), "nonsense"):
            assert isinstance(as_successor(all_of_them, says(word)), Refusal)
        assert "protocol" in as_successor(all_of_them, says(Ready(), PROTOCOL + 1)).reason
        untouched(all_of_them)


def test_two_at_once(config: dict[str, Any]) -> None:
    async def play(line: Line) -> Any:
        await offered(line)
        return await asyncio.to_thread(all_of_them.upgrade, check=False)

    with Succession(config) as all_of_them:
        done = as_successor(all_of_them, play)
        assert (done.returncode, "already" in done.stderr) == (1, True)
        untouched(all_of_them)
