"""The Dockerfile as text: lint, and what it promises about the image. `make image-check` carries out its steps."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = Path("/usr/lib/postgresql/15/bin")


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(keyword, argument.strip()) for keyword, _, argument in (line.partition(" ") for line in lines)]


@pytest.fixture(scope="module")
def final() -> list[tuple[str, str]]:
    steps = instructions()
    last = max(index for index, (keyword, _) in enumerate(steps) if keyword == "FROM")
    return steps[last:]


def test_hadolint_finds_nothing():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_it_is_built_in_stages_from_one_pinned_base():
    bases = [argument.split()[0] for keyword, argument in instructions() if keyword == "FROM"]
    assert len(bases) >= 2
    assert len(set(bases)) == 1
    image, _, tag = bases[0].partition(":")
    assert (image, tag.endswith("-slim-bookworm")) == ("python", True)


def test_the_final_stage_runs_nothing_and_belongs_to_nobody_privileged(final):
    keywords = {keyword for keyword, _ in final}
    assert "RUN" not in keywords
    uid, _, gid = dict(final)["USER"].partition(":")
    assert int(uid) > 0, "numeric, so that runAsNonRoot can see that it is not root"
    assert int(gid) > 0


def test_signals_reach_the_program(final):
    """The exec form: no shell stands between the container's init and the proxy."""
    assert json.loads(dict(final)["ENTRYPOINT"]) == ["sidecar"]
    assert json.loads(dict(final)["CMD"]) == ["run"]
    assert dict(final)["STOPSIGNAL"] == "SIGTERM"


def test_what_is_copied_from_the_context_passes_dockerignore():
    admitted = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    from_context = [argument for keyword, argument in instructions() if keyword == "COPY" and "--from" not in argument]
    assert {source for argument in from_context for source in argument.split()[:-1]} == admitted


@pytest.mark.skipif(not PROGRAMS.exists(), reason="make test-tools brings PostgreSQL")
def test_postgresql_s_programs_come_with_all_they_need(tmp_path: Path):
    """The stage's own commands but those that install, on a machine where it is installed; they run from there."""
    steps = instructions()
    begin = next(index for index, (_, argument) in enumerate(steps) if argument.endswith(" AS postgres"))
    commands = next(argument for keyword, argument in steps[begin:] if keyword == "RUN").split(" && ")
    (tmp_path / "base-has").touch()
    mine = [one for one in commands if not re.match(r" *(find|apt-get|rm) ", one)]
    script = " && ".join(mine).replace("/rootfs", f"{tmp_path}/rootfs").replace("/base-has", f"{tmp_path}/base-has")
    subprocess.run(["bash", "-eu", "-o", "pipefail", "-c", script], check=True)
    root = tmp_path / "rootfs"
    libraries = next((root / "usr/lib").glob("*-linux-gnu"))
    for program in (root / PROGRAMS.relative_to("/")).iterdir():
        done = subprocess.run(
            [program, "--version"], env={"LD_LIBRARY_PATH": str(libraries)}, capture_output=True, text=True, check=True
        )
        assert "PostgreSQL" in done.stdout
