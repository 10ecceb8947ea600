"""EndpointSlices from an API server over real sockets: list, watch, resume, relist, tokens, silence."""

import asyncio

import pytest

from sidecar.config.upstreams import KubernetesDiscovery
from sidecar.control.resolvers import kubernetes
from sidecar.control.resolvers.kubernetes import KubernetesSource
from tests.fakes.kube_api import TOKEN, KubeApi, pod, slice_of
from tests.fakes.reports import watching


@pytest.fixture
def api(monkeypatch):
    monkeypatch.setattr(kubernetes, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(kubernetes, "_SHORT", 0.02)
    with KubeApi() as server:
        yield server


@pytest.fixture
def source(api, tmp_path):
    def make(port="http", **options):
        (tmp_path / "token").write_text(TOKEN + "\n")
        config = KubernetesDiscovery(
            service="pay", namespace="shop", port=port, api=api.url, token_file=str(tmp_path / "token")
        )
        return KubernetesSource(config, **options)

    return make


def pay(name, *pods, **ports):
    return slice_of("pay", name, list(pods), **(ports or {"http": 8080, "metrics": 9090}))


def lists(api):
    return [one for one in api.requests if "watch=1" not in one]


def test_a_list_then_every_change(api, source):
    api.put(pay("pay-1", pod("10.0.0.1"), pod("10.0.0.2", ready=None), pod("10.0.0.3", ready=False)))
    api.put(slice_of("other", "other-1", [pod("10.9.9.9")], http=8080))

    async def story():
        async with watching(source()) as reports:
            await reports.see("10.0.0.1:8080", "10.0.0.2:8080")
            assert reports.answers[-1].withdrawn == {"10.0.0.3:8080"}
            api.put(pay("pay-2", pod("10.0.0.4")))
            await reports.see("10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.4:8080")
            api.put(pay("pay-1", pod("10.0.0.1", ready=False)))
            await reports.see("10.0.0.4:8080")
            assert reports.answers[-1].withdrawn == {"10.0.0.1:8080"}
            api.put(slice_of("other", "other-2", [pod("10.9.9.8")], http=8080))
            api.delete("pay-2")
            await reports.see()
            assert len(lists(api)) == 1
            assert reports.failures == []

    asyncio.run(story())


def test_a_dropped_watch_is_resumed_without_a_list(api, source):
    api.put(pay("pay-1", pod("10.0.0.1")))

    async def story():
        async with watching(source()) as reports:
            await reports.see("10.0.0.1:8080")
            await asyncio.to_thread(api.wait_requests, 2)
            api.drop()
            api.put(pay("pay-1", pod("10.0.0.2")))
            await reports.see("10.0.0.2:8080")
            assert len(lists(api)) == 1
            assert reports.failures, "the break is told"

    asyncio.run(story())


def test_a_version_that_is_gone_means_listing_anew(api, source):
    api.put(pay("pay-1", pod("10.0.0.1")))

    async def story():
        async with watching(source()) as reports:
            await reports.see("10.0.0.1:8080")
            await asyncio.to_thread(api.wait_requests, 2)
            api.put(pay("pay-1", pod("10.0.0.2")), unseen=True)
            api.compact()
            await reports.see("10.0.0.2:8080")
            assert len(lists(api)) == 2

    asyncio.run(story())


def test_bookmarks_keep_the_version_young(api, source):
    api.put(pay("pay-1", pod("10.0.0.1")))

    async def story():
        async with watching(source()) as reports:
            await reports.see("10.0.0.1:8080")
            await asyncio.to_thread(api.wait_requests, 2)
            await reports.until(lambda: len(reports.answers) == 2)  # of the list, and of the watch that began
            answers = len(reports.answers)
            api.put(slice_of("other", "other-1", [pod("10.9.9.9")], http=8080))
            await reports.until(lambda: len(reports.answers) > answers)
            api.drop()
            await asyncio.to_thread(api.wait_requests, 3)
            assert "resourceVersion=102" in api.requests[-1]

    asyncio.run(story())


def test_a_silent_connection_is_left(api, source, monkeypatch):
    monkeypatch.setattr(kubernetes, "GRACE_SECONDS", 0.2)
    api.put(pay("pay-1", pod("10.0.0.1")))

    async def story():
        async with watching(source(watch_seconds=0.3)) as reports:
            await reports.see("10.0.0.1:8080")
            await asyncio.to_thread(api.wait_requests, 2)
            api.freeze()
            api.put(pay("pay-1", pod("10.0.0.2")))
            await reports.see("10.0.0.2:8080")

    asyncio.run(story())


def test_a_list_has_pages(api, source):
    api.page_size = 2
    for number in range(5):
        api.put(pay(f"pay-{number}", pod(f"10.0.0.{number}")))

    async def story():
        async with watching(source()) as reports:
            await reports.see(*(f"10.0.0.{number}:8080" for number in range(5)))
            assert len(lists(api)) == 3

    asyncio.run(story())


def test_a_replaced_token_is_read(api, source, tmp_path):
    api.put(pay("pay-1", pod("10.0.0.1")))

    async def story():
        running = source()
        (tmp_path / "token").write_text("stale")
        async with watching(running) as reports:
            assert await reports.fail() == "the API server says 401 Unauthorized"
            assert reports.answers == []
            (tmp_path / "token").write_text(TOKEN)
            await reports.see("10.0.0.1:8080")
            await asyncio.to_thread(api.wait_requests, 2)
            assert TOKEN not in "".join(reports.failures)
            (tmp_path / "token").unlink()
            api.drop()
            await reports.until(lambda: reports.failures[-1].endswith("token: No such file or directory"))
            assert reports.last == ["10.0.0.1:8080"]

    asyncio.run(story())


@pytest.mark.parametrize("port", ["metrics", 9090])
def test_the_port_by_name_and_by_number(api, source, port):
    api.put(pay("pay-1", pod("10.0.0.1")))

    async def story():
        async with watching(source(port)) as reports:
            await reports.see("10.0.0.1:9090")

    asyncio.run(story())


def test_a_port_that_is_not_there_is_told(api, source):
    api.put(pay("pay-1", pod("10.0.0.1")))

    async def story():
        async with watching(source("htttp")) as reports:
            assert await reports.fail() == "the service has no port htttp; its endpoints have http: 8080, metrics: 9090"
            await reports.see()

    asyncio.run(story())


def test_no_slices_mean_nobody(api, source):
    async def story():
        async with watching(source()) as reports:
            await reports.see()
            assert reports.failures == []

    asyncio.run(story())


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"metadata": 5}', b"x" * 300_000])
def test_garbage_is_a_failure_and_no_answer(api, source, body, monkeypatch):
    monkeypatch.setattr(kubernetes, "MAX_LIST", 200_000)
    monkeypatch.setattr(api, "_send", lambda handler, *_: _raw(handler, body))

    async def story():
        async with watching(source()) as reports:
            assert await reports.fail()
            assert reports.answers == []

    asyncio.run(story())


def test_a_line_without_end_is_cut(api, source, monkeypatch):
    monkeypatch.setattr(kubernetes, "MAX_LINE", 10_000)
    api.put(pay("pay-1", pod("10.0.0.1")))

    async def story():
        async with watching(source()) as reports:
            await reports.see("10.0.0.1:8080")
            api.put(pay("pay-1", *(pod(f"10.0.{number >> 8}.{number & 255}") for number in range(1000))))
            assert "a watch event beyond" in await reports.fail()
            assert reports.last == ["10.0.0.1:8080"]

    asyncio.run(story())


def _raw(handler, body):
    handler.send_response(200)
    handler.send_header("content-length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
