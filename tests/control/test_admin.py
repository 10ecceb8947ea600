"""What the admin interface answers, and to whom."""

import gzip
import json
import urllib.request
import zlib

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sidecar.control.admin import MAX_VIEWERS, ReloadResult
from sidecar.control.page.sections import sections
from sidecar.runtime.admin_http import Door

EVERYWHERE = list(Door)
PROBE_PATHS = ["/livez", "/readyz", "/healthz", "/startupz", "/livez/service"]


@pytest.mark.parametrize("door", EVERYWHERE)
@pytest.mark.parametrize("path", PROBE_PATHS)
def test_probes_say_ok_at_every_door(admin, door, path):
    answer = admin.ask(path, door=door)
    assert (answer.status, answer.body) == (200, b"ok\n")


@pytest.mark.parametrize(
    ("attribute", "failing"),
    [
        ("is_live", {"/livez"}),
        ("is_ready", {"/readyz", "/healthz"}),
        ("is_started", {"/startupz"}),
        ("is_service_live", {"/livez/service"}),
    ],
)
def test_each_probe_asks_its_own_question(admin, attribute, failing):
    setattr(admin.program, attribute, False)
    assert {path for path in PROBE_PATHS if admin.ask(path, door=Door.PROBES).status == 503} == failing


@pytest.mark.parametrize("door", EVERYWHERE)
def test_metrics_are_there_at_every_door(admin, door):
    answer = admin.ask("/metrics", door=door)
    assert answer.fields["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(answer.body.decode())}
    assert families["sidecar_requests"].samples[0].value == 3


def test_metrics_come_as_openmetrics_when_asked_for(admin):
    answer = admin.ask("/metrics", accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.1")
    assert answer.fields["content-type"].startswith("application/openmetrics-text")
    assert answer.body.endswith(b"# EOF\n")


@pytest.mark.parametrize("door", [Door.TCP, Door.UNIX])
def test_the_api_answers_json(admin, door):
    assert json.loads(admin.ask("/api/v1/status", door=door).body) == admin.program.state
    assert json.loads(admin.ask("/api/v1/config?x=1", door=door).body) == {"version": 1}
    assert json.loads(admin.ask("/api/v1/breakers", door=door).body) == admin.program.state["breakers"]
    for name in ("health", "registry"):
        assert json.loads(admin.ask(f"/api/v1/{name}", door=door).body) == []


@pytest.mark.parametrize("path", ["/", "/api/v1/status", "/api/v1/config", "/events", "/drain", "/stop", "/page.css"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_probes_door_shows_probes_and_metrics_only(admin, path, method):
    assert admin.ask(path, method, Door.PROBES).status == 404
    assert admin.program.commands == []


def test_every_answer_carries_the_safe_fields(admin):
    for path in ("/", "/livez", "/nothing", "/api/v1/status"):
        fields = admin.ask(path).fields
        assert fields["x-content-type-options"] == "nosniff"
        assert fields["cache-control"] == "no-store"
        assert "default-src 'none'" in fields["content-security-policy"]
        assert "frame-ancestors 'none'" in fields["content-security-policy"]
        assert "unsafe" not in fields["content-security-policy"]


def test_head_answers_like_get_without_the_body(admin):
    got, headed = admin.ask("/api/v1/config"), admin.ask("/api/v1/config", "HEAD")
    assert (headed.status, headed.body) == (200, b"")
    assert headed.fields["content-length"] == got.fields["content-length"]


# Commands ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["drain", "reload", "stop"])
def test_commands_work_over_the_unix_socket(admin, verb):
    answer = admin.ask(f"/{verb}", "POST", Door.UNIX)
    assert answer.status == 200
    assert json.loads(answer.body)["ok"] is True
    assert admin.program.commands == [verb]


@pytest.mark.parametrize("door", [Door.TCP, Door.UNIX])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_nothing_but_post_changes_anything(admin, door, method):
    for verb in ("drain", "reload", "stop"):
        answer = admin.ask(f"/{verb}", method, door)
        assert (answer.status, answer.fields["allow"]) == (405, "POST")
    assert admin.program.commands == []


def test_what_is_read_is_not_posted(admin):
    answer = admin.ask("/api/v1/status", "POST", Door.UNIX)
    assert (answer.status, answer.fields["allow"]) == (405, "GET, HEAD")


def test_a_reload_that_was_refused_says_so(admin):
    admin.program.reloaded = ReloadResult(False, "sidecar.yaml:3:1: listners: unknown key")
    answer = admin.ask("/reload", "POST", Door.UNIX)
    assert answer.status == 422
    assert json.loads(answer.body) == {
        "ok": False,
        "message": "sidecar.yaml:3:1: listners: unknown key",
        "changes": [],
    }


def test_commands_over_tcp_are_refused_without_a_token_file(admin):
    answer = admin.ask("/drain", "POST", authorization="Bearer ")
    assert answer.status == 403
    assert b"admin.token_file" in answer.body
    assert admin.program.commands == []


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text("  s3cret-token\n")
    return path


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic s3cret-token", "s3cret-token", "Bearer s3cret-token x",
     "Bearer s3cret-toke", "Bearer \xfcml"],
)  # fmt: skip
def test_a_wrong_token_commands_nothing(start_admin, token_file, authorization):
    admin = start_admin(token_file=str(token_file))
    fields = {} if authorization is None else {"authorization": authorization}
    answer = admin.ask("/drain", "POST", **fields)
    assert (answer.status, answer.fields["www-authenticate"]) == (401, 'Bearer realm="sidecar"')
    assert admin.program.commands == []


def test_the_token_commands_over_tcp_and_can_be_rotated(start_admin, token_file):
    admin = start_admin(token_file=str(token_file))
    assert admin.ask("/drain", "POST", authorization="Bearer s3cret-token").status == 200
    assert admin.ask("/reload", "POST", authorization="bearer s3cret-token").status == 200
    token_file.write_text("another")
    assert admin.ask("/stop", "POST", authorization="Bearer s3cret-token").status == 401
    assert admin.program.commands == ["drain", "reload"]


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_a_token_file_that_is_absent_or_empty_lets_nobody_in(start_admin, tmp_path, content):
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    admin = start_admin(token_file=str(path))
    assert admin.ask("/drain", "POST", authorization="Bearer ").status == 403
    assert admin.ask("/drain", "POST", Door.UNIX).status == 200


# Lured browsers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9901", "127.0.0.1:1", "10.1.2.3", "[::1]:9901", "[fd00::1]"])
def test_an_address_is_a_good_host(admin, host):
    assert admin.ask("/api/v1/status", host=host).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9901", "127.0.0.1.evil.example", "localhost.evil", "::1"]
)
def test_a_rebound_name_is_refused(admin, host):
    for path in ("/", "/api/v1/status", "/metrics", "/livez"):
        assert admin.ask(path, host=host).status == 403


def test_the_name_in_bind_is_a_good_host(start_admin):
    admin = start_admin(bind="localhost:0")
    assert admin.ask("/livez", host="localhost:9901").status == 200


def test_kubelets_and_prometheus_may_name_the_probes_door_as_they_like(admin):
    assert admin.ask("/metrics", door=Door.PROBES, host="orders-7d9f.shop.svc:9902").status == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:9901", "http://127.0.0.1"])
def test_another_origin_may_not_even_read(admin, origin):
    assert admin.ask("/api/v1/status", host="127.0.0.1:9901", origin=origin).status == 403


def test_another_origin_commands_nothing_even_with_the_token(start_admin, token_file):
    admin = start_admin(token_file=str(token_file))
    answer = admin.ask("/stop", "POST", authorization="Bearer s3cret-token", origin="http://evil.example")
    assert answer.status == 403
    assert admin.program.commands == []


def test_our_own_origin_is_welcome(admin):
    assert admin.ask("/api/v1/status", host="127.0.0.1:9901", origin="http://127.0.0.1:9901").status == 200


# The live status -----------------------------------------------------------------------------------------------------


def follow(admin):
    sock = admin.connect()
    sock.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return sock, sock.makefile("rb")


def next_parts(stream) -> dict:
    """The next parts of the page that the stream brings, by name."""
    event = b""
    while not ((line := stream.readline()).startswith(b"data: ") and event == b"event: parts\n"):
        assert line, "the stream ended"
        event = line
    return json.loads(line.removeprefix(b"data: "))


def test_the_stream_brings_the_page_and_then_what_changes(admin):
    sock, stream = follow(admin)
    with sock:
        assert next_parts(stream) == sections(admin.program.state)
        admin.program.state["uptime_seconds"] += 1  # no news
        admin.program.state["state"] = "draining"
        news = next_parts(stream)
        assert news == {"state": sections(admin.program.state)["state"]}


def test_the_page_and_its_stream_are_packed_for_who_takes_that(admin):
    plain, packed = admin.ask("/"), admin.ask("/", accept_encoding="br, gzip;q=0.5")
    assert packed.fields["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    assert len(packed.body) * 3 < len(plain.body)
    assert "content-encoding" not in admin.ask("/", accept_encoding="gzip;q=0").fields
    assert "content-encoding" not in admin.ask("/api/v1/status", accept_encoding="gzip").fields
    asked = urllib.request.Request(
        f"http://127.0.0.1:{admin.doors[Door.TCP].port}/events", headers={"accept-encoding": "gzip"}
    )
    with urllib.request.urlopen(asked, timeout=10) as stream:
        unpack, text = zlib.decompressobj(wbits=31), b""
        while b"event: parts" not in text:
            text += unpack.decompress(stream.read1())
    assert b"breaker-payments" in text


def test_the_stream_begins_with_the_version_that_the_page_must_have(admin):
    sock, stream = follow(admin)
    with sock:
        while (line := stream.readline()) != b"event: version\n":
            assert line
        assert stream.readline() == b"data: 0.1.0\n"
        assert 'data-version="0.1.0"' in admin.ask("/").body.decode()


def test_what_happens_is_not_kept_waiting_for_the_next_look_at_everything(admin, monkeypatch):
    monkeypatch.setattr("sidecar.control.lookout.EVERY", 4000.0)
    sock, stream = follow(admin)
    with sock:
        next_parts(stream)
        admin.program.state["breakers"][0]["machine"] = "open"
        admin.program.happened += 1
        assert 'data-state="open"' in next_parts(stream)["breakers"]


def test_the_number_of_viewers_is_bounded_and_one_that_left_makes_room(admin):
    viewers = [follow(admin) for _ in range(MAX_VIEWERS)]
    for _, stream in viewers:
        next_parts(stream)
    assert admin.ask("/events").status == 503
    viewers[0][1].close()
    viewers[0][0].close()
    while admin.admin._viewers == MAX_VIEWERS:
        admin.ask("/livez")
    sock, stream = follow(admin)
    assert next_parts(stream)
    for one, opened in [*viewers[1:], (sock, stream)]:
        opened.close()
        one.close()
