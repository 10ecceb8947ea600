"""The status page: whole without JavaScript, safe against names, and in step with its live part."""

import re
from html.parser import HTMLParser

from sidecar.control import page
from tests.fakes.program import STATUS


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.live: dict[str, str] = {}
        self.tags: list[tuple[str, dict]] = []
        self._at = ""

    def handle_starttag(self, tag, attrs):
        fields = dict(attrs)
        self.tags.append((tag, fields))
        self._at = fields.get("data-live", "")

    def handle_data(self, data):
        if self._at:
            self.live[self._at] = data
            self._at = ""


def read(status) -> Reader:
    reader = Reader()
    reader.feed(page.render(status))
    return reader


def test_the_page_and_its_files_are_served(admin):
    answer = admin.ask("/")
    assert answer.fields["content-type"] == "text/html; charset=utf-8"
    assert answer.body.decode() == page.render(STATUS)
    assert admin.ask("/page.css").fields["content-type"].startswith("text/css")
    assert admin.ask("/live.js").fields["content-type"].startswith("text/javascript")


def test_it_loads_nothing_from_elsewhere_and_nothing_inline():
    for tag, fields in read(STATUS).tags:
        assert not any(name.startswith("on") or name == "style" for name in fields)
        assert tag != "style"
        for name in ("src", "href"):
            assert fields.get(name, "/").startswith(("/", "data:,"))
        if tag == "script":
            assert fields["src"]


def test_figures_are_in_the_page_before_any_script_runs():
    live = read(STATUS).live
    assert live["state"] == "ready"
    assert live["traffic.rps"] == "1,833.4"
    assert live["traffic.p50_ms"] == "1.23 ms"
    assert live["uptime_seconds"] == "1d 2h"
    assert live["listeners.1.routes.0.requests_total"] == "8,123"
    assert [live[f"upstreams.1.endpoints.{n}.healthy"] for n in range(3)] == ["healthy", "unhealthy", page.UNKNOWN]


def test_every_live_figure_is_at_its_path_in_the_status():
    for path in read(STATUS).live:
        value = STATUS
        for key in path.split("."):
            value = value[int(key)] if isinstance(value, list) else value[key]


def test_names_cannot_become_markup():
    status = {
        **STATUS,
        "service": "<script>alert(1)</script>",
        "config": {**STATUS["config"], "last_reload_ok": False, "last_reload_error": '"><img src=x>'},
    }
    text = page.render(status)
    assert "<script>alert" not in text
    assert "<img" not in text
    assert "the last good one runs" in text


def test_unknown_figures_are_a_dash_and_empty_lists_a_sentence():
    traffic = dict.fromkeys(STATUS["traffic"])
    reader = read({**STATUS, "traffic": traffic, "listeners": [], "upstreams": []})
    assert {reader.live[f"traffic.{name}"] for name in traffic} == {page.UNKNOWN}
    assert "No listeners." in page.render({**STATUS, "listeners": []})


def test_the_script_knows_every_form_that_the_page_uses():
    script = page.assets()["/live.js"][0].decode()
    forms = {fields["data-form"] for _, fields in read(STATUS).tags if "data-form" in fields}
    known = set(re.findall(r'form === "(\w+)"', script))
    assert forms - {"count"} <= known
