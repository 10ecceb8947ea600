"""Plots, orders with the token, and an incident's story, in a real browser in front of the real program."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.fakes.upstream import ScriptedUpstream, says
from tests.real.documents import document, listener, route, upstream
from tests.real.harness import Sidecar

pytestmark = pytest.mark.browser

TOKEN = "open-sesame"


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    token: Path = tmp_path_factory.mktemp("token") / "token"
    token.write_text(TOKEN)
    with ScriptedUpstream() as server:
        server.on("/pay", says(b"out", "503 Service Unavailable"))
        upstreams = [upstream(name, server.address, breaker={}) for name in ("app", "pay")]
        routes = [route("pay", "pay", "/pay"), route("all", "app")]
        with Sidecar(document([listener("in", routes)], upstreams, admin={"token_file": str(token)})) as running:
            yield running


@pytest.fixture
def page(browser: Browser, proxy: Sidecar) -> Iterator[Page]:
    """The page; at the end nothing was said on the console, but of answers that a test provoked."""
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    with page.expect_response("**/events"):
        page.goto(f"http://127.0.0.1:{proxy.admin_port}/")
    yield page
    assert [text for text in said if "401" not in text] == []
    page.close()


def card(page: Page, name: str) -> Any:
    return page.locator(f'[id="breaker-{name}"]')


def test_what_comes_is_drawn(page: Page, proxy: Sidecar):
    for _ in range(20):
        proxy.get("in", "/")
    expect(page.locator("#plots canvas")).to_have_count(3, timeout=15_000)
    expect(page.locator("#plot-traffic .u-legend")).to_contain_text("errors")
    coloured = """canvas => {
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return data.some((value, at) => at % 4 === 3 && value > 0);
    }"""
    assert page.locator("#plot-traffic canvas").evaluate(coloured)


def test_an_order_needs_the_token_once_and_says_who_and_why(page: Page, proxy: Sidecar):
    held = card(page, "app")
    held.get_by_role("button", name="Hold the breaker app open").focus()
    page.keyboard.press("Enter")
    token = page.get_by_label("Token")
    expect(token).to_be_focused()
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#order-failed")).to_contain_text("token")
    expect(held).to_have_attribute("data-state", "closed")
    token.fill(TOKEN)
    page.get_by_label("For").select_option(label="1 hour")
    page.get_by_label("Why").fill("<b>deploy</b>")
    page.get_by_label("Who").fill("alice")
    page.get_by_role("button", name="Do it").click()
    expect(held).to_have_attribute("data-state", "forced_open")
    expect(held).to_contain_text("ordered by alice: <b>deploy</b>")
    expect(held).to_contain_text("order ends in 59m")
    expect(page.locator("#done")).to_contain_text("held open")
    assert proxy.get("in", "/").decision == "manual_open"

    held.get_by_role("button", name="Make the breaker app automatic again").click()
    expect(token).to_be_hidden()  # it is known by now, and only here
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    page.get_by_role("button", name="Do it").click()
    expect(held).to_have_attribute("data-state", "closed")
    assert proxy.get("in", "/").status == 200


def test_escape_takes_an_order_back(page: Page):
    button = card(page, "app").get_by_role("button", name="Hold the breaker app closed")
    button.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(button).to_be_focused()
    expect(card(page, "app")).to_have_attribute("data-state", "closed")


def test_an_incident_is_told_acknowledged_and_its_story_stays_open(page: Page, proxy: Sidecar):
    for _ in range(6):
        proxy.get("in", "/pay")
    incident = page.locator("#incidents article")
    expect(incident).to_contain_text("The breaker of pay is open")
    incident.locator("summary").click()
    expect(incident.locator("ol li").first).to_contain_text("closed → open")
    incident.get_by_role("button", name="Acknowledge").click()
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_label("Who").fill("bob")
    page.get_by_role("button", name="Do it").click()
    expect(incident).to_contain_text("acknowledged by bob")
    expect(incident.locator("ol li").first).to_be_visible()
    expect(incident.get_by_role("button", name="Acknowledge")).to_have_count(0)


def test_another_page_in_the_same_browser_may_not_order(browser: Browser, proxy: Sidecar):
    """A page of another origin: the browser says where it comes from, and the program refuses it, token or not."""
    page = browser.new_page()
    page.goto("data:text/html,<p>elsewhere</p>")
    order = f"http://127.0.0.1:{proxy.admin_port}/api/v1/breakers/app/open"
    simple = f"fetch('{order}', {{method: 'POST', mode: 'no-cors'}}).then(() => 'sent', () => 'refused')"
    assert page.evaluate(simple) in {"sent", "refused"}
    assert proxy.admin("/api/v1/breakers").json()[0]["machine"] == "closed"
    page.close()


def test_drained_from_the_page(page: Page, proxy: Sidecar):
    """Last: there is no way back."""
    page.get_by_role("button", name="Drain").click()
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Do it").click()
    expect(page.locator("#state")).to_contain_text("draining")
    expect(page.get_by_role("button", name="Drain")).to_have_count(0)
