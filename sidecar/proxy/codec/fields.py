"""Which header fields cross the proxy, and the grammar they all share.

Hop-by-hop fields (RFC 9110, 7.6.1) end here, and so does what `Connection` names, except fields that a peer must not
be able to talk us out of: those that frame or route the message, prove who sends it, or tell where it came from.
"""

import re

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
"""One byte of a name (RFC 9110, 5.6.2)."""
TEXT = rb"[\t -~\x80-\xff]"
"""One byte of a value; everything but control bytes (RFC 9110, 5.5)."""

FIELD_LINE = re.compile(rb"(" + TOKEN + rb"++):[ \t]*+(" + TEXT + rb"*+)")
"""A field line without its CRLF, matched whole. The value may end in blanks still."""
_OPTION = rb"[ \t]*+" + TOKEN + rb"*+[ \t]*+"
CONNECTION_OPTIONS = re.compile(_OPTION + rb"(?:," + _OPTION + rb")*")
"""A list of tokens, empty elements included (RFC 9110, 5.6.1.2)."""
_PROTOCOL = re.compile(TOKEN + rb"++(?:/" + TOKEN + rb"++|)")

HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"upgrade",
    )
)
"""Never forwarded. Transfer-Encoding is missing: it is forwarded, as the one coding that we speak."""

X_FORWARDED = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host")
FORWARDED = (*X_FORWARDED, b"forwarded")
"""Cut out of a request and handed to the caller, who knows whether to believe them; in the order of `head.Claims`."""

CLIENT_CERT = b"x-forwarded-client-cert"
"""Cut out of a request and thrown away: what a client says of its own certificate nobody may believe."""

_NOT_BY_CONNECTION = frozenset(
    (
        b"authorization",
        b"content-length",
        b"content-type",
        b"cookie",
        b"date",
        b"expect",
        b"forwarded",
        b"host",
        b"traceparent",
        b"tracestate",
        b"transfer-encoding",
        b"via",
        b"x-request-id",
    )
)
_NOT_BY_CONNECTION_PREFIXES = (b"x-forwarded-", b"x-sidecar-")

_NOT_IN_TRAILERS = HOP_BY_HOP | {
    # Framing, routing, authentication, what controls the processing of the message (RFC 9110, 6.5.1) and
    # what upstreams believe because a proxy is known to set it.
    b"age",
    b"authorization",
    b"cache-control",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"cookie",
    b"date",
    b"expect",
    b"expires",
    b"forwarded",
    b"host",
    b"location",
    b"max-forwards",
    b"range",
    b"retry-after",
    b"set-cookie",
    b"trailer",
    b"transfer-encoding",
    b"vary",
    b"via",
    b"warning",
    b"www-authenticate",
    b"x-request-id",
}


def options(values: list[bytes]) -> set[bytes]:
    """The lower-case options of all `Connection` lines of a message."""
    return {option.strip(b" \t").lower() for value in values for option in value.split(b",")} - {b""}


def is_removed(name: bytes, named: set[bytes]) -> bool:
    """Whether a field with this lower-case name ends here, in a message whose Connection has these options."""
    return name in HOP_BY_HOP or (
        name in named and name not in _NOT_BY_CONNECTION and not name.startswith(_NOT_BY_CONNECTION_PREFIXES)
    )


def upgrade_of(named: set[bytes], values: list[bytes]) -> bytes | None:
    """The first protocol of the Upgrade lines if Connection names them, lower case; `h2c` counts as not there."""
    if b"upgrade" not in named:
        return None
    protocols = (protocol.strip(b" \t").lower() for value in values for protocol in value.split(b","))
    return next((protocol for protocol in protocols if _PROTOCOL.fullmatch(protocol) and protocol != b"h2c"), None)


def allowed_in_trailer(name: bytes) -> bool:
    """Whether a trailer field with this lower-case name is forwarded rather than dropped."""
    return name not in _NOT_IN_TRAILERS and not name.startswith(_NOT_BY_CONNECTION_PREFIXES)
