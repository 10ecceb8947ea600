"""The Dockerfile as text: lint, and what it promises about the image. `make image-check` carries out its steps."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


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
