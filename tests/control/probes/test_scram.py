"""SCRAM-SHA-256: the RFC's own example, and servers that cheat."""

import base64

import pytest

from sidecar.control.probes.scram import MAX_ITERATIONS, Scram, ScramError

NONCE = "rOprNGfwEbeRWgbNEkqO"
CHALLENGE = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
PROOF = b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
VERIFIER = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def begun() -> Scram:
    return Scram("pencil", NONCE)


def test_the_proof_of_rfc_7677(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its example has a user name in the first message, where PostgreSQL has none."""
    scram = begun()
    assert scram.first() == b"n,,n=,r=" + NONCE.encode()
    scram._bare = f"n=user,r={NONCE}"
    assert scram.final(CHALLENGE) == b"c=biws," + CHALLENGE.split(b",")[0] + b"," + PROOF
    scram.verify(VERIFIER)


@pytest.mark.parametrize(
    "challenge",
    [
        b"",
        b"r=x,s=W22Z,i=4096",
        CHALLENGE.replace(b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", b""),
        CHALLENGE.replace(b"i=4096", b"i=0"),
        CHALLENGE.replace(b"i=4096", b"i=-1"),
        CHALLENGE.replace(b"i=4096", b"i=%d" % (MAX_ITERATIONS + 1)),
        CHALLENGE.replace(b"i=4096", b"i=" + b"9" * 4000),
        CHALLENGE.replace(b"W22ZaJ0SNY7soEsUEjb6gQ==", b"!"),
        CHALLENGE + b"\xff",
    ],
)
def test_a_bad_challenge_is_refused(challenge: bytes) -> None:
    with pytest.raises(ScramError):
        begun().final(challenge)


@pytest.mark.parametrize("outcome", [b"", b"v=", b"e=other-error", b"v=" + base64.b64encode(bytes(32)), b"v=\xff"])
def test_a_server_that_does_not_know_the_password_is_found_out(outcome: bytes) -> None:
    scram = begun()
    scram.final(CHALLENGE)
    with pytest.raises(ScramError):
        scram.verify(outcome)


def test_nothing_is_verified_before_the_proof() -> None:
    with pytest.raises(ScramError):
        begun().verify(b"v=")
