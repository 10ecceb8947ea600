"""Every command in the docs is run: pages are what they say they are, or the build says which line is not.

A block of commands is fenced as `sh`. Each page's blocks run as one script, from top to bottom, in a directory of their
own: the guide makes everything itself; the others run on a stage, where a sidecar runs already with the names that
pages use (`payments`, `app`, …), an agent's section, an incident, an access log. A block under `<!-- not run: why -->`
is left out; how many those may be is counted here. One under `<!-- run by FILE: why -->` is run by a test in that file,
which has what it needs. What looks like a command may stand in no other kind of block.
"""

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.fakes.upstream import ScriptedUpstream, says
from tests.real.documents import free_port
from tests.real.procfs import session_members

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks/README.md"])
NOT_RUN_AT_MOST = 3
_BLOCK = re.compile(
    r"^(?:<!-- (?:not run|run by (?P<by>\S+)): (?P<why>[^\n]+) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)^```",
    re.MULTILINE | re.DOTALL,
)
_PROGRAMS = "sidecar|make|pip|python3?|git|cp|curl|kubectl|systemctl|docker|promtool|export|cd"
_COMMAND = re.compile(rf"^ *(?:/\S+/)?(?:{_PROGRAMS}) +[\w./-]", re.MULTILINE)


class Block(NamedTuple):
    """One fenced block."""

    kind: str
    text: str
    why: str
    """Why it is not run here; empty: it is."""
    by: str
    """The file whose test runs it instead; empty: none."""


def blocks(page: Path) -> list[Block]:
    found = _BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(one["kind"], one["text"], one["why"] or "", one["by"] or "") for one in found]


def left_to(page: str, by: str) -> str:
    """What of a page the test file `by` runs."""
    (one,) = [one for one in blocks(ROOT / page) if by.endswith(one.by or " ")]
    return one.text


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


WITH_COMMANDS = [page for page in PAGES if any(one.kind == "sh" and not one.why for one in blocks(page))]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_looks_like_a_command_is_fenced_as_one(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for one in blocks(page):
        if one.kind in {"", "console", "bash", "shell", "text"}:
            assert not _COMMAND.search(one.text), f"fence it as sh, so that it is run:\n{one.text}"
    prose = _BLOCK.sub("", text)
    indented = [line for line in prose.splitlines() if line.startswith("    ") and _COMMAND.match(line)]
    assert indented == [], "fence these as sh, so that they are run"


def test_few_are_not_run_and_each_says_why() -> None:
    left_out = [(name(page), one) for page in PAGES for one in blocks(page) if one.kind == "sh" and one.why]
    assert all(len(one.why) > 20 for _, one in left_out)
    assert len([one for one in left_out if not one[1].by]) <= NOT_RUN_AT_MOST, left_out
    for page, one in left_out:
        runs = not one.by or f'left_to("{page}", __file__)' in (ROOT / one.by).read_text(encoding="utf-8")
        assert runs, f"{one.by} does not run {page}"


class Stage:
    """A directory in which a page's commands find what they name."""

    def __init__(self, directory: Path, server: ScriptedUpstream) -> None:
        self.directory = directory
        self.ports = {port: str(free_port()) for port in ("8080", "8000", "9901", "9902", "9903")}
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin",
            "NO_COLOR": "1",
            "PYTHONUNBUFFERED": "1",
        }
        for one in ("config", "docs", "scripts", "Makefile", "pyproject.toml"):
            (directory / one).symlink_to(ROOT / one)
        self._server = server

    def fit(self, script: str) -> str:
        """The script with ports that are free here, and places that may be written to."""
        for written, free in self.ports.items():
            script = re.sub(rf"\b{written}\b", free, script)
        for place in ("/etc/sidecar", "/var/lib/sidecar", "/var/log/sidecar", "/var/backups", "/data", "/run/secrets"):
            script = re.sub(rf"(?<![\w/.]){place}\b", f"{self.directory}{place}", script)
        return script.replace("/opt/sidecar-next/bin/sidecar", "sidecar")

    def document(self) -> dict[str, Any]:
        """A sidecar with the names that the pages use."""
        here, own = self.directory, self._server.address
        listener = {
            "name": "inbound",
            "bind": f"127.0.0.1:{self.ports['8080']}",
            "routes": [
                {"name": "pay", "match": {"path_prefix": "/pay"}, "upstream": "payments"},
                {"name": "all", "match": {"path_prefix": "/"}, "upstream": "app"},
            ],
        }
        rule = {"name": "restart-app", "when": {"upstream": "app", "unhealthy_for": "5s"},
                "do": {"restart": "command", "command": ["/bin/true"]}}  # fmt: skip
        return {
            "version": 1,
            "service": {"name": "orders"},
            "admin": {"bind": f"127.0.0.1:{self.ports['9901']}", "socket": f"{here}/admin.sock"},
            "access_log": {"path": f"{here}/var/log/sidecar/access.log"},
            "listeners": [listener],
            "upstreams": [
                {"name": "app", "endpoints": [{"address": own}]},
                {"name": "payments", "endpoints": [{"address": own}]},
            ],
            "recovery": [rule],
            "incidents": {"store": f"{here}/incidents.db"},
            "backup": {
                "state_dir": f"{here}/var/lib/sidecar/agent",
                "admin": {"bind": f"127.0.0.1:{self.ports['9903']}", "socket": f"{here}/agent.sock"},
                "repository": {"url": f"{here}/backups", "engine": "sealed", "password_file": f"{here}/key"},
                "sources": [{"name": "db", "sqlite": {"path": f"{here}/data/orders.db"}}],
            },
        }

    def furnish(self) -> None:
        """Files that the pages name, and a sidecar's configuration under the names they give it."""
        here = self.directory
        for one in ("etc/sidecar", "data/uploads", "var/log/sidecar", "run/secrets"):
            (here / one).mkdir(parents=True)
        (here / "key").write_text("correct horse battery staple")
        with contextlib.closing(sqlite3.connect(here / "data/orders.db")) as database:  # nobody may have it open
            database.execute("CREATE TABLE orders (id)")
        text = yaml.safe_dump(self.document())
        for one in ("sidecar.yaml", "new.yaml", "old.yaml", "etc/sidecar/sidecar.yaml"):
            (here / one).write_text(text)
        self.environment["SIDECAR_CONFIG"] = str(here / "sidecar.yaml")

    def run(self, script: str, patience: float = 90.0) -> str:
        """Run it line by line as `bash -eu` does, and end all that it left behind; what it printed."""
        log = self.directory / "said"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                ["bash", "-eu", "-o", "pipefail", "-c", f"set -x\n{script}"], cwd=self.directory, env=self.environment,
                stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True,
            )  # fmt: skip
            try:
                code = process.wait(patience)
            except subprocess.TimeoutExpired:
                code = -1
            finally:
                for pid in session_members(process.pid):
                    os.kill(pid, signal.SIGKILL)
                process.wait()
        said = log.read_text(errors="replace")
        assert code == 0, f"ended with {code}:\n{said[-4000:]}"
        return said


@pytest.fixture
def server() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running.on("/pay", says(b"out", "503 Service Unavailable"))


def end_of(directory: Path) -> None:
    """Stop whoever a script has left serving in a session of its own (`sidecar upgrade`)."""
    for one in directory.glob("*.sock"):
        words = [sys.executable, "-m", "sidecar", "stop", "--socket", str(one)]
        subprocess.run(words, cwd=ROOT, capture_output=True, check=False)


@pytest.mark.timeout(120)
def test_the_guide_from_top_to_bottom(tmp_path: Path, server: ScriptedUpstream) -> None:
    stage = Stage(tmp_path, server)
    for one in tmp_path.iterdir():
        one.unlink()  # it makes everything itself
    script = "\n".join(one.text for one in blocks(ROOT / "docs/guide.md") if one.kind == "sh" and not one.why)
    try:
        said = stage.run(stage.fit(script))
    finally:
        end_of(tmp_path)
    for heard in (
        "fallback_cache",
        "The breaker of app is open",
        "serves; this one ends",
        "is sound (level read",
        "[(1,)]",
    ):
        assert heard in said, f"{heard} is missing:\n{said[-4000:]}"


PICK = "python3 -c 'import json, sys; print(json.load(sys.stdin){0})'"
HASH = "$(sidecar restore plan --json | " + PICK.format('["hash"]') + ")"
AN_INCIDENT = "$(sidecar incidents list --open --json | " + PICK.format('[0]["id"]') + ")"
SERVES = "until curl -fsS -o /dev/null http://127.0.0.1:9901/readyz; do kill -0 $!; sleep 0.1; done\n"
BEFORE = f"""
sidecar run > sidecar.log 2>&1 &
{SERVES}
for n in 1 2 3 4 5 6; do curl -s -o /dev/null http://127.0.0.1:8080/pay; done
"""
"""What has happened before somebody reads a page: a sidecar runs, and `payments` has failed."""
A_BACKUP = "sidecar backup run\n"
ALONE = {"README.md", "docs/operations.md", "docs/howto/supervise.md"}
"""Pages that begin with a sidecar's start: nobody may be on its places."""
INSTEAD: dict[str, dict[str, str]] = {
    "README.md": {"sidecar run -c sidecar.yaml\n": f"sidecar run -c sidecar.yaml &\n{SERVES}"},
    "docs/operations.md": {"sidecar run -c sidecar.yaml\n": f"sidecar run -c sidecar.yaml &\n{SERVES}"},
    "docs/howto/supervise.md": {"--bind 127.0.0.1\n": f"--bind 127.0.0.1 &\n{SERVES}"},
    "docs/howto/upgrade.md": {"--take-over\n": f"--take-over &\n{SERVES}"},
    "docs/howto/incidents.md": {"20261125-031502-9f3a": AN_INCIDENT},
    "docs/howto/restore.md": {"apply HASH": f"apply {HASH}"},
}
"""What a page leaves to its reader: to put a command into the background, to fill in what another one printed."""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("page", [one for one in WITH_COMMANDS if one.name != "guide.md"], ids=name)
def test_a_page_s_commands_do_what_it_says(page: Path, tmp_path: Path, server: ScriptedUpstream) -> None:
    stage = Stage(tmp_path, server)
    stage.furnish()
    script = "\n".join(one.text for one in blocks(page) if one.kind == "sh" and not one.why)
    for written, ours in INSTEAD.get(name(page), {}).items():
        assert written in script, f"{written} is not on the page any more"
        script = script.replace(written, ours)
    if "sidecar restore" in script or "sidecar drill" in script:
        script = A_BACKUP + script
    try:
        stage.run(stage.fit(script if name(page) in ALONE else BEFORE + script))
    finally:
        end_of(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_clone_is_installed_as_the_guide_says(tmp_path: Path, server: ScriptedUpstream) -> None:
    script = left_to("docs/guide.md", __file__).replace("https://example.test/sidecar.git", f"{ROOT} sidecar")
    said = Stage(tmp_path, server).run(f"{script}\ncommand -v sidecar\nsidecar --version\n", patience=280.0)
    assert f"\n{tmp_path}/sidecar/.venv/bin/sidecar\n" in said


def test_what_measures_takes_the_options_that_are_named(tmp_path: Path, server: ScriptedUpstream) -> None:
    """Each measurement is asked for its help, and `make` for what it would do."""
    script, asked = left_to("docs/performance.md", __file__), []
    for line in script.splitlines():
        words, _, _ = line.partition("#")
        named = re.findall(r"--[a-z]+", line)
        if "-m benchmarks." in words:
            program = re.sub(r" --.*", "", words).strip()
            asked += [f"{program} --help > help", *(f"grep -q -- {option} help" for option in named)]
        else:
            assert words.startswith("make bench"), line
            asked.append(f"make -C {ROOT} -n {words.removeprefix('make ')}")
    Stage(tmp_path, server).run("\n".join([f"export PYTHONPATH={ROOT}", *asked]))
