"""A certificate authority of a test, made by trustme, and what it signs: servers, clients, SPIFFE IDs, the expired."""

import datetime as dt
import os
import ssl
from pathlib import Path
from typing import Any, NamedTuple

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

DAY = dt.timedelta(days=1)


class Pair(NamedTuple):
    """The files of a certificate chain and its key."""

    cert: Path
    key: Path

    def keys(self) -> dict[str, str]:
        """As a `tls` section names them."""
        return {"cert_file": str(self.cert), "key_file": str(self.key)}


class Authority:
    """Signs what it is asked for and writes the files into `directory`."""

    def __init__(self, directory: Path, name: str = "ca", under: "Authority | None" = None) -> None:
        """`under`: signed by that one."""
        self.directory = directory
        self._ca = trustme.CA() if under is None else under._ca.create_child_ca()
        self.file = directory / f"{name}.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    def issue(self, name: str, *hosts: str, **options: Any) -> Pair:
        """A certificate for these names and addresses, as trustme makes them."""
        leaf = self._ca.issue_cert(*hosts, **options)
        pair = Pair(self.directory / f"{name}.pem", self.directory / f"{name}.key")
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        return put(pair, chain, leaf.private_key_pem.bytes())

    def vouch(
        self, name: str, *uris: str, hosts: tuple[str, ...] = (), common_name: str = "", life: dt.timedelta = DAY
    ) -> Pair:
        """A certificate with URIs, as SPIRE makes them, which ends after `life`."""
        ca = x509.load_pem_x509_certificate(self._ca.cert_pem.bytes())
        signer = serialization.load_pem_private_key(self._ca.private_key_pem.bytes(), None)
        key = ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        names = [*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, hosts)]
        subject = [x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)] if common_name else []
        leaf = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(ca.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + life)
            .add_extension(x509.SubjectAlternativeName(names), critical=not subject)
            .sign(signer, hashes.SHA256())  # type: ignore[arg-type]  # it is one that signs
        )
        pem = serialization.Encoding.PEM
        secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        pair = Pair(self.directory / f"{name}.pem", self.directory / f"{name}.key")
        return put(pair, leaf.public_bytes(pem), secret)

    def revoke(self, path: Path, *pairs: Pair, life: dt.timedelta = DAY) -> Path:
        """Write its list of revoked certificates, in one rename."""
        ca = x509.load_pem_x509_certificate(self._ca.cert_pem.bytes())
        signer = serialization.load_pem_private_key(self._ca.private_key_pem.bytes(), None)
        now = dt.datetime.now(dt.UTC)
        made = x509.CertificateRevocationListBuilder().issuer_name(ca.subject).last_update(now - DAY)
        made = made.next_update(now + life)
        for pair in pairs:
            serial = x509.load_pem_x509_certificate(pair.cert.read_bytes()).serial_number
            one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
            made = made.add_revoked_certificate(one)
        new = path.with_suffix(".new")
        new.write_bytes(made.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))  # type: ignore[arg-type]
        os.replace(new, path)
        return path

    def client(self, pair: Pair | None = None, **versions: ssl.TLSVersion) -> ssl.SSLContext:
        """What a client needs that trusts us and shows `pair`."""
        context = ssl.create_default_context(cafile=str(self.file))
        if pair is not None:
            context.load_cert_chain(pair.cert, pair.key)
        for name, value in versions.items():
            setattr(context, name, value)
        return context

    def server(self, pair: Pair, *, asks: bool = False, **versions: ssl.TLSVersion) -> ssl.SSLContext:
        """What a server needs that shows `pair`; `asks` its clients for certificates of ours."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.cert, pair.key)
        if asks:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.file)
        for name, value in versions.items():
            setattr(context, name, value)
        return context


def put(pair: Pair, chain: bytes, key: bytes) -> Pair:
    """Write both, each in one rename."""
    for path, content in ((pair.cert, chain), (pair.key, key)):
        new = path.with_suffix(".new")
        new.write_bytes(content)
        os.replace(new, path)
    return pair
