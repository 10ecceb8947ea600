"""`sidecar status`, `drain`, `reload`, `stop` against a real admin socket, and how the socket is found."""

import json
import os
import subprocess
import sys

import pytest

from sidecar.cli import control, exits, main
from sidecar.config.document import Admin as AdminConfig
from sidecar.control.admin import ReloadResult
from sidecar.runtime.admin_http import Door
from tests.fakes.admin import running


@pytest.fixture
def admin(tmp_path):
    with running(AdminConfig(bind="127.0.0.1:0", socket=str(tmp_path / "admin.sock"))) as one:
        yield one


@pytest.fixture
def sidecar(admin, monkeypatch):
    """Call a verb on the running admin's socket."""
    monkeypatch.delenv("SIDECAR_CONFIG", raising=False)

    def call(*arguments: str) -> int:
        return main([*arguments, "--socket", admin.doors[Door.UNIX].path])

    return call


def test_status_shows_what_runs(sidecar, capsys):
    assert sidecar("status") == exits.OK
    text = capsys.readouterr().out
    for expected in (
        "orders (orders-7d9f)  ready  up 1d 2h",
        "1,833.4 requests/s",
        "inbound",
        "-> payments",
        "UNHEALTHY",
    ):
        assert expected in text


def test_status_says_what_the_page_says(sidecar, admin, capsys):
    from sidecar.control.page import words

    assert sidecar("status") == exits.OK
    lines = capsys.readouterr().out.splitlines()
    for trouble in words.troubles(admin.program.state):
        assert f"! {trouble.text}" in lines
    told = {line.split()[0]: line for line in lines if line.startswith(" ")}
    assert (
        "OPEN           for 11s  5 of 7 failed (71 %)  5 failures in a row; next trial in 48s; 1,204 refused"
        in told["payments"]
    )
    assert "HELD OPEN" in told["payments/pay"] and "ordered by alice: deploy; until it is reset" in told["payments/pay"]
    assert "would be open" in told["egress"] and "1,204 would have been refused" in told["egress"]
    assert "detected" in told["20260102-045900-a1b2"] and "for 1m 0s" in told["20260102-045900-a1b2"]
    assert "5 failures in a row; 59 of 1,200 requests failed; 1 relapse" in told["20260102-045900-a1b2"]
    assert "acknowledged by alice" in told["20260102-045800-c3d4"]
    assert "EJECTED" in told["[fd00::8]:8080"] and "9 of 10 calls failed; back in 28s" in told["[fd00::8]:8080"]
    assert "answered 500" in told["10.0.0.8:8080"]
    assert "by dns payments.shop.svc:8080, last answer 3s ago" in told["found"]
    assert "degraded" in told["taxes"] and "1 of 2 healthy" in told["taxes"]
    assert any("cache" in line and "1,213 answers, 12.4/s" in line for line in lines)


def test_what_others_wrote_cannot_command_the_terminal(sidecar, admin, capsys):
    admin.program.state["dependencies"][0] |= {"state": "unhealthy", "detail": "\x1b]0;gone\x07\nroot# "}
    admin.program.state["config"] |= {"last_reload_ok": False, "last_reload_error": "two\nlines \x9b2J"}
    assert sidecar("status") == exits.OK
    text = capsys.readouterr().out
    assert not set(text) & set("\x1b\x07\x9b")
    assert "\n  lines \\x9b2J\n" in text


def test_status_as_json_is_the_api_s(sidecar, admin, capsys):
    assert sidecar("status", "--json") == exits.OK
    assert json.loads(capsys.readouterr().out) == admin.program.state


@pytest.mark.parametrize("state", ["starting", "draining", "stopping"])
def test_status_exits_3_when_not_ready(sidecar, admin, state):
    admin.program.state["state"] = state
    assert sidecar("status") == exits.UNHEALTHY


def test_status_tells_of_an_invalid_file_and_of_restarts(sidecar, admin, capsys):
    admin.program.state["config"] |= {
        "last_reload_ok": False,
        "last_reload_error": "3:1: no such key",
        "restart_needed": ["workers: 1 -> 2"],
    }
    assert sidecar("status") == exits.OK
    text = capsys.readouterr().out
    assert "the last good one runs: 3:1: no such key" in text
    assert "Needs a restart: workers: 1 -> 2" in text


def test_status_copes_with_figures_that_are_not_known(sidecar, admin, capsys):
    admin.program.state["traffic"] = dict.fromkeys(admin.program.state["traffic"])
    admin.program.state["listeners"] = admin.program.state["upstreams"] = []
    assert sidecar("status") == exits.OK


@pytest.mark.parametrize("verb", ["drain", "reload", "stop"])
def test_a_command_is_done_and_its_answer_shown(sidecar, admin, capsys, verb):
    assert sidecar(verb) == exits.OK
    assert admin.program.commands == [verb]
    assert capsys.readouterr().out
    assert sidecar(verb, "--json") == exits.OK
    assert json.loads(capsys.readouterr().out)["ok"] is True


def test_a_refused_reload_shows_the_fault_and_exits_78(sidecar, admin, capsys):
    admin.program.reloaded = ReloadResult(False, "sidecar.yaml:3:1: listners: unknown key")
    assert sidecar("reload") == exits.CONFIG
    assert "listners" in capsys.readouterr().err


def test_nobody_there_says_what_to_do(tmp_path, capsys):
    path = str(tmp_path / "none.sock")
    assert main(["status", "--socket", path]) == exits.UNHEALTHY
    assert main(["drain", "--socket", path]) == exits.FAILED
    assert f"{path} does not exist; name the file that it runs with -c FILE" in capsys.readouterr().err


def test_a_dead_socket_says_so(tmp_path, capsys):
    from sidecar.runtime.admin_socket import bind_unix

    path = str(tmp_path / "dead.sock")
    bind_unix(path)[0].close()
    assert main(["drain", "--socket", path]) == exits.FAILED
    assert "look at its log" in capsys.readouterr().err


def test_watching_goes_on_until_interrupted(admin):
    path = admin.doors[Door.UNIX].path
    watching = subprocess.Popen(
        [sys.executable, "-m", "sidecar", "status", "--watch", "--json", "--socket", path],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout is not None
    with watching, watching.stdout as lines:
        assert json.loads(lines.readline())["state"] == "ready"
        admin.program.state["state"] = "draining"
        while json.loads(lines.readline())["state"] != "draining":
            pass
        watching.send_signal(2)
        assert watching.wait(20) == exits.OK


# Finding the socket --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nadmin: {bind: 127.0.0.1:9901, socket: /x/a.sock, probes: {bind: 0.0.0.0:9902}}\n",
        "admin:\n  bind: 127.0.0.1:9901\n  socket: /x/a.sock\nlisteners: []\n",
        'admin: {socket: "/x/a.sock"}\nlistners: []\n',
        "admin:\n  # where\n\n  socket: '/x/a.sock'   # here\n  bnd: 1\n",
        "listeners: [\nadmin:\n  socket: /x/a.sock\n",
        "admin: {socket: /x/a.sock, socket: /x/a.sock}\n",
        "admin: {socket: '${env:TEST_SOCKET_DIR}/a.sock'}\n",
        "admin: {socket: ${env:TEST_SOCKET_DIR}/a.sock}\nlistners: []\n",
        "listners: []\nadmin:\n  socket: ${env:TEST_NOT_SET:-/x}/a.sock\n",
        "service: {name: \xff}\nadmin:\n  socket: /x/a.sock\n",
    ],
)
def test_the_socket_is_found_in_a_file_valid_or_not(tmp_path, monkeypatch, text):
    monkeypatch.setenv("TEST_SOCKET_DIR", "/x")
    file = tmp_path / "sidecar.yaml"
    file.write_bytes(text.encode("latin-1"))
    assert control.find_socket(str(file), given=True) == "/x/a.sock"


@pytest.mark.parametrize(
    "text",
    ["", "version: 1\n", "garbage: [\n", "recovery:\n  socket: /x/a.sock\n", "admin: {bind: 127.0.0.1:1}\nx: 1\n"],
)
def test_without_a_word_about_it_the_socket_is_the_default(tmp_path, text):
    file = tmp_path / "sidecar.yaml"
    file.write_text(text)
    assert control.find_socket(str(file), given=True) == control.DEFAULT_SOCKET


def test_the_default_is_the_configurations():
    assert AdminConfig().socket == control.DEFAULT_SOCKET


def test_an_absent_default_file_leads_to_the_default_socket_and_a_named_one_is_an_error(tmp_path, capsys):
    absent = str(tmp_path / "absent.yaml")
    assert control.find_socket(absent, given=False) == control.DEFAULT_SOCKET
    assert main(["status", "-c", absent]) == exits.CONFIG
    assert "--socket" in capsys.readouterr().err


def test_the_config_file_leads_to_the_running_proxy(admin, tmp_path, capsys):
    file = tmp_path / "sidecar.yaml"
    file.write_text(f"admin: {{socket: {admin.doors[Door.UNIX].path}}}\nlistners: []\n")
    assert main(["drain", "-c", str(file)]) == exits.OK
    assert os.path.exists(admin.doors[Door.UNIX].path)
