"""The repository: who holds the password may read it; a point exists once its signed manifest stands in it.

    sidecar/repository          how the key is wrapped, and which engine keeps the data (and a copy beside it)
    sidecar/manifests/ID        one point each, signed and sealed, written last
    sidecar/indexes/NAME/…      every file of a source with its hash
    sidecar/wal/SOURCE/…        the log of a PostgreSQL source
    sidecar/findings/…          what verification and drills said of points
    sidecar/holds/ID            points that stay
    objects/…                   the engine's; restic's files stand at the top

Only an empty place becomes a repository. Forgetting a point removes its manifest; what nothing needs any more goes with
the next prune. Both happen under the lease.
"""

import contextlib
import hashlib
import socket
from collections.abc import Callable, Iterator, Sequence

import msgspec

from sidecar.agent.engines.sealed import SealedEngine
from sidecar.agent.faults import Damaged, EngineFailure, NoRepository, StorageFailure, Unknown
from sidecar.agent.memory import one_heap
from sidecar.agent.ports import Engine, FileEntry, Lease, Manifest, Progress, Signed, SourcePoint, Tell
from sidecar.agent.repository import description
from sidecar.agent.repository.lease import HeldLease, holder
from sidecar.agent.repository.lease import lease as hold
from sidecar.agent.repository.seal import Keys
from sidecar.agent.repository.store import LocalStore, Missing, Store
from sidecar.agent.repository.streams import Reader, Writer
from sidecar.agent.wal import WAL, WalArchive
from sidecar.config.backup import Backup
from sidecar.config.backup import Repository as Wanted

MANIFESTS = "sidecar/manifests"
INDEXES = "sidecar/indexes"


class Repository:
    """An open repository."""

    def __init__(self, store: Store, opened: description.Opened, engine: Engine) -> None:
        self.store = store
        self.keys = opened.keys
        self._description = opened.raw
        self.engine = engine
        self._known: dict[str, Manifest] = {}
        """Of a store over the network: a manifest never changes."""

    @classmethod
    def open(cls, config: Backup, *, create: bool = False) -> "Repository":
        """Open it; `create`: make it when the place is empty. Raises WrongKey, NoRepository, NotEmpty."""
        one_heap()
        wanted = config.repository
        password = _password(wanted.password_file)
        store = _store(wanted)
        engine = _engine(config, store)  # before anything is written: its program may be missing
        found = description.unlock(store, password)
        if found is None:
            if not create:
                raise NoRepository(f"there is no repository at {wanted.url} yet; the first backup makes it")
            found = description.make(store, password, wanted.engine)
        if found.said.engine != wanted.engine:
            raise EngineFailure(
                f"the repository at {wanted.url} was made with engine {found.said.engine}, not {wanted.engine}: "
                "write that into backup.repository.engine, or name another place"
            )
        return cls(store, found, engine(found.keys))

    # The lease ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def lease(self, why: str, patience: float = 0.0, *, create: bool = False) -> Iterator[HeldLease]:
        """Hold the repository alone; `create`: a first snapshot may follow. Raises Busy."""
        with hold(self.store, holder(socket.gethostname(), why), self._newest, patience) as held:
            self.store.heal()
            description.mend(self.store, self._description)
            self.engine.heal()
            if create:
                self.engine.create()
            yield held

    def _newest(self) -> int:
        return max((manifest.generation for manifest in self.readable()[0]), default=0)

    # Points -------------------------------------------------------------------------------------------------------

    def readable(self) -> tuple[list[Manifest], list[str]]:
        """All points whose manifest can be read, newest first, and what is wrong with the others.

        One rotten manifest must not keep new backups from being made.
        """
        found: list[Manifest] = []
        damages: list[str] = []
        for name in self.ids():
            try:
                found.append(self._known.get(name) or self.manifest(name))
            except Damaged as damage:
                damages.append(str(damage))
            except Unknown:
                continue  # it was forgotten meanwhile
        if not isinstance(self.store, LocalStore):
            self._known = {point.id: point for point in found}
        return sorted(found, key=lambda point: point.generation, reverse=True), damages

    def ids(self) -> list[str]:
        """Of all points."""
        return sorted(found.name.rpartition("/")[2] for found in self.store.list(MANIFESTS))

    def manifest(self, name: str) -> Manifest:
        """Raises Unknown, Damaged."""
        try:
            return msgspec.json.decode(self.signed(name).body, type=Manifest)
        except msgspec.DecodeError as error:
            raise Damaged(f"the manifest of {name} cannot be read: {error}; was a newer sidecar here?") from None

    def signed(self, name: str) -> Signed:
        """A manifest as it was signed; the signature holds."""
        try:
            return self._signed(f"{MANIFESTS}/{name}")
        except Missing:
            raise Unknown(f"there is no backup {name} in {self.store.url}") from None

    def put_manifest(self, lease: Lease, manifest: Manifest) -> Signed:
        """The point exists from here on."""
        lease.check()
        return self.put_signed(f"{MANIFESTS}/{manifest.id}", msgspec.json.encode(manifest))

    def forget(self, lease: Lease, ids: Sequence[str]) -> None:
        """These points exist no longer; their data goes with the next prune."""
        for name in ids:
            lease.check()
            self.store.delete(f"{MANIFESTS}/{name}")

    def prune(self, lease: Lease, tell: Tell) -> int:
        """Remove what no point needs; bytes that came free.

        Before each deed the lease must be ours still: who lost it does not know what the next holder's points need.
        """

        def careful(progress: Progress) -> None:
            lease.check()
            tell(progress)

        lease.check()
        try:
            needed = [source for name in self.ids() for source in self.manifest(name).sources]
        except (Damaged, Unknown) as fault:
            raise Damaged(
                f"{fault}; what it needs is not known, so nothing is removed: put back a copy of it, or give that "
                "point up: sidecar backup forget ID"
            ) from None
        indexes = {source.index for source in needed}
        freed = 0
        for found in list(self.store.list(INDEXES)):
            if found.name.rpartition("/")[0] not in indexes:
                lease.check()
                self.store.delete(found.name)
                freed += found.size
        freed += self._prune_logs([source for source in needed if source.sort == "postgres"])
        return freed + self.engine.prune(needed, careful)

    def _prune_logs(self, needed: list[SourcePoint]) -> int:
        """Of each cluster what is older than its oldest base backup; and all of one that was there before another."""
        freed = 0
        of_whom = {(source.name, str(source.details["system"])) for source in needed}
        for name, system in of_whom:
            mine = [one for one in needed if (one.name, str(one.details["system"])) == (name, system)]
            first = min((str(one.details["wal_from"]) for one in mine), key=lambda segment: segment[8:])
            freed += self.log(name, system).prune(first)
        kept = {(parts[0], parts[1]) for one in self.store.list(WAL) if len(parts := one.name.split("/")[2:]) == 3}
        for name, system in kept - of_whom:
            oldest = min((one.consistent_at for one in needed if one.name == name), default=None)
            with contextlib.suppress(Damaged):  # how old it is nobody knows: it stays
                state = self.log(name, system).state()
                if oldest is not None and state is not None and state.newest.covered_at < oldest:
                    freed += self.log(name, system).clear()
        return freed

    def log(self, name: str, system: str) -> WalArchive:
        """The log of a PostgreSQL source; `system`: its cluster's own number."""
        return WalArchive(self.store.apart(), self.keys, name, system)

    def log_of(self, source: SourcePoint) -> WalArchive:
        """The one that brings this base backup on."""
        return self.log(source.name, str(source.details["system"]))

    # What is signed -----------------------------------------------------------------------------------------------

    def put_signed(self, place: str, body: bytes) -> Signed:
        """A new object, signed and sealed."""
        signed = Signed(body=body, signature=self.keys.sign(body))
        self.store.put(place, self.keys.seal(place, msgspec.json.encode(signed)), new=True)
        return signed

    def get_signed(self, place: str) -> bytes:
        """Its body; the signature holds. Raises Missing, Damaged."""
        return self._signed(place).body

    def _signed(self, place: str) -> Signed:
        try:
            signed = msgspec.json.decode(self.keys.unseal(place, self.store.get(place)), type=Signed)
        except msgspec.DecodeError:
            raise Damaged(f"{place} is damaged") from None
        if not self.keys.verify(signed.body, signed.signature):
            raise Damaged(f"{place} was not signed with this repository's key")
        return signed

    # Indexes ------------------------------------------------------------------------------------------------------

    def index(self, source: SourcePoint) -> Iterator[FileEntry]:
        """Every entry, as a stream. Raises Damaged, at the latest at its end."""
        digest = hashlib.sha256()
        rest = b""
        for piece in Reader(self.store, self.keys, source.index, source.index_bytes).read(0, source.index_bytes):
            digest.update(piece)
            *lines, rest = (rest + bytes(piece)).split(b"\n")
            for line in lines:
                yield msgspec.json.decode(line, type=FileEntry)
        if rest or digest.hexdigest() != source.index_sha256:
            raise Damaged(f"{source.index} is damaged: it is not the index that the manifest names")


class IndexWriter:
    """Writes an index while a source is stored."""

    def __init__(self, repository: Repository, name: str) -> None:
        self.name = f"{INDEXES}/{name}"
        self._writer = Writer(repository.store, repository.keys, self.name)
        self._digest = hashlib.sha256()
        self.files = 0
        self.bytes = 0
        self.length = 0

    def __enter__(self) -> "IndexWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.__exit__()

    def put(self, entry: FileEntry) -> None:
        line = msgspec.json.encode(entry) + b"\n"
        self._writer.write(line)
        self._digest.update(line)
        if entry.sort == "file":
            self.files += 1
            self.bytes += entry.size

    def close(self) -> str:
        """It is stored; its SHA-256."""
        self._writer.close()
        self.length = self._writer.length
        return self._digest.hexdigest()


def _store(wanted: Wanted) -> Store:
    if wanted.url.startswith("/"):
        return LocalStore(wanted.url)
    from sidecar.agent.repository.store_s3 import S3Store

    return S3Store(wanted)


def _engine(config: Backup, store: Store) -> Callable[[Keys], Engine]:
    if config.repository.engine == "sealed":
        return lambda keys: SealedEngine(store, keys)
    from sidecar.agent.engines.restic import ResticEngine
    from sidecar.agent.engines.restic_program import Restic, for_restic

    url, secrets = for_restic(config.repository)
    restic = Restic(url, config.repository.password_file, config.state_dir, secrets)
    return lambda _: ResticEngine(store, restic, config.state_dir)


def _password(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            password = file.read(65_536).rstrip(b"\r\n")
    except OSError as error:
        raise StorageFailure(
            f"backup.repository.password_file: {path}: {error.strerror}; it must hold, readable, what it held when the "
            f"repository was made; for a new one: head -c 32 /dev/urandom | base64 > {path}"
        ) from None
    if not password:
        raise StorageFailure(f"the password file {path} is empty; look at backup.repository.password_file")
    return password
