"""The description: what of a repository can be read without the password, and the repository's key, wrapped.

Without it all backups are noise, so there are two of it. One that is damaged or gone is written again from the other,
under the lease. A password that opens neither is the wrong one, and nothing is written then.
"""

import os
import socket
from typing import NamedTuple

import msgspec

from sidecar.agent.faults import AgentFault, Damaged, NotEmpty, WrongKey
from sidecar.agent.repository.lease import LOCK, holder, lease
from sidecar.agent.repository.seal import Keys, Scrypt, unwrap, wrap
from sidecar.agent.repository.store import TEMPORARY, Missing, Store
from sidecar.runtime.logs import Log

DESCRIPTION, COPY = "sidecar/repository", "sidecar/repository.copy"

_log = Log(__name__)


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in it."""

    format: int = 1
    engine: str
    scrypt: Scrypt
    wrapped: bytes

    @property
    def about(self) -> bytes:
        """What the wrapped key is bound to."""
        return f"sidecar repository {self.format} {self.engine}".encode()


class Opened(NamedTuple):
    """A description that the password opens."""

    raw: bytes
    said: Description
    keys: Keys


def unlock(store: Store, password: bytes) -> Opened | None:
    """The description, or its copy when that does not open. None: there is none. Raises WrongKey, Damaged."""
    fault: AgentFault | None = None
    tried: set[bytes] = set()
    for place in (DESCRIPTION, COPY):
        try:
            raw = store.get(place)
            if raw not in tried:
                tried.add(raw)
                return _open(raw, password)
        except Missing:
            continue
        except (msgspec.DecodeError, UnicodeDecodeError):
            fault = fault or Damaged(f"{place} in {store.url} is damaged, and its copy, too; put back one of them")
        except (WrongKey, Damaged) as found:
            fault = found if fault is None or isinstance(found, WrongKey) else fault
    if fault is not None:
        raise fault
    return None


def _open(raw: bytes, password: bytes) -> Opened:
    said = msgspec.json.decode(raw, type=Description)
    return Opened(raw, said, Keys(unwrap(said.wrapped, said.scrypt.key(password), said.about)))


def make(store: Store, password: bytes, engine: str) -> Opened:
    """Make an empty place a repository, under its lease: of two who come at once one does. Raises NotEmpty.

    What a first run left that was killed meanwhile does not count as content.
    """
    for found in store.list():
        ours = found.name in {LOCK, DESCRIPTION, COPY, "sidecar/generation"}
        if not ours and not found.name.startswith((f"{TEMPORARY}/", "sidecar/claims/")):
            raise NotEmpty(f"{store.url} is no repository and not empty ({found.name}); name an empty directory")
    with lease(store, holder(socket.gethostname(), "first run"), lambda: 0, patience=30.0):
        there = unlock(store, password)
        if there is not None:
            return there
        scrypt = Scrypt(salt=os.urandom(32))
        plain = Description(engine=engine, scrypt=scrypt, wrapped=b"")
        wrapped = wrap(os.urandom(32), scrypt.key(password), plain.about)
        raw = msgspec.json.encode(msgspec.structs.replace(plain, wrapped=wrapped))
        store.put(DESCRIPTION, raw, new=True)
        return _open(raw, password)


def mend(store: Store, raw: bytes) -> None:
    """Both say what opened the repository. Under the lease only."""
    for place in (DESCRIPTION, COPY):
        try:
            there: bytes | None = store.get(place)
        except Missing:
            there = None
        if there != raw:
            store.put(place, raw)
            if there is not None or place == DESCRIPTION:
                _log.warning("description_mended", place=place, reason="it was damaged" if there else "it was gone")
