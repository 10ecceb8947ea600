"""Certificates: what `tls` sections name is read again when it changes, tried out, and only then served.

Theory. Whoever renews a certificate (cert-manager, SPIRE, a person) writes files; Kubernetes swaps them by the symlink
`..data`. Every two seconds the files are looked at through the paths as they were given, and read when they differ.
New content goes to all who serve at once; connections that are open go on as they began. Content that cannot be used
changes nothing: what is in memory serves on, and once the same fault is seen at two looks (a certificate and its key
are two files, and one is written first) it is told, and again each hour.

A certificate whose end is near is told the same way, from `expiry_warning` before it, but not before two thirds of its
life are over: short-lived ones are renewed about then. When a reload failed because of such files, it is tried again
once they change: a new mount and the configuration that names it may come in any order.

Runs in the program's process, once, however many workers serve.
"""

import asyncio
import hashlib
import os
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from sidecar.config.document import Config
from sidecar.config.tls import HTTP
from sidecar.machines.certificate import Facts, Standing, chain
from sidecar.runtime import series, tls
from sidecar.runtime.calling import Calling
from sidecar.runtime.metrics import Registry
from sidecar.runtime.observer import Kind, Level, Observer
from sidecar.runtime.tls import BadFile, Credentials

LOOK_SECONDS = 2.0
AGAIN_SECONDS = 3600.0
"""What is wrong is told again so often while it lasts."""

Stamp = tuple[int, ...] | None
"""What changes when a file does; None: it cannot be reached."""
Serve = Callable[[Config, dict[str, Credentials]], Awaitable[bool]]


class Held(NamedTuple):
    """A file of certificates that serves."""

    owner: str
    file: str
    facts: Facts
    warning: float
    """How long before its end to warn; seconds."""


class Certificates:
    """The files of every `tls` section.

    `serve(config, files)` hands new content to who serves, unless `config` is not the present one any more (False);
    `retry` loads the configuration file once more.
    """

    def __init__(
        self, registry: Registry, observer: Observer, serve: Serve, retry: Callable[[], Awaitable[Any]]
    ) -> None:
        self._registry = registry
        self._observer = observer
        self._serve = serve
        self._retry = retry
        self._config = Config()
        self._known: dict[str, Credentials] = {}
        self._held: list[Held] = []
        self._paths: list[str] = []
        self._stamps: list[Stamp] = []  # of the files when they were read last
        self._suspects: dict[str, str] = {}  # owner -> what was wrong at the last look
        self._told: dict[tuple[str, str], dict[str, float]] = {}  # (owner, `refused` or `expires`) -> words -> when
        self._calling: dict[str, Calling] = {}  # by upstream, for checks
        self._pending: tuple[Config, str] | None = None  # could not be loaded for its files, which looked like this

    def take(self, config: Config, files: dict[str, Credentials]) -> None:
        """`config` serves with `files`, which were read for it."""
        gone = self._known.keys() - files.keys()
        self._config, self._known, self._pending = config, files, None
        self._paths = [path for _, _, section in tls.sections(config) for path in tls.files_of(section).values()]
        self._stamps = []
        for owner in gone:
            self._forget(owner)
        self._hold()

    def calling(self, upstream: str) -> Calling | None:
        """How health checks call this upstream by TLS; None: it speaks none."""
        return self._calling.get(upstream)

    def missed(self, config: Config | None) -> None:
        """A reload failed; for the files of `config`, or for another reason (None)."""
        self._pending = None if config is None else (config, _seen(config))

    async def run(self) -> None:
        """Look at the files for ever."""
        while True:
            await self._look()
            self._tell_ends(time.time())
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        if self._pending is not None:
            config, before = self._pending
            if await asyncio.to_thread(_seen, config) != before:
                self._pending = None
                await self._retry()
                return
        if not self._paths:
            return
        config = self._config
        stamps = await asyncio.to_thread(_stamps, self._paths)
        if stamps == self._stamps and not self._suspects:
            return  # nobody touched a file
        self._stamps = stamps
        news = await asyncio.to_thread(_examine, config, self._known)
        good = {owner: found for owner, found in news.items() if isinstance(found, Credentials)}
        if config is not self._config or (good and not await self._serve(config, {**self._known, **good})):
            return  # a reload was quicker, and has read them itself
        self._known |= good
        if good:
            self._hold()
        for owner in good:
            self._loaded(owner)
        bad = {owner: found.words for owner, found in news.items() if isinstance(found, BadFile)}
        for owner, words in bad.items():
            if self._suspects.get(owner) == words:
                self._refuse(owner, words)
        for owner in self._suspects.keys() - bad.keys() - good.keys():
            self._forget_fault(owner, "refused")  # the files are again what serves
        self._suspects = bad

    def _loaded(self, owner: str) -> None:
        self._forget_fault(owner, "refused")
        self._forget_fault(owner, "expires")
        self._registry.cell(series.TLS_CERTIFICATE_LOADS, owner, "ok").value += 1
        ends = [one.facts.not_after for one in self._held if one.owner == owner]
        self._observer.tell(
            Kind.CERTIFICATE_LOADED, owner, owner=owner, until=_day(min(ends)) if ends else "", reason="changed"
        )

    def _refuse(self, owner: str, words: str) -> None:
        if self._due(owner, "refused", words):
            self._registry.cell(series.TLS_CERTIFICATE_LOADS, owner, "refused").value += 1
            self._observer.tell(
                Kind.CERTIFICATE_REFUSED, owner, level=Level.ERROR, reason="bad_file", detail=words, owner=owner,
                advice="what was there before serves on; mend the file (`sidecar check`)",
            )  # fmt: skip

    def _tell_ends(self, now: float) -> None:
        for one in self._held:
            standing = one.facts.standing(now, one.warning)
            if standing is Standing.GOOD or not self._due(one.owner, "expires", f"{standing} {one.file}"):
                continue
            self._observer.tell(
                Kind.CERTIFICATE_EXPIRES, one.owner, level=Level.ERROR if standing is Standing.OVER else Level.WARNING,
                reason=standing.value, detail=f"{one.file} {_sentence(one.facts, standing)}", owner=one.owner,
                file=one.file, until=_day(one.facts.not_after), advice="renew it: new files are taken at once",
            )  # fmt: skip

    def _due(self, owner: str, what: str, words: str) -> bool:
        now = time.monotonic()
        told = self._told.setdefault((owner, what), {})
        if now - told.get(words, -AGAIN_SECONDS) < AGAIN_SECONDS:
            return False
        told[words] = now
        return True

    def _forget_fault(self, owner: str, what: str) -> None:
        if self._told.pop((owner, what), None) is not None:
            self._observer.tell(Kind.CERTIFICATE_WELL, owner, owner=owner, reason=what)

    def _forget(self, owner: str) -> None:
        """No section of that owner is there any more."""
        self._suspects.pop(owner, None)
        for what in ("refused", "expires"):
            self._forget_fault(owner, what)

    def _hold(self) -> None:
        """Know, and export, until when each file holds: until the first of its chain ends; authorities, the last."""
        for one in self._held:
            self._registry.remove(owner=one.owner)
        self._held = []
        self._calling = {}
        for upstream in self._config.upstreams:
            if upstream.tls is not None and upstream.health_check is not None:
                owner = f"upstream/{upstream.name}"
                asked = ("h2",) if upstream.health_check.grpc else upstream.tls.alpn or (HTTP,)
                context = tls.client_context(upstream.tls, self._known[owner], owner, asked)
                self._calling[upstream.name] = Calling(upstream, context)
        for owner, _, section in tls.sections(self._config):
            files = self._known.get(owner, Credentials())
            for result in ("ok", "refused"):
                self._registry.cell(series.TLS_CERTIFICATE_LOADS, owner, result)  # there from the start, at 0
            for file, pem, is_chain in tls.certificates_of(section, files):
                try:
                    found = chain(pem)
                except ValueError:
                    continue  # OpenSSL takes it; we cannot read it
                if found:
                    pick = min if is_chain else max
                    facts = pick(found, key=lambda one: one.not_after)
                    self._held.append(Held(owner, file, facts, section.expiry_warning))
                    self._registry.cell(series.TLS_CERTIFICATE_EXPIRY, owner, file).value = facts.not_after
                    warned = facts.warn_from(section.expiry_warning)
                    self._registry.cell(series.TLS_CERTIFICATE_WARNING, owner, file).value = warned

    def view(self) -> list[dict[str, Any]]:
        """Every file of certificates that serves, for people: owner, file, names, until, state; and refused, why newer
        content of its section is not taken.
        """
        now = time.time()
        return [
            {
                "owner": one.owner,
                "file": one.file,
                "names": list(one.facts.names),
                "until": _day(one.facts.not_after),
                "state": one.facts.standing(now, one.warning).value,
                "refused": next(iter(self._told.get((one.owner, "refused"), ())), ""),
            }
            for one in self._held
        ]


def _examine(config: Config, known: dict[str, Credentials]) -> dict[str, Credentials | BadFile]:
    """What differs from what is known: content that can be used, or what is wrong with it. For a thread."""
    news: dict[str, Credentials | BadFile] = {}
    for owner, _, section in tls.sections(config):
        try:
            files = tls.read_files(section, owner)
            if files != known.get(owner):
                tls.try_out(section, files, owner)
                news[owner] = files
        except BadFile as bad:
            news[owner] = bad
    return news


def _stamps(paths: list[str]) -> list[Stamp]:
    """What each file looks like from outside, symlinks followed. For a thread."""
    found: list[Stamp] = []
    for path in paths:
        try:
            seen = os.stat(path)
        except OSError:
            found.append(None)
        else:
            found.append((seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns))
    return found


def _seen(config: Config) -> str:
    """What identifies the present content of every file that `config` names, as far as it can be read."""
    digest = hashlib.sha256()
    for _, _, section in tls.sections(config):
        for path in tls.files_of(section).values():
            try:
                with Path(path).open("rb") as stream:
                    digest.update(hashlib.sha256(stream.read(tls.MAX_FILE_BYTES)).digest())
            except OSError:
                digest.update(b"-")
    return digest.hexdigest()


def _sentence(facts: Facts, standing: Standing) -> str:
    if standing is Standing.NOT_YET:
        return f"holds from {_day(facts.not_before)} on only: look at the clock"
    return f"{'ended' if standing is Standing.OVER else 'ends'} at {_day(facts.not_after)}"


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
