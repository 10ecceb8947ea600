"""The engine restic: blocks are deduplicated, so every snapshot stands alone and costs what is new in it.

What is asked for as incremental or differential reads only files that changed since its parent; as full, all of them.
What is stored is the same either way, new blocks only, and called so: deduplicated.

Its files stand at the top of the repository, so that `restic -r URL` with the same password works by hand; ours are
below `sidecar/`. A snapshot that no manifest names is what a killed run left: prune removes it. A killed restic leaves
a lock; under our lease it is removed when restic itself holds it for stale, never by force: at once where it ran, after
half an hour elsewhere. Until then what removes data waits; backups go on, unless it was a prune's; restores always do.
"""

import contextlib
import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from sidecar.agent.children import written
from sidecar.agent.engines import restic_spares
from sidecar.agent.engines.dress import dress_link
from sidecar.agent.engines.restic_index import Hasher, Node, Walked, digest_of, is_odd, merge
from sidecar.agent.engines.restic_names import apart, literal, restic_glob, stored_at
from sidecar.agent.engines.restic_program import Restic
from sidecar.agent.engines.tree import SETTLED
from sidecar.agent.faults import AgentFault, Damaged, EngineFailure, Locked, NoRepository, SourceFailure, StorageFailure
from sidecar.agent.paths import order, safe_join, unspell
from sidecar.agent.ports import (
    FileEntry,
    Kind,
    Level,
    Parent,
    Progress,
    Root,
    SourcePoint,
    Staged,
    Stored,
    Tell,
    Trouble,
)
from sidecar.agent.repository.store import Missing, Store

_TAG = "sidecar"
_AT_ONCE = 500
"""Paths that one call of restic gets."""
_PLACES = "restic_places"
"""In a source's details: where in the snapshot a root stands that has another name in the index."""
_ODD_LINKS = "restic_odd_links"
"""In a source's details: a symlink's target is no UTF-8; restic spoils that (before 0.17), the index does not."""
_FIND_SECONDS = 30.0
_PACK = re.compile(r"[Pp]ack (?:ID does not match, want )?([0-9a-f]{64})")


class Said(msgspec.Struct):
    """A line of `restic backup --json` or `restore --json`."""

    message_type: str = ""
    bytes_done: int = 0
    total_bytes: int = 0
    files_done: int = 0
    total_files_processed: int = 0
    total_bytes_processed: int = 0
    snapshot_id: str = ""
    data_added: int = 0
    data_added_packed: int | None = None
    """Compressed; since 0.17."""


class Complaint(msgspec.Struct):
    """A line of its errors in JSON."""

    message_type: str = ""
    item: str = ""
    error: dict[str, object] = {}

    @property
    def gone(self) -> bool:
        """Whether the file went before it was read."""
        return self.error.get("Err") == errno.ENOENT or "no such file" in self.why

    @property
    def why(self) -> str:
        number = self.error.get("Err")
        return os.strerror(number) if isinstance(number, int) else str(self.error.get("message") or self.error)


class Snapshot(msgspec.Struct):
    """One of `restic snapshots --json`."""

    id: str
    tags: list[str] | None = None


class Found(msgspec.Struct):
    """What of a pack `restic find --json` found in which snapshot."""

    snapshot: str = ""


class ResticEngine:
    """Keeps trees in a restic repository."""

    name = "restic"

    def __init__(self, store: Store, restic: Restic, state_dir: str) -> None:
        """`store`: the same place, as objects."""
        self._store = store
        self._restic = restic
        self._scratch = os.path.join(state_dir, "staging")

    def version(self) -> str:
        return self._restic.version()

    def create(self) -> None:
        if self._store.size("config") is None:
            for kept in ("snapshots", "index", "data"):
                if any(True for _ in self._store.list(kept)):  # its keys are all that opens them
                    raise NoRepository(
                        f"restic's config is gone from {self._store.url}, {kept} are there: put it back from a copy; "
                        "nothing was changed"
                    )
            for left in [*self._store.list("keys"), *self._store.list("locks")]:  # of a first time that was interrupted
                self._store.delete(left.name)
            self._restic.run("init")
            restic_spares.keep(self._store)

    def heal(self) -> None:
        restic_spares.keep(self._store)
        if self._store.size("config") is not None and any(True for _ in self._store.list("locks")):
            self._restic.run("unlock")

    # Storing ------------------------------------------------------------------------------------------------------

    def store(
        self,
        name: str,
        staged: Staged,
        requested: Kind,  # noqa: ARG002 - what is stored is the same
        parent: Parent | None,
        put: Callable[[FileEntry], None],
        tell: Tell,
    ) -> Stored:
        roots = sorted(staged.roots, key=lambda one: order(one.at))
        apart(roots)
        with Hasher(staged, roots, parent, self._scratch) as hasher:
            done = self._backup(name, staged, roots, parent, tell)
            hasher.join()
            tell(Progress(phase="index", source=name))
            snapshot = self._whole_name(done.snapshot_id)
            if hasher.seen == (done.total_files_processed, done.total_bytes_processed) and hasher.still():
                found = hasher.all()
            else:
                found = merge(hasher, roots, lambda root: self._listed(snapshot, root), live=staged.live)
            with tempfile.TemporaryFile(dir=self._scratch) as spool:
                unsure: list[str] = []
                odd_links = False
                for walked in found:
                    odd_links = odd_links or is_odd(walked.entry)
                    spool.write(msgspec.json.encode(walked) + b"\n")
                    if not walked.sure:
                        unsure.append(walked.entry.path)
                places = {root.at: root.path for root in roots if root.at and root.path.strip("/") != root.at}
                looked_up = self._look_up(snapshot, unsure, places)
                spool.seek(0)
                for line in spool:
                    walked = msgspec.json.decode(line, type=Walked)
                    if not walked.sure:
                        digest, size = looked_up[walked.entry.path]
                        put(msgspec.structs.replace(walked.entry, sha256=digest, size=size))
                    else:
                        put(walked.entry)
        added = done.data_added if done.data_added_packed is None else done.data_added_packed
        details = ({_PLACES: places} if places else {}) | ({_ODD_LINKS: True} if odd_links else {})
        return Stored(snapshot=snapshot, kind=Kind.DEDUPLICATED, bytes_added=added, details=details)

    def _backup(self, name: str, staged: Staged, roots: list[Root], parent: Parent | None, tell: Tell) -> Said:
        summary = Said()

        def hear(line: bytes) -> None:
            nonlocal summary
            said = _said(line)
            if said.message_type == "summary":
                summary = said
            elif said.message_type == "status":
                total, files = said.total_bytes, said.files_done
                tell(Progress(phase="store", source=name, done=said.bytes_done, total=total, files=files))

        words = ["--json", "--tag", f"{_TAG},{name}", *(f"--exclude={restic_glob(one)}" for one in staged.exclude)]
        words += ["--parent", parent.source.snapshot] if parent is not None else ["--force"]
        top = next((root.path for root in roots if not root.at), None)
        targets = ["."] if top is not None else [root.path for root in roots]
        began = time.time_ns()
        ended = self._restic.run("backup", *words, "--", *targets, hear=hear, cwd=top, good=(0, 3))
        if not summary.snapshot_id:
            raise EngineFailure("restic said that it backed up, but names no snapshot; is its version supported?")
        lost = [one for one in map(_complaint, ended.errors) if one.message_type == "error"]
        tops = {root.path for root in roots}
        bad = [
            one for one in lost if not staged.live or one.item in tops or not (one.gone or _touched(one.item, began))
        ]
        if bad or (ended.code == 3 and not lost):
            with contextlib.suppress(Locked):  # a prune removes it, then
                self.delete([summary.snapshot_id])
            if parent is not None:  # perhaps it is the parent that cannot be read
                return self._backup(name, staged, roots, None, tell)
            told = "; ".join(f"{one.item}: {one.why}" for one in bad[:3]) or "; ".join(ended.errors[-1:])
            raise SourceFailure(f"{name}: not all of it can be read: {told}")
        return summary

    def _whole_name(self, begin: str) -> str:
        """Of a snapshot that restic, before 0.17, names by its begin."""
        found = [one.name for one in self._store.list("snapshots") if one.name.startswith(f"snapshots/{begin}")]
        if len(found) != 1:
            raise EngineFailure(f"restic names a snapshot {begin}, of which there are {len(found)}")
        return found[0].removeprefix("snapshots/")

    def _listed(self, snapshot: str, root: Root) -> Iterator[Node]:
        """What it holds below a root, in order; by way of a file: memory stays small."""
        where = ["--recursive", snapshot, os.fsencode(root.path)] if root.at else [snapshot]
        with tempfile.TemporaryFile(dir=self._scratch) as spool:

            def hear(line: bytes) -> None:
                spool.write(line + b"\n")

            self._restic.run("ls", "--json", *where, hear=hear)
            spool.seek(0)
            for line in spool:
                node = msgspec.json.decode(line, type=Node)
                if node.struct_type != "snapshot":
                    yield node

    def _look_up(self, snapshot: str, paths: list[str], places: dict[str, str]) -> dict[str, tuple[str, int]]:
        """Hash and size of these files, of the content that the snapshot holds."""
        found: dict[str, tuple[str, int]] = {}
        for start in range(0, len(paths), _AT_ONCE):
            some = paths[start : start + _AT_ONCE]
            into = tempfile.mkdtemp(prefix="look-", dir=self._scratch)
            try:
                self._bring(snapshot, into, some, places)
                for path in some:
                    found[path] = digest_of(safe_join(os.fsencode(into), path))
            except OSError as error:
                raise StorageFailure(f"{into}: {error.strerror}; look at backup.state_dir") from None
            finally:
                shutil.rmtree(into, ignore_errors=True)
        return found

    # Restoring ----------------------------------------------------------------------------------------------------

    def restore(
        self,
        source: SourcePoint,
        index: Callable[[], Iterator[FileEntry]],
        into: str,
        only: Sequence[str] | None,
        tell: Tell,
    ) -> None:
        def beat(pid: int) -> None:
            tell(Progress(phase="restore", source=source.name, done=written(pid), total=source.bytes))

        places = source.details.get(_PLACES, {})
        some: Sequence[Sequence[str] | None] = [None]
        if only is not None:
            some = [only[start : start + _AT_ONCE] for start in range(0, len(only), _AT_ONCE)]
        for paths in some:
            self._bring(source.snapshot, into, paths, places, beat)
        for entry in index() if source.details.get(_ODD_LINKS) else ():
            path = safe_join(os.fsencode(into), entry.path)
            if is_odd(entry) and os.path.islink(path):
                above = os.stat(os.path.dirname(path))
                os.unlink(path)
                os.symlink(unspell(entry.link), path)
                dress_link(path, entry)
                os.utime(os.path.dirname(path), ns=(above.st_atime_ns, above.st_mtime_ns))

    def _bring(
        self,
        snapshot: str,
        into: str,
        only: Sequence[str] | None,
        places: dict[str, str],
        beat: Callable[[int], None] = lambda _pid: None,
    ) -> None:
        """Restore into `into`, under the names that the index has."""
        included = [word for path in only or () for word in (b"--include", literal(stored_at(path, places)))]
        words: list[str | bytes] = ["restore", snapshot, "--target", into, *included]
        try:
            self._restic.run(*words, beat=beat)
        except Locked as locked:
            try:  # a dead one's lock delays no restore; a live one may remove what is read, and then it is to blame
                self._restic.run(*words, "--no-lock", beat=beat)
            except Damaged:
                raise locked from None
        top = os.fsencode(into)
        for at, real in places.items():
            stored, meant = top + os.fsencode(real), safe_join(top, at)
            if os.path.lexists(stored):
                os.makedirs(os.path.dirname(meant), mode=0o700, exist_ok=True)
                os.rename(stored, meant)
                _remove_empty(os.path.dirname(stored), top)

    # Checking -----------------------------------------------------------------------------------------------------

    def check(
        self, sources: Sequence[SourcePoint], level: Level, tell: Tell, part: tuple[int, int] = (1, 1)
    ) -> Iterable[Trouble]:
        asked = {source.snapshot for source in sources}
        tell(Progress(phase="check"))
        gone = sorted(one for one in asked if self._store.size(f"snapshots/{one}") is None)
        found = [Trouble(what="missing", where=f"snapshots/{one}", snapshots=(one,)) for one in gone]
        quick = ["--with-cache"]
        how = [f"--read-data-subset={part[0]}/{part[1]}"] if level is Level.READ else quick
        troubles, sure = self._look(asked, how, tell)
        if not sure:  # what a prune beside us removes looks as if it were missing
            again, sure = self._look(asked, quick, tell)
            troubles = troubles + again if again or not sure else self._look(asked, how, tell)[0]
        return [*found, *{one.where: one for one in troubles}.values()]

    def _look(self, asked: set[str], how: list[str], tell: Tell) -> tuple[list[Trouble], bool]:
        """What is wrong with these, and whether that is sure: all was looked at, and what is bad is there."""

        def on(_: object) -> None:
            tell(Progress(phase="check"))

        ended = self._restic.run("check", "--no-lock", *how, hear=on, beat=on, good=None)
        if not ended.code and not ended.stopped:
            return [], True
        meaning = self._restic.meaning(["check"], ended)
        troubles = [self._concerning(one) for one in _troubles(ended.errors)]
        if not troubles and not isinstance(meaning, Damaged):
            raise meaning
        sure = bool(troubles) and not ended.stopped and all(one.what == "damaged" for one in troubles)
        troubles = troubles or [*self._broken(asked)]
        return [one for one in troubles if not one.snapshots or asked & {*one.snapshots}], sure

    def _broken(self, asked: set[str]) -> Iterator[Trouble]:
        """Which of these lack something: what check complains of may be an older one, long known."""
        for snapshot in sorted(asked):
            try:
                self._restic.run("stats", "--no-lock", "--mode", "raw-data", snapshot)
            except Damaged as damage:
                yield Trouble(what="damaged", where=f"snapshots/{snapshot}", detail=str(damage), snapshots=(snapshot,))

    def _concerning(self, trouble: Trouble) -> Trouble:
        """The same, with the snapshots that need the pack, as far as they can be found out."""
        said: list[bytes] = []
        try:
            words = ("find", "--no-lock", "--json", "--pack", os.path.basename(trouble.where))
            self._restic.run(*words, hear=said.append, patience=_FIND_SECONDS)
            found = msgspec.json.decode(b"".join(said) or b"[]", type=list[Found])
        except (AgentFault, msgspec.DecodeError):
            return trouble
        return msgspec.structs.replace(trouble, snapshots=tuple(sorted({one.snapshot for one in found})))

    def _snapshots(self) -> list[Snapshot]:
        return msgspec.convert(self._restic.json("snapshots", "--no-lock") or [], list[Snapshot])

    def mend(self, troubles: Sequence[Trouble]) -> None:
        """Restic would not store again what its index says is there: what is not there, or damaged, leaves the index.

        A damaged pack is set aside below `sidecar/damaged`: what of it is whole can still be brought back by hand.
        """
        packs = [one for one in troubles if one.where.startswith("data/")]
        for one in packs:
            with contextlib.suppress(Missing):
                self._store.put(f"sidecar/damaged/{os.path.basename(one.where)}", self._store.get(one.where))
                self._store.delete(one.where)
        if packs:
            old = self._restic.version().startswith(("0.14", "0.15"))
            self._restic.run(*(["rebuild-index"] if old else ["repair", "index"]))

    # Letting go ---------------------------------------------------------------------------------------------------

    def delete(self, snapshots: Sequence[str]) -> None:
        if snapshots:
            self._restic.run("forget", *snapshots)

    def prune(self, keep: Sequence[SourcePoint], tell: Tell) -> int:
        needed = {source.snapshot for source in keep}
        self.delete([one.id for one in self._snapshots() if one.id not in needed and _TAG in (one.tags or ())])
        before = self._size()

        def on(_: object) -> None:
            tell(Progress(phase="prune"))

        self._restic.run("prune", hear=on, beat=on)
        return max(0, before - self._size())

    def _size(self) -> int:
        return sum(found.size for found in self._store.list("data"))


def _said(line: bytes) -> Said:
    try:
        return msgspec.json.decode(line, type=Said)
    except msgspec.DecodeError:
        return Said()  # a warning in plain words


def _complaint(line: str) -> Complaint:
    try:
        return msgspec.json.decode(line, type=Complaint)
    except msgspec.DecodeError:
        return Complaint()


def _troubles(errors: Sequence[str]) -> Iterator[Trouble]:
    """What `restic check` complained of, pack by pack."""
    seen: set[str] = set()
    for line in errors:
        found = _PACK.search(line)
        if found is None or found[1] in seen:
            continue
        seen.add(found[1])
        what = "missing" if "does not exist" in line else "truncated" if "file size" in line else "damaged"
        yield Trouble(what=what, where=f"data/{found[1][:2]}/{found[1]}", detail=line.strip()[:400])


def _touched(path: str, since: int) -> bool:
    """Whether somebody wrote to it, made it anew or removed it since: not all errors of restic say why."""
    try:
        return os.lstat(path).st_ctime_ns >= since - SETTLED
    except OSError:
        return True


def _remove_empty(directory: bytes, top: bytes) -> None:
    with contextlib.suppress(OSError):
        while directory != top:
            os.rmdir(directory)
            directory = os.path.dirname(directory)
