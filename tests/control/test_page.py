"""The status page: whole without JavaScript, safe against names, small, and readable by those who do not see it."""

import copy
import itertools
import json
import re
from html.parser import HTMLParser

import pytest

from sidecar.cli.status_text import describe
from sidecar.control import page
from sidecar.control.page import words
from sidecar.control.page.sections import sections
from sidecar.control.page.trouble_list import MAX_TROUBLES
from sidecar.control.page.upstream_cards import MAX_ENDPOINTS
from tests.fakes.program import STATUS

EVIL = "<script>alert(1)</script>\"'><img src=x>&"


class Reader(HTMLParser):
    """The tags with their attributes, and the text inside each element that has an id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text: dict[str, str] = {}
        self._open: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        fields = dict(attrs)
        self.tags.append((tag, fields))
        if tag not in {"meta", "link", "input", "wbr"}:
            self._open.append((tag, fields.get("id")))

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        for _, name in self._open:
            if name:
                self.text[name] = self.text.get(name, "") + data

    def all(self, tag: str) -> list[dict]:
        return [fields for name, fields in self.tags if name == tag]


def read(status) -> Reader:
    reader = Reader(page.render(status))
    assert reader._open == []
    return reader


@pytest.fixture
def status():
    return copy.deepcopy(STATUS)


# What it says ---------------------------------------------------------------------------------------------------------


def test_the_page_and_its_files_are_served(admin):
    answer = admin.ask("/")
    assert answer.fields["content-type"] == "text/html; charset=utf-8"
    assert answer.body.decode() == page.render(STATUS)
    assert admin.ask("/page.css").fields["content-type"].startswith("text/css")
    assert admin.ask("/live.js").fields["content-type"].startswith("text/javascript")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("state", ["ready"]),
        ("attention", ["Breaker payments is open: 5 failures in a row", "Dependency taxes is degraded"]),
        ("traffic", ["1,833.4", "1.23 ms"]),
        ("breaker-app", ["closed", "0 of 7 failed"]),
        (
            "breaker-payments",
            ["open", "5 failures in a row", "next trial in 48s", "5 of 7 failed (71 %)", "1,204", "11s"],
        ),
        ("breaker-payments/pay", ["held open", "ordered by alice: deploy", "until it is reset"]),
        ("breaker-egress", ["would be open", "only observed", "Would have refused"]),
        ("upstream-payments", ["dns payments.shop.svc:8080", "3s ago", "answered 500", "for 10m 0s", "back in 28s"]),
        ("dependencies", ["orders-db postgres", "healthy", "12 ms", "1 of 2 healthy", "https://b.example/"]),
        ("fallbacks", ["cache", "active", "1,213", "12.4", "respond", "at rest"]),
        (
            "shared",
            [
                "away: Connection refused",
                "4 of 5 replicas with traffic",
                "12s ago",
                "10.0.0.7:8080 as available",
                "orders-7d9f/1a2b3c (this one)",
                "orders-8c0e/4d5e6f",
                "no traffic",
                "heard 14s ago",
            ],
        ),
        ("certificates", ["listener inbound", "expires soon", "2026-01-05"]),
        ("figures", ["99.951 %", "1d 0h", "3, 1 with failures", "10m 0s"]),
        (
            "incident-20260102-045900-a1b2",
            ["critical", "59 of 1,200 requests failed · 1 relapse", "1m 0s ago closed → open"],
        ),
        ("listeners", ["host payments.internal", "8,123"]),
        ("program", ["1d 2h", "/etc/sidecar/sidecar.yaml"]),
    ],
)
def test_everything_is_in_the_page_before_any_script_runs(place, said):
    text = read(STATUS).text[place]
    for one in said:
        assert one in text


def backups(**rpo):
    return {
        "reachable": True,
        "error": None,
        "asked_at": "2026-01-02T05:00:00+00:00",
        "rpo": {
            "state": "kept",
            "target_seconds": 900.0,
            "age_seconds": 130.0,
            "point": "p1",
            "unreachable": None,
            **rpo,
        },
        "rto": {"target_seconds": 14400.0},
        "run": {"running": False, "progress": None, "next_in_seconds": 170.0, "last": None},
        "repository": {"url": "/var/backups", "engine": "sealed"},
        "conditions": [],
    }


def test_backups_are_told_when_there_is_an_agent(status):
    assert "backups" not in read(status).text
    status["backups"] = backups()
    text = read(status).text["backups"]
    for one in ("kept", "p1", "2m 10s", "15m 0s", "in 2m 50s", "/var/backups (sealed)"):
        assert one in text


def test_an_agent_in_trouble_and_one_that_is_away_need_attention(status):
    status["backups"] = backups(state="missed", age_seconds=None)
    status["backups"]["conditions"] = [
        {"reason": "rpo_missed", "subject": "orders", "level": "error", "detail": "too old"}
    ]
    reader = read(status)
    assert "RPO missed" in reader.text["backups"]
    assert "Backups: rpo missed (orders): too old" in reader.text["attention"]
    status["backups"] = {"reachable": False, "error": "/run/x does not exist", "conditions": None, "rpo": None}
    reader = read(status)
    assert "The backup agent does not answer: /run/x does not exist" in reader.text["attention"]
    assert "no answer" in reader.text["backups"]


def recovery(**changes):
    tries = [
        {"at": f"2026-01-02T04:0{at}:05.123Z", "attempt": 1, "result": result, "detail": detail, "did": did,
         "seconds": seconds}
        for at, (result, detail, did, seconds) in enumerate(
            [("verified", "", "oldest", 6.0), ("relapsed", "", "started again", 5.3), ("failed", "no answer", "", None),
             ("verified", "", "process 12 ended, process 15 started", 6.4)]
        )
    ]  # fmt: skip
    rule = {
        "name": "restart-app", "watches": "upstream app", "unhealthy_for_seconds": 5.0, "strategy": "process",
        "stage": "healed", "since": "2026-01-02T04:03:05.123Z", "why": "", "hold": None, "held_by": "",
        "next_seconds": None,
        "attempts": 0, "attempts_allowed": 3, "budget_left": 1, "budget": "2 in 10m", "dry_run": False,
        "in_force": False, "record": tries,
    }  # fmt: skip
    return {"paused": None, "rules": [rule | changes], "fleet": {"replicas": 8, "restarting": 1, "allowed": 2}}


def test_recoveries_are_told_newest_first(status):
    text = read({**status, "recovery": recovery()}).text["recovery"]
    for one in ("restart-app", "upstream app → process", "healed", "0 of 3", "1 left of 2 in 10m",
                "1 of 8 replicas restarting, 2 allowed"):  # fmt: skip
        assert one in text
    assert "04:03:05 verified after 6s (process 12 ended, process 15 started)" in text
    assert text.index("04:03:05 verified") < text.index("04:02:05 failed (no answer)") < text.index("04:01:05 relapsed")
    assert "oldest" not in text
    assert "nothing so far" in read({**status, "recovery": recovery(record=[])}).text["recovery"]


def test_a_rule_that_gave_up_or_waits_needs_attention(status):
    gave_up = recovery(stage="escalated", why="no answer")
    assert "Recovery restart-app gave up: no answer" in read({**status, "recovery": gave_up}).text["attention"]
    held = recovery(stage="held", hold="no_token", held_by="Redis is away", why="no answer")
    assert (
        "restart-app is held (no token): no answer; Redis is away"
        in read({**status, "recovery": held}).text["attention"]
    )
    standing = recovery(in_force=True, why="")
    shown = read({**status, "recovery": standing}).text
    assert "it stays until it is well" in shown["recovery"] and "restart-app is in force:" in shown["attention"]
    paused = recovery() | {"paused": {"by": "alice", "why": "we move", "since": "2026-01-02T04:00:00+00:00"}}
    assert "Recovery is paused by alice: we move" in read({**status, "recovery": paused}).text["attention"]


def test_half_open_tells_of_its_trials(status):
    status["breakers"][1] |= {"machine": "half_open", "trials": 1, "trial_successes": 2, "remaining_seconds": None}
    assert "1 trial call under way, 2 succeeded" in read(status).text["breaker-payments"]


def fleet(**more):
    return {
        "state": "closed", "by": "", "carrying": 2, "replicas": 3, "quorum": 2, "alone": False, "fault": None,
        "heard_seconds_ago": 1.0, "looked_seconds_ago": 0.1, "votes": [], "leases": [], "let_others_try": [],
        "trial_successes": 0, **more,
    }  # fmt: skip


ME, OTHER = "orders-7d9f/1a2b3c", "orders-8c0e/4d5e6f"
VOTE = {"replica": OTHER, "reason": "failure_rate", "detail": "9 of 10 failed", "remaining_seconds": 42.0}
LEASE = {"replica": ME, "remaining_seconds": 12.0, "age_seconds": 3.0}


@pytest.mark.parametrize(
    ("of", "said"),
    [
        (fleet(votes=[VOTE]),
         ["closed; 1 of 2 votes that open it", OTHER, "votes to open: 9 of 10 failed, for 42s more", "this one",
          "no vote", "and 1 more"]),
        (fleet(state="open", by=f"{OTHER}, pod-<b>"), [OTHER, "voted to open", "pod-<b>"]),
        (fleet(state="half_open", leases=[LEASE], let_others_try=[OTHER], trial_successes=1),
         ["half-open; 1 trial call succeeded", "makes a trial call, 12s at most", "lets the others try"]),
        (fleet(state="forced_open", by="alice"), ["held open in all replicas, by alice"]),
        (fleet(alone=True, heard_seconds_ago=75.0), ["out of reach: decides alone, last heard 1m 15s ago"]),
        (fleet(votes=[VOTE], looked_seconds_ago=8.0), ["votes are not known: Redis does not say, last told 8s ago"]),
        (fleet(votes=[VOTE], looked_seconds_ago=None), ["votes are not known: Redis does not say"]),
        (fleet(fault="2 different ones"), ["2 different ones"]),
    ],
)  # fmt: skip
def test_the_fleets_view_and_each_replicas_vote_are_told_on_the_page_and_in_the_terminal(status, of, said):
    status["breakers"][1]["fleet"] = of
    shown, terminal = read(status).text["breaker-payments"], "\n".join(describe(status))
    for one in said:
        assert one in shown
        assert one in terminal


def test_a_calm_fleet_is_told_in_a_line_on_the_page(status):
    status["breakers"][1]["fleet"] = fleet()
    reader = read(status)
    assert "closed; 2 of 3 replicas with traffic" in reader.text["breaker-payments"]
    assert "Fleet" not in reader.text["breaker-app"]


def test_who_cannot_be_heard_has_no_votes(status):
    status["breakers"][1]["fleet"] = fleet(alone=True, votes=[VOTE])
    assert OTHER not in read(status).text["breaker-payments"]


def test_an_open_period_that_is_over_waits_for_a_call(status):
    status["breakers"][1]["remaining_seconds"] = 0.0
    assert "next trial with the next call" in read(status).text["breaker-payments"]


def test_an_order_with_an_end_says_when(status):
    status["breakers"][2]["remaining_seconds"] = 600.0
    assert "order ends in 10m 0s" in read(status).text["breaker-payments/pay"]


def test_discovery_that_fails_says_so_and_since_when(status):
    status["upstreams"][1]["discovery"] |= {"error": "no such name", "error_at": "2026-01-02T04:59:00Z"}
    reader = read(status)
    assert "Fails since 1m 0s ago: no such name" in reader.text["upstream-payments"]
    assert "Discovery of payments fails, the last answer stays: no such name" in reader.text["attention"]


def test_a_refused_reload_comes_first(status):
    status["config"] |= {"last_reload_ok": False, "last_reload_error": "3:1: no such key"}
    assert words.troubles(status)[0].text.endswith("the last good one runs: 3:1: no such key")


def test_when_all_is_well_it_says_so_in_a_sentence(status):
    for one in status["breakers"]:
        one |= {"machine": "closed", "state": "closed"}
    for upstream in status["upstreams"]:
        for endpoint in upstream["endpoints"]:
            endpoint["state"] = "healthy"
    status["dependencies"][1]["state"] = "healthy"
    status["shared"]["connected"], status["certificates"][0]["state"] = True, "good"
    reader = read(status)
    assert "Nothing needs attention: 4 breakers, 4 endpoints, 2 dependencies." in reader.text["attention"]
    assert "<title>orders" in page.render(status)


def test_unknown_figures_are_a_dash_and_what_is_not_there_has_no_heading(status):
    status |= {"traffic": dict.fromkeys(STATUS["traffic"]), "listeners": [], "upstreams": [], "breakers": []}
    status |= {"dependencies": [], "fallbacks": []}
    parts = sections(status)
    assert parts["traffic"].count(words.UNKNOWN) == len(STATUS["traffic"])
    for name in ("breakers", "upstreams", "dependencies", "fallbacks", "listeners"):
        assert parts[name] == ""


# What it must not do --------------------------------------------------------------------------------------------------


def test_it_loads_nothing_from_elsewhere_and_nothing_inline():
    for tag, fields in read(STATUS).tags:
        assert not any(name.startswith("on") or name == "style" for name in fields)
        assert tag != "style"
        for name in ("src", "href"):
            assert fields.get(name, "/").startswith(("/", "data:,", "#"))
        if tag == "script":
            assert fields["src"]


def poison(value):
    """The same shape, with every text that others may choose made evil."""
    if isinstance(value, dict):
        chosen = {
            "started",
            "severity",
            "state",
            "machine",
            "mode",
            "at",
            "since",
            "last_check",
            "last_success",
            "error_at",
            "loaded_at",
        }
        return {key: one if key in chosen and isinstance(one, str) else poison(one) for key, one in value.items()}
    if isinstance(value, list):
        return [poison(one) for one in value]
    return EVIL if isinstance(value, str) else value


def test_no_text_can_become_markup(status):
    status["upstreams"][1]["discovery"] |= {"error": "x", "error_at": status["at"], "refused": ["x"]}
    status["config"] |= {"last_reload_ok": False, "last_reload_error": "x", "restart_needed": ["x"]}
    status["recovery"] = recovery(why="x")
    evil = page.render({**poison(status), "orders": True})
    assert "<img" not in evil
    assert evil.count("<script") == page.render(status).count("<script") == 2
    assert all("src=x" not in (value or "") or name in ("id", "aria-label", "data-version", "data-says")
               for _, fields in Reader(evil).tags for name, value in fields.items())  # fmt: skip


# Orders ---------------------------------------------------------------------------------------------------------------


def paths(shown: str) -> list[str]:
    return [fields["data-path"] for fields in Reader(shown).all("button") if "data-path" in fields]


def test_there_are_buttons_only_where_orders_are_taken(status):
    assert "<button" not in page.render(status) and "<dialog" not in page.render(status)
    given = paths(page.render({**status, "orders": True}))
    assert {"/drain", "/reload", "/api/v1/breakers/app/open", "/api/v1/breakers/payments/pay/reset"} <= set(given)
    assert "/api/v1/breakers/app/reset" not in given  # it is automatic already
    assert "/api/v1/breakers/payments/pay/open" not in given  # it is held open already
    assert "/api/v1/incidents/20260102-045900-a1b2/ack" in given
    assert "/api/v1/incidents/20260102-045800-c3d4/ack" not in given  # alice has
    assert "/drain" not in paths(page.render({**status, "orders": True, "state": "draining"}))


def test_a_button_is_called_by_the_word_on_it(status):
    named = re.findall(r'<button[^>]* aria-label="([^"]*)">([^<]+)', page.render({**status, "orders": True}))
    assert len(named) > 5 and all(word.lower() in label.lower() for label, word in named)


def test_every_button_leads_to_an_order_that_the_interface_knows(start_admin, tmp_path):
    (tmp_path / "token").write_text("sesame")
    admin = start_admin(token_file=str(tmp_path / "token"))
    shown = admin.ask("/").body.decode()
    given = [path for path in paths(shown) if "/incidents/" not in path]  # they come with their part
    assert given
    for path in given:
        assert admin.ask(path, "POST", authorization="Bearer wrong").status == 401
        assert admin.ask(path).status == 405


def test_an_incident_can_be_told_whole(status):
    reader = read(status)
    assert "detected" in reader.text["incident-20260102-045900-a1b2"]
    assert "acknowledged by alice" in reader.text["incident-20260102-045800-c3d4"]
    assert "/api/v1/incidents/20260102-045900-a1b2" in [fields.get("href") for fields in reader.all("a")]


def test_the_worst_incident_comes_first(status):
    status["incidents"].reverse()
    shown = sections(status)["incidents"]
    assert shown.index("critical") < shown.index("warning")


def test_of_many_incidents_the_first_are_shown_and_the_others_folded(status):
    status["incidents"] = [{**status["incidents"][0], "id": f"20260102-{n}"} for n in range(500)]
    shown = sections(status)["incidents"]
    assert shown.count("<article") == MAX_TROUBLES
    assert shown.index("20260102-7") < shown.index("<summary>492 more</summary>") < shown.index("20260102-8")
    assert "500 open" in shown


def test_a_crowd_stays_within_bounds(status):
    one = status["upstreams"][1]["endpoints"]
    crowd = [{**one[0], "address": f"10.0.{n // 250}.{n % 250}:80"} for n in range(1000)]
    status["upstreams"][1]["endpoints"] = [*crowd, *({**one[1], "address": f"10.9.9.{n}:80"} for n in range(30))]
    parts = sections(status)
    assert parts["upstreams"].count("<tr>") == MAX_ENDPOINTS + 1 + 4  # and heads: of those out, more, and in use
    assert "<summary>22 more that are out</summary>" in parts["upstreams"]
    assert "<summary>20 endpoints that are in use</summary>" in parts["upstreams"]
    assert parts["upstreams"].count(">unhealthy<") == 30
    assert "980 more" in parts["upstreams"]
    assert "30 of 1,030 endpoints of payments are unhealthy" in parts["attention"]
    assert "Dependency taxes" in parts["attention"], "many of a kind hide nothing else"
    status["breakers"] = [{**status["breakers"][1], "name": f"b{number}"} for number in range(50)]
    assert sections(status)["attention"].count("<li") == MAX_TROUBLES + 1


def test_the_payload_is_small(status):
    assert len(status["upstreams"]) == 2
    status["upstreams"] *= 10
    status["breakers"] *= 5
    files = sum(len(content) for content, _ in page.assets().values())
    assert len(page.render(status).encode()) + files < 150_000


# For those who do not see it ------------------------------------------------------------------------------------------


def test_headings_tables_and_regions_are_named():
    reader = read(STATUS)
    levels = [int(tag[1]) for tag, _ in reader.tags if tag in {"h1", "h2", "h3"}]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert len(reader.all("table")) == len(reader.all("caption")) > 3
    for scrolled in (fields for fields in reader.all("div") if fields.get("class") == "wide"):
        assert scrolled["tabindex"] == "0" and scrolled["role"] == "region" and scrolled["aria-label"]
    ids = [fields["id"] for _, fields in reader.tags if "id" in fields]
    assert len(ids) == len(set(ids))


def test_what_needs_attention_is_announced_and_its_links_lead_somewhere():
    reader = read(STATUS)
    by_id = {fields["id"]: fields for _, fields in reader.tags if "id" in fields}
    assert by_id["attention"]["aria-live"] == "polite"
    assert by_id["state"]["role"] == "status"
    targets = [fields["href"][1:] for fields in reader.all("a") if fields["href"].startswith("#")]
    assert targets and set(targets) <= set(by_id)


def test_a_state_is_a_word_and_not_only_a_colour():
    for words_ in ("open", "unhealthy", "ejected", "degraded", "healthy"):
        assert f">{words_}</span>" in page.render(STATUS)


# What a browser is sent -----------------------------------------------------------------------------------------------


def pass_time(status, seconds):
    """The same, so many seconds later, with nothing having happened."""
    later = json.loads(json.dumps(status).replace("05:00:00.000+00:00", f"05:00:{seconds:06.3f}+00:00"))
    later["uptime_seconds"] += seconds
    for one in later["breakers"]:
        one["for_seconds"] += seconds
        if one["remaining_seconds"] is not None:
            one["remaining_seconds"] = max(0.0, one["remaining_seconds"] - seconds)
    later["upstreams"][1]["endpoints"][2]["ejected_for_seconds"] -= seconds
    for one in [later["shared"], *later["shared"]["peers"]]:
        one["heard_seconds_ago"] += seconds
    return later


class Watched:
    """What one browser is sent, told by a status and how many seconds it is later than the first."""

    def __init__(self, status) -> None:
        self.follower = page.Follower()
        self.first = self.later(status)

    def later(self, status, seconds=0.0):
        return self.follower.news(page.Sight(status, 100.0 + seconds))


def test_all_at_first_and_then_nothing_while_only_time_passes(status):
    watched = Watched(status)
    assert watched.first == sections(status)
    assert watched.later(pass_time(status, 2.5), 2.5) == {}


def test_an_open_period_that_ends_is_news_of_its_card(status):
    assert set(Watched(status).later(pass_time(status, 3.0), 3.0)) == {"breaker-egress"}


def test_a_clock_that_began_anew_is_news(status):
    watched, later = Watched(status), pass_time(status, 2.5)
    later["breakers"][0]["for_seconds"] = 0.0
    assert "meter" in sections(later)["breakers"]  # fills by itself, too
    assert set(watched.later(later, 2.5)) == {"breaker-app"}


def test_only_what_changed_is_sent_and_once(status):
    watched = Watched(status)
    status["traffic"]["rps"] = 1.0
    assert watched.later(status) == {"traffic": sections(status)["traffic"]}
    assert watched.later(status) == {}
    status["upstreams"][1]["inflight"] += 1
    (card,) = watched.later(status).items()
    assert card[0] == "upstream-payments"
    assert card[1].startswith('<article id="upstream-payments"') and card[1].endswith("</article>")


def test_a_card_that_goes_or_is_called_anything_is_sent_with_its_part(status):
    status["upstreams"][0]["name"] = EVIL
    watched = Watched(status)
    status["upstreams"][0]["inflight"] += 1
    assert set(watched.later(status)) == {f"upstream-{EVIL}"}
    del status["upstreams"][0]
    assert set(watched.later(status)) == {"upstreams"}
