"""The fleet on the status page, over a real Redis: orders for all replicas, and that Redis is away."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.fakes.upstream import ScriptedUpstream
from tests.real.databases import Redis
from tests.real.documents import document, listener, route, upstream
from tests.real.harness import Sidecar

pytestmark = pytest.mark.browser


def test_an_order_for_all_replicas_and_a_redis_that_is_gone(browser: Browser, tmp_path: Path):
    (tmp_path / "token").write_text("sesame")
    with ScriptedUpstream() as server, Redis() as redis:
        tree = document(
            [listener("in", [route("all", "app")])],
            [upstream("app", server.address, breaker={})],
            service={"name": "orders", "instance": "pod-0"},
            admin={"token_file": str(tmp_path / "token")},
            shared_state={"redis": {"url": f"redis://{redis.address}/0"}, "namespace": "shop"},
        )
        with Sidecar(tree) as proxy:
            page = browser.new_page()
            page.goto(f"http://127.0.0.1:{proxy.admin_port}/")
            card, peers = page.locator("#breaker-app"), page.get_by_role("region", name="Replicas")
            expect(card).to_contain_text("closed; 1 of 1 replica with traffic")
            expect(peers.locator("tbody tr")).to_contain_text("(this one)")
            card.get_by_role("button", name="Hold the breaker app open").click()
            page.get_by_label("Token").fill("sesame")
            page.get_by_label("Who").fill("alice")
            page.get_by_label("In all replicas").check()
            page.get_by_role("button", name="Do it").click()
            expect(card).to_contain_text("held open in all replicas, by alice")
            redis.stop()
            expect(card).to_contain_text("out of reach: decides alone, last heard")
            expect(page.locator("#attention")).to_contain_text("Shared state is away, this replica decides alone")
            page.close()
