"""What is taken for untouched was not touched: only then is a snapshot not compared file by file."""

import itertools
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sidecar.agent.engines.restic_index import Hasher
from sidecar.agent.engines.tree import SETTLED
from sidecar.agent.ports import Root, Staged


def rewrite(tree: Path) -> None:
    """Other content under the same size and times."""
    before = (tree / "a").stat()
    (tree / "a").write_text("two")
    os.utime(tree / "a", ns=(before.st_atime_ns, before.st_mtime_ns))


def come_and_go(tree: Path) -> None:
    before = tree.stat()
    (tree / "new").touch()
    (tree / "new").unlink()
    os.utime(tree, ns=(before.st_atime_ns, before.st_mtime_ns))


def exchange(tree: Path) -> None:
    (tree / "a").rename(tree / "c")
    (tree / "deep" / "b").rename(tree / "a")
    (tree / "c").rename(tree / "deep" / "b")


def turn(tree: Path) -> None:
    (tree / "link").unlink()
    (tree / "link").symlink_to("deep")


def go(tree: Path) -> None:
    tree.rename(tree.with_name("gone"))


TOUCHES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda _: None,
    "rewritten": rewrite,
    "made and removed": come_and_go,
    "exchanged": exchange,
    "another link": turn,
    "another mode": lambda tree: (tree / "a").chmod(0o640),
    "all gone": go,
    "one more, left out": lambda tree: (tree / "deep" / "x.tmp").touch(),
}


WHEN = ("before it began", "meanwhile", "meanwhile, by a file server whose clock is behind")


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """One for each test; nobody has touched them for a while."""
    made = {one: tmp_path_factory.mktemp("tree") / "tree" for one in itertools.product(TOUCHES, WHEN)}
    for tree in made.values():
        (tree / "deep").mkdir(parents=True)
        (tree / "a").write_text("one")
        (tree / "deep" / "b").write_text("2 3")
        (tree / "link").symlink_to("a")
    now = time.time_ns()
    while time.time_ns() < now + 2 * SETTLED:
        time.sleep(0.01)
    return made


@pytest.mark.parametrize("touch", TOUCHES)
@pytest.mark.parametrize("when", WHEN)
def test_any_touch_is_seen(trees, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, touch: str, when: str):
    tree = trees[touch, when]
    staged = Staged(roots=(), consistent_at=datetime.now(UTC), live=True, exclude=("*.tmp",))
    roots = [Root(path=str(tree), at="tree")]
    if when == "before it began" and touch != "all gone":
        TOUCHES[touch](tree)  # within the clock's tick: it may happen again and look the same
    if "behind" in when:
        real = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: real() + 3_600_000_000_000)
    with Hasher(staged, roots, None, str(tmp_path)) as hasher:
        if when.startswith("meanwhile"):
            hasher.join()
            TOUCHES[touch](tree)
        hasher.join()
        assert hasher.seen == (2, 6)
        assert hasher.still() is (touch == "nothing" or (touch == "all gone" and when == "before it began"))
