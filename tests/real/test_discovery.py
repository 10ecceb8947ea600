"""Discovery through the running program: endpoints come and go while requests run, whoever names them."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.kube_api import TOKEN, KubeApi, pod, slice_of
from tests.fakes.names import NameServer
from tests.fakes.upstream import ScriptedUpstream, says
from tests.real.documents import document, free_port, listener, route, upstream
from tests.real.harness import Sidecar

REFRESH = "100ms"


class Replicas:
    """Servers of one service, each answering with its name."""

    def __init__(self, *names: str) -> None:
        self.servers = {name: ScriptedUpstream() for name in names}
        for name, server in self.servers.items():
            server.otherwise(says(body=name.encode()))

    def __getitem__(self, name: str) -> ScriptedUpstream:
        return self.servers[name]

    def stop(self) -> None:
        for server in self.servers.values():
            server.stop()


@pytest.fixture
def replicas() -> Iterator[Replicas]:
    found = Replicas("one", "two")
    yield found
    found.stop()


def config(discovery: dict[str, Any], *static: str, **keys: Any) -> dict[str, Any]:
    found = upstream("app", *static, balance="round_robin", discovery={"refresh": REFRESH, **discovery}, **keys)
    return document([listener("in", [route("all", "app")])], [found])


def answers(proxy: Sidecar, count: int = 4) -> set[str]:
    """Who answers now; the decision's word when nobody does."""
    found = [proxy.get("in") for _ in range(count)]
    return {one.body.decode() if one.status == 200 else str(one.get("x-sidecar-decision")) for one in found}


def wait_for(proxy: Sidecar, *names: str) -> None:
    proxy.wait_until(lambda: answers(proxy) == set(names), f"answers of {names}")


def shown(proxy: Sidecar, name: str = "app") -> Any:
    return next(one for one in proxy.admin("/api/v1/registry").json() if one.get("upstream") == name)


def write(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_swapped_file_moves_traffic_and_fails_no_request(replicas: Replicas, tmp_path: Path, workers: int) -> None:
    path = tmp_path / "endpoints"
    write(path, json.dumps([{"address": replicas["one"].address}]))
    with Sidecar({**config({"file": str(path)}), "workers": workers}) as proxy:
        assert answers(proxy) == {"one"}, "ready means that the file has been read"
        statuses: list[int] = []
        stop = threading.Event()

        def traffic() -> None:
            with proxy.client("in") as client:
                while not stop.is_set():
                    statuses.append(client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").read_answer().status)

        running = threading.Thread(target=traffic)
        running.start()
        for turn in range(5):
            name = ("two", "one")[turn % 2]
            write(path, json.dumps([{"address": replicas[name].address}]))
            wait_for(proxy, name)
        write(path, "- {adress: oops}")
        proxy.wait_until(lambda: shown(proxy)["error"], "the fault")
        assert ":1:3: [0].address: missing" in shown(proxy)["error"]
        assert answers(proxy) == {"two"}
        stop.set()
        running.join()
        assert set(statuses) == {200}
        metrics = proxy.metrics()
        assert metrics.sum("sidecar_discovery_updates_total", upstream="app", result="changed") == 6
        assert metrics.sum("sidecar_discovery_updates_total", upstream="app", result="error") > 0
        assert metrics.sum("sidecar_discovery_last_success_timestamp_seconds", upstream="app") > 1e9
        write(path, "[]")
        wait_for(proxy, "no_healthy_endpoint")


def test_names_are_looked_up_again_and_a_failing_name_server_changes_nothing() -> None:
    """Replicas on 127.0.0.2 and 127.0.0.3, at one port, as pods are."""
    port = free_port()
    with NameServer() as dns, ScriptedUpstream(port) as one:
        one.otherwise(says(body=b"one"))
        dns.a("app.test", "127.0.0.1")
        with Sidecar(config({"dns": f"app.test:{port}", "server": dns.address})) as proxy:
            assert answers(proxy) == {"one"}
            dns.fails("a", "app.test")
            proxy.wait_until(lambda: shown(proxy)["error"], "the fault")
            assert answers(proxy) == {"one"}
            dns.fails("a", "app.test", yes=False)
            dns.a("app.test")
            wait_for(proxy, "no_healthy_endpoint")
            dns.a("app.test", *(f"127.1.{number >> 8}.{number & 255}" for number in range(1000)))
            proxy.wait_until(lambda: shown(proxy)["left_out"], "a thousand records")
            assert len(shown(proxy)["endpoints"]) == 256
            assert proxy.metrics().sum("sidecar_discovery_endpoints", upstream="app") == 256
            assert "discovery_cut" in proxy.log
            dns.a("app.test", "127.0.0.1")
            wait_for(proxy, "one")


def test_dns_that_names_our_own_admin_interface_is_not_believed() -> None:
    with NameServer() as dns:
        dns.a("app.test", "127.0.0.1")
        whole = config({"dns": "app.test:1", "server": dns.address})
        with Sidecar(whole) as proxy:
            whole["upstreams"][0]["discovery"]["dns"] = f"app.test:{proxy.admin_port}"
            proxy.write(whole)
            proxy.command("reload")
            proxy.wait_until(lambda: shown(proxy)["refused"], "the refusal")
            assert shown(proxy)["refused"] == [f"127.0.0.1:{proxy.admin_port}"]
            wait_for(proxy, "no_healthy_endpoint")
            assert "discovery_refused_address" in proxy.log


def test_localhost_is_one_endpoint() -> None:
    """On 127.0.0.1 alone, as most services are: as [::1] it would fail every other request."""
    with ScriptedUpstream() as one:
        one.otherwise(says(body=b"one"))
        with Sidecar(config({"dns": f"localhost:{one.port}"})) as proxy:
            assert answers(proxy) == {"one"}
            assert [each["address"] for each in shown(proxy)["endpoints"]] == [f"localhost:{one.port}"]


def test_srv_records_give_ports_and_order(replicas: Replicas) -> None:
    with NameServer() as dns:
        dns.a("host.test", "127.0.0.1")
        one, two = ((10, 1, replicas["one"].port, "host.test"), (20, 1, replicas["two"].port, "host.test"))
        dns.srv("_http._tcp.app.test", one, two)
        with Sidecar(config({"srv": "_http._tcp.app.test", "server": dns.address})) as proxy:
            assert answers(proxy) == {"one"}, "the lower priority serves"
            dns.srv("_http._tcp.app.test", two)
            wait_for(proxy, "two")


def test_a_dropped_endpoint_stays_until_its_checks_fail(replicas: Replicas, tmp_path: Path) -> None:
    path = tmp_path / "endpoints"
    both = json.dumps([{"address": replicas[name].address} for name in ("one", "two")])
    write(path, both)
    check = {"http": {}, "interval": "100ms", "timeout": "100ms", "unhealthy_after": 1}
    with Sidecar(config({"file": str(path)}, health_check=check)) as proxy:
        proxy.wait_until(
            lambda: [one["state"] for one in proxy.admin("/api/v1/health").json()] == ["healthy"] * 2, "checks"
        )
        write(path, json.dumps([{"address": replicas["one"].address}]))
        proxy.wait_until(lambda: [one["origin"] for one in shown(proxy)["endpoints"]].count("kept") == 1, "kept")
        assert answers(proxy) == {"one", "two"}
        replicas["two"].otherwise(says(status="500 Oops"))
        proxy.wait_until(lambda: len(shown(proxy)["endpoints"]) == 1, "dropped")
        assert answers(proxy) == {"one"}
        replicas["two"].otherwise(says(body=b"two"))
        write(path, both)
        wait_for(proxy, "one", "two")


def test_kubernetes_tells_and_a_dropped_watch_is_resumed(replicas: Replicas, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    port = replicas["one"].port
    with KubeApi() as api:
        api.put(slice_of("app", "app-1", [pod("127.0.0.1")], http=port))
        kubernetes = {
            "service": "app",
            "namespace": "shop",
            "port": "http",
            "api": api.url,
            "token_file": str(tmp_path / "token"),
        }
        with Sidecar(config({"kubernetes": kubernetes})) as proxy:
            assert answers(proxy) == {"one"}
            api.wait_requests(2)
            api.drop()
            api.put(slice_of("app", "app-2", [pod("127.0.0.1")], http=replicas["two"].port))
            wait_for(proxy, "one", "two")
            api.put(slice_of("app", "app-1", [pod("127.0.0.1", ready=False)], http=port))
            wait_for(proxy, "two")
            assert TOKEN not in proxy.log + json.dumps(proxy.admin("/api/v1/registry").json())


def test_a_reload_adds_changes_and_removes_discovery(replicas: Replicas, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write(first, json.dumps([{"address": replicas["one"].address}]))
    write(second, json.dumps([{"address": replicas["two"].address}]))
    whole = config({"file": str(first)})
    app = whole["upstreams"][0]
    with Sidecar(whole) as proxy:
        assert answers(proxy) == {"one"}
        app["discovery"] = {"file": str(second), "refresh": REFRESH}
        proxy.write(whole)
        proxy.command("reload")
        wait_for(proxy, "two")
        app["endpoints"] = [{"address": replicas["one"].address}]
        proxy.write(whole)
        proxy.command("reload")
        wait_for(proxy, "one", "two")
        del app["discovery"]
        proxy.write(whole)
        proxy.command("reload")
        wait_for(proxy, "one")
        assert shown(proxy)["source"] == "static"
        app["discovery"] = {"file": str(second), "refresh": REFRESH}
        proxy.write(whole)
        proxy.command("reload")
        wait_for(proxy, "one", "two")


def test_a_worker_that_is_born_later_knows_what_was_found_and_what_no_longer_counts(
    replicas: Replicas, tmp_path: Path
) -> None:
    path = tmp_path / "endpoints"
    write(path, json.dumps([{"address": replicas["two"].address}]))
    whole = {**config({"file": str(path)}), "workers": 2}
    app = whole["upstreams"][0]
    with Sidecar(whole) as proxy:

        def replace_workers() -> None:
            old = set(proxy.children())
            for pid in old:
                os.kill(pid, signal.SIGKILL)
            proxy.wait_until(lambda: len(set(proxy.children()) - old) == 2 and proxy.probe("/readyz") == 200, "workers")

        replace_workers()
        wait_for(proxy, "two")
        del app["discovery"]
        app["endpoints"] = [{"address": replicas["one"].address}]
        proxy.write(whole)
        proxy.command("reload")
        wait_for(proxy, "one")
        replace_workers()
        assert answers(proxy, 12) == {"one"}
