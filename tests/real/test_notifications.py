"""Who is told of incidents: every way there is, through bad receivers and a kill, and the next when nobody answers."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.alertmanager import alertmanager
from tests.fakes.https import https_server
from tests.fakes.mail import mail_server
from tests.fakes.tls import certificate
from tests.fakes.upstream import ScriptedUpstream, never, says, sends
from tests.fakes.wire import Message, Wire
from tests.real.documents import document, free_port, listener, route, upstream
from tests.real.harness import Sidecar
from tests.real.test_incidents import incidents, kinds, report, whole

CONDITION = {"kind": "agent_condition", "subject": "db", "level": "error", "reason": "backup_failed",
             "detail": 'the <disk> is "full"'}  # fmt: skip
GONE = {**CONDITION, "fields": {"holds": False}}


@pytest.fixture
def receiver() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running.otherwise(says(b"ok"))


def secret(directory: Path, name: str, text: str) -> str:
    path = directory / name
    path.write_text(text + "\n")
    return str(path)


def settings(tmp_path: Path, *notify: dict[str, Any], **more: Any) -> dict[str, Any]:
    dead = upstream("app", f"127.0.0.1:{free_port()}")
    kept = {"store": str(tmp_path / "incidents.db"), "resolve_after": "100ms", "notify": list(notify), **more}
    return document([listener("in", [route("all", "app")])], [dead], incidents=kept)


def count(proxy: Sidecar, receiver: str, result: str) -> float:
    return proxy.metrics().sum("sidecar_notifications_total", receiver=receiver, result=result)


def told(receiver: ScriptedUpstream, path: str, count: int = 1) -> list[dict[str, Any]]:
    """The bodies that came to `path`, once there are so many."""
    receiver.wait_until(lambda: sum(one.body != b"" for one in receiver.requests(path)) >= count, f"{count} at {path}")
    return [json.loads(one.body) for one in receiver.requests(path)]


def test_every_way_to_tell_somebody(tmp_path: Path, receiver: ScriptedUpstream) -> None:
    mail_port, am_port = free_port(), free_port()
    template = '{"say": "{{ what }}: {{title}} ({{severity}})", "id": "{{id}}"}'
    plain = {"url": f"http://{receiver.address}/text", "content_type": "text/plain", "body": "{{headline}}"}
    config = settings(
        tmp_path,
        {"name": "hook", "webhook": {"url_file": secret(tmp_path, "url", f"http://{receiver.address}/hook?key=s3cr3t"),
                                     "token_file": secret(tmp_path, "token", "t0k3n")}},
        {"name": "made", "webhook": {"url": f"http://{receiver.address}/made", "body": template}},
        {"name": "text", "webhook": plain},
        {"name": "slack", "slack": {"url_file": secret(tmp_path, "slack", f"http://{receiver.address}/slack/h00k")}},
        {"name": "pager", "pagerduty": {"routing_key_file": secret(tmp_path, "key", "r0ut1ng"),
                                        "url": f"http://{receiver.address}/v2/enqueue"}},
        {"name": "mail", "email": {"server": f"127.0.0.1:{mail_port}", "tls": "none", "sender": "sidecar@example.test",
                                   "to": ["ops@example.test", "nobody@example.test"]}},
        {"name": "am", "alertmanager": {"url": f"http://127.0.0.1:{am_port}"}},
        {"name": "quiet", "least": "critical", "webhook": {"url": f"http://{receiver.address}/quiet"}},
    )  # fmt: skip
    with alertmanager(tmp_path, am_port) as manager, mail_server(mail_port) as box, Sidecar(config) as proxy:
        report(proxy, CONDITION)
        proxy.wait_until(lambda: proxy.metrics().sum("sidecar_notifications_total", result="sent") == 7, "all hear")
        one = incidents(proxy)[0]["id"]

        hook = told(receiver, "/hook")[0]
        assert (hook["what"], hook["id"], hook["severity"]) == ("opened", one, "error")
        assert receiver.requests("/hook")[0].get("authorization") == "Bearer t0k3n"
        assert told(receiver, "/made")[0] == {"say": 'opened: db: the <disk> is "full" (error)', "id": one}
        assert receiver.requests("/text")[0].body == b'[error] opened: db: the <disk> is "full" (tested)'
        slack = told(receiver, "/slack/h00k")[0]
        assert "&lt;disk&gt;" in slack["text"] and "<disk>" not in json.dumps(slack["blocks"])
        event = told(receiver, "/v2/enqueue")[0]
        assert (event["event_action"], event["routing_key"], event["dedup_key"]) == ("trigger", "r0ut1ng", one)
        assert event["payload"]["severity"] == "error" and event["payload"]["source"]
        assert box.envelopes[0].rcpt_tos == ["ops@example.test"], "the other mailbox does not exist"
        assert box.letters[0]["subject"] == '[error] opened: db: the <disk> is "full" (tested)'
        (alert,) = manager.alerts()
        assert alert["labels"]["alertname"] == "backup_failed" and alert["labels"]["subject"] == "db"
        assert alert["status"]["state"] == "active" and alert["annotations"]["incident"] == one

        proxy.command("incidents", "ack", one)
        assert told(receiver, "/v2/enqueue", 2)[1]["event_action"] == "acknowledge"
        report(proxy, GONE)
        assert told(receiver, "/v2/enqueue", 3)[2] == {
            "routing_key": "r0ut1ng",
            "event_action": "resolve",
            "dedup_key": one,
        }
        assert told(receiver, "/hook", 3)[2]["what"] == "resolved"
        proxy.wait_until(lambda: manager.alerts() == [], "Alertmanager hears that it is over")
        proxy.wait_until(lambda: len(box.letters) == 3, "the mail of the resolution")
        assert len({letter["references"] for letter in box.letters}) == 1
        assert receiver.requests("/quiet") == []
        assert "incident_told" in kinds(whole(proxy, one))
        assert proxy.metrics().sum("sidecar_incident_notify_seconds_count") == 1
        spoken = (
            proxy.log
            + proxy.metrics().text
            + proxy.admin("/api/v1/config").body.decode()
            + json.dumps(whole(proxy, one))
        )
        for hidden in ("s3cr3t", "t0k3n", "h00k", "r0ut1ng"):
            assert hidden not in spoken


def test_an_incident_that_worsens_is_one_alert(tmp_path: Path) -> None:
    port = free_port()
    with alertmanager(tmp_path, port) as manager:
        config = settings(tmp_path, {"name": "am", "alertmanager": {"url": f"http://127.0.0.1:{port}/"}})
        with Sidecar(config) as proxy:
            report(proxy, {**CONDITION, "level": "warning"})
            proxy.wait_until(manager.alerts, "the alert")
            report(proxy, {**CONDITION, "fields": {"severity": "critical"}})
            proxy.wait_until(
                lambda: [one["labels"]["severity"] for one in manager.alerts()] == ["critical"], "only the worse"
            )


def test_mail_over_starttls_with_a_login(tmp_path: Path) -> None:
    port = free_port()
    pair = certificate(tmp_path)
    email = {"server": f"localhost:{port}", "ca_file": str(pair[0]), "sender": "sidecar@example.test",
             "to": ["ops@example.test"], "username": "sidecar",
             "password_file": secret(tmp_path, "password", "opensesame")}  # fmt: skip
    with mail_server(port, pair) as box, Sidecar(settings(tmp_path, {"name": "mail", "email": email})) as proxy:
        report(proxy, CONDITION)
        proxy.wait_until(lambda: box.letters, "the mail")
        assert box.logins == [(b"sidecar", b"opensesame")]
        assert "opensesame" not in proxy.log


def test_a_private_authority_vouches_for_a_receiver(tmp_path: Path) -> None:
    pair = certificate(tmp_path)
    with https_server(*pair) as port:
        url = f"https://localhost:{port}/"
        config = settings(
            tmp_path,
            {"name": "known", "webhook": {"url": url, "ca_file": str(pair[0])}},
            {"name": "stranger", "webhook": {"url": url}},
            {"name": "nofile", "alertmanager": {"url": url, "ca_file": str(tmp_path / "absent")}},
        )
        with Sidecar(config) as proxy:
            report(proxy, CONDITION)
            proxy.wait_until(lambda: count(proxy, "known", "sent"), "the one that is trusted")
            for name in ("stranger", "nofile"):
                proxy.wait_until(lambda name=name: count(proxy, name, "failed"), name)


def flood(peer: Wire, request: Message) -> None:
    """Answer with a gigabyte, as far as it is taken."""
    peer.read_body(request)
    try:
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n", *[bytes(1 << 20)] * 1024)
    except OSError:
        pass
    peer.close()


def test_bad_receivers_hold_up_nobody_else(tmp_path: Path, receiver: ScriptedUpstream) -> None:
    moved = [("location", f"http://{receiver.address}/elsewhere")]
    receiver.on("/broken", says(b"x" * 100_000, "500 Internal Server Error"))
    receiver.on("/hangs", never)
    receiver.on("/moved", says(b"", "307 Temporary Redirect", moved))
    receiver.on("/flood", flood)
    receiver.on("/never", says(b"", "422 Unprocessable Content"))
    receiver.on("/garbage", sends(b"\x00\x01\x02\r\n\r\n", then="close"))
    bad = ("broken", "hangs", "moved", "never", "garbage")
    names = (*bad, "flood", "good")
    config = settings(
        tmp_path,
        *({"name": name, "webhook": {"url": f"http://{receiver.address}/{name}"}} for name in names),
        {"name": "gone", "webhook": {"url": f"http://127.0.0.1:{free_port()}/"}},
        {"name": "nofile", "slack": {"url_file": str(tmp_path / "absent")}},
    )
    with Sidecar(config) as proxy:
        before = proxy.rss()
        report(proxy, CONDITION)
        told(receiver, "/good")
        for name in ("broken", "moved", "garbage", "gone", "nofile"):
            proxy.wait_until(lambda name=name: count(proxy, name, "failed") >= 1, f"{name} failed")
        proxy.wait_until(lambda: count(proxy, "never", "dropped"), "never is dropped")
        proxy.wait_until(lambda: count(proxy, "flood", "sent"), "flood is sent")
        report(proxy, GONE)
        assert told(receiver, "/good", 2)[1]["what"] == "resolved"
        assert receiver.requests("/elsewhere") == [], "no redirect is followed"
        assert proxy.rss() - before < 60 << 20, "the answer is not taken in"
        why = {line["text"] for line in whole(proxy, incidents(proxy)[0]["id"])["timeline"]}
        assert "never could not be told that it was opened: answered 422; it is not tried again" in why
        assert f"nofile could not be told that it was opened: {tmp_path / 'absent'} cannot be read" in str(why)
        receiver.wait_until(lambda: len(receiver.requests("/broken")) >= 2, "it is tried again")


def test_what_was_not_sent_survives_a_kill(tmp_path: Path) -> None:
    port = free_port()
    config = settings(tmp_path, {"name": "ops", "webhook": {"url": f"http://127.0.0.1:{port}/hook"}})
    with Sidecar(config, exit_code=-signal.SIGKILL) as proxy:
        report(proxy, CONDITION)
        proxy.wait_until(lambda: proxy.metrics().sum("sidecar_notifications_total", result="failed"), "nobody is there")
        one = incidents(proxy)[0]["id"]
        proxy.signal(signal.SIGKILL)
        proxy.process.wait()
    with ScriptedUpstream(port) as receiver, Sidecar(config) as proxy:
        found = told(receiver.otherwise(says(b"ok")), "/hook")
        assert (found[0]["id"], found[0]["what"]) == (one, "opened")
        proxy.wait_until(lambda: proxy.metrics().sum("sidecar_notifications_waiting") == 0, "told, and forgotten")
        assert len(receiver.requests("/hook")) == 1


def test_nobody_answers_so_the_next_is_told_until_somebody_does(tmp_path: Path, receiver: ScriptedUpstream) -> None:
    config = settings(
        tmp_path,
        {"name": "ops", "webhook": {"url": f"http://{receiver.address}/ops"}},
        {"name": "lead", "hears": "escalated", "webhook": {"url": f"http://{receiver.address}/lead"}},
        {"name": "boss", "hears": "escalated", "webhook": {"url": f"http://{receiver.address}/boss"}},
        escalate=[{"after": "200ms", "to": "lead"}, {"after": "3s", "to": "boss"}],
    )
    with Sidecar(config) as proxy:
        report(proxy, CONDITION)
        assert told(receiver, "/lead")[0]["what"] == "escalated"
        assert told(receiver, "/ops")[0]["what"] == "opened"
        one = incidents(proxy)[0]["id"]
        assert proxy.admin(f"/api/v1/incidents/{one}/ack", "POST", unix=True).status == 200
        assert [each["what"] for each in told(receiver, "/lead", 2)] == ["escalated", "acknowledged"]
        report(proxy, {**CONDITION, "reason": "drill_failed"})
        proxy.wait_until(lambda: receiver.requests("/boss"), "the other incident comes to the boss")
        assert {each["failure"] for each in told(receiver, "/boss")} == {"drill_failed"}, "an acknowledged one does not"
        assert "incident_escalated" in kinds(whole(proxy, one))


def test_who_hears_changes_with_a_reload(tmp_path: Path, receiver: ScriptedUpstream) -> None:
    gone = {"name": "gone", "webhook": {"url": f"http://127.0.0.1:{free_port()}/"}}
    with Sidecar(settings(tmp_path, gone)) as proxy:
        report(proxy, CONDITION)
        proxy.wait_until(lambda: count(proxy, "gone", "failed"), "nobody is there")
        proxy.config["incidents"]["notify"] = [{"name": "ops", "webhook": {"url": f"http://{receiver.address}/ops"}}]
        proxy.write(proxy.config)
        proxy.command("reload")
        proxy.wait_until(
            lambda: proxy.metrics().sum("sidecar_notifications_waiting") == 0, "what nobody takes is dropped"
        )
        proxy.command("incidents", "ack", incidents(proxy)[0]["id"])
        assert [each["what"] for each in told(receiver, "/ops")] == ["acknowledged"]
