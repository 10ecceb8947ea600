"""Docs that can be believed: every link leads somewhere, every file that is named exists, every target is there."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FLOORS = "base|config|machines|runtime|proxy|control|cli|demo"
NAMED = re.compile(rf"(?:sidecar|tests|scripts|docs|config|benchmarks|{FLOORS})(?:/[\w.-]+)*/?(?:[\w-]+\.[a-z]+)?")


def prose(path: Path) -> str:
    """The text without fenced blocks: examples may name what a user has."""
    return re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """Heading anchors as code hosts make them."""
    headings = re.findall(r"^#+ +(.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", DOCS, ids=name)
def test_links_lead_somewhere(path: Path):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match(r"https?://|mailto:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("path", DOCS, ids=name)
def test_named_files_exist(path: Path):
    spans = re.findall(r"`([^`\s]+)`", prose(path))
    named = [span for span in spans if "/" in span and NAMED.fullmatch(span)]
    assert [span for span in named if not any((base / span).exists() for base in (ROOT, ROOT / "sidecar"))] == []
    modules = {span for span in spans if re.fullmatch(r"\w+\.py", span)}
    assert modules - {module.name for module in (ROOT / "sidecar").rglob("*.py")} == set()


@pytest.mark.parametrize("path", DOCS, ids=name)
def test_named_make_targets_exist(path: Path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", path.read_text(encoding="utf-8"))) <= targets


def test_every_page_is_reached_from_the_index():
    index = (ROOT / "docs" / "README.md").read_text()
    reached = {(ROOT / "docs" / target).resolve() for target in re.findall(r"\]\(([^)#\s]+)", index)}
    pages = {path for path in DOCS if path.is_relative_to(ROOT / "docs") and path.name != "README.md"}
    assert pages - reached == set()


def test_decisions_are_numbered_without_gaps():
    numbers = [int(path.name[:4]) for path in sorted((ROOT / "docs" / "adr").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))


def test_make_says_what_it_can_do():
    done = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"demo", "test", "check", "bench", "fuzz"} <= {line.split()[0] for line in done.stdout.splitlines()}


def test_every_word_code_and_alert_has_a_first_thing_to_do():
    page = (ROOT / "docs/howto/troubleshoot.md").read_text(encoding="utf-8")
    decisions = re.findall(r"^\| `(\w+)` \| [^|]+ \|", (ROOT / "docs/reference/decisions.md").read_text(), re.MULTILINE)
    alerts = re.findall(r"- alert: (\w+)", (ROOT / "config/prometheus/rules.yaml").read_text())
    codes = re.findall(r"^\| (\d+) \|", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    assert len(decisions) > 10 and len(alerts) > 20 and len(codes) > 4
    assert [word for word in (*decisions, *alerts) if word != "ok" and f"`{word}`" not in page] == []
    assert [code for code in codes if code != "0" and f"\n| {code} |" not in page and len(code) < 3] == []
