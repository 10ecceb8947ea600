"""Heads and bodies as Hypothesis makes them: mostly right, often slightly wrong, rich in what means something."""

from hypothesis import strategies as st

from tests.proxy.codec import corpus

NAMES = (
    "Host",
    "Content-Length",
    "Transfer-Encoding",
    "Connection",
    "Keep-Alive",
    "Proxy-Connection",
    "Proxy-Authorization",
    "TE",
    "Trailer",
    "Upgrade",
    "HTTP2-Settings",
    "Expect",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Client-Cert",
    "X-Request-Id",
    "X-Sidecar-Decision",
    "Via",
    "Accept",
    "Cookie",
    "Content-Type",
    "Content-Encoding",
    "traceparent",
    "User-Agent",
    "Hosts",
    "Ho",
    "T",
    "Transfer-Encodings",
    "X-Forwarded",
    "Forwarded",
    "X_Y",
    "1",
    "Date",
    "Upgrade-Insecure-Requests",
    "Expectation",
    "Proxy-Authenticate",
    "Authorization",
)
VALUES = (
    "a",
    "b",
    "a:80",
    "[::1]",
    "chunked",
    "Chunked",
    "gzip, chunked",
    "close",
    "Close",
    "keep-alive",
    "Keep-Alive",
    "upgrade, keep-alive",
    "websocket",
    "h2c",
    "0",
    "5",
    "05",
    "5, 5",
    "+5",
    "100-continue",
    "trailers",
    "x-a, host",
    "accept",
    "10.0.0.1, 10.0.0.2",
    "https",
    "a b",
    "a\tb",
    "é",
    "a,b",
    "timeout=5",
    "",
    "te",
)
SPELLINGS = (str.title, str.lower, str.upper, str.swapcase, str.strip)
rarely = st.sampled_from([False] * 9 + [True])


@st.composite
def field_lines(draw: st.DrawFn) -> bytes:
    name = draw(st.sampled_from(SPELLINGS))(draw(st.sampled_from(NAMES)))
    value = draw(st.sampled_from(VALUES)).encode("latin-1")
    colon = draw(st.sampled_from([b":", b":  ", b" : ", b":\t", b""])) if draw(rarely) else b": "
    end = draw(st.sampled_from([b"\n", b" \r\n", b"\r\r\n", b"\r\n ", b"\x00\r\n"])) if draw(rarely) else b"\r\n"
    return name.encode() + colon + value + end


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` with one piece removed, doubled, moved or overwritten."""
    start = draw(st.integers(0, len(data)))
    end = draw(st.integers(start, min(len(data), start + 40)))
    instead = draw(
        st.one_of(
            st.just(b""),
            st.just(data[start:end] * 2),
            st.sampled_from([b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\x00", b"\xff", b";", b"0", b"%2e", b"/../"]),
            st.binary(max_size=3),
        )
    )
    return data[:start] + instead + data[end:]


@st.composite
def perhaps_damaged(draw: st.DrawFn, messages: st.SearchStrategy[bytes]) -> bytes:
    data = draw(messages)
    return draw(damaged(data)) if draw(st.sampled_from([False, False, True])) else data


@st.composite
def built_requests(draw: st.DrawFn) -> bytes:
    method = draw(st.sampled_from([b"GET", b"POST", b"HEAD", b"OPTIONS", b"X-y", b"TRACE"]))
    target = draw(
        st.sampled_from(
            [b"/", b"/a/b?c=d", b"/.a/b.", b"*", b"http://h/x", b"http://h?x", b"/a%20b", b"/a/%2e%2e", b"/a//b"]
        )
    )
    version = draw(st.sampled_from([b"1.1"] * 6 + [b"1.0", b"1.2"]))
    lines = draw(st.lists(field_lines(), max_size=7))
    if draw(st.sampled_from([True, True, True, False])):
        lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from([b"Host: a\r\n", b"host: a:80\r\n"])))
    return method + b" " + target + b" HTTP/" + version + b"\r\n" + b"".join(lines) + b"\r\n"


@st.composite
def built_responses(draw: st.DrawFn) -> bytes:
    status = draw(st.sampled_from([b"200", b"204", b"304", b"101", b"103", b"500", b"600"]))
    reason = draw(st.sampled_from([b" OK", b" ", b"", b"  a ", b" \xe9", b" Not Found"]))
    version = draw(st.sampled_from([b"1.1"] * 5 + [b"1.0"]))
    lines = draw(st.lists(field_lines(), max_size=7))
    return b"HTTP/" + version + b" " + status + reason + b"\r\n" + b"".join(lines) + b"\r\n"


@st.composite
def built_chunks(draw: st.DrawFn) -> bytes:
    pieces = []
    payloads = st.one_of(
        st.binary(min_size=1, max_size=20), st.sampled_from([b"\r\n", b"0\r\n\r\n", b"x" * 300, b"x" * 16])
    )
    for payload in draw(st.lists(payloads, max_size=6)):
        style = draw(st.sampled_from(["%x"] * 4 + ["%X", "0%x", "00%x"]))
        extension = draw(st.sampled_from([b";a", b';a="\\"b"', b";a=b;c", b" ", b"; a"])) if draw(rarely) else b""
        pieces.append((style % len(payload)).encode() + extension + b"\r\n" + payload + b"\r\n")
    trailer = draw(st.lists(field_lines(), max_size=2)) if draw(st.booleans()) else []
    last = draw(st.sampled_from([b"0", b"0", b"00", b"0;a"]))
    return b"".join((*pieces, last, b"\r\n", *trailer, b"\r\n", draw(st.sampled_from([b"", b"GET / HTTP/1.1\r\n"]))))


requests = perhaps_damaged(
    st.one_of(built_requests(), st.sampled_from([*corpus.FAST_REQUESTS.values(), *corpus.SLOW_REQUESTS.values()]))
)
responses = perhaps_damaged(
    st.one_of(built_responses(), st.sampled_from([*corpus.FAST_RESPONSES.values(), *corpus.SLOW_RESPONSES.values()]))
)
chunked = perhaps_damaged(st.one_of(built_chunks(), st.sampled_from([data for data, *_ in corpus.CHUNKED.values()])))
cuts = st.lists(st.integers(0, 400), max_size=5)
