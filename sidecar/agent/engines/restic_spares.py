"""What opens restic's part of a repository, kept twice: its config and its key.

With one flipped bit in either, or without them, no password would open it any more.

    sidecar/spare/config, sidecar/spare/keys/ID    each begins with the SHA-256 of the rest

* A key of restic's is named by its own SHA-256, so which of two is whole is certain. Spares follow the keys that are
  there, since a password may be changed by hand; only when none of them is whole do they come back.
* The config never changes, so its spare is what it was.

Under the lease only.
"""

import hashlib

from sidecar.agent.repository.store import Missing, Store
from sidecar.runtime.logs import Log

SPARE = "sidecar/spare"

_log = Log(__name__)


def keep(store: Store) -> None:
    """Make each from the other, as far as that is needed."""
    _keep_config(store)
    keys = {found.name: _get(store, found.name) for found in store.list("keys")}
    whole = {name: key for name, key in keys.items() if key and _is_named_by_itself(name, key)}
    spares = {found.name.removeprefix(f"{SPARE}/") for found in store.list(f"{SPARE}/keys")}
    if whole:
        for name in spares - set(whole):
            store.delete(f"{SPARE}/{name}")
        for name in set(whole) - spares:
            _put_spare(store, name, whole[name])
        return
    for name in spares:
        spare = _spare(store, name)
        if spare is not None:
            _put_back(store, name, spare)


def _keep_config(store: Store) -> None:
    there, spare = _get(store, "config"), _spare(store, "config")
    if there and spare is None:
        _put_spare(store, "config", there)
    elif spare is not None and there != spare:
        _put_back(store, "config", spare)


def _is_named_by_itself(name: str, content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() == name.rpartition("/")[2]


def _put_back(store: Store, name: str, content: bytes) -> None:
    store.put(name, content)
    _log.warning("restic_mended", name=name, reason="it was damaged or gone, and is written again from its spare")


def _put_spare(store: Store, name: str, content: bytes) -> None:
    store.put(f"{SPARE}/{name}", hashlib.sha256(content).digest() + content)


def _spare(store: Store, name: str) -> bytes | None:
    """None: there is none that is whole."""
    found = _get(store, f"{SPARE}/{name}") or b""
    digest, content = found[:32], found[32:]
    return content if content and hashlib.sha256(content).digest() == digest else None


def _get(store: Store, name: str) -> bytes | None:
    try:
        return store.get(name)
    except Missing:
        return None
