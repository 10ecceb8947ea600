"""The configuration verbs as the shell sees them: output, exit codes, colour, start-up cost."""

import datetime as dt
import json
import os
import subprocess
import sys

import pytest

from sidecar.cli import main
from sidecar.cli.verbs import VERBS
from sidecar.config.load import load, parse
from tests.fakes.trust import Authority

SOUND = """\
listeners:
- {name: in, bind: "127.0.0.1:8080", routes: [{name: all, upstream: app}]}
upstreams:
- {name: app, endpoints: [{address: "127.0.0.1:8000"}]}
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SIDECAR_CONFIG", raising=False)

    def write(text, name="c.yaml"):
        (tmp_path / name).write_text(text)
        return name

    return write


def sidecar(capsys, *arguments):
    try:
        code = main(arguments)
    except SystemExit as exit_:
        code = exit_.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_check_of_a_sound_file(write, capsys):
    assert sidecar(capsys, "check", "-c", write(SOUND)) == (0, "c.yaml: ok\n", "")


def test_check_prints_every_fault_and_exits_78(write, capsys):
    code, out, err = sidecar(capsys, "check", "-c", write("wrokers: 2\n" + SOUND.replace("app}", "ap}")))
    assert code == 78
    assert out.splitlines() == [
        "c.yaml:1:1: wrokers: unknown key; did you mean workers?",
        "c.yaml:3:69: listeners[0].routes[0].upstream: there is no upstream 'ap'; there is app",
    ]
    assert err == "c.yaml: 2 faults\n"


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "c.yaml: ok"),
        ({"cert": None}, "listeners[0].tls.cert_file: note: /nowhere/x is not there yet"),
        (
            {"key": "other"},
            "listeners[0].tls.key_file: cert_file CERT and key_file KEY do not belong together",
        ),
        ({"cert": "old", "key": "old"}, "listeners[0].tls.cert_file: note: CERT has ended: nobody will trust it"),
        ({"cert": "none"}, "listeners[0].tls.cert_file: CERT holds no certificate in PEM"),
        ({"key": "none"}, "listeners[0].tls.key_file: KEY is no private key in PEM that goes with cert_file CERT"),
        ({"key": "locked"}, "listeners[0].tls.key_file: KEY has a pass phrase: give the key without one"),
        ({"ca": "none"}, "listeners[0].tls.client_ca_file: CA holds no certificate in PEM"),
        ({"ca": "directory"}, "listeners[0].tls.client_ca_file: CA cannot be read: Is a directory"),
    ],
)
def test_check_looks_into_certificates(write, capsys, tmp_path, files, told):
    authority = Authority(tmp_path)
    pair, other = authority.issue("good", "a.test"), authority.issue("other", "b.test")
    ended = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    old = authority.issue("old", "a.test", not_before=ended - dt.timedelta(days=1), not_after=ended)
    (tmp_path / "none.pem").write_text("not PEM at all\n")
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIHsMFcGCSqGSIb3DQEFDTBK\n-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    known = {
        "other": other.key,
        "none": tmp_path / "none.pem",
        "locked": locked,
        "directory": tmp_path,
        None: "/nowhere/x",
    }
    paths = {"cert": pair.cert, "key": pair.key, "ca": authority.file}
    paths |= {which: getattr(old, which) if what == "old" else known[what] for which, what in files.items()}
    section = f"tls: {{cert_file: {paths['cert']}, key_file: {paths['key']}, client_ca_file: {paths['ca']}}}, "
    _, out, _ = sidecar(capsys, "check", "-c", write(SOUND.replace("routes:", section + "routes:")))
    for which, path in paths.items():
        out = out.replace(str(path), which.upper() if path != "/nowhere/x" else str(path))
    assert told in out
    assert "BEGIN" not in out


def test_a_path_below_what_is_no_directory_is_a_fault(write, capsys):
    text = SOUND.replace("127.0.0.1:8080", "unix:/dev/null/l.sock").replace("routes:", "tls: {TLS}, routes:")
    text = (
        text.replace("TLS", "cert_file: /dev/null/cert, key_file: /nowhere/key")
        + """\
admin: {socket: /dev/null/deep/a.sock}
access_log: {path: /dev/null/log}
incidents: {store: /dev/null/incidents.db}
backup:
  state_dir: /dev/null
  admin: {socket: /nowhere/agent.sock}
  repository: {url: /dev/null/repository, password_file: /nowhere/password}
  sources: [{name: f, files: {paths: [/tmp, /dev/null/f, /dev/null]}}]
  drill: {checks: [{source: f, exists: /dev/null/x}], scratch: /nowhere}
"""
    )
    code, out, _ = sidecar(capsys, "check", "-c", write(text))
    assert code == 78
    faults = [line.split(": ", 2) for line in out.splitlines() if ": note: " not in line]
    assert [(place, path) for place, path, message in faults if "/dev/null is no directory" in message] == [
        ("c.yaml:2:20", "listeners[0].bind"),
        ("c.yaml:2:62", "listeners[0].tls.cert_file"),
        ("c.yaml:5:17", "admin.socket"),
        ("c.yaml:6:20", "access_log.path"),
        ("c.yaml:7:20", "incidents.store"),
        ("c.yaml:9:14", "backup.state_dir"),
        ("c.yaml:11:21", "backup.repository.url"),
        ("c.yaml:12:45", "backup.sources[0].files.paths[1]"),
    ]
    assert out.count("/dev/null/cert") == 1
    assert "incidents.store: /dev/null is no directory: /dev/null/incidents.db cannot be" in out


def test_notes_do_not_make_check_fail(write, capsys):
    text = SOUND + "shared_state: {redis: {url: redis://h, password_file: /nowhere/key}}\n"
    code, out, _ = sidecar(capsys, "check", "-c", write(text))
    assert code == 0
    assert "c.yaml:5:55: shared_state.redis.password_file: note: /nowhere/key is not there yet" in out
    assert "c.yaml: ok, 2 notes" in out


def test_check_as_json(write, capsys):
    code, out, _ = sidecar(capsys, "check", "--json", "-c", write("workers: x\n" + SOUND))
    result = json.loads(out)
    assert code == 78
    assert not result["ok"]
    assert result["faults"] == [
        {
            "file": "c.yaml",
            "line": 1,
            "column": 10,
            "path": "workers",
            "message": "a whole number is expected, not 'x'",
        }
    ]
    code, out, _ = sidecar(capsys, "check", "--json", "-c", write(SOUND))
    result = json.loads(out)
    assert (code, result["ok"], len(result["hash"])) == (0, True, 64)


def test_a_file_that_is_not_there_is_a_fault_of_the_configuration(write, capsys):
    for arguments in (["check"], ["print-defaults"], ["diff", "nowhere.yaml", "nowhere.yaml"]):
        extra = [] if arguments[0] == "diff" else ["-c", "nowhere.yaml"]
        code, out, err = sidecar(capsys, *arguments, *extra)
        assert code == 78
        assert "nowhere.yaml:1:1: there is no such file: name another with -c FILE" in out + err


def test_the_file_comes_from_the_environment_when_nobody_names_it(write, capsys, monkeypatch):
    monkeypatch.setenv("SIDECAR_CONFIG", write(SOUND, "env.yaml"))
    assert sidecar(capsys, "check") == (0, "env.yaml: ok\n", "")
    for before in (["-c", write(SOUND)], ["--config=c.yaml"]):
        assert sidecar(capsys, *before, "check") == (0, "c.yaml: ok\n", ""), "before the verb, too"


def test_print_defaults_loads_to_the_same_configuration(write, capsys):
    name = write(SOUND + "service: {name: '007', instance: 'no'}\n")
    code, out, _ = sidecar(capsys, "print-defaults", "-c", name)
    assert code == 0
    assert parse(out) == load(name)
    assert "open_for: 60s" in out
    code, out, _ = sidecar(capsys, "print-defaults", "--json", "-c", name)
    assert json.loads(out)["upstreams"][0]["breaker"]["failure_statuses"] == ["500-599"]


def test_print_defaults_without_a_file_shows_the_smallest_one(write, capsys, monkeypatch):
    monkeypatch.setattr("sidecar.cli.DEFAULT_CONFIG", "nowhere.yaml")
    code, out, _ = sidecar(capsys, "print-defaults")
    assert code == 0
    assert parse(out).upstreams[0].name == "app"


def test_diff_says_what_is_live(write, capsys):
    old = write(SOUND, "old.yaml")
    new = write("workers: 2\n" + SOUND.replace("upstream: app}", "upstream: app, timeout: 5s}"), "new.yaml")
    code, out, _ = sidecar(capsys, "diff", old, new)
    assert code == 0
    assert out.splitlines() == [
        "restart  workers: 1 -> 2  (processes are started once)",
        "live     listeners[in].routes[all].timeout: 15s -> 5s",
    ]
    assert sidecar(capsys, "diff", old, old)[1] == "no difference\n"
    assert json.loads(sidecar(capsys, "diff", "--json", old, new)[1])[0]["live"] is False


def test_explain_tells_meaning_unit_default_and_source(capsys):
    code, out, _ = sidecar(capsys, "explain", "upstreams.breaker.open_for")
    assert code == 0
    for part in ("How long it refuses", "duration", "60s", "the requirement: 60 s"):
        assert part in out
    assert json.loads(sidecar(capsys, "explain", "--json", "workers")[1])["default"] == "1"
    assert len(json.loads(sidecar(capsys, "explain", "--json")[1])) > 10
    assert sidecar(capsys, "explain")[1].startswith("version ")


def test_explain_of_an_unknown_key_proposes_another(capsys):
    code, out, err = sidecar(capsys, "explain", "open_for")
    assert (code, out) == (2, "")
    assert "did you mean upstreams.breaker.open_for?" in err


def test_schema_is_json(capsys):
    code, out, _ = sidecar(capsys, "schema")
    assert code == 0
    assert json.loads(out)["title"] == "sidecar"


def test_usage(capsys):
    code, _, err = sidecar(capsys)
    assert code == 2
    assert "backup" in err, "without a verb it tells all of them"
    code, _, err = sidecar(capsys, "chek")
    assert code == 2
    assert "did you mean check?" in err
    assert sidecar(capsys, "check", "--nonsense")[0] == 2
    assert "name the file with -c my.yaml" in sidecar(capsys, "check", "my.yaml")[2]
    assert sidecar(capsys, "--version")[1].startswith("sidecar ")


def test_help_lists_every_verb(capsys):
    code, out, _ = sidecar(capsys, "--help")
    assert code == 0
    for verb in VERBS:
        assert verb.name in out


@pytest.mark.parametrize("verb", ["check", "schema", "explain", "print-defaults", "diff"])
def test_every_verb_takes_the_configuration(verb, capsys):
    assert "-c FILE" in sidecar(capsys, verb, "--help")[1]


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom sidecar.cli import main\n"
        "try: main(['check', '--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('yaml', 'msgspec', 'asyncio', 'httpx', 'redis') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_leaves_early_is_no_traceback():
    command = f"{sys.executable} -m sidecar schema | head -c 10"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stdout == '{\n  "$sche'
    assert done.stderr == ""


def test_closed_standard_streams_are_no_fault(write):
    closed = f"{sys.executable} -m sidecar check -c {write(SOUND)} <&- >&- 2>&-"
    assert subprocess.run(closed, shell=True, check=False).returncode == 0


@pytest.mark.parametrize(("no_color", "coloured"), [(None, True), ("1", False)])
def test_colour_is_for_terminals_that_want_it(no_color, coloured):
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | {"TERM": "xterm"}
    if no_color:
        environment["NO_COLOR"] = no_color
    master, slave = os.openpty()
    try:
        command = [sys.executable, "-m", "sidecar", "explain", "workers"]
        subprocess.run(command, stdout=slave, env=environment, check=True)
        shown = os.read(master, 4096).decode()
    finally:
        os.close(master)
        os.close(slave)
    assert ("\x1b[" in shown) == coloured
    assert "Processes that serve" in shown
