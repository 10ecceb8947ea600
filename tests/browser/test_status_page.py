"""The status page in a real browser in front of the real program: what happens shows without a reload."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.fakes.upstream import ScriptedUpstream, says
from tests.real.documents import document, listener, route, upstream
from tests.real.harness import Sidecar

pytestmark = pytest.mark.browser

OUT = says(b"out", "503 Service Unavailable")
LATER = {"respond": {"status": 503, "headers": {"content-type": "text/plain"}, "body": "later"}}
LONG = {"open_for": "60s"}


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running


@pytest.fixture(scope="module")
def mortal() -> Iterator[ScriptedUpstream]:
    """An upstream for one test to kill."""
    with ScriptedUpstream() as running:
        yield running


@pytest.fixture(scope="module")
def config(server: ScriptedUpstream, mortal: ScriptedUpstream) -> dict[str, Any]:
    breakers = {"dies": LONG, "held": LONG, "observed": {**LONG, "mode": "observe"}, "calm": LONG}
    routes = [route(name, name, f"/{name}", fallback=[LATER] if name == "dies" else []) for name in breakers]
    upstreams = [
        upstream(name, mortal.address if name == "dies" else server.address, breaker=breaker)
        for name, breaker in breakers.items()
    ]
    check = {"tcp": {"address": mortal.address}}
    database = {"name": "database", "check": check, "interval": "500ms", "unhealthy_after": 1}
    return document([listener("in", routes)], upstreams, dependencies=[database])


@pytest.fixture(scope="module")
def proxy(config: dict[str, Any]) -> Iterator[Sidecar]:
    with Sidecar(config) as running:
        yield running


def address(proxy: Sidecar) -> str:
    return f"http://127.0.0.1:{proxy.admin_port}/"


@pytest.fixture
def page(browser: Browser, proxy: Sidecar) -> Iterator[Page]:
    """The page, open and following. At the end: no word on the console, and loaded once."""
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    said: list[str] = []
    loads: list[Page] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("domcontentloaded", lambda loaded: loads.append(loaded))  # a built-in cannot be the handler
    with page.expect_response("**/events"):
        page.goto(address(proxy))
    yield page
    assert said == []
    assert len(loads) == 1, "the page was loaded anew"
    page.close()


def card(page: Page, name: str) -> Any:
    return page.locator(f'[id="breaker-{name}"]')


def test_an_upstream_that_dies_shows_as_an_open_breaker(page: Page, proxy: Sidecar, mortal: ScriptedUpstream):
    expect(card(page, "dies")).to_have_attribute("data-state", "closed")
    expect(page.locator("#dependencies")).to_contain_text("healthy")
    mortal.refuse()
    mortal.close_idle()
    for _ in range(6):
        assert proxy.get("in", "/dies").body == b"later"
    expect(card(page, "dies")).to_have_attribute("data-state", "open")
    expect(card(page, "dies")).to_contain_text("5 failures in a row")
    expect(card(page, "dies")).to_contain_text("5 of 5 failed")
    expect(page.locator("#attention")).to_contain_text("Breaker dies is open: 5 failures in a row")
    expect(page.locator("#attention")).to_contain_text("Dependency database is unhealthy")
    expect(page.locator("#fallbacks")).to_contain_text("respond")
    expect(page.locator("#fallbacks td.number").first).to_have_text("6")
    expect(page).to_have_title("(2) tested – sidecar")
    left = card(page, "dies").locator("time[data-down]")
    before = left.inner_text()
    expect(left).not_to_have_text(before)  # it counts down


def test_who_ordered_a_breaker_and_why_shows_and_goes(page: Page, proxy: Sidecar):
    proxy.command("breaker", "open", "held", "--for", "10m", "--why", "<b>deploy</b>")
    expect(card(page, "held")).to_have_attribute("data-state", "forced_open")
    expect(card(page, "held")).to_contain_text("held open")
    expect(card(page, "held")).to_contain_text(": <b>deploy</b>")
    expect(card(page, "held")).to_contain_text("order ends in 9m")
    proxy.command("breaker", "reset", "held")
    expect(card(page, "held")).to_have_attribute("data-state", "closed")
    expect(page.locator("#attention")).not_to_contain_text("held")


def test_a_breaker_that_only_observes_says_what_it_would_do(page: Page, proxy: Sidecar, server: ScriptedUpstream):
    server.on("/observed", OUT)
    for _ in range(7):
        assert proxy.get("in", "/observed").body == b"out"
    expect(card(page, "observed")).to_contain_text("would be open")
    expect(card(page, "observed").locator("div", has_text="Would have refused").last).to_contain_text("2")


def test_a_refused_reload_shows_until_the_file_is_good_again(page: Page, proxy: Sidecar, config: dict[str, Any]):
    proxy.write_text("version: 1\nlistners: []\n")
    proxy.command("reload", check=False)
    expect(page.locator("#attention")).to_contain_text("listners")
    proxy.write(config)
    proxy.command("reload")
    expect(page.locator("#attention")).not_to_contain_text("listners")


def test_a_new_upstream_comes_without_a_reload_of_the_page(page: Page, proxy: Sidecar, config: dict[str, Any]):
    more = {**config, "upstreams": [*config["upstreams"], upstream("late", "127.0.0.1:9")]}
    proxy.write(more)
    proxy.command("reload")
    expect(page.locator("#upstream-late")).to_contain_text("127.0.0.1:9")
    proxy.write(config)
    proxy.command("reload")
    expect(page.locator("#upstream-late")).to_have_count(0)


def test_news_leave_focus_and_elements_where_they_are(page: Page, proxy: Sidecar):
    region = page.get_by_role("region", name="Routes of in")
    region.focus()
    page.evaluate("document.activeElement.kept = true")
    rows = region.locator("tr", has_text="calm")
    before = rows.first.inner_text()
    proxy.get("in", "/calm")
    expect(rows.first).not_to_have_text(before, use_inner_text=True)
    assert page.evaluate("document.activeElement.kept") is True


def test_the_keyboard_leads_from_a_trouble_to_its_place(page: Page, proxy: Sidecar):
    proxy.command("breaker", "open", "calm")
    link = page.get_by_role("link", name="Breaker calm is held open")
    link.focus()
    page.keyboard.press("Enter")
    expect(card(page, "calm")).to_be_in_viewport()
    assert page.evaluate("location.hash") == "#breaker-calm"
    proxy.command("breaker", "reset", "calm")
    expect(link).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_its_width_in_light_and_dark(page: Page, scheme: Any):
    page.set_viewport_size({"width": 390, "height": 800})
    page.emulate_media(color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate(CONTRAST) >= 4.5  # WCAG 2.2, 1.4.3


CONTRAST = """() => {
  // the lowest contrast of a text to the ground that it stands on
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b]
    .map((one) => (one /= 255) <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
    .reduce((sum, one, at) => sum + one * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (element) => {
    const colour = parse(getComputedStyle(element).backgroundColor);
    return colour[3] === 0 && element.parentElement ? ground(element.parentElement) : colour;
  };
  const texts = [...document.querySelectorAll("body *")].filter((one) =>
    [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
  return Math.min(...texts.map((one) => {
    const [a, b] = [luminance(parse(getComputedStyle(one).color)), luminance(ground(one))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }));
}"""


def test_without_javascript_it_can_be_read(browser: Browser, proxy: Sidecar):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address(proxy))
    expect(card(page, "calm")).to_contain_text("closed")
    expect(page.locator("#upstream-calm")).to_contain_text("unchecked")
    context.close()


def test_a_page_whose_program_is_gone_says_so(browser: Browser, config: dict[str, Any]):
    page = browser.new_page()
    other = {**config, "listeners": [listener("in", config["listeners"][0]["routes"])]}
    with Sidecar(other) as proxy:
        with page.expect_response("**/events"):
            page.goto(address(proxy))
        expect(page.locator("#connection")).to_be_hidden()
    expect(page.locator("#connection")).to_be_visible()
    page.close()
