"""TLS: what a listener shows and asks of its clients, what is shown to upstreams and asked of them."""

from typing import Annotated

from sidecar.config.kinds import (
    Doc,
    Duration,
    Flag,
    Path,
    PeerHost,
    PeerName,
    Positive,
    PositiveDuration,
    Protocol,
    Section,
    words,
)

HTTP = "http/1.1"
WEEK = 7 * 86400.0
Version = Annotated[str, words("1.2", "1.3")]


class KeyPair(Section, frozen=True, kw_only=True):
    """A certificate and its key."""

    cert_file: Annotated[Path, Doc("The certificate chain, PEM, the server's own first.")]
    key_file: Annotated[Path, Doc("Its private key, PEM, without a pass phrase.")]


class ListenerTls(Section, frozen=True, kw_only=True):
    """TLS that the listener terminates."""

    cert_file: Annotated[Path, Doc("The certificate chain, PEM, the server's own first.")]
    key_file: Annotated[Path, Doc("Its private key, PEM, without a pass phrase.")]
    more_certificates: Annotated[
        tuple[KeyPair, ...],
        Doc("Further ones, each for the DNS names that it holds, chosen by the name that a client asks for (SNI)."),
    ] = ()
    client_ca_file: Annotated[
        Path | None,
        Doc("Whose signature a client's certificate must have, PEM. null: clients are not asked for certificates."),
    ] = None
    client_crl_file: Annotated[
        Path | None,
        Doc(
            "Certificates that were revoked, PEM: a list (CRL) of each authority that signs clients; a client whose "
            "authority has none here is refused, and so is everybody once a list has ended. null: nobody asks.",
            "RFC 5280 §5; nginx: ssl_crl",
        ),
    ] = None
    client_certificate: Annotated[
        Annotated[str, words("required", "optional")],
        Doc(
            "With client_ca_file: whether a client may come without a certificate. One that is shown is verified.",
            "Envoy: require_client_certificate",
        ),
    ] = "required"
    allowed_clients: Annotated[
        tuple[PeerName, ...],
        Doc(
            "Clients whose certificate names one of these, and no others: a SPIFFE ID, one that ends in /* for all "
            "below it, a DNS name, or *.example.com for any one name below. Empty: all that client_ca_file signed.",
            "the SPIFFE X.509-SVID standard",
        ),
    ] = ()
    forward_client_cert: Annotated[
        Flag,
        Doc(
            "Whether requests tell the upstream the client's certificate, in X-Forwarded-Client-Cert. What a client "
            "says there itself is cut out always.",
            "Envoy: SANITIZE_SET",
        ),
    ] = False
    min_version: Annotated[Version, Doc("The oldest TLS spoken.", "RFC 9325 §3.1.1")] = "1.2"
    alpn: Annotated[
        tuple[Protocol, ...],
        Doc(
            "Protocols that a tcp listener offers (ALPN), the best first; an http listener offers http/1.1.",
            "RFC 7301",
        ),
    ] = ()
    handshake_timeout: Annotated[
        PositiveDuration, Doc("A handshake that takes longer is dropped.", "Envoy: 15 s; nginx: 60 s")
    ] = 5.0
    max_handshakes: Annotated[
        Positive,
        Doc(
            "Handshakes under way at once, per process. When all are taken, one that has taken a second gives way; is "
            "there none, new clients wait in the kernel's queue."
        ),
    ] = 256
    expiry_warning: Annotated[
        Duration,
        Doc(
            "How long before a certificate's end to warn, though not before two thirds of its life are over.",
            "a week; cert-manager renews at two thirds",
        ),
    ] = WEEK


class UpstreamTls(Section, frozen=True, kw_only=True):
    """TLS towards the upstream."""

    server_name: Annotated[
        PeerHost | None,
        Doc(
            "The name sent (SNI) and verified. null: the host of the address; with discovery.dns, the name asked for.",
            "RFC 9110 §4.3.4",
        ),
    ] = None
    ca_file: Annotated[Path | None, Doc("Authorities to trust, PEM. null: the system's.")] = None
    allowed_servers: Annotated[
        tuple[PeerName, ...],
        Doc(
            "The certificate must name one of these instead of server_name: SPIFFE IDs and DNS names, written as a "
            "listener's allowed_clients.",
            "the SPIFFE X.509-SVID standard",
        ),
    ] = ()
    cert_file: Annotated[Path | None, Doc("A client certificate to present, PEM; with key_file.")] = None
    key_file: Annotated[Path | None, Doc("Its private key, PEM, without a pass phrase.")] = None
    verify: Annotated[Flag, Doc("Whether the certificate is verified. Off is for tests only.", "RFC 9110 §4.3.4")] = (
        True
    )
    min_version: Annotated[Version, Doc("The oldest TLS spoken.", "RFC 9325 §3.1.1")] = "1.2"
    alpn: Annotated[
        tuple[Protocol, ...],
        Doc(
            "Protocols asked for (ALPN), the best first, where only tcp listeners lead here; an http listener asks for "
            "http/1.1.",
            "RFC 7301",
        ),
    ] = ()
    expiry_warning: Annotated[
        Duration,
        Doc(
            "How long before a certificate's end to warn, though not before two thirds of its life are over.",
            "a week; cert-manager renews at two thirds",
        ),
    ] = WEEK
