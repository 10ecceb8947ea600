"""Sealing: what is stored can be read with the key only, and any change to it is noticed.

An object is `SCS1`, a random salt of 32 bytes, then chunks of at most 1 MiB of plain text, each AES-256-GCM with its
tag. The key of an object comes from the repository's by HKDF-SHA256 over the salt and the object's name; no two objects
share a key, so the nonce is just the chunk's number and whether it is the last (the STREAM construction, Hoang et al.
2015). So a flipped bit, a chunk left out, exchanged, repeated or cut off at the end, and an object put in another's
place all fail to open.

The repository's key is random. It is kept wrapped: AES-256-GCM under what scrypt makes of the password, bound to the
description around it. A password that does not open it is the wrong one.
"""

import hashlib
import os

import msgspec
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sidecar.agent.faults import Damaged, WrongKey

MAGIC = b"SCS1"
CHUNK = 1 << 20
_SALT, _TAG = 32, 16
OVERHEAD = len(MAGIC) + _SALT + _TAG
_MOST_MEMORY = 1 << 28


class Scrypt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the password becomes a key. The defaults are OWASP's that take 32 MiB."""

    n: int = 1 << 15
    r: int = 8
    p: int = 3
    salt: bytes = b""

    def key(self, password: bytes) -> bytes:
        """Takes a moment and memory on purpose; parameters that would take too much are refused."""
        memory = 128 * self.n * self.r
        if not (1 <= self.p <= 64 and self.n > 1 and self.r >= 1 and memory <= _MOST_MEMORY and len(self.salt) >= 16):
            raise Damaged("the repository's description names key parameters that are out of bounds")
        return hashlib.scrypt(
            password, salt=self.salt, n=self.n, r=self.r, p=self.p, maxmem=memory + (1 << 22), dklen=32
        )


class Keys:
    """The repository's key and what is derived from it."""

    def __init__(self, master: bytes) -> None:
        self._objects = _derive(master, b"sidecar objects")
        self._signer = Ed25519PrivateKey.from_private_bytes(_derive(master, b"sidecar manifests"))

    def seal(self, name: str, plain: bytes) -> bytes:
        """The object that is called `name` and holds `plain`."""
        salt = os.urandom(_SALT)
        cipher = AESGCM(_derive(self._objects, name.encode(), salt))
        parts = [MAGIC, salt]
        view = memoryview(plain)
        last = max(0, (len(plain) - 1) // CHUNK)
        for number in range(last + 1):
            chunk = view[number * CHUNK : (number + 1) * CHUNK]
            parts.append(cipher.encrypt(_nonce(number, last=number == last), chunk, None))
        return b"".join(parts)

    def unseal(self, name: str, sealed: bytes) -> bytes:
        """The plain text. Raises Damaged when it is not, byte by byte, what was sealed under this name."""
        if sealed[: len(MAGIC)] != MAGIC or len(sealed) < OVERHEAD:
            raise Damaged(f"{name} is damaged: it does not begin as a sealed object does")
        salt = sealed[len(MAGIC) : len(MAGIC) + _SALT]
        cipher = AESGCM(_derive(self._objects, name.encode(), salt))
        view = memoryview(sealed)[len(MAGIC) + _SALT :]
        step = CHUNK + _TAG
        last = max(0, (len(view) - 1) // step)
        try:
            return b"".join(
                cipher.decrypt(_nonce(number, last=number == last), view[number * step : (number + 1) * step], None)
                for number in range(last + 1)
            )
        except (InvalidTag, ValueError):
            raise Damaged(f"{name} is damaged: what it holds is not what was sealed") from None

    def sign(self, body: bytes) -> bytes:
        """The signature (Ed25519) over `body`."""
        return self._signer.sign(body)

    def verify(self, body: bytes, signature: bytes) -> bool:
        """Whether `signature` was made with this repository's key."""
        try:
            self._signer.public_key().verify(signature, body)
        except InvalidSignature:
            return False
        return True


def wrap(master: bytes, key: bytes, about: bytes) -> bytes:
    """The repository's key, readable only with `key` and next to `about`."""
    nonce = os.urandom(12)
    return nonce + AESGCM(key).encrypt(nonce, master, about)


def unwrap(wrapped: bytes, key: bytes, about: bytes) -> bytes:
    """The repository's key. Raises WrongKey."""
    try:
        return AESGCM(key).decrypt(wrapped[:12], wrapped[12:], about)
    except (InvalidTag, ValueError):
        raise WrongKey(
            "the password does not open this repository; was password_file exchanged, or is url another's repository?"
        ) from None


def _derive(key: bytes, info: bytes, salt: bytes | None = None) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(key)


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\x01" if last else b"\x00")
