"""SCRAM-SHA-256, the client's half (RFC 5802, RFC 7677): proves the password without sending it. Pure.

The server proves that it knows the password too. How often it may let us hash is bounded: the number is the server's
to choose, the time ours. Passwords are normalised as NFKC, which is what SASLprep does to all but rare ones.
"""

import base64
import binascii
import hashlib
import hmac
import unicodedata

MAX_ITERATIONS = 100_000
"""PostgreSQL's default is 4,096; this many take some 50 ms."""


class ScramError(Exception):
    """The server broke the protocol, or does not know the password."""


class Scram:
    """One exchange. `nonce` is fresh and random, printable without commas."""

    def __init__(self, password: str, nonce: str) -> None:
        self._password = unicodedata.normalize("NFKC", password).encode()
        self._nonce = nonce
        self._bare = f"n=,r={nonce}"  # PostgreSQL takes the user from the connection's start
        self._expected = b""

    def first(self) -> bytes:
        """The first message: no channel binding."""
        return f"n,,{self._bare}".encode()

    def final(self, challenge: bytes) -> bytes:
        """The answer to the server's challenge. Takes the CPU for a moment. Raises ScramError."""
        given = _attributes(challenge)
        nonce, salt, count = given.get("r", ""), given.get("s", ""), given.get("i", "")
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise ScramError("the server's nonce does not continue ours")
        if not (count.isascii() and count.isdigit() and len(count) < 10 and 0 < int(count) <= MAX_ITERATIONS):
            raise ScramError(f"the server asks for more than {MAX_ITERATIONS} iterations")
        try:
            salted = hashlib.pbkdf2_hmac("sha256", self._password, base64.b64decode(salt, validate=True), int(count))
        except binascii.Error:
            raise ScramError("the server's salt cannot be read") from None
        bare = f"c=biws,r={nonce}"
        signed = f"{self._bare},{challenge.decode()},{bare}".encode()
        client_key = _hmac(salted, b"Client Key")
        signature = _hmac(hashlib.sha256(client_key).digest(), signed)
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self._expected = _hmac(_hmac(salted, b"Server Key"), signed)
        return f"{bare},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, outcome: bytes) -> None:
        """Check the server's own proof. Raises ScramError."""
        given = _attributes(outcome).get("v", "")
        if not self._expected or not hmac.compare_digest(given.encode(), base64.b64encode(self._expected)):
            raise ScramError("the server does not know the password")


def _attributes(message: bytes) -> dict[str, str]:
    try:
        text = message.decode("ascii")
    except UnicodeDecodeError:
        raise ScramError("the server's message cannot be read") from None
    return {part[0]: part[2:] for part in text.split(",") if part[1:2] == "="}


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")
