"""What rules do, through the real program: traffic led elsewhere, and others asked for help who are no help at all.

One fault serves several tests: `trouble` takes a service down under a rule of each kind, and the tests look at what
each of them came to.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.kube_api import TOKEN, KubeApi
from tests.fakes.upstream import ScriptedUpstream, answer, never, says
from tests.fakes.wire import Message, Wire
from tests.real.documents import black_hole, document, free_port, listener, route, upstream
from tests.real.harness import Sidecar, ask
from tests.real.test_recovery import PATIENCE, QUICK, attempts, marked, restart, rule, wait_stage
from tests.real.test_supervised import MARK, SERVICE

HEALTH = {**QUICK, "http": {"path": "/health"}}
SICK = {"upstream": "app", "unhealthy_for": "100ms"}
GIGABYTE = 1 << 30


class Flippable:
    """A service whose health, and whose answers, the test decides."""

    def __init__(self, server: ScriptedUpstream) -> None:
        self.server = server
        self.fails: set[str] = set()
        for path in ("/health", "/doc"):
            server.on(path, self._answer)

    def _answer(self, peer: Wire, request: Message) -> None:
        peer.send(answer(b"doc", "503 Service Unavailable" if request.target in self.fails else "200 OK"))


def act(name: str, do: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A rule that does something once when `app` is sick."""
    return restart(**{"name": name, "when": SICK, "do": do, "attempts": 1, **changes})


def limit(name: str) -> str:
    """The time-out of what hangs is short, that of the others beyond any load of the machine."""
    return "1s" if name in {"hang", "silent"} else "20s"


def came_to(proxy: Sidecar, name: str, result: str) -> str:
    """What the record says that a rule's last attempt did, or why it failed, once that has ended so.

    `running`: it did what it could, and the proof is awaited.
    """
    word = "did" if result == "running" else "detail"

    def there() -> bool:
        return any(one["result"] == result and one[word] for one in rule(proxy, name)["record"])

    proxy.wait_until(there, f"{name} {result}", PATIENCE)
    return str(rule(proxy, name)["record"][-1][word])


def well(proxy: Sidecar) -> None:
    """Wait until the checks have found the service well: before that it is left alone, as one that starts."""

    def there() -> bool:
        return bool(proxy.status()["upstreams"][0]["endpoints"][0]["state"] == "healthy")

    proxy.wait_until(there, "a healthy service", PATIENCE)


# --------------------------------------------------------------------------------------------- led elsewhere
def test_what_leads_requests_elsewhere_lasts_until_the_sick_one_is_well() -> None:
    """A reroute, a drain and a shift, in every worker and in those that come later.

    `app` fails its checks. The others fail every second request, so only their share shows it: `drained` panics, so
    that its sick endpoint is asked whatever its check says; that of `shifted` passes its check.
    """
    failing = says(b"", "500 Internal Server Error")
    with contextlib.ExitStack() as stack:
        first, spare, sick, moody, well_ = (stack.enter_context(ScriptedUpstream()) for _ in range(5))
        app = Flippable(first)
        first.otherwise(says(b"first"))
        sick.otherwise(failing)
        moody.on("/health", says(b"")).otherwise(failing)
        spare.otherwise(says(b"elsewhere"))
        well_.on("/health", says(b"")).otherwise(says(b"elsewhere"))
        pool = {"health_check": HEALTH, "balance": "round_robin"}
        drained = upstream("drained", sick.address, well_.address, panic_threshold=1, **pool)
        shifted = upstream("shifted", moody.address, well_.address, **pool)
        shifted["endpoints"][1]["priority"] = 1
        ratios = [
            act(
                do,
                {do: name},
                when={
                    "error_ratio": {"upstream": name, "above": 0.3, "window": "3s", "minimum_requests": 5},
                    "unhealthy_for": "100ms",
                },
            )
            for do, name in (("drain", "drained"), ("shift", "shifted"))
        ]
        tree = document(
            [
                listener(
                    "in", [route("one", "drained", "/drain"), route("two", "shifted", "/shift"), route("all", "app")]
                )
            ],
            [upstream("app", first.address, health_check=HEALTH), upstream("spare", spare.address), drained, shifted],
            recovery=[act("lead", {"reroute": {"upstream": "app", "to": "spare"}}), *ratios],
            workers=2,
        )
        proxy = stack.enter_context(Sidecar(tree))
        places = {"lead": "/", "drain": "/drain", "shift": "/shift"}

        def answers(path: str, times: int = 8) -> set[bytes]:
            return {proxy.get("in", path).body for _ in range(times)}  # several clients: every worker

        def all_in_force() -> bool:
            return all([answers(path, 2) and rule(proxy, name)["in_force"] for name, path in places.items()])

        assert answers("/") == {b"first"}
        app.fails.add("/health")
        proxy.wait_until(all_in_force, "all three", PATIENCE)
        assert [answers(path) for path in places.values()] == [{b"elsewhere"}] * 3
        assert sick.address in came_to(proxy, "drain", "running")
        assert "endpoints of priority 1" in came_to(proxy, "shift", "running")
        assert "requests failed within 3s" in proxy.wait_log(r'.*"recovery_detected".*requests failed.*')[0]
        gone = proxy.status()["worker_pids"]
        os.kill(gone[0], signal.SIGKILL)
        proxy.wait_until(
            lambda: len(now := proxy.status()["worker_pids"]) == 2 and gone[0] not in now, "another worker", PATIENCE
        )
        assert [answers(path) for path in places.values()] == [{b"elsewhere"}] * 3
        app.fails.clear()
        for server in (moody, sick):
            server.otherwise(says(b"first"))
        for path in places.values():
            proxy.wait_until(lambda path=path: b"first" in answers(path, 2), f"the way back of {path}", PATIENCE)
        proxy.wait_until(lambda: not rule(proxy, "lead")["in_force"], "the end of the reroute", PATIENCE)
        assert attempts(proxy, "verified", "reroute") == 1


def test_liveness_fails_until_the_service_answers_again() -> None:
    with ScriptedUpstream() as server:
        app = Flippable(server)
        tree = document(
            [listener("in", [route("all", "app")])],
            [upstream("app", server.address, health_check=HEALTH)],
            recovery=[act("kubelet", {"restart": "liveness"})],
        )
        with Sidecar(tree) as proxy:
            assert proxy.probe("/livez/service") == 200
            well(proxy)
            app.fails.add("/health")
            proxy.wait_until(lambda: proxy.probe("/livez/service") == 503, "503", PATIENCE)
            assert (proxy.probe("/livez"), proxy.probe("/readyz")) == (200, 200)  # it is not we who are sick
            app.fails.clear()
            proxy.wait_until(lambda: proxy.probe("/livez/service") == 200, "200 again", PATIENCE)
            assert attempts(proxy, "started", "liveness") == 1


def test_a_wedged_process_is_signalled_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose parent is not we but, as in a pod, somebody who starts it again."""
    monkeypatch.setenv(MARK, str(tmp_path))
    name = f"svc{free_port()}"
    (tmp_path / name).symlink_to(os.path.realpath(sys.executable))
    port = free_port()
    command = f"while :; do {tmp_path}/{name} -S {SERVICE} {port} {tmp_path}; done"
    tree = document(
        [listener("in", [route("all", "app")])],
        [upstream("app", f"127.0.0.1:{port}", health_check=QUICK)],
        recovery=[
            act("knock", {"restart": "signal", "process": name}),
            act("typo", {"restart": "signal", "process": "nobody"}),
        ],
    )
    kubelet = subprocess.Popen(["sh", "-c", command], stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        with Sidecar(tree) as proxy:

            def pid(but: int = 0) -> int:
                found = [0]

                def look() -> bool:
                    got = proxy.get("in", "/pid")
                    found[0] = int(got.body) if got.status == 200 else 0
                    return found[0] not in {0, but}

                proxy.wait_until(look, "the service", PATIENCE)
                return found[0]

            first = pid()
            well(proxy)
            os.kill(first, signal.SIGSTOP)
            assert pid(but=first) != first
            assert f"SIGTERM to {first}" in rule(proxy, "knock")["record"][-1]["did"]
            assert "shareProcessNamespace" in came_to(proxy, "typo", "failed")
    finally:
        os.killpg(kubelet.pid, signal.SIGKILL)
        kubelet.wait()
        for left in marked(tmp_path):
            with contextlib.suppress(ProcessLookupError):
                os.kill(left, signal.SIGKILL)


# -------------------------------------------------------------------------------- one fault, a rule of each kind
class Trouble:
    """A proxy whose `app` fell sick, and everybody whom its rules ask."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self.directory = directory
        self.server = stack.enter_context(ScriptedUpstream())
        self.hooks = stack.enter_context(ScriptedUpstream())
        self.kube = stack.enter_context(KubeApi())
        self.app = Flippable(self.server)
        self.hooks.on("/500", says(b"no", "500 Internal Server Error")).on("/hang", never).on("/ok", says(b"thanks"))
        self.hooks.on("/redirect", says(b"", "302 Found", [("location", f"http://{self.hooks.address}/elsewhere")]))
        self.hooks.on("/flood", self._flood)
        self.poured = 0
        secret = directory / "hook"
        secret.write_text(f"http://{self.hooks.address}/ok?key=hidden-key\n")
        (directory / "token").write_text(TOKEN)
        self.kube.budget = 1
        rules = [
            act(f"hook-{what}", {"webhook": {"url": f"http://{self.hooks.address}/{what}"}, "timeout": limit(what)})
            for what in ("500", "hang", "redirect", "flood")
        ]
        rules += [act("hook-ok", {"webhook": {"url_file": str(secret)}})]
        rules += [act("hook-nofile", {"webhook": {"url_file": str(directory / "absent")}})]
        rules += [act("hook-nourl", {"webhook": {"url_file": str(directory / "token")}})]
        rules += [
            act(f"run-{name}", {"restart": "command", "command": ["sh", "-c", script], "timeout": limit(name)})
            for name, script in {
                "ok": f"echo {directory}; touch {directory}/ran",
                "hang": "trap '' TERM; sleep 1000 & sleep 1000",
                "fork": "for i in 1 2 3 4 5; do (trap '' TERM; sleep 1000) & done",
                "flood": "while :; do echo flood; done",
            }.items()
        ]
        eviction = {
            "api": self.kube.url,
            "namespace": "shop",
            "pod": "orders-1",
            "token_file": str(directory / "token"),
        }
        rules += [act("evict", {"restart": "evict", "eviction": eviction}, attempts=2)]
        (directory / "wrong").write_text("wrong")
        rules += [
            act(f"evict-{name}", {"restart": "evict", "eviction": {**eviction, **changes}, "timeout": limit(name)})
            for name, changes in {
                "anyone": {"token_file": str(directory / "wrong")},
                "nofile": {"token_file": str(directory / "absent")},
                "nobody": {"api": f"http://127.0.0.1:{free_port()}"},
                "silent": {"api": f"http://{stack.enter_context(black_hole())}"},
            }.items()
        ]
        rules += [act("flush", {"flush_pool": "app"}), act("forget", {"clear_cache": "app"})]
        cached = route("doc", "app", "/doc", fallback=[{"cache": {"max_age": "10m"}}])
        self.proxy = stack.enter_context(
            Sidecar(
                document(
                    [listener("in", [cached, route("all", "app")])],
                    [upstream("app", self.server.address, health_check=HEALTH)],
                    recovery=rules,
                )
            )
        )

    def _flood(self, peer: Wire, request: Message) -> None:
        peer.read_body(request)
        peer.send(f"HTTP/1.1 200 OK\r\ncontent-length: {GIGABYTE}\r\n\r\n".encode())
        block = b"x" * (1 << 20)
        with contextlib.suppress(OSError):
            while self.poured < GIGABYTE:
                peer.send(block)
                self.poured += len(block)
        peer.close()


@pytest.fixture(scope="module")
def trouble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trouble]:
    directory = tmp_path_factory.mktemp("trouble")
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setenv(MARK, str(directory))
        here = Trouble(directory, stack)
        proxy = here.proxy
        assert proxy.get("in", "/doc").body == b"doc"
        well(proxy)
        here.app.fails.add("/doc")
        assert proxy.get("in", "/doc").decision == "fallback_cache"
        with proxy.client("in") as client:
            client.send(b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n")
            here.idle = client.read_answer().json()["connection"]
        here.app.fails.add("/health")
        yield here
    assert marked(directory) == [], "left behind"


@pytest.mark.parametrize(
    ("what", "detail"),
    [
        ("500", "answered 500"),
        ("hang", "did not answer in time"),
        ("redirect", "a redirect, which is not followed"),
        ("nofile", "absent cannot be read"),
        ("nourl", "the webhook cannot be called: UnsupportedProtocol"),
    ],
)
def test_a_webhook_that_is_no_help_is_a_failed_attempt(trouble: Trouble, what: str, detail: str) -> None:
    assert detail in came_to(trouble.proxy, f"hook-{what}", "failed")
    assert wait_stage(trouble.proxy, "escalated", name=f"hook-{what}")["attempts"] == 1
    assert trouble.hooks.requests("/elsewhere") == []


def test_a_webhook_that_answers_a_gigabyte_is_not_read(trouble: Trouble) -> None:
    before = trouble.proxy.rss()
    assert "answered 200" in came_to(trouble.proxy, "hook-flood", "running")
    trouble.hooks.wait_until(
        lambda: all(not trouble.hooks.is_open(one.connection) for one in trouble.hooks.requests("/flood"))
    )
    assert trouble.poured < 64 << 20
    assert trouble.proxy.rss() - before < 32 << 20


def test_a_webhook_is_told_what_is_wrong_and_its_url_stays_a_secret(trouble: Trouble) -> None:
    came_to(trouble.proxy, "hook-ok", "running")
    (request,) = trouble.hooks.requests("/ok")
    told = request.json()
    assert (told["rule"], told["service"], told["upstream"], told["attempt"]) == ("hook-ok", "tested", "app", 1)
    assert "503" in told["why"]
    proxy = trouble.proxy
    everything = proxy.log + proxy.admin("/api/v1/status").body.decode() + proxy.metrics().text
    assert "hidden-key" not in everything


@pytest.mark.parametrize(
    ("name", "result", "detail"),
    [
        ("run-ok", "running", "exited with 0"),
        ("run-hang", "failed", "no answer within 1s"),
        ("run-fork", "running", "exited with 0"),
        ("run-flood", "failed", "wrote more than 64 KiB"),
    ],
)
def test_a_command_is_bounded_in_time_output_and_offspring(
    trouble: Trouble, name: str, result: str, detail: str
) -> None:
    assert detail in came_to(trouble.proxy, name, result)
    assert (trouble.directory / "ran").exists() or name != "run-ok"
    if result == "failed":
        wait_stage(trouble.proxy, "escalated", name=name)

    def alone() -> bool:
        return len(marked(trouble.directory)) == 1

    trouble.proxy.wait_until(alone, "nobody but the proxy", PATIENCE)


def test_an_eviction_asks_the_disruption_budget_first(trouble: Trouble) -> None:
    proxy = trouble.proxy
    wait_stage(proxy, "proving", name="evict")
    first, second = rule(proxy, "evict")["record"]
    assert "429: Cannot evict pod" in first["detail"] and first["result"] == "failed"
    assert second["did"] == "pod orders-1 is being evicted"
    path, body = trouble.kube.evictions[-1]
    assert path == "/api/v1/namespaces/shop/pods/orders-1/eviction"
    assert body["metadata"] == {"name": "orders-1", "namespace": "shop"}
    assert TOKEN not in proxy.log


@pytest.mark.parametrize(
    ("name", "detail"),
    [("anyone", "401: Unauthorized"), ("nofile", "No such file"), ("nobody", "ConnectError"), ("silent", "in time")],
)
def test_an_eviction_that_cannot_be_asked_for_is_a_failed_attempt(trouble: Trouble, name: str, detail: str) -> None:
    assert detail in came_to(trouble.proxy, f"evict-{name}", "failed")


@pytest.mark.parametrize(
    ("path", "body", "status", "why"),
    [
        ("nothing/run", b"", 404, "no recovery rule 'nothing'"),
        ("run", b"", 400, "RULE/run"),
        ("flush/stop", b"", 400, "RULE/run"),
        ("flush/run", b"{", 400, "not an order"),
        ("flush/run", b'{"force": true}', 400, "not an order"),
        ("pause", b'{"dry_run": true}', 400, "goes with run only"),
    ],
)
def test_a_bad_order_is_refused_with_advice(trouble: Trouble, path: str, body: bytes, status: int, why: str) -> None:
    with Wire(socket.socket(socket.AF_UNIX)) as wire:
        wire.sock.connect(trouble.proxy.socket_path)
        wire.send(ask(f"/api/v1/recovery/{path}", method="POST", body=body))
        got = wire.read_answer("POST")
    assert got.status == status
    assert why in got.body.decode()


def test_recover_status_tells_of_those_that_gave_up(trouble: Trouble) -> None:
    wait_stage(trouble.proxy, "escalated", name="hook-500")
    told = trouble.proxy.command("recover", "status", check=False)
    assert told.returncode == 3
    assert "hook-500" in told.stdout and "answered 500" in told.stdout
    plain = trouble.proxy.command("recover", "status", "--json", check=False)
    assert plain.returncode == 3
    assert {"hook-500", "evict"} <= {one["name"] for one in json.loads(plain.stdout)["rules"]}


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["run"], 2, "needs a NAME"),
        (["pause", "flush"], 2, "takes no NAME"),
        (["resume", "--dry-run"], 2, "--dry-run goes with run only"),
        (["run", "nothing"], 1, "no recovery rule 'nothing'"),
        (["run", "flush", "--dry-run"], 0, "flush would act (flush_pool); its condition is true: answered 503"),
    ],
)
def test_recover_says_what_is_wrong_with_an_order(trouble: Trouble, words: list[str], code: int, why: str) -> None:
    done = trouble.proxy.command("recover", *words, check=False)
    assert done.returncode == code
    assert why in done.stdout + done.stderr


def test_nobody_orders_by_get_or_over_tcp_without_the_token(trouble: Trouble) -> None:
    length = "content-length: 0\r\n"
    assert trouble.proxy.admin("/api/v1/recovery/flush/run", unix=True).status == 405
    assert trouble.proxy.admin("/api/v1/recovery/pause", "POST", length).status in {401, 403}
    assert trouble.proxy.status()["recovery"]["paused"] is None


def test_idle_connections_are_flushed_and_kept_answers_forgotten(trouble: Trouble) -> None:
    proxy = trouble.proxy
    wait_stage(proxy, "proving", "escalated", name="flush")
    trouble.server.wait_until(lambda: not trouble.server.is_open(trouble.idle), "the idle connection closed")
    wait_stage(proxy, "proving", "escalated", name="forget")
    assert proxy.get("in", "/doc").decision is None
    assert proxy.get("in", "/doc").status == 503
