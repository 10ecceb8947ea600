"""TLS contexts: made of bytes that were read before, so that every process serves by the same and nothing half written.

Theory. The program reads the files, tries them out and hands on `Credentials`; whoever speaks TLS makes its contexts of
these. A pair that was good stays in memory, whatever becomes of the files, and a worker that is born later gets what
the others have. OpenSSL, as Python has it, loads certificates from files only: they are lent one in memory.

Rules. TLS 1.2 at least, Python's ciphers, no compression, no renegotiation. What is wrong with a file is told in a
sentence that names the key and the file, never its content.
"""

import contextlib
import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from weakref import WeakValueDictionary

import msgspec

from sidecar.base.errors import ConfigError
from sidecar.config.document import Config
from sidecar.config.faults import Path, show_path
from sidecar.config.problem import Problem
from sidecar.config.rules_tls import reached_by_http
from sidecar.config.tls import HTTP, ListenerTls, UpstreamTls
from sidecar.machines.certificate import Standing, chain, lists

MAX_FILE_BYTES = 1 << 20
_REVOKED = ("client_crl_file",)
_PARTIAL_CHAIN = 0x80000
"""X509_V_FLAG_PARTIAL_CHAIN: an authority that the operator names is trusted though it is none of its own."""
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class Credentials(msgspec.Struct, frozen=True):
    """The contents of the files that one `tls` section names."""

    pairs: tuple[tuple[bytes, bytes], ...] = ()
    """Certificate chain and key; a listener's first is the default."""
    authorities: bytes = b""
    """Whom to trust."""
    revoked: bytes = b""
    """Lists of certificates that their authorities took back."""


Section = ListenerTls | UpstreamTls
Known = Mapping[str, Credentials]
"""owner -> credentials; an owner is `listener/NAME` or `upstream/NAME`."""


class BadFile(ConfigError):
    """A file of a `tls` section cannot be used."""

    def __init__(self, owner: str, keys: Path, words: str) -> None:
        super().__init__(f"{owner}: {show_path(('tls', *keys))}: {words}")
        self.keys = keys
        self.words = words


class Missing(BadFile):
    """The file is not there."""


def sections(config: Config) -> Iterator[tuple[str, Path, Section]]:
    """Every `tls` section of the configuration: owner, where it stands, what it says."""
    for i, listener in enumerate(config.listeners):
        if listener.tls is not None:
            yield f"listener/{listener.name}", ("listeners", i, "tls"), listener.tls
    for i, upstream in enumerate(config.upstreams):
        if upstream.tls is not None:
            yield f"upstream/{upstream.name}", ("upstreams", i, "tls"), upstream.tls


def files_of(tls: Section) -> dict[Path, str]:
    """The files that the section names, by their keys."""
    found: dict[Path, str] = {}
    for at, pair in _pairs_of(tls):
        found |= {(*at, "cert_file"): pair[0], (*at, "key_file"): pair[1]}
    key, path = _authorities_of(tls)
    if path:
        found[key,] = path
    if isinstance(tls, ListenerTls) and tls.client_crl_file:
        found[_REVOKED] = tls.client_crl_file
    return found


def _pairs_of(tls: Section) -> list[tuple[Path, tuple[str, str]]]:
    pairs: list[tuple[Path, tuple[str, str]]] = []
    if tls.cert_file and tls.key_file:
        pairs.append(((), (tls.cert_file, tls.key_file)))
    if isinstance(tls, ListenerTls):
        for i, one in enumerate(tls.more_certificates):
            pairs.append((("more_certificates", i), (one.cert_file, one.key_file)))
    return pairs


def _authorities_of(tls: Section) -> tuple[str, str | None]:
    """The key and the file."""
    return ("client_ca_file", tls.client_ca_file) if isinstance(tls, ListenerTls) else ("ca_file", tls.ca_file)


def read_all(config: Config) -> dict[str, Credentials]:
    """The files of every section as they are now. Raises BadFile for the first that cannot be read."""
    return {owner: read_files(tls, owner) for owner, _, tls in sections(config)}


def read_files(tls: Section, owner: str) -> Credentials:
    """One section's files as they are now. Raises BadFile."""
    found = {keys: _read(path, owner, keys) for keys, path in files_of(tls).items()}
    pairs = tuple((found[*at, "cert_file"], found[*at, "key_file"]) for at, _ in _pairs_of(tls))
    return Credentials(pairs, found.get((_authorities_of(tls)[0],), b""), found.get(_REVOKED, b""))


def _read(path: str, owner: str, keys: Path) -> bytes:
    try:
        with open(path, "rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise Missing(owner, keys, f"{path} is not there") from None
    except OSError as error:
        raise BadFile(owner, keys, f"{path} cannot be read: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise BadFile(owner, keys, f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB")
    return content


def certificates_of(tls: Section, files: Credentials) -> Iterator[tuple[str, bytes, bool]]:
    """The section's files of certificates: path, content, and whether all of it must hold (of authorities one does)."""
    for (_, (cert_file, _)), (chain_pem, _) in zip(_pairs_of(tls), files.pairs, strict=False):
        yield cert_file, chain_pem, True
    _, path = _authorities_of(tls)
    if path and files.authorities:
        yield path, files.authorities, False
    if isinstance(tls, ListenerTls) and tls.client_crl_file and files.revoked:
        yield tls.client_crl_file, lists(files.revoked), True


def try_out(tls: Section, files: Credentials, owner: str) -> None:
    """Raise BadFile when these files cannot be used."""
    make_context(tls, files, owner, http=True)


def problems(config: Config) -> Iterator[Problem]:
    """What is wrong with the files that are there, for `sidecar check`."""
    for owner, path, tls in sections(config):
        try:
            files = read_files(tls, owner)
            try_out(tls, files, owner)
        except Missing:
            continue  # told as every file that is not there yet, or cannot be
        except BadFile as bad:
            yield Problem((*path, *bad.keys), bad.words)
        else:
            yield from _ended(tls, files, path)


def _ended(tls: Section, files: Credentials, path: Path) -> Iterator[Problem]:
    for (at, (cert_file, _)), (pem, _) in zip(_pairs_of(tls), files.pairs, strict=True):
        with contextlib.suppress(ValueError):
            if any(one.standing(time.time(), 0.0) is Standing.OVER for one in chain(pem)):
                yield Problem((*path, *at, "cert_file"), f"{cert_file} has ended: nobody will trust it", warning=True)


_shared: WeakValueDictionary[object, ssl.SSLContext] = WeakValueDictionary()
"""Contexts towards upstreams that somebody still uses."""


# Contexts -------------------------------------------------------------------------------------------------------------


class Contexts:
    """The contexts of one process. Those whose section and files stay the same stay, with their session tickets."""

    def __init__(self) -> None:
        self._kept: dict[object, ssl.SSLContext] = {}

    def of(self, config: Config, files: Known) -> dict[str, ssl.SSLContext]:
        """Owner -> context. Raises BadFile and changes nothing."""
        kept: dict[object, ssl.SSLContext] = {}
        found: dict[str, ssl.SSLContext] = {}
        for owner, _, tls in sections(config):
            http = speaks_http(config, owner)
            key = (owner, tls, files[owner], http)
            found[owner] = kept[key] = self._kept.get(key) or make_context(tls, files[owner], owner, http=http)
        self._kept = kept
        return found


def speaks_http(config: Config, owner: str) -> bool:
    """Whether it is HTTP that goes over this TLS."""
    kind, _, name = owner.partition("/")
    if kind == "upstream":
        return reached_by_http(config, name)
    return any(one.name == name and one.protocol == "http" for one in config.listeners)


def make_context(tls: Section, files: Credentials, owner: str, *, http: bool) -> ssl.SSLContext:
    """The context of a section; `http`: whether HTTP goes over it, for ALPN. Raises BadFile."""
    if isinstance(tls, UpstreamTls):
        return client_context(tls, files, owner, (HTTP,) if http else tls.alpn)
    contexts = [_server(tls, files, place, owner, http=http) for place in range(len(files.pairs))]
    if len(contexts) > 1:
        contexts[0].sni_callback = _chooser(files, contexts)
    return contexts[0]


def client_context(tls: UpstreamTls, files: Credentials, owner: str, asked: Sequence[str]) -> ssl.SSLContext:
    """An upstream's context; `asked`: the protocols for ALPN. Raises BadFile.

    Upstreams that ask for the same share one: the system's authorities alone take a megabyte and 20 ms of CPU.
    """
    names = ("any",) if tls.allowed_servers else ()  # that there are some counts here, and not which
    alike = msgspec.structs.replace(tls, server_name=None, allowed_servers=names, expiry_warning=0.0)
    key = (alike, files, tuple(asked))
    context = _shared.get(key)
    if context is None:
        context = _shared[key] = _client(tls, files, owner, asked)
    return context


def _client(tls: UpstreamTls, files: Credentials, owner: str, asked: Sequence[str]) -> ssl.SSLContext:
    context = _plain(ssl.PROTOCOL_TLS_CLIENT, tls)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif tls.allowed_servers:
        context.check_hostname = False  # names are compared once the chain is verified
    for pair, (at, (cert_file, key_file)) in zip(files.pairs, _pairs_of(tls), strict=True):
        _load_pair(context, pair, owner, at, cert_file, key_file)
    if tls.ca_file is not None:
        _load_authorities(context, files.authorities, owner, ("ca_file",), tls.ca_file)
    elif tls.verify:
        context.load_default_certs()
    if asked:
        context.set_alpn_protocols(list(asked))
    return context


def _plain(protocol: int, tls: Section) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = _VERSIONS[tls.min_version]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.verify_flags |= _PARTIAL_CHAIN
    return context


def _server(tls: ListenerTls, files: Credentials, place: int, owner: str, *, http: bool) -> ssl.SSLContext:
    context = _plain(ssl.PROTOCOL_TLS_SERVER, tls)
    context.num_tickets = 1
    at, (cert_file, key_file) = _pairs_of(tls)[place]
    _load_pair(context, files.pairs[place], owner, at, cert_file, key_file)
    if tls.client_ca_file is not None:
        optional = tls.client_certificate == "optional"
        context.verify_mode = ssl.CERT_OPTIONAL if optional else ssl.CERT_REQUIRED
        _load_authorities(context, files.authorities, owner, ("client_ca_file",), tls.client_ca_file)
    if tls.client_crl_file is not None:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        _load_lists(context, files.revoked, owner, tls.client_crl_file)
    offered = (HTTP,) if http else tls.alpn
    if offered:
        context.set_alpn_protocols(list(offered))
    return context


def _load_pair(
    context: ssl.SSLContext, pair: tuple[bytes, bytes], owner: str, at: Path, cert_file: str, key_file: str
) -> None:
    cert, key = pair
    try:
        with _lent(cert) as certificate, _lent(key) as secret:
            context.load_cert_chain(certificate, secret, password=lambda: b"")
    except (ssl.SSLError, ValueError, OSError) as error:
        if b"ENCRYPTED" in key:
            raise BadFile(owner, (*at, "key_file"), f"{key_file} has a pass phrase: give the key without one") from None
        if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
            words = f"cert_file {cert_file} and key_file {key_file} do not belong together"
            raise BadFile(owner, (*at, "key_file"), words) from None
        if not _is_certificate(cert):
            raise BadFile(owner, (*at, "cert_file"), f"{cert_file} holds no certificate in PEM") from None
        words = f"{key_file} is no private key in PEM that goes with cert_file {cert_file} ({why(error)})"
        raise BadFile(owner, (*at, "key_file"), words) from None


def _is_certificate(pem: bytes) -> bool:
    try:
        return bool(chain(pem))
    except ValueError:
        return False


def _load_authorities(context: ssl.SSLContext, authorities: bytes, owner: str, keys: Path, path: str) -> None:
    try:
        with _lent(authorities) as lent:
            context.load_verify_locations(lent)
    except (ssl.SSLError, OSError) as error:
        raise BadFile(owner, keys, f"{path} holds no certificate in PEM ({why(error)})") from None


def _load_lists(context: ssl.SSLContext, revoked: bytes, owner: str, path: str) -> None:
    """Only the lists: a certificate beside them would be trusted as an authority."""
    found = lists(revoked)
    try:
        if not found:
            raise BadFile(owner, _REVOKED, f"{path} holds no list of revoked certificates (X509 CRL) in PEM")
        with _lent(found) as lent:
            context.load_verify_locations(lent)
    except (ssl.SSLError, OSError) as error:
        raise BadFile(owner, _REVOKED, f"{path} holds a list that cannot be read ({why(error)})") from None


@contextlib.contextmanager
def _lent(content: bytes) -> Iterator[str]:
    """A path under which OpenSSL finds `content`, which never touches a disk."""
    number = os.memfd_create("pem")
    try:
        with open(number, "wb", closefd=False) as stream:
            stream.write(content)
        yield f"/proc/self/fd/{number}"
    finally:
        os.close(number)


def _chooser(
    files: Credentials, contexts: list[ssl.SSLContext]
) -> Callable[[ssl.SSLObject, str | None, ssl.SSLContext], None]:
    """What OpenSSL asks when a client has named the server that it wants."""
    named: dict[str, ssl.SSLContext] = {}
    for (pem, _), context in zip(files.pairs, contexts, strict=True):
        for one in chain(pem)[:1]:
            for name in one.names:
                named.setdefault(name, context)

    def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        if name is not None:
            name = name.lower()
            found = named.get(name) or named.get(f"*.{name.partition('.')[2]}")
            if found is not None:
                connection.context = found

    return choose


def why(error: BaseException) -> str:
    """What went wrong with TLS, in OpenSSL's words made readable; nothing of the peer's."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return (error.reason or "handshake failed").lower().replace("_", " ")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
